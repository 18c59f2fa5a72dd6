"""How often a cache has what it is asked for, where few texts are asked for often.

Traffic is taken for independent requests by Zipf's law: the text on rank r is asked for in
proportion to 1 / r ** exponent. A cache that drops the least recently used first is described by
Che's approximation (H. Che, Y. Tung, Z. Wang, "Hierarchical Web caching systems", IEEE JSAC
20(7), 2002): a text is in it if it was asked for within the last `horizon` requests, and the
horizon is the same for all texts. It knows no gateway; numbers of requests and texts go in and
come out.
"""

from math import inf

import numpy as np
import numpy.typing as npt

Shares = npt.NDArray[np.float64]
"""The part of all requests that each text has, most wanted first; they sum to 1."""

_CLOSE = 1e-9


def shares(texts: int, exponent: float) -> Shares:
    """Return the shares of so many texts; with exponent 0 all are wanted alike."""
    wanted = np.arange(1, texts + 1, dtype=np.float64) ** -exponent
    return wanted / wanted.sum()


def draws(of: Shares, requests: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the rank of the text that each request asks for, counted from 0."""
    below = np.cumsum(of)
    return np.minimum(np.searchsorted(below, rng.random(requests), side="right"), len(of) - 1)


def different(of: Shares, requests: float) -> float:
    """Return how many different texts so many requests ask for: what a shared store asks once."""
    return float(_asked_for(of, requests).sum())


def horizon(of: Shares, capacity: float) -> float:
    """Return within how many requests `capacity` different texts are asked for; inf for all."""
    if capacity >= len(of):
        return inf
    reach = 0.0
    while True:
        known = _asked_for(of, reach)
        missing = capacity - float(known.sum())
        if missing <= _CLOSE * capacity:
            return reach
        # As far as that many new texts are, if new ones became no rarer on the way: never too far.
        reach += missing / (1.0 - float(of @ known))


def hit_rate(of: Shares, capacity: float) -> float:
    """Return the part of requests that a full cache for `capacity` texts answers."""
    return float(of @ _asked_for(of, horizon(of, capacity)))


def hits(of: Shares, capacity: float, requests: float) -> float:
    """Return how many of the first `requests` a cache answers that is empty at their beginning.

    Until it is full, everything that was asked for before is in it.
    """
    filling = min(requests, horizon(of, capacity))
    full = requests - filling
    return filling - different(of, filling) + full * float(of @ _asked_for(of, filling))


def _asked_for(of: Shares, requests: float) -> npt.NDArray[np.float64]:
    """Return for each text how likely it is among so many requests."""
    return -np.expm1(-of * requests)
