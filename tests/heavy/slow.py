"""Clients that are slow, endless or silent on purpose, beside others that are not.

    python -m tests.heavy.slow [--attackers 1000] [--seconds 20]

The gateway is a process of its own, with the defaults of its config. For a while it is asked by
good clients alone, for texts that it has and texts that it has not; then beside them come the
others, each in one of the ways below, again as soon as it has been sent away. What is measured of
the good ones is compared with the whiles before and after; of the others, how long they lasted.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import aiohttp
import uvloop

from tests.asking import Asker, open_asker
from tests.heavy.attackers import WAYS, WIDE, attack, large_texts, raise_open_files
from tests.heavy.trial import tell
from tests.processes import gateway_process
from tests.running import one_model
from tests.upstream import FakeOpenAI, serve

CLOSED_WITHIN = 15.0
SLOWER = 1.5
"""Times the usual p99 that the good ones may have."""
NOISE = 0.005
"""Seconds by which a p99 may be greater in any case: two cores have other things to do."""
GROWTH = 50 * 2**20
RATE = 200.0
"""Requests a second of the good ones; every fourth is for a new text."""


@dataclass
class Good:
    """Those who mean well: they ask at a steady rate, whether or not answers have come."""

    asker: Asker
    asked: int = 0
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, seconds: float) -> dict[str, list[float]]:
        """Ask for so long; return the seconds of each answer, by what it was."""
        taken: dict[str, list[float]] = {"hit": [], "miss": []}
        began = time.perf_counter()
        number = 0
        while (now := time.perf_counter()) < began + seconds:
            kind = "hit" if number % 4 else "miss"
            task = asyncio.create_task(self._ask(kind, taken[kind]))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            number += 1
            await asyncio.sleep(began + number / RATE - now)
        await asyncio.gather(*self._under_way)
        return taken

    async def _ask(self, kind: str, taken: list[float]) -> None:
        self.asked += 1
        text = "known" if kind == "hit" else f"new {self.asked}"
        taken.append((await self.asker.ask([text])).seconds)


@dataclass(frozen=True)
class Outcome:
    """What a run saw."""

    usual: Mapping[str, Sequence[float]]
    attacked: Mapping[str, Sequence[float]]
    lasted: Mapping[str, Sequence[float]]
    growth: int
    """Bytes that the gateway took more than before, at most."""

    def judge(self, slower: float = SLOWER) -> None:
        """Raise AssertionError where an attacker lasted, or the good ones suffered.

        Their p99 may be `slower` times the usual.
        """
        self.judge_attackers(CLOSED_WITHIN)
        for kind, usual in self.usual.items():
            now, before = p99(self.attacked[kind]), p99(usual)
            assert now <= max(slower * before, before + NOISE), f"{kind}: {before} -> {now}"
        assert self.growth <= GROWTH, f"{self.growth / 2**20:.0f} MiB"

    def judge_attackers(self, seconds: float) -> None:
        """Raise AssertionError where one was there for longer than so many seconds."""
        for name, lasted in self.lasted.items():
            assert max(lasted) < seconds, f"{name}: {max(lasted):.1f} s"

    def tell(self) -> None:
        """Print it."""
        rows = [
            (kind, f"{len(usual):,}", f"{p99(usual) * 1000:.1f}", f"{p99(now) * 1000:.1f}")
            for kind, usual, now in (
                (kind, usual, self.attacked[kind]) for kind, usual in self.usual.items()
            )
        ]
        tell(("good clients", "requests", "p99 usual, ms", "p99 then, ms"), rows)
        tell(
            ("the others", "connections", "lasted at most, s"),
            [(name, f"{len(all_):,}", f"{max(all_):.1f}") for name, all_ in self.lasted.items()],
        )
        sys.stdout.write(f"memory: +{self.growth / 2**20:.1f} MiB at most\n")


def p99(seconds: Sequence[float]) -> float:
    """Return what 99 % of these stay below."""
    return sorted(seconds)[int(len(seconds) * 0.99)]


def run(attackers: int, seconds: float, ways: Sequence[str], options: str = "") -> Outcome:
    """Run a gateway with these options of its server, and let them come."""
    raise_open_files()
    fake, wide = FakeOpenAI(width=64), FakeOpenAI(width=WIDE)
    with serve(fake), serve(wide), gateway_process(_toml(fake, wide, options)) as served:
        return uvloop.run(_run(served.base_url, served.pid, attackers, seconds, ways))


def _toml(fake: FakeOpenAI, wide: FakeOpenAI, options: str) -> str:
    small = one_model(fake.base_url, rest=f"[server]\n{options}")
    return f"""{small}
        [upstreams.wide]
        kind = "openai"
        base_url = "{wide.base_url}"
        [models.wide]
        upstreams = ["wide"]
    """


async def _run(
    base_url: str, pid: int, attackers: int, seconds: float, ways: Sequence[str]
) -> Outcome:
    async with open_asker(base_url) as asker, aiohttp.ClientSession() as session:
        good, loop = Good(asker), asyncio.get_running_loop()
        port = int(base_url.rpartition(":")[2].partition("/")[0])
        peaks: list[int] = []
        await asker.ask(["known"])
        # Kept, and written before as it will be asked for.
        body = {"model": "wide", "input": large_texts(), "encoding_format": "base64"}
        for _ in range(2):
            async with session.post(f"{base_url}/embeddings", json=body) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
        await good.run(1.0)
        before = _memory(pid)
        watching = asyncio.create_task(_watch(pid, peaks))
        # In a process of its own, or the good ones would wait for it themselves.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            await loop.run_in_executor(pool, raise_open_files)
            usual = await good.run(seconds / 2)
            attacking = loop.run_in_executor(pool, attack, port, attackers, seconds, ways)
            attacked = await good.run(seconds)
            lasted = await attacking
            later = await good.run(seconds / 2)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        usual = {kind: [*usual[kind], *later[kind]] for kind in usual}
        return Outcome(usual, attacked, lasted, max(peaks) - before)


async def _watch(pid: int, peaks: list[int]) -> None:
    while True:
        peaks.append(_memory(pid))
        await asyncio.sleep(0.1)


def _memory(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attackers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--way", choices=WAYS, help="only this one")
    parser.add_argument("--p99", type=float, default=SLOWER, help="times the usual, at most")
    asked = parser.parse_args()
    outcome = run(asked.attackers, asked.seconds, [asked.way] if asked.way else list(WAYS))
    outcome.tell()
    outcome.judge(asked.p99)


if __name__ == "__main__":
    main()
