"""Makes the figures of docs/scaling.md: python -m benchmarks.scaling_page [--seconds 20] [--again].

It runs the fleets, the memory tier and the stores, and keeps what came out in
docs/pictures/scaling.json; the tables of the page and its picture are made from that. With --again
nothing is run: they are made once more from what is kept.
"""

import argparse
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks import scaling, zipf
from benchmarks.fleet import Ran, Traffic
from benchmarks.kept import EXPONENTS, Kept, measured_rate
from benchmarks.progress import Say
from benchmarks.report import processor, text_table
from benchmarks.rounds import Plan
from benchmarks.scaling_picture import draw
from benchmarks.servers import ROOT
from benchmarks.setting import Setting
from benchmarks.weights import Weight, weigh

PAGE = ROOT / "docs/scaling.md"
FIGURES = ROOT / "docs/pictures/scaling.json"
PICTURE = ROOT / "docs/pictures/scaling.svg"

PARTS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""How much of all texts a memory holds, where the memory tier was measured."""
TEXTS = 100_000
_MILLION = 1_000_000
_ASKED = 200_000
_SEED = 7


class Figures(msgspec.Struct, frozen=True):
    """All that was measured."""

    machine: str
    traffic: Traffic
    ran: list[Ran]
    texts: int
    """That the memory tier was asked for."""
    kept: list[Kept]
    weights: list[Weight]


def main(words: Sequence[str]) -> None:
    """Measure, unless told not to, and write the page's tables and its picture."""
    parser = argparse.ArgumentParser("python -m benchmarks.scaling_page", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="length (default 20)")
    parser.add_argument("--again", action="store_true", help="measure nothing")
    asked = parser.parse_args(words)
    if not asked.again:
        made = msgspec.json.encode(_measured(asked.seconds))
        FIGURES.write_bytes(msgspec.json.format(made, indent=1) + b"\n")
    figures = read()
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), tables(figures)), encoding="utf-8")
    draw(figures.texts, figures.kept, figures.traffic, figures.ran, PICTURE)


def read() -> Figures:
    """Return what was kept."""
    return msgspec.json.decode(FIGURES.read_bytes(), type=Figures)


def tables(figures: Figures) -> Mapping[str, str]:
    """Return the tables of the page by their names."""
    fleets = scaling.part(figures.traffic, figures.ran)
    return {
        "fleets": "\n\n".join(
            [
                text_table(fleets.header, fleets.rows),
                *fleets.lines,
                f"Measured on {figures.machine}.",
            ]
        ),
        "cache": text_table(
            ["exponent", *(f"{100 * part:g}% of the texts" for part in PARTS)],
            [[f"{each:g}", *_rates(each)] for each in EXPONENTS],
        ),
        "weights": text_table(
            ["numbers", "memory, base64", "memory, float", "SQLite", "Redis"],
            [
                [
                    f"{w.width:,}",
                    *(f"{each:,.0f}" for each in (w.base64, w.floats, w.sqlite, w.redis)),
                ]
                for w in figures.weights
            ],
        ),
    }


def filled(page: str, made: Mapping[str, str]) -> str:
    """Return the page with its tables, each between comments that name it."""

    def table(found: re.Match[str]) -> str:
        return f"{found[1]}\n\n{made[found[2]]}\n\n{found[3]}"

    return re.sub(r"(<!-- figures: (\w+) -->)\n.*?(<!-- end -->)", table, page, flags=re.DOTALL)


def _rates(exponent: float) -> list[str]:
    shares = zipf.shares(_MILLION, exponent)
    return [f"{zipf.hit_rate(shares, part * _MILLION):.0%}" for part in PARTS]


def _measured(seconds: float) -> Figures:
    say = Say()
    setting = Setting(Plan(1, seconds), say, False, None, None)
    redis = shutil.which("redis-server")
    if redis is None:
        sys.exit("there is no redis-server")
    with tempfile.TemporaryDirectory() as directory:
        asked = scaling.traffic(int(seconds * scaling.A_SECOND))
        ran = list(scaling.runs(setting, Path(directory), asked))
        say("weighing vectors")
        weights = list(weigh(Path(directory), redis))
    say("asking the memory tier")
    machine = f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    figures = Figures(machine, asked, ran, TEXTS, _kept(), weights)
    say.done()
    return figures


def _kept() -> list[Kept]:
    rng = np.random.default_rng(_SEED)
    return [
        Kept(
            exponent,
            capacity := round(part * TEXTS),
            measured_rate(zipf.shares(TEXTS, exponent), capacity, _ASKED, rng),
        )
        for exponent in EXPONENTS
        for part in PARTS
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
