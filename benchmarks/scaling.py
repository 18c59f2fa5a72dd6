"""How gateways grow: one, two and four of them on one Redis, and four that share nothing.

What is counted does not depend on the machine; rates do, where all of them, Redis, the upstream and
the load share its cores.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.fleet import Ran, Traffic
from benchmarks.fleet import run as play
from benchmarks.report import Part
from benchmarks.setting import Setting

FLEETS = ((1, True), (2, True), (4, True), (4, False))
"""How many gateways, and whether they share a Redis."""
A_SECOND = 10_000
"""Requests for each second of the plan."""
_HEADER = (
    "gateways", "memory", "(model)", "store", "(model)", "upstream", "(model)",
    "calls for a text", "requests/s", "gateways' CPU µs a request", "Redis's",
)  # fmt: skip


def traffic(requests: int) -> Traffic:
    """Return so many requests for half as many texts, and memories that hold a tenth of those."""
    texts = max(requests // 2, 100)
    return Traffic(requests, texts, exponent=0.9, connections=64, memory=texts // 10)


def run(setting: Setting, directory: Path) -> Part | None:
    """Measure, once: as many requests as the plan has seconds for; raises StartError, LoadError."""
    asked = traffic(int(setting.plan.seconds * A_SECOND))
    ran = list(runs(setting, directory, asked))
    return part(asked, ran) if ran else None


def runs(setting: Setting, directory: Path, asked: Traffic) -> Iterator[Ran]:
    """Yield what each fleet did; none where there is no Redis."""
    command = shutil.which("redis-server")
    if command is None:
        setting.say.note("scaling is left out: there is no redis-server")
        return
    for gateways, shared in FLEETS:
        yield play(setting, directory, command, gateways, asked, shared=shared)


def part(asked: Traffic, ran: list[Ran]) -> Part:
    """Return the table of all fleets."""
    made = Part(f"Scaling: {asked.requests:,} requests for {asked.texts:,} texts", _HEADER)
    made.rows += [_row(asked, one) for one in ran]
    made.lines.append(
        f"By Zipf's law with exponent {asked.exponent:g}, one text a request, over "
        f"{asked.connections} connections: {asked.requests:,} requests for {asked.texts:,} texts, "
        f"of which {ran[0].different:,} were asked for at all; each memory holds {asked.memory:,}."
    )
    return made


def _row(asked: Traffic, one: Ran) -> list[str]:
    return [
        one.name,
        *(f"{each / asked.requests:.1%}" for pair in one.parts for each in pair),
        f"{one.answered.upstream / one.different:.3f}",
        f"{asked.requests / one.seconds:,.0f}",
        f"{one.cpu:.0f}",
        f"{one.redis_cpu:.0f}" if one.shared else "",
    ]
