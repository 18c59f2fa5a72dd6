"""What is asked in a run: batches of every kind, the same ones for the same seed.

Few texts are asked for often and many seldom (each as often as its rank says, Zipf's law), so that
most batches hold some that are known and some twice. And there are crowds: batches that come at
the same time to one or two workers with new texts, which are then on their way for each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.types import USUAL, CacheControl, Text
from tests.heavy.storm import telling

MODELS = ("m", "n")
TEXTS = 100_000
_CROWD = 16
"""Batches in a row of which some are a crowd."""
_CROWDED = 60
"""New texts that a crowd asks for."""
LONG = 10**6
"""Seconds; nothing in a run is that old."""

_CONTROLS = (
    CacheControl(no_cache=True),
    CacheControl(no_store=True),
    CacheControl(only_if_cached=True),
    CacheControl(max_age=0),
    CacheControl(max_age=1),
    CacheControl(max_age=LONG),
)
_SIZES = ((0.30, 1, 4), (0.40, 5, 60), (0.25, 60, 150), (0.05, 150, 600))
"""Share of the batches, fewest texts, most."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One request to be made of one worker."""

    number: int
    worker: int
    model: str
    tenant: str
    seed: int | None
    inputs: Sequence[Text]
    numbers: Sequence[int]
    """What the vectors have to tell."""
    base64: bool
    dimensions: int | None
    user: str | None
    control: CacheControl
    patience: float
    """Seconds until its deadline."""
    stays: float | None
    """Seconds until the client leaves, if it does."""
    mistake: bool
    """Whether it cannot be answered at all."""

    def told(self) -> str:
        """Return what it is, for an account of a failure."""
        control = "" if self.control is USUAL else f", {self.control}"
        leaves = "" if self.stays is None else f", leaves after {self.stays * 1000:.1f} ms"
        return (
            f"batch {self.number}: {len(self.inputs)} texts, model {self.model}, tenant "
            f"{self.tenant}, seed {self.seed}, dimensions {self.dimensions}, "
            f"{'base64' if self.base64 else 'float'}{control}{leaves}"
        )


def batches(seed: int, workers: int) -> Iterator[Batch]:
    """Yield batches for ever, for so many workers."""
    chance = np.random.default_rng(seed)
    number = 0
    while True:
        yield _batch(number, chance, workers)
        number += 1


def _about(number: int, chance: np.random.Generator, workers: int) -> dict[str, Any]:
    """Return what a batch is about, and of whom it is asked."""
    shares = [share for share, _, _ in _SIZES]
    _, fewest, most = _SIZES[chance.choice(len(_SIZES), p=shares)]
    size = int(chance.integers(fewest, most, endpoint=True))
    if chance.random() < 0.4:
        crowd = number // _CROWD
        numbers = TEXTS + _CROWDED * crowd + chance.integers(_CROWDED, size=size)
        return {
            "numbers": numbers.tolist(),
            "worker": int(crowd + chance.integers(2)) % workers,
            "model": MODELS[0],
            "tenant": "default",
            "seed": None,
        }
    return {
        # Ranks whose logarithm is even: the n-th text is asked for a n-th as often as the first.
        "numbers": (TEXTS ** chance.random(size)).astype(np.int64).tolist(),
        "worker": int(chance.integers(workers)),
        "model": MODELS[int(chance.random() < 0.15)],
        "tenant": str(chance.choice(["default", "b", "c"], p=[0.7, 0.2, 0.1])),
        "seed": [None, 1, -5, 2**62][chance.choice(4, p=[0.7, 0.1, 0.1, 0.1])],
    }


def _batch(number: int, chance: np.random.Generator, workers: int) -> Batch:
    about = _about(number, chance, workers)
    numbers = about["numbers"]
    inputs: list[Text] = [telling.text(n) for n in numbers]
    if chance.random() < 0.1:
        inputs = [telling.ids(n) for n in numbers]
        about["numbers"] = [telling.IDS + n for n in numbers]
    control, stays, patience, dimensions = USUAL, None, 30.0, None
    if chance.random() < 0.12:
        control = _CONTROLS[chance.integers(len(_CONTROLS))]
    if chance.random() < 0.06:
        stays = float(chance.choice([0.0, chance.random() * 0.003, chance.random() * 0.03]))
    if chance.random() < 0.03:
        patience = float(chance.random() * 0.02)
    if chance.random() < 0.2:
        dimensions = int(chance.choice([telling.SHORTEST, telling.WIDTH]))
    mistake = bool(chance.random() < 0.01)
    if mistake and isinstance(inputs[0], str) and chance.random() < 0.5:
        inputs[chance.integers(len(inputs))] = ""
    elif mistake:
        dimensions = telling.WIDTH + 1
    return Batch(
        **about,
        number=number,
        inputs=inputs,
        base64=bool(chance.random() < 0.7),
        dimensions=dimensions,
        user=f"user {chance.integers(100)}" if chance.random() < 0.2 else None,
        control=control,
        patience=patience,
        stays=stays,
        mistake=mistake,
    )
