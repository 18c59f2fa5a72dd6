"""Promise P12 under load: the engine is killed every second, and no request fails.

python -m tests.heavy.kills [--seconds 20]
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil
from openai import AsyncOpenAI

from tests.heavy.bits import MODEL, UNCACHED, stock
from tests.processes import GatewayProcess, gateway_process

CLIENTS = 8
GROWTH = 40 * 2**20
"""Bytes that the gateway may hold more at the end: buffers of the clients' answers, no more."""


@dataclass
class Outcome:
    """What a run saw."""

    kills: int
    answered: int
    grown: int
    """Bytes of resident memory of the gateway, after against before."""


def engines(gateway: int) -> list[int]:
    """Return the process ids of a gateway's engines."""
    children = psutil.Process(gateway).children()
    return [child.pid for child in children if "gateway.engine" in " ".join(child.cmdline())]


def kill_engines(gateway: int) -> int:
    """Kill what engines there are; return how many."""
    killed = 0
    for pid in engines(gateway):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


async def run(served: GatewayProcess, *, seconds: float) -> Outcome:
    """Ask and kill for so long; a request that fails raises here."""
    texts = stock(400, seed=3)
    gateway = psutil.Process(served.pid)
    answered = 0
    ending = False

    async with AsyncOpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client:

        async def work(seed: int) -> None:
            nonlocal answered
            chance = random.Random(seed)
            while not ending:
                batch = chance.choices(texts, k=chance.randint(1, 32))
                answer = await client.embeddings.create(model=MODEL, input=batch)
                assert len(batch) == len(answer.data)
                answered += 1

        await client.embeddings.create(model=MODEL, input=texts[:64])
        before = gateway.memory_info().rss
        workers = [asyncio.create_task(work(seed)) for seed in range(CLIENTS)]
        kills = 0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            known = answered
            await asyncio.sleep(1)
            while answered == known:
                # Engines that die before they have done anything are another matter: three such
                # deaths over one text, and it is refused.
                await asyncio.sleep(0.05)
            kills += kill_engines(served.pid)
        ending = True
        await asyncio.gather(*workers)
    return Outcome(kills, answered, gateway.memory_info().rss - before)


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    asked = parser.parse_args()
    with gateway_process(UNCACHED) as served:
        outcome = asyncio.run(run(served, seconds=asked.seconds))
    assert outcome.grown <= GROWTH, f"the gateway grew by {outcome.grown} bytes"
    sys.stdout.write(
        f"{outcome.kills} kills in {asked.seconds:.0f} s, {outcome.answered} requests answered, "
        f"none failed; the gateway's memory grew by {outcome.grown / 2**20:.1f} MiB\n"
    )


if __name__ == "__main__":
    main()
