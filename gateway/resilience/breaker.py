"""When to leave somebody alone who does not answer. Pure: it decides, and does nothing."""


class Breaker:
    """Open after a failure, until a probe works. Probes are somebody's own task, not requests.

    One failure is enough, as nobody waits for a probe: it may come soon and cost nothing. The
    pause before each doubles up to `longest` seconds.
    """

    def __init__(self, *, shortest: float = 0.05, longest: float = 0.5) -> None:
        self._shortest = shortest
        self._longest = longest
        self._pause = shortest
        self.is_open = False

    def failed(self) -> bool:
        """Take note of a failure; return whether it is the first after a success."""
        first = not self.is_open
        self._pause = self._shortest if first else min(2 * self._pause, self._longest)
        self.is_open = True
        return first

    def worked(self) -> bool:
        """Take note of a success; return whether it is the first after a failure."""
        was_open, self.is_open = self.is_open, False
        return was_open

    @property
    def pause(self) -> float:
        """Seconds until the next probe, or until somebody looks again whether all is well."""
        return self._pause if self.is_open else self._longest
