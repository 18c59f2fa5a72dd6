"""The picture of docs/scaling.md: what a memory answers by its size, and who answers in a fleet."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from benchmarks import zipf
from benchmarks.fleet import Ran, Traffic
from benchmarks.kept import EXPONENTS, Kept

# Okabe and Ito's: told apart by everybody.
_LINES = ("#0072B2", "#009E73", "#E69F00", "#CC79A7")
_WHO = {"memory": "#0072B2", "Redis": "#009E73", "upstream": "#D55E00"}
_BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "frameon": False}
_POINTS = 40


def draw(
    texts: int, kept: Sequence[Kept], traffic: Traffic, ran: Sequence[Ran], path: Path
) -> None:
    """Write the picture of a memory tier for `texts` and of fleets; the same each time."""
    style = {"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "scaling"}
    with mpl.rc_context(style):
        picture = Figure(figsize=(10, 4), layout="constrained")
        left, right = picture.subplots(1, 2)
        _sizes(left, texts, kept)
        _fleets(right, traffic, ran)
        picture.savefig(path, metadata={"Date": None})


def _sizes(axes: Axes, texts: int, measured: Sequence[Kept]) -> None:
    parts = np.logspace(-3.2, 0, _POINTS)
    for exponent, colour in zip(EXPONENTS, _LINES, strict=True):
        shares = zipf.shares(texts, exponent)
        rates = [zipf.hit_rate(shares, part * texts) for part in parts]
        axes.plot(parts, rates, color=colour, label=f"{exponent:g}")
        kept = [each for each in measured if each.exponent == exponent]
        where = [each.capacity / texts for each in kept]
        axes.plot(where, [each.rate for each in kept], "o", color=colour, markersize=4)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda part, _: f"{100 * part:g} %")
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_xlim(parts[0], 1)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(title="Zipf's exponent", ncols=len(EXPONENTS), **_BELOW)
    axes.set_xlabel("texts that the memory holds, of all that are asked for")
    axes.set_ylabel("requests that it answers")
    axes.set_title("What a memory answers: model (lines), measured (dots)")


def _fleets(axes: Axes, traffic: Traffic, ran: Sequence[Ran]) -> None:
    for place, one in enumerate(ran):
        counted = expected = 0.0
        for colour, (count, of_model) in zip(_WHO.values(), one.parts, strict=True):
            part = count / traffic.requests
            axes.barh(place, part, left=counted, color=colour, height=0.6)
            if part:
                middle = counted + part / 2
                axes.text(middle, place, f"{part:.0%}", color="white", ha="center", va="center")
            counted += part
            expected += of_model / traffic.requests
            axes.plot([expected] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1.2)
    axes.set_yticks(range(len(ran)), [one.name for one in ran])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_xlim(0, 1)
    axes.set_xlabel("requests, by who answered; black: the model")
    axes.set_ylabel("gateways")
    patches = [Patch(color=colour, label=name) for name, colour in _WHO.items()]
    axes.legend(handles=patches, ncols=3, **_BELOW)
    axes.set_title(f"{traffic.requests:,} requests, from empty caches")
