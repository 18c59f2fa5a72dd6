"""What is printed: a Markdown table for each part, and where and how the numbers were made."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.rounds import Measured
from benchmarks.servers import Server

PACKAGES = ("uvicorn", "starlette", "aiohttp", "llama-cpp-python")


@dataclass(frozen=True, slots=True)
class Goal:
    """What one subject's rate should be in terms of another's."""

    workload: str
    subject: str
    other: str
    least: float
    wanted: float | None = None
    """More, that is aimed at."""


@dataclass(frozen=True, slots=True)
class Bound:
    """How many milliseconds one subject's figure may be above another's; None: it is only told."""

    workload: str
    subject: str
    other: str
    figure: str
    what: str
    most: float | None = None


@dataclass(slots=True)
class Part:
    """One benchmark's results: a table, and sentences below it."""

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return it as Markdown that reads well as it is."""
        table = text_table(self.header, self.rows)
        return "\n\n".join([f"### {self.title}", table, *self.lines]) + "\n"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table that reads well as it is; a column of empty cells is left out."""
    columns = [
        [head, "-" * max(map(len, (head, *cells))), *cells]
        for head, *cells in zip(header, *rows, strict=True)
        if any(cells)
    ]
    padded = [[cell.ljust(len(column[1])) for cell in column] for column in columns]
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(*padded, strict=True))


def rates(
    title: str, thing: str, baseline: str, measured: Measured, goals: Sequence[Goal] = ()
) -> Part:
    """Return the table of a part: medians, and each rate in terms of the baseline's."""
    part = Part(
        title,
        ["asked", "server", f"{thing}s/s", f"of {baseline}", f"CPU µs a {thing}", "p50 ms",
         "p99 ms", "upstream calls"],
    )  # fmt: skip
    for workload, subject in measured.figures:
        ratio = median(measured.ratios(workload, subject, baseline))
        middle = {
            name: measured.middle(workload, subject, name)
            for name in ("rate", "cpu", "p50", "p99", "calls")
        }
        part.rows.append(
            [
                workload,
                subject,
                _number(middle["rate"]),
                f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}",
                _number(middle["cpu"]),
                _number(middle["p50"]),
                _number(middle["p99"]),
                _number(middle["calls"]),
            ]
        )
    part.lines += [_met(goal, measured) for goal in goals if _took_part(goal, measured)]
    return part


def relays(title: str, measured: Measured, bounds: Sequence[Bound]) -> Part:
    """Return the table of chats that are passed on: medians, and what is added to a time."""
    part = Part(
        title,
        ["asked", "server", "chunks/s", "CPU µs a chunk", "first chunk p50 ms", "p99 ms",
         "a chunk's way p50 ms", "p99 ms", "upstream calls"],
    )  # fmt: skip
    names = ("rate", "cpu", "p50", "p99", "way50", "way99", "calls")
    for workload, subject in measured.figures:
        middle = [_number(measured.middle(workload, subject, name)) for name in names]
        part.rows.append([workload, subject, *middle])
    part.lines += [_added(bound, measured) for bound in bounds]
    return part


def memory_lines(servers: Sequence[Server], idle: Sequence[Mapping[str, int]]) -> list[str]:
    """Return a sentence on the memory of each server's processes, before and after its work."""
    lines = []
    for server, before in zip(servers, idle, strict=True):
        parts = [
            f"{role} {before.get(role, 0) / 1e6:.0f} MB idle, {held / 1e6:.0f} MB after"
            for role, held in server.memory().items()
        ]
        lines.append(f"Memory of {server.name}: {'; '.join(parts)}.")
    return lines


def heading(command: str, plan: str, versions: Mapping[str, str], notes: Sequence[str]) -> str:
    """Return when, where and with what it was measured."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    known = {"Python": platform.python_version(), **_versions(), **versions}
    machine = f"{processor()}, {os.cpu_count()} cores, {platform.system()}"
    lines = [
        f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{command}`, {plan}",
        f"- {machine}; load average at the end {load}",
        "- " + ", ".join(f"{name} {number}" for name, number in known.items()),
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def _took_part(goal: Goal, measured: Measured) -> bool:
    return all((goal.workload, name) in measured.figures for name in (goal.subject, goal.other))


def _met(goal: Goal, measured: Measured) -> str:
    ratios = measured.ratios(goal.workload, goal.subject, goal.other)
    middle = median(ratios)
    verdict = "reached" if middle >= goal.least else "**missed**"
    if goal.wanted is not None:
        verdict += f"; {goal.wanted:.2f} is wanted"
    return (
        f"{goal.workload}: {goal.subject} at {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) "
        f"of {goal.other}; goal {goal.least:.2f}, {verdict}."
    )


def _added(bound: Bound, measured: Measured) -> str:
    added = measured.beyond(bound.workload, bound.subject, bound.other, bound.figure)
    middle = median(added)
    told = f"{middle:.2f} ms ({added[0]:.2f} to {added[-1]:.2f})"
    verdict = ""
    if bound.most is not None:
        reached = "reached" if middle < bound.most else "**missed**"
        verdict = f"; goal below {bound.most:g} ms, {reached}"
    return f"{bound.workload}: {bound.subject} adds {told} to {bound.what}{verdict}."


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
