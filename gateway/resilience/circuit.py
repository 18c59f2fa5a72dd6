"""Whether an upstream is left alone, learned from what became of its calls. Pure.

It is told of every call's outcome and decides about the next one; nobody probes on the side. Of two
ways to suffer, the lesser counts: who can go elsewhere gives up on an upstream that fails often,
who cannot only on one that has answered next to nothing for a while.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half-open"]
Reason = Literal["timeout", "connect", "5xx", "bad_answer"]


@dataclass(frozen=True, slots=True)
class Limits:
    """When enough is enough. Times are in seconds."""

    calls: int = 20
    """The newest so many calls are looked at,"""
    window: float = 10.0
    """as far as they ended within this time,"""
    least: int = 5
    """and if they are at least so many."""
    ailing: float = 0.3
    """The part of them that has failed when others are asked instead."""
    lost: float = 0.9
    """The part that has failed when nobody is let through, though there is no other;"""
    patience: float = 1.0
    """it has to last so long, as a proxy that restarts breaks many calls at once."""
    shortest: float = 5.0
    """Until the first probe; twice as long after each that fails,"""
    longest: float = 60.0
    """and at most so long."""
    cooling: float = 1.0
    """How long an upstream that wants fewer calls is spared if it does not say."""


USUAL = Limits()

_SOON = 1.0
"""Seconds until somebody who came while a probe was under way may come back."""


class Circuit:
    """Closed while calls succeed, open after too many failures, then half-open for one probe.

    Whoever makes a call asks `permits`, says `begun`, and tells one outcome.
    """

    def __init__(self, clock: Callable[[], float], limits: Limits = USUAL) -> None:
        """`clock` gives seconds that never go back."""
        self.reason: Reason | None = None
        """Why the newest call that failed did."""
        self.cooling = 0.0
        """The time of the clock until which it asked to be left alone; 0 if it did not."""
        self.opened = 0
        """How often it has opened so far."""
        self._clock = clock
        self._limits = limits
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=limits.calls)
        """When each of the newest calls ended, and whether it failed."""
        self._until: float | None = None
        """When a probe may be made; None while closed."""
        self._pause = limits.shortest
        self._dire: float | None = None
        """Since when next to nothing succeeds."""
        self._lost = False
        self._probed: float | None = None
        """When the probe was begun that is under way."""

    @property
    def state(self) -> State:
        """Open is told from half-open by the clock."""
        if self._until is None:
            return "closed"
        return "open" if self._clock() < self._until else "half-open"

    def wait(self, *, stand_in: bool) -> float:
        """Return about how many seconds it takes until a call is let through; see `permits`."""
        now = self._clock()
        closed = self._until is None or not (stand_in or self._lost)
        spared = max(self.cooling - now, 0.0) if stand_in else 0.0
        return spared if closed else max((self._until or now) - now, spared, _SOON)

    def permits(self, *, stand_in: bool) -> bool:
        """Return whether a call may be begun now; in half-open one at a time.

        `stand_in`: another upstream could serve instead, so this one is given up sooner.
        """
        now = self._clock()
        if stand_in and now < self.cooling:
            return False
        if self._until is None or not (stand_in or self._lost):
            return True
        # A probe that takes long may just be a long chat: nobody waits for its end for ever.
        spared = self._until if self._probed is None else self._probed + self._limits.shortest
        return now >= spared

    def begun(self) -> None:
        """Take note that a call was begun: while half-open, it is the probe."""
        if self.state == "half-open":
            self._probed = self._clock()

    def succeeded(self) -> None:
        """Take note of an answer, of whatever content: the client's mistakes are answers too."""
        self._note(failed=False)
        self._answered()

    def failed(self, reason: Reason) -> None:
        """Take note of a call without a sound answer."""
        self.reason = reason
        now, state = self._clock(), self.state
        self._note(failed=True)
        part = self._part_failed(now)
        if part < self._limits.lost:
            self._dire = None
        elif self._dire is None:
            self._dire = now
        lost = self._dire is not None and now - self._dire >= self._limits.patience
        if state == "half-open":
            self._pause = min(2 * self._pause, self._limits.longest)
            self._open(now)
        elif (state == "closed" and part >= self._limits.ailing) or (lost and not self._lost):
            self._open(now)
        self._lost = self._lost or lost

    def throttled(self, after: float | None) -> None:
        """Take note that it wants fewer calls, for `after` seconds if it said. It is alive."""
        spared = self._limits.cooling if after is None else min(after, self._limits.longest)
        self.cooling = max(self.cooling, self._clock() + spared)
        self._answered()

    def abandoned(self) -> None:
        """Take note of a call that was called off: nothing is learned."""
        self._probed = None

    def _answered(self) -> None:
        if self._dire is not None and self._part_failed(self._clock()) < self._limits.lost:
            self._dire = None
        if self.state == "half-open":
            self._outcomes.clear()
            self._until = self._dire = None
            self._pause = self._limits.shortest
            self._lost = False
        self._probed = None

    def _open(self, now: float) -> None:
        self.opened += 1
        self._until = now + self._pause
        self._probed = None

    def _note(self, *, failed: bool) -> None:
        self._outcomes.append((self._clock(), failed))

    def _part_failed(self, now: float) -> float:
        """Return the part of the newest calls that failed; 0 where they are too few to tell."""
        outcomes, limits = self._outcomes, self._limits
        while outcomes and outcomes[0][0] <= now - limits.window:
            outcomes.popleft()
        if len(outcomes) < limits.least:
            return 0.0
        return sum(failed for _, failed in outcomes) / len(outcomes)
