"""What `gateway drift` found of a model, as figures."""

from collections import Counter
from collections.abc import Sequence
from math import floor, log10
from typing import Literal

import msgspec
import numpy as np

from gateway.commands.drifting import Draws
from gateway.drift.canaries import TEXTS
from gateway.drift.comparison import Comparison, TextComparison, Verdict, apart, compare

_PARTS, _BARS = (1, 2, 5, 10, 20), 16
"""Into how many bars a power of ten is parted, and about how many there may be in all."""


class TextReport(msgspec.Struct, frozen=True):
    """Fresh draws of one text against the nearest kept ones; a difference is of one component."""

    text: str
    difference_min: float
    difference_mean: float
    difference_max: float
    cosine: float
    """The least one."""
    norm: float
    """Of the fresh vectors, the one that is farthest from 1."""
    different: int
    """How many of the fresh vectors are not bit for bit the same."""
    distances: Sequence[float]
    """1 - cosine of each fresh draw."""


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one model that was asked."""

    model: str
    verdict: Verdict
    first_seen: bool
    """Whether kept draws were made just now."""
    kept_seconds: int
    """Seconds since the oldest kept draw was made."""
    width: int
    """Components of the fresh vectors."""
    kept: int
    """Draws that are kept."""
    times: int
    """Fresh draws."""
    noise: float
    """Largest distance (1 - cosine) between kept draws of one text."""
    distance: float
    """Largest distance of a fresh draw from the nearest kept one."""
    threshold: float
    """The distance beyond which it is drift."""
    texts: Sequence[TextReport]


class NoFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A model that could not be asked, or whose vectors have another width than it had."""

    model: str
    verdict: Literal["unasked", "drift"]
    why: str


Report = ModelReport | NoFigures


class Bar(msgspec.Struct, frozen=True):
    """How many of some distances lie from `low` on, below `high`; both 0: exactly none."""

    low: float
    high: float
    count: int


def report(model: str, draws: Draws) -> ModelReport:
    """Return what is to be told of a model that was asked."""
    found = compare(draws.kept, draws.fresh)
    drifted = [draw for draw in draws.fresh if compare(draws.kept, [draw]).verdict == "drift"]
    return ModelReport(
        model=model,
        # What is said once of several times is not believed.
        verdict="noise" if len(drifted) == 1 else found.verdict,
        first_seen=draws.first_seen,
        kept_seconds=draws.age,
        width=found.widths[1],
        kept=len(draws.kept),
        times=len(draws.fresh),
        noise=found.noise,
        distance=found.distance,
        threshold=found.threshold,
        texts=_texts(draws, found),
    )


def _texts(draws: Draws, found: Comparison) -> list[TextReport]:
    kept, fresh = zip(*draws.kept, strict=True), zip(*draws.fresh, strict=True)
    return [_text(*parts) for parts in zip(TEXTS, kept, fresh, found.texts, strict=True)]


def _text(
    text: str, kept: Sequence[bytes], fresh: Sequence[bytes], found: TextComparison
) -> TextReport:
    norms = [float(np.linalg.norm(np.frombuffer(new, "<f4").astype(np.float64))) for new in fresh]
    return TextReport(
        text=text,
        difference_min=found.least,
        difference_mean=found.mean,
        difference_max=found.most,
        cosine=found.cosine,
        norm=max(norms, key=lambda norm: abs(norm - 1.0)),
        different=len(set(fresh)),
        distances=[min(apart(old, new) for old in kept) for new in fresh],
    )


def bars(distances: Sequence[float], parts: int | None = None) -> list[Bar]:
    """Return how distances are spread over a scale of powers of ten, from the least to the largest.

    Exact zeros have a bar of their own. `parts` are the bars of a power of ten; without it they
    are as narrow as leaves them few.
    """
    zeros = sum(each == 0.0 for each in distances)
    found = [Bar(0.0, 0.0, zeros)] if zeros else []
    above = [each for each in distances if each > 0.0]
    if not above:
        return found
    if parts is None:
        powers = log10(max(above)) - log10(min(above))
        parts = max((each for each in _PARTS if powers * each < _BARS), default=_PARTS[0])
    counts = Counter(floor(log10(each) * parts) for each in above)
    return found + [
        Bar(10 ** (part / parts), 10 ** ((part + 1) / parts), counts[part])
        for part in range(min(counts), max(counts) + 1)
    ]
