"""The gateway's own memory tier under Zipf's law, without a gateway around it: what Che's
approximation is held against."""

import msgspec
import numpy as np

from benchmarks.zipf import Shares, draws
from gateway.cache.entry import Entry
from gateway.cache.memory import MemoryStore

EXPONENTS = (0.6, 0.8, 1.0, 1.2)
"""Of Zipf's law, for which it is measured."""


class Kept(msgspec.Struct, frozen=True):
    """How often it had what it was asked for."""

    exponent: float
    capacity: int
    rate: float


def measured_rate(of: Shares, capacity: int, requests: int, rng: np.random.Generator) -> float:
    """Return the part of `requests` that a full MemoryStore for `capacity` texts answers.

    It is filled beforehand, by as many requests again.
    """
    size = Entry(b"\0" * 4, tokens=1, created=0.0).size
    store = MemoryStore(capacity * size)
    _asked(store, draws(of, requests, rng).tolist())
    return _asked(store, draws(of, requests, rng).tolist()) / requests


def _asked(store: MemoryStore, ranks: list[int]) -> int:
    hits = 0
    for rank in ranks:
        key = rank.to_bytes(16)
        if store.get([key])[0] is None:
            store.put(key, Entry(b"\0" * 4, tokens=1, created=0.0))
        else:
            hits += 1
    return hits
