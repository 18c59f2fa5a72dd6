"""How long somebody has waited for others: in turn, or for several at the same time."""

from collections.abc import Callable


class Waiting:
    """A clock that runs while at least one `with` block over it does.

    So calls made at the same time count once, and a request's own time is what is left.
    """

    __slots__ = ("_clock", "_open", "_seconds", "_since")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open = 0
        self._since = 0.0
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """Seconds so far, those of blocks that are still open included."""
        return self._seconds + (self._clock() - self._since if self._open else 0.0)

    def __enter__(self) -> None:
        if not self._open:
            self._since = self._clock()
        self._open += 1

    def __exit__(self, *_: object) -> None:
        self._open -= 1
        if not self._open:
            self._seconds += self._clock() - self._since
