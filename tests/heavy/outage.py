"""Trouble with Redis under load: every request succeeds, in time, and afterwards all agree.

    python -m tests.heavy.outage [--seconds 6]

Two gateways share a Redis that is killed, frozen, slow, full and more. Each trouble comes after a
time without any, to compare with: in the first second of a trouble no request may take 60 ms
longer than 99 of 100 do without, and after it neither the median nor the 99th percentile may be
2 ms more. What a gateway without a store takes longer at the same time, the machine was busy.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import uvloop

from tests.asking import Asker, open_asker
from tests.draws import Draws
from tests.heavy.load import HIT, MISS, Sample
from tests.heavy.redis_troubles import DIRECT, PROXIED, Place
from tests.heavy.trial import TITLES, Report, Trial, Trouble, assert_all_agree, judge, tell
from tests.processes import GatewayProcess, gateway_process
from tests.redis_proxy import open_proxy
from tests.redis_server import serve_redis
from tests.running import one_model
from tests.upstream import serve

WIDTH = 64
LONGER_AT_FIRST, LONGER_THEN = 0.060, 0.002
"""Seconds that a request may take longer."""


class Delays(NamedTuple):
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
        worst.append(first[-1] - max(_part(usual, 0.99), first_there[-1]))
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
    late = [delays(report) for report in reports]
    titles = (*TITLES, "ms more: worst of the first second", "then median", "then 99th percentile")
    tell(titles, [(*r.figures, *map(_in_ms, each)) for r, each in zip(reports, late, strict=True)])
    judge(reports)
    for report, each in zip(reports, late, strict=True):
        assert each.worst_at_first < LONGER_AT_FIRST, (report.name, each)
        assert max(each.median, each.p99) < LONGER_THEN, (report.name, each)


def _in_ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


if __name__ == "__main__":
    main()
