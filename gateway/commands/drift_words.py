"""What people read of `gateway drift`: what it found, a table, and bars."""

from collections.abc import Iterator, Sequence
from math import floor, log10
from unicodedata import east_asian_width

from gateway.commands.drift_report import ModelReport, NoFigures, Report, TextReport, bars
from gateway.commands.stats import table
from gateway.commands.strangers import plain
from gateway.drift.canaries import TEXTS

_BAR = 40
"""Characters of the longest bar."""
_SHOWN = 36
"""Columns of a text."""


def lines(told: Report) -> list[str]:
    """Return what people read of it; the first line is the model and its verdict."""
    if isinstance(told, NoFigures):
        return [heading(told), f"  {plain(told.why)}"]
    said = [heading(told), f"  {sentence(told)}", f"  {_baseline(told)}"]
    said += ["", "  Difference of a component", *_table(told)]
    distances = [each for text in told.texts for each in text.distances]
    if told.times > 2 and any(distances):
        said += ["", *_spread(distances)]
    return said


def heading(told: Report) -> str:
    """Return the model and its verdict."""
    verdict = "could not be asked" if told.verdict == "unasked" else told.verdict
    return f"{plain(told.model)}: {verdict}"


def sentence(told: ModelReport) -> str:
    """Return what the verdict means."""
    match told.verdict:
        case "steady":
            return "Every answer has the bits of a kept one."
        case "noise" if told.distance > told.threshold:
            return f"One answer lies {small(told.distance)} from the kept ones, the others do not."
        case "noise":
            return (
                f"Answers lie up to {small(told.distance)} from the kept ones, which is no drift."
            )
        case "drift":
            return (
                f"Answers lie {small(told.distance)} from the kept ones: what makes them is not "
                "what made those."
            )


def _baseline(told: ModelReport) -> str:
    since = "first seen now" if told.first_seen else f"kept for {_span(told.kept_seconds)}"
    return (
        f"{told.kept} draws {since}, {told.times:,} asked anew; {told.width:,} wide; "
        f"noise {small(told.noise)}, drift from {small(told.threshold)}."
    )


def _span(seconds: int) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:,} {unit}"
    return f"{seconds} s"


def _table(told: ModelReport) -> list[str]:
    head = ("least", "mean", "largest", "cosine", "norm", "different")
    rows = [head, *map(_row, told.texts)]
    many = told.times > 1
    shown = table([row if many else row[:-1] for row in rows], left=0)
    # The texts come last: their width on a terminal is not their length.
    return [
        f"{line}  {text}"
        for line, text in zip(shown, ["text", *map(shortened, TEXTS)], strict=True)
    ]


def _row(text: TextReport) -> tuple[str, ...]:
    return (
        small(text.difference_min),
        small(text.difference_mean),
        small(text.difference_max),
        nines(text.cosine),
        f"{text.norm:.8f}",
        f"{text.different:,}",
    )


def shortened(text: str) -> str:
    """Return the beginning of a text that fits into a column of a terminal."""
    line, width = text.partition("\n")[0], 0
    for place, character in enumerate(line):
        width += 2 if east_asian_width(character) in "WF" else 1
        if width > _SHOWN:
            return f"{line[: place - 1]}…"
    return line


def _spread(distances: Sequence[float]) -> Iterator[str]:
    yield f"  Distance (1 - cosine) of {len(distances):,} answers from the nearest kept ones"
    found = bars(distances)
    most = max(bar.count for bar in found)
    for bar in found:
        drawn = "#" * (-(-_BAR * bar.count // most))
        yield f"  {small(bar.low):>8}  {drawn:<{_BAR}}  {bar.count:,}"


def small(value: float) -> str:
    """Return a difference, of which the power of ten matters; 0 only for exactly 0.

    It is written as the console page writes it.
    """
    if value == 0.0:
        return "0"
    return f"{value:.2g}" if value >= 0.01 else f"{value:.1e}".replace("e-0", "e-")


def nines(cosine: float) -> str:
    """Return a cosine with as many nines as it has; 1 only for exactly 1."""
    gap = abs(1.0 - cosine)
    if gap == 0.0:
        return "1"
    return f"{cosine:.{3 if gap > 0.01 else min(15, 1 - floor(log10(gap)))}f}"
