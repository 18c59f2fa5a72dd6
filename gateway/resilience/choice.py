"""Who of several is asked first, and who then. Pure, with chance given."""

from collections.abc import Callable, Sequence
from math import inf, log


def in_turn(weights: Sequence[float], chance: Callable[[], float]) -> list[int]:
    """Return the places 0, 1, … in the order to be asked: drawn by weight, one after the other.

    Each next one is drawn among those that are left, with a chance of its weight's part of theirs;
    so leaving some out gives the others their right shares. Those of weight 0 come last, in their
    own order. `chance` returns numbers in [0, 1).
    """
    # Clocks that ring at random, each as often as its weight says: who rings first is first.
    rings = [-log(1.0 - chance()) / weight if weight else inf for weight in weights]
    return sorted(range(len(weights)), key=rings.__getitem__)
