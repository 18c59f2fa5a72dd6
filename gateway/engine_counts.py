"""What an engine has done in all its lives: a few numbers in a file that outlives its process.

A keeper's engine may crash, idle away and be started again; what it counts goes on. The engine
writes each number in place, so a kill at any moment costs at most what it was about to add. Who
reads it needs neither the engine nor its keeper.
"""

import mmap
import struct
from bisect import bisect_left
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Self

COUNTS = ".counts"
"""The ending of the file's name, which else is that of the engine's other files."""
WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds, in seconds, of the buckets that waits are counted in; above them is one more."""

_NUMBER = struct.Struct("<d")
_FORM = struct.Struct(f"<{3 + len(WAITS) + 1}d")
_TEXTS, _TOKENS, _SECONDS, _FIRST_WAIT = range(4)


class EngineCounts(NamedTuple):
    """What was counted so far."""

    texts: int = 0
    """Texts or chats that were decoded."""
    tokens: int = 0
    """Tokens that were decoded and written."""
    wait_seconds: float = 0.0
    """Sum of all waits."""
    waits: tuple[int, ...] = (0,) * (len(WAITS) + 1)
    """Waits in each bucket."""


def read_counts(path: Path) -> EngineCounts:
    """Return what a file holds; nothing was counted where there is none."""
    try:
        texts, tokens, seconds, *waits = _FORM.unpack(path.read_bytes())
    except (OSError, struct.error):
        return EngineCounts()
    return EngineCounts(int(texts), int(tokens), seconds, tuple(map(int, waits)))


class EngineCounter:
    """Counts into a file; from any thread."""

    def __init__(self, path: Path) -> None:
        """Go on from what is there. Raises OSError where the file cannot be written."""
        with path.open("a+b") as file:
            if file.tell() != _FORM.size:
                file.truncate(0)
                file.truncate(_FORM.size)
            self._map = mmap.mmap(file.fileno(), _FORM.size)
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()

    def decoded(self, texts: int, tokens: int) -> None:
        """Count what was decoded."""
        with self._lock:
            self._add(_TEXTS, texts)
            self._add(_TOKENS, tokens)

    def waited(self, seconds: float) -> None:
        """Count the wait of a request."""
        with self._lock:
            self._add(_FIRST_WAIT + bisect_left(WAITS, seconds), 1)
            self._add(_SECONDS, seconds)

    def _add(self, number: int, amount: float) -> None:
        at = number * _NUMBER.size
        (before,) = _NUMBER.unpack_from(self._map, at)
        # Not pack_into, which writes zeros first: a reader would see the count fall.
        self._map[at : at + _NUMBER.size] = _NUMBER.pack(before + amount)
