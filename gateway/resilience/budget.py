"""How many calls may be made again. Pure: an account that every first call pays into."""

from collections.abc import Callable


class RetryBudget:
    """A reserve of retries. When most calls fail, asking again only makes it worse.

    Each first call adds `share` of a retry and time adds one each `trickle` seconds, up to
    `reserve`; so over a long time retries are at most `share` of the calls, and one that is seldom
    asked may still be asked again.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        share: float = 0.1,
        reserve: float = 5.0,
        trickle: float = 20.0,
    ) -> None:
        """`clock` gives seconds that never go back; the reserve is full at first."""
        self._clock = clock
        self._share = share
        self._reserve = reserve
        self._trickle = trickle
        self._left = reserve
        self._filled = clock()

    def deposit(self) -> None:
        """Take note of a first call."""
        self._left = min(self._left + self._share, self._reserve)

    def withdraw(self) -> bool:
        """Take one retry out; return whether there was one."""
        now = self._clock()
        self._left = min(self._left + (now - self._filled) / self._trickle, self._reserve)
        self._filled = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
