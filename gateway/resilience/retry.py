"""When to ask again, and how long to wait first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter: up to `base`·2^k seconds, at most `cap`.

    `attempts` counts all calls, the first one too; None is bounded by the deadline alone.
    `chance` returns numbers in [0, 1).
    """

    chance: Callable[[], float]
    attempts: int | None = 3
    base: float = 0.25
    cap: float = 8.0

    def wait(self, attempt: int, remaining: float, asked: float | None = None) -> float | None:
        """Return seconds to wait after call number `attempt` (from 1) failed; None: give up.

        `asked` is the upstream's Retry-After; we never come back sooner. A retry that could not
        start before `remaining` seconds are over is not begun.
        """
        if self.attempts is not None and attempt >= self.attempts:
            return None
        backoff = min(self.cap, self.base * 2.0 ** min(attempt - 1, 30)) * self.chance()
        wait = backoff if asked is None else max(asked, backoff)
        return wait if wait < remaining else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that `retry-after-ms` or `retry-after` ask for (RFC 9110, 10.2.3).

    `now` is Unix time, for the form that gives a date. Nonsense counts as not said.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            seconds = _date(value, now)
        if 0.0 <= seconds < float("inf"):
            return seconds
    return None


def _date(value: str, now: float) -> float:
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return -1.0
