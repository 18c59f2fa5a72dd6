"""A seed means one text: asked again and again among others, by two workers, over a restart.

    python -m tests.heavy.chat_seeds [--seeded 200] [--unseeded 200] [--clients 16]

Nothing is kept, so every answer is computed. All prompts begin alike, so that some find much of
theirs decoded and some do not; every other answer is a stream. In the middle the gateway is stopped
in good order and started again.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.local_chats import BEGINNING, asking, chat_toml, said
from tests.processes import GatewayProcess, gateway_process
from tests.tiny_chat import write_chat

SEED = 42
LONGEST = 24
PROMPT = BEGINNING + "dust"
OTHERS = [BEGINNING + end for end in ("dust", "and we", "true null")]


@dataclass(frozen=True, slots=True)
class Asked:
    """What one client asks."""

    said: str
    seed: int | None
    stream: bool

    def body(self) -> Mapping[str, Any]:
        seed = {} if self.seed is None else {"seed": self.seed}
        return asking(self.said, stream=self.stream, max_tokens=LONGEST, **seed)


@dataclass
class Outcome:
    """What a run saw."""

    seeded: list[str] = field(default_factory=list)
    drawn: list[tuple[Asked, int, str]] = field(default_factory=list)
    """Requests without a seed, the seeds drawn for them, and their answers."""
    fingerprints: set[str] = field(default_factory=set)
    workers: set[str] = field(default_factory=set)
    """Beginnings of request ids: each process has its own."""


def config(directory: Path) -> str:
    """Return the config of two workers; two chats are written at a time."""
    path = directory / "chat.gguf"
    if not path.exists():
        write_chat(path, context=1024)
    store = f'workers = 2\n[cache]\nstore = "sqlite://{directory}/cache.db"'
    return chat_toml(path, server=store, upstream="contexts = 2")


async def ask(served: GatewayProcess, requests: Sequence[Asked], clients: int, to: Outcome) -> None:
    """Ask so many at a time, each over a connection of its own."""
    waiting = iter(requests)
    only = httpx2.Limits(max_keepalive_connections=0)
    url = f"{served.base_url}/chat/completions"
    async with httpx2.AsyncClient(timeout=600, limits=only) as http:

        async def work() -> None:
            for asked in waiting:
                answer = await http.post(url, json=asked.body())
                text = said(answer)
                assert "hit" not in answer.headers["cache-status"]
                to.workers.add(answer.headers["x-request-id"][:-8])
                if asked.seed is None:
                    to.drawn.append((asked, int(answer.headers["x-gateway-seed"]), text))
                else:
                    assert "x-gateway-seed" not in answer.headers
                    to.seeded.append(text)

        await asyncio.gather(*(work() for _ in range(clients)))
        whole = await http.post(url, json=asking(PROMPT, seed=SEED, max_tokens=1))
        to.fingerprints.add(whole.json()["system_fingerprint"])


async def texts(served: GatewayProcess, requests: Sequence[Asked]) -> list[str]:
    """Return the texts of seeded requests, asked one after the other."""
    outcome = Outcome()
    await ask(served, requests, 1, outcome)
    return outcome.seeded


def run(directory: Path, *, seeded: int, unseeded: int, clients: int, again: int) -> Outcome:
    """Ask all, with a restart in the middle, and `again` of the unseeded ones with their seeds.

    Raises AssertionError where a seed did not mean one text, or all seeds the same.
    """
    chance = random.Random(7)
    requests = [Asked(PROMPT, SEED, number % 2 == 0) for number in range(seeded)]
    requests += [Asked(chance.choice(OTHERS), None, n % 2 == 0) for n in range(unseeded)]
    chance.shuffle(requests)
    outcome, toml = Outcome(), config(directory)
    half = len(requests) // 2
    with gateway_process(toml) as served:
        asyncio.run(ask(served, requests[:half], clients, outcome))
    with gateway_process(toml) as served:
        asyncio.run(ask(served, requests[half:], clients, outcome))
        five = asyncio.run(texts(served, [Asked(PROMPT, seed, False) for seed in range(5)]))
        repeated = chance.sample(outcome.drawn, again)
        found = asyncio.run(
            texts(served, [Asked(a.said, seed, not a.stream) for a, seed, _ in repeated])
        )
    assert (seeded, unseeded) == (len(outcome.seeded), len(outcome.drawn))
    assert len(set(outcome.seeded)) == 1, "one seed gave several texts"
    assert len(set(five)) >= 2, "five seeds gave one text"
    assert len({text for _, _, text in outcome.drawn}) >= 2, "no seed gave always one text"
    assert found == [text for _, _, text in repeated], "a drawn seed did not give its text again"
    assert len(outcome.fingerprints) == 1, "a restart changed the fingerprint"
    return outcome


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeded", type=int, default=200)
    parser.add_argument("--unseeded", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chat-seeds-") as made:
        outcome = run(
            Path(made),
            seeded=asked.seeded,
            unseeded=asked.unseeded,
            clients=asked.clients,
            again=min(20, asked.unseeded),
        )
    assert len(outcome.workers) == 4, "one of the two workers had nothing to do"
    different = len({text for _, _, text in outcome.drawn})
    sys.stdout.write(
        f"{asked.seeded} seeded answers among {asked.unseeded} unseeded ones from {asked.clients} "
        f"clients, {len(outcome.workers)} worker processes with a restart, in "
        f"{time.monotonic() - began:.0f} s: one text; {different} different unseeded ones\n"
    )


if __name__ == "__main__":
    main()
