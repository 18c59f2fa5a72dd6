"""Trouble with Redis under load: every request succeeds, in time, and afterwards all agree.

    python -m tests.heavy.outage [--seconds 6]

Two gateways share a Redis that is killed, frozen, slow, full and more. Each trouble comes after a
time without any, to compare with: in the first second of a trouble no request may take 60 ms
longer than the longest in all those times, and after it neither the median nor the 99th percentile
may be 2 ms more.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.asking import Asker, open_asker
from tests.draws import Draws
from tests.heavy.load import HIT, MISS, Sample
from tests.heavy.redis_troubles import DIRECT, PROXIED, Place
from tests.heavy.trial import LINES, RECOVERS_WITHIN, Report, Trial, Trouble, assert_all_agree
from tests.processes import GatewayProcess, gateway_process
from tests.redis_proxy import open_proxy
from tests.redis_server import serve_redis
from tests.running import one_model
from tests.upstream import serve

WIDTH = 64
LONGER_AT_FIRST, LONGER_THEN = 0.060, 0.002
"""Seconds that a request may take longer."""


@dataclass(frozen=True, slots=True)
class Delays:
    """How much longer requests took than without trouble, in seconds."""

    worst_at_first: float
    median: float
    p99: float


def delays(report: Report) -> Delays:
    """Compare a trouble with all times without, and with the gateway that has no store.

    Hits are compared with hits, misses with misses.
    """
    worst, medians, p99s = [], [], []
    for kind in (HIT, MISS):
        usual, first, then = (_seconds(s, kind) for s in report.phases)
        _, first_there, then_there = (_seconds(s, kind, control=True) for s in report.phases)
        worst.append(first[-1] - max(usual[-1], first_there[-1]))
        for part, differences in ((0.5, medians), (0.99, p99s)):
            differences.append(_part(then, part) - max(_part(usual, part), _part(then_there, part)))
    return Delays(max(worst), max(medians), max(p99s))


def _seconds(samples: Sequence[Sample], kind: str, *, control: bool = False) -> list[float]:
    ours = (each for each in samples if (each.kind, each.control) == (kind, control))
    return sorted(sample.seconds for sample in ours)


def _part(ordered: Sequence[float], part: float) -> float:
    return ordered[int(len(ordered) * part)]


async def run(
    troubles: Sequence[Trouble[Place]], seconds: float, *, proxied: bool
) -> Sequence[Report]:
    """Go through these troubles, each so long; raises AssertionError, but judges no delays."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-")))
        fake = Draws().upstream(WIDTH)
        stack.enter_context(serve(fake))
        server = stack.enter_context(serve_redis(folder))
        proxy = await stack.enter_async_context(open_proxy(server.port))
        url = proxy.url if proxied else server.url
        shared = one_model(fake.base_url, rest=f'[cache]\nstore = "{url}"')

        async def start(toml: str) -> tuple[GatewayProcess, Asker]:
            # In a thread: the proxy, which is in this one, is needed for it.
            gateway = await asyncio.to_thread(stack.enter_context, gateway_process(toml))
            return gateway, await stack.enter_async_context(open_asker(gateway.base_url))

        gateways, askers = zip(await start(shared), await start(shared), strict=True)
        _, control = await start(one_model(fake.base_url))
        place = Place(server, proxy, asyncio.get_running_loop())
        trial = Trial(gateways, askers, place, control=control)
        reports = await trial.go_through_all(troubles, seconds)
        _, newcomer = await start(shared)
        await assert_all_agree([*askers, newcomer], trial.load.texts)
    return reports


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6)
    asked = parser.parse_args()
    sys.setswitchinterval(0.0005)  # the upstream is a thread beside the clock
    reports = [
        *uvloop.run(run(DIRECT, asked.seconds, proxied=False)),
        *uvloop.run(run(PROXIED, asked.seconds, proxied=True)),
    ]
    tell(reports)
    judge(reports)


def tell(reports: Sequence[Report]) -> None:
    """Print a table."""
    titles = (
        "trouble", "requests", "unshared", "ms more, worst of the first second",
        "then median", "then p99", "s to recover", "log lines", "vectors compared",
    )  # fmt: skip
    lines = [titles, ["---"] * len(titles)]
    for report in reports:
        both = report.at_first + report.then
        late = delays(report)
        figures = (
            report.name,
            f"{len(both):,}",
            f"{sum(sample.unshared for sample in both):,}",
            *(f"{1000 * each:.1f}" for each in (late.worst_at_first, late.median, late.p99)),
            f"{report.recovery:.2f}",
            f"{report.lines[0]} + {report.lines[1]}",
            f"{report.compared:,}",
        )
        lines.append(figures)
    sys.stdout.write("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")


def judge(reports: Sequence[Report]) -> None:
    """Raise AssertionError where something took too long or too many words."""
    for report in reports:
        late = delays(report)
        assert late.worst_at_first < LONGER_AT_FIRST, (report.name, late)
        assert max(late.median, late.p99) < LONGER_THEN, (report.name, late)
        assert report.recovery < RECOVERS_WITHIN, (report.name, report.recovery)
        assert max(report.lines) <= LINES, (report.name, report.lines)


if __name__ == "__main__":
    main()
