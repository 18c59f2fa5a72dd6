"""When each model is to be compared with what it was. Pure: it is told the time.

A remote model is asked every few hours, and soon again after it has drifted or did not answer. A
local one cannot change while it is loaded: it is asked when its engine has come up, which somebody
else has made it do, so that its time of rest neither ends nor begins anew for this.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from math import inf

AGAIN = 600.0
"""Seconds until a model that has drifted is asked again, as somebody may be at work on it."""
SOON = 30.0
"""Seconds until one that did not answer is; each time twice as long, and at most AGAIN."""
_EARLIER = 0.1
"""Part of a pause by which it may be shorter, so that replicas do not ask all at once."""


@dataclass(frozen=True, slots=True)
class Times:
    """How often models are asked, in seconds."""

    every: float
    """0: never."""
    delay: float
    """After a model is first seen."""


class Due:
    """When one model is due."""

    def __init__(self, times: Times, now: float, chance: Callable[[], float]) -> None:
        """`chance` gives numbers from 0 to 1."""
        self._times = times
        self._chance = chance
        self._at = now + times.delay
        self._pause = SOON
        self._there = False
        self._asked = False

    def __call__(self, now: float, *, there: bool, local: bool) -> bool:
        """Whether it is due; to be asked again and again, with whether it could answer."""
        came, self._there = there and not self._there, there
        if came and local and self._asked:
            self._at = now
        return self._times.every > 0 and there and now >= self._at

    def changed(self, times: Times, now: float) -> "Due":
        """Return what is due by other times: no later than these say, nor than it was."""
        other = copy(self)
        other._times = times  # noqa: SLF001 - of its own class
        if self._asked and self._at < inf:
            other._at = min(self._at, now + self._spread(times.every))  # noqa: SLF001
        return other

    def answered(self, now: float, *, drifted: bool, local: bool) -> None:
        """Note what it said."""
        self._asked, self._pause = True, SOON
        self._at = inf if local else now + self._spread(self._after(drifted=drifted))

    def failed(self, now: float) -> None:
        """Note that it did not answer."""
        self._at = now + self._spread(min(self._pause, self._times.every))
        self._pause = min(2 * self._pause, AGAIN)

    def told(self, now: float, age: float, *, drifted: bool) -> None:
        """Note what somebody else has found out so many seconds ago."""
        if self._asked and self._at < inf:
            self._at = now + max(0.0, self._spread(self._after(drifted=drifted)) - max(0.0, age))

    def forgot(self, now: float) -> None:
        """Note that nothing is kept of it any more."""
        self._at = now + self._times.delay

    def _after(self, *, drifted: bool) -> float:
        return min(self._times.every, AGAIN) if drifted else self._times.every

    def _spread(self, pause: float) -> float:
        return pause * (1 - _EARLIER * self._chance())
