"""How far a command is: a bar on a terminal, a plain line now and then everywhere else."""

import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

_REDRAWN = 0.1
_TOLD = 30.0
"""Seconds between two lines where nobody watches."""
_BAR = 20


class Progress:
    """Counts what is done of something; the bar is gone when the block ends."""

    def __init__(
        self,
        what: str,
        total: int | None,
        out: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`what` is counted, in the plural; `total` is None where it is not known."""
        self.done = 0
        self.total = total
        self.note = ""
        """Said behind the numbers."""
        self._what = what
        self._out = out
        self._clock = clock
        self._watched = out.isatty()
        self._began = clock()
        self._told = self._began
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        if self._drawn:
            self._say("\r\x1b[K")

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return self._clock() - self._began

    def add(self, count: int) -> None:
        """Count what was done, and show it if it is time."""
        self.done += count
        now = self._clock()
        if now - self._told < (_REDRAWN if self._watched else _TOLD):
            return
        self._told = now
        if not self._watched:
            self._say(self.line() + "\n")
            return
        self._drawn = True
        columns = shutil.get_terminal_size().columns - 1
        self._say("\r" + f"{self._bar()}{self.line()}"[:columns] + "\x1b[K")

    def line(self) -> str:
        """Return how far it is, in words."""
        parts = [f"{self.done:,} {self._what}"]
        if self.total is not None:
            parts = [f"{self.done:,} of {self.total:,} {self._what}"]
        rate = self.done / max(self.seconds, 1e-9)
        parts.append(f"{rate:,.0f}/s")
        if self.total is not None and rate > 0:
            parts.append(f"{_span((self.total - self.done) / rate)} left")
        return ", ".join([*parts, self.note] if self.note else parts)

    def _bar(self) -> str:
        if not self.total:
            return ""
        filled = min(_BAR, _BAR * self.done // self.total)
        return f"[{'#' * filled}{'-' * (_BAR - filled)}] "

    def _say(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _span(seconds: float) -> str:
    """Return a time as a clock shows it."""
    minutes, second = divmod(round(max(0.0, seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
