"""A long life in a short time: requests of all kinds while the config changes, and nothing grows.

    python -m tests.heavy.soak [--requests 1000000] [--workers 1] [--seed N]

Most requests are for texts that are known, as in life; some are for new ones, for old ones that
only the store still has, for chats, whole and as streams, and some are wrong, or left in the
middle. Keys, tenants and models come and go by reloads. Every so many requests the traffic pauses,
and what the gateway holds is counted (see `census`). After a warm-up that has to stay as it is.
"""

import argparse
import asyncio
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2
import numpy as np
import uvloop

from tests.heavy.census import Census, count, counted
from tests.heavy.faulty.server import Faulty
from tests.heavy.lives import ADMIN, Life, config
from tests.heavy.swift import PATIENCE, Connection, connect
from tests.processes import GatewayProcess, gateway_process

SAMPLES = 24
"""How often it is counted."""
WARM = 0.35
"""The part of the requests after which nothing may grow any more."""
GROWTH, SLOPE = 0.05, 0.05
"""Most that memory may have grown after the warm-up: at its end, and by the line through all
samples, each as a part of what there was."""
FEW = 16 * 2**20
"""Bytes that count as nothing: what an allocator keeps differs by as much from time to time."""
RARE = 50
"""Series that may come late: what happens seldom has a histogram of its own when it does."""
ANSWERED = {200, 400, 401, 404}
"""What the clients ask for that is right, and what they ask for that is wrong."""
_CONNECTIONS, _AT_ONCE = 12, 8
_SETTLES = 0.5
"""Seconds of silence before it is counted."""
_MORE = 3
"""How many more descriptors, tasks or threads there may be. The fewest of each half are compared:
connections to upstreams, idle for a while, come and go."""


@dataclass
class Outcome:
    """What a run saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    left: int = 0
    """Requests whose client hung up."""
    reloads: int = 0
    samples: list[tuple[int, Census]] = field(default_factory=list)
    """How many requests there had been, and what there was."""
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """All requests so far."""
        return self.statuses.total() + self.left

    def warm(self) -> list[tuple[int, Census]]:
        """Return the samples after the warm-up."""
        return [each for each in self.samples if each[0] >= WARM * self.requests]

    def slope(self) -> float:
        """Return how many bytes the line through the warm samples rises from first to last."""
        at = np.array([number for number, _ in self.warm()], np.float64)
        resident = np.array([census.resident for _, census in self.warm()], np.float64)
        return float(np.polyfit(at, resident, 1)[0] * (at[-1] - at[0]))

    def told(self) -> str:
        """Return it in a few lines."""
        said = ", ".join(f"{status} {number:,}" for status, number in self.statuses.most_common())
        warm = self.warm()
        return (
            f"{self.requests:,} requests in {self.seconds:.0f} s ({said}, left {self.left:,}), "
            f"{self.reloads:,} reloads\nwarm: {warm[0][1].told()}\nend:  {warm[-1][1].told()}\n"
            f"slope of memory over all that: {self.slope() / 2**20:+.1f} MiB"
        )


def judge(outcome: Outcome, *, rare: int = RARE) -> None:
    """Raise AssertionError for what has grown, and for answers that should not have been.

    `rare` is how many series may come late.
    """
    warm = [census for _, census in outcome.warm()]
    first, last = warm[0], warm[-1]
    told = outcome.told()
    assert last.resident - first.resident < max(GROWTH * first.resident, FEW), told
    assert outcome.slope() < max(SLOPE * first.resident, FEW), told
    half = len(warm) // 2
    for what in ("descriptors", "tasks", "threads"):
        counts = [getattr(census, what) for census in warm]
        assert min(counts[half:]) - min(counts[:half]) <= _MORE, f"{told}\n{what}: {counts}"
    late = sorted(last.series - first.series)
    assert len(late) <= rare, f"{told}\n{late}"
    assert outcome.statuses.keys() <= ANSWERED, told


def run(
    requests: int,
    *,
    workers: int = 1,
    seed: int = 1,
    samples: int = SAMPLES,
    rare: int = RARE,
    progress: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Let so many requests come. Raises AssertionError as `judge` does."""
    outcome = uvloop.run(_run(requests, workers, seed, samples, progress))
    judge(outcome, rare=rare)
    return outcome


async def _run(
    requests: int, workers: int, seed: int, samples: int, progress: Callable[[str], None]
) -> Outcome:
    outcome, began = Outcome(), time.monotonic()
    life = Life(random.Random(seed))
    async with Faulty(_well) as upstream:
        upstream.healthy = True
        with counted() as environ:
            toml = config(upstream.port, workers, 0)
            with gateway_process(toml, **environ) as served:
                traffic = _Traffic(served, life, outcome)
                for part in range(1, samples + 1):
                    await traffic.run(requests * part // samples)
                    await asyncio.sleep(_SETTLES)
                    census = await asyncio.to_thread(count, served, ADMIN)
                    outcome.samples.append((outcome.requests, census))
                    took = time.monotonic() - began
                    progress(f"{took:5.0f} s, {outcome.requests:,} requests: {census.told()}")
                    await _reload(served, config(upstream.port, workers, part), outcome)
                    life.generation = part
    outcome.seconds = time.monotonic() - began
    return outcome


async def _well(_: object) -> None:
    """Do nothing wrong."""


async def _reload(served: GatewayProcess, toml: str, outcome: Outcome) -> None:
    """Give it another config; return when it has taken that."""
    await asyncio.to_thread(served.write, toml)
    os.kill(served.pid, signal.SIGHUP)
    outcome.reloads += 1
    give_up = time.monotonic() + PATIENCE
    while await asyncio.to_thread(_taken, served) < outcome.reloads:
        assert time.monotonic() < give_up, served.told("the config was not taken")
        await asyncio.sleep(0.05)


def _taken(served: GatewayProcess) -> int:
    page = httpx2.get(
        f"{served.address}/metrics", headers={"authorization": f"Bearer {ADMIN}"}, timeout=30
    )
    found = re.search(
        r'^gateway_config_reloads_total\{result="ok"\} (\d+)', page.text, re.MULTILINE
    )
    return int(found[1]) if found else 0


class _Traffic:
    """Many connections, each with some requests on their way."""

    def __init__(self, served: GatewayProcess, life: Life, outcome: Outcome) -> None:
        self._port = int(served.address.rpartition(":")[2])
        self._life = life
        self._outcome = outcome

    async def run(self, upto: int) -> None:
        """Ask until there have been so many requests; what is underway is waited for."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_CONNECTIONS):
                group.create_task(self._ask_until(upto))

    async def _ask_until(self, upto: int) -> None:
        connection = await connect(self._port)
        while self._outcome.requests < upto:
            if self._life.leaves():
                some = self._life.requests(2)
                connection.leave(some)
                self._outcome.left += len(some)
            else:
                await self._ask(connection)
            if connection.closed or self._life.moves():
                connection.close()
                connection = await connect(self._port)
        connection.close()

    async def _ask(self, connection: Connection) -> None:
        some = self._life.requests(_AT_ONCE)
        answers = await connection.ask(some)
        self._outcome.statuses.update(answer.status for answer in answers)


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    asked = parser.parse_args()
    outcome = run(
        asked.requests,
        workers=asked.workers,
        seed=asked.seed,
        samples=asked.samples,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    sys.stdout.write(f"{outcome.told()}\n")


if __name__ == "__main__":
    main()
