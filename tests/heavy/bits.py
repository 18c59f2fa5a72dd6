"""Promise P5 under load: every vector of a batch has the bits of the one got alone.

    python -m tests.heavy.bits [--requests 2000] [--clients 32]

The gateway keeps nothing (`memory = "0"`), so every answer is computed. The texts come from a small
stock, so that many are asked for by several clients at once, beside ever other neighbours.
"""

import argparse
import asyncio
import random
import re
import sys
import time

import httpx2
from openai import AsyncOpenAI

from tests.processes import gateway_process

UNCACHED = """
[server]
port = 0
[cache]
memory = "0"
[upstreams.minilm]
kind = "llama"
model = "builtin:all-minilm-l6-v2"
[models."all-minilm-l6-v2"]
upstreams = ["minilm"]
"""
MODEL = "all-minilm-l6-v2"
_WORDS = re.findall(r"\w+", "the old ship sails north under a pale moon while seven gulls cry")


def stock(count: int, seed: int) -> list[str]:
    """Return texts of 1 to 40 words, each different."""
    chance = random.Random(seed)
    texts = {" ".join(chance.choices(_WORDS, k=chance.randint(1, 40))) for _ in range(count)}
    return sorted(texts)


async def run(base_url: str, *, requests: int, clients: int, texts: int, longest: int = 64) -> int:
    """Send the requests; return how many vectors were compared. Raises AssertionError."""
    stocked = stock(texts, seed=1)
    http = httpx2.AsyncClient(timeout=600)
    async with AsyncOpenAI(
        base_url=base_url, api_key="any", max_retries=0, http_client=http
    ) as client:

        async def embed(batch: list[str]) -> list[str]:
            answer = await client.embeddings.with_raw_response.create(
                model=MODEL, input=batch, encoding_format="base64"
            )
            data = answer.http_response.json()["data"]
            assert list(range(len(batch))) == [item["index"] for item in data]
            return [item["embedding"] for item in data]

        alone = {text: (await embed([text]))[0] for text in stocked}
        chance = random.Random(2)
        batches = [chance.choices(stocked, k=chance.randint(1, longest)) for _ in range(requests)]
        waiting = iter(batches)
        compared = 0

        async def work() -> None:
            nonlocal compared
            for batch in waiting:
                vectors = await embed(batch)
                assert [alone[text] for text in batch] == vectors
                compared += len(batch)

        await asyncio.gather(*(work() for _ in range(clients)))
    return compared


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    asked = parser.parse_args()
    with gateway_process(UNCACHED) as served:
        began = time.monotonic()
        compared = asyncio.run(
            run(served.base_url, requests=asked.requests, clients=asked.clients, texts=400)
        )
    seconds = time.monotonic() - began
    sys.stdout.write(
        f"{asked.requests} requests from {asked.clients} clients, {compared} vectors compared in "
        f"{seconds:.0f} s: every one has the bits of the one got alone\n"
    )


if __name__ == "__main__":
    main()
