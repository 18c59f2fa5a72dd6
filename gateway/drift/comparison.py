"""How far a model's fresh vectors lie from the kept ones, and whether that is more than its noise.

Distances are 1 - cosine, computed as half the squared distance of unit vectors in float64: exact
for equal bits, and it keeps its digits where a cosine in float32 has long been 1.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
from msgspec import Struct

FACTOR = 2.0
"""Drift begins at this many times the noise. A fresh draw is compared with the nearest of the kept
ones, and the noise is the largest distance among all of them, so that more would hide changes."""
FLOOR = 1e-3
"""Drift begins here at the earliest, however alike a few kept draws are. Most of OpenAI's answers
to a text are alike, and some are up to 5e-4 away; a model's quantizations differ by about 5e-3."""
CEILING = 0.5
"""And here at the latest: no model is as noisy as that. Kept draws that are as far apart are not of
one model, as where it changed between two of them, and would hide every change to come."""
FARTHEST = 2.0
"""The distance of opposite vectors, and said of vectors of another width."""

Verdict = Literal["steady", "noise", "drift"]
"""Bit for bit a kept draw; or another one, as far away as they are from each other; or farther."""

Draw = Sequence[bytes]
"""A unit vector for each text, little-endian float32."""


class TextComparison(Struct, frozen=True):
    """The fresh draws of one text, against the kept one that is nearest to each."""

    distance: float
    """1 - cosine, of the farthest fresh draw."""
    least: float
    """Least absolute difference of a component, over all fresh draws."""
    mean: float
    """Mean of these differences."""
    most: float
    """Largest of these differences."""

    @property
    def cosine(self) -> float:
        """Of the farthest fresh draw."""
        return 1.0 - self.distance


class Comparison(Struct, frozen=True):
    """What fresh draws of some texts say of a model."""

    texts: Sequence[TextComparison]
    """In the order of the texts."""
    noise: float
    """Largest distance between two kept draws of one text; 0.0 for a deterministic model."""
    distance: float
    """Largest distance of a fresh draw from the nearest kept one."""
    threshold: float
    """The distance beyond which it is drift."""
    verdict: Verdict
    widths: tuple[int, int]
    """Components of the kept and of the fresh vectors."""


def compare(kept: Sequence[Draw], fresh: Sequence[Draw]) -> Comparison:
    """Compare fresh draws with kept ones; both have at least one, and the same texts.

    All kept vectors have one width. Fresh ones of another are drift, whatever is in them.
    """
    noise = max(map(_spread, zip(*kept, strict=True)))
    texts = [
        _text(before, now)
        for before, now in zip(zip(*kept, strict=True), zip(*fresh, strict=True), strict=True)
    ]
    farthest = max(text.distance for text in texts)
    threshold = min(max(FLOOR, FACTOR * noise), CEILING)
    width = len(kept[0][0]) // 4
    others = {len(vector) // 4 for draw in fresh for vector in draw} - {width}
    verdict: Verdict = "noise"
    if others or farthest > threshold:
        verdict = "drift"
    elif farthest == 0.0:
        verdict = "steady"
    widths = width, min(others, default=width)
    return Comparison(texts, noise, farthest, threshold, verdict, widths)


def apart(one: bytes, other: bytes) -> float:
    """Return 1 - cosine of two unit vectors: exactly 0.0 for equal ones."""
    if len(one) != len(other):
        return FARTHEST
    difference = _exact(one) - _exact(other)
    return float(difference.dot(difference)) / 2


def _spread(draws: Sequence[bytes]) -> float:
    return max((apart(one, other) for one, other in combinations(draws, 2)), default=0.0)


def _text(kept: Sequence[bytes], fresh: Sequence[bytes]) -> TextComparison:
    if {len(vector) for vector in kept} != {len(vector) for vector in fresh}:
        return TextComparison(FARTHEST, FARTHEST, FARTHEST, FARTHEST)
    nearest = [min((apart(old, new), old) for old in kept) for new in fresh]
    every = np.concatenate(
        [abs(_exact(old) - _exact(new)) for (_, old), new in zip(nearest, fresh, strict=True)]
    )
    farthest = max(distance for distance, _ in nearest)
    return TextComparison(farthest, float(every.min()), float(every.mean()), float(every.max()))


def _exact(vector: bytes) -> npt.NDArray[np.float64]:
    return np.frombuffer(vector, "<f4").astype(np.float64)
