"""The crash journal: which text was being worked on when the engine died.

A C assert or a kill leaves no time to say anything, so each thread writes the digest of its text
into a slot of a memory-mapped file before it begins, and zeros when it is done. What stands in the
slots at the next start was in work at the death. Three deaths make a text refused for an hour; one
success clears it, which clears the innocent that were in work beside the culprit.

Knows keyed digests and times, never texts: whoever reads the file learns nothing.

Layout, little-endian: header (magic, slots, rows, CRC-32 of the three), then `slots` digests, then
`rows` of (digest, deaths, time of the last). Whatever does not add up is begun anew.
"""

import hashlib
import math
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

DEATHS = 3
REFUSED_SECONDS = 3600.0
DIGEST = 32
MAX_SLOTS = 4096
ROWS = 1024

_MAGIC = b"EGWJRNL1"
_HEADER = struct.Struct("<8sIII")
_ROW = struct.Struct(f"<{DIGEST}sId")
_IDLE = bytes(DIGEST)

Suspects = dict[bytes, tuple[int, float]]
"""Digest to (deaths, time of the last one)."""


class Journal:
    """The slots of one engine and the texts suspected of killing it.

    `enter` and `leave` are for the thread that owns the slot; the rest may be called by any.
    """

    def __init__(self, path: Path, key: bytes, slots: int, clock: Callable[[], float]) -> None:
        """Read what an earlier engine left at `path`, count its deaths, and begin a new file.

        `clock` gives seconds that mean the same after a restart (`time.time`). Raises OSError
        where the file cannot be written.
        """
        self._key = key
        self._slots = slots
        self._clock = clock
        now = clock()
        rows = _recover(path, now)
        self._suspects = dict(rows)
        _write_whole(path, slots, rows)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        first = _HEADER.size + slots * DIGEST
        self._rows = {digest: first + n * _ROW.size for n, digest in enumerate(rows)}

    def close(self) -> None:
        """Empty the slots: leaving in good order accuses nobody."""
        self._map[_HEADER.size : _HEADER.size + self._slots * DIGEST] = bytes(self._slots * DIGEST)
        self._map.flush()

    def digest(self, kind: bytes, data: bytes) -> bytes:
        """Return the keyed digest of a text (or ids); `kind` keeps the two apart."""
        return hashlib.blake2b(data, digest_size=DIGEST, key=self._key, person=kind).digest()

    def enter(self, slot: int, digest: bytes) -> None:
        """Write that `slot` now works on `digest`."""
        at = _HEADER.size + slot * DIGEST
        self._map[at : at + DIGEST] = digest

    def leave(self, slot: int) -> None:
        """Write that `slot` works on nothing."""
        at = _HEADER.size + slot * DIGEST
        self._map[at : at + DIGEST] = _IDLE

    def suspected(self, digest: bytes) -> bool:
        """Return whether an engine died over this text, and no engine has survived it since."""
        return digest in self._suspects

    def clear(self, digest: bytes) -> None:
        """Write that an engine has survived this text."""
        if self._suspects.pop(digest, None) is not None:
            at = self._rows.pop(digest)
            self._map[at : at + _ROW.size] = bytes(_ROW.size)

    def refused(self, digest: bytes) -> bool:
        """Return whether this text is not to be tried now."""
        deaths, last = self._suspects.get(digest, (0, 0.0))
        return deaths >= DEATHS and self._clock() - last < REFUSED_SECONDS


def _recover(path: Path, now: float) -> Suspects:
    """Return the suspects an earlier engine left, with its own death counted."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    if len(data) < _HEADER.size:
        return {}
    magic, slots, rows, check = _HEADER.unpack_from(data)
    whole = _HEADER.size + slots * DIGEST + rows * _ROW.size
    if (magic, check) != (_MAGIC, _check(slots, rows)) or len(data) != whole:
        return {}
    suspects: Suspects = {}
    first = _HEADER.size + slots * DIGEST
    for digest, deaths, last in _ROW.iter_unpack(data[first:]):
        # A row older than the refusal, or from a clock that has been set back, is forgotten.
        if deaths and math.isfinite(last) and 0 <= now - last < REFUSED_SECONDS:
            suspects[digest] = (min(deaths, DEATHS), last)
    for digest in _busy(data, slots):
        deaths, _ = suspects.pop(digest, (0, now))
        suspects[digest] = (min(deaths + 1, DEATHS), now)
    # The latest deaths are the last; what no longer fits is the oldest.
    return dict(list(suspects.items())[-ROWS:])


def _busy(data: bytes, slots: int) -> Iterator[bytes]:
    """Yield each digest that stands in a slot, once."""
    starts = range(_HEADER.size, _HEADER.size + slots * DIGEST, DIGEST)
    found = dict.fromkeys(data[start : start + DIGEST] for start in starts)
    return (digest for digest in found if digest != _IDLE)


def _write_whole(path: Path, slots: int, suspects: Suspects) -> None:
    """Put a new file in the place of the old one at once: a kill leaves either, never half."""
    rows = [_ROW.pack(digest, *found) for digest, found in suspects.items()]
    rows += [bytes(_ROW.size)] * (ROWS - len(rows))
    header = _HEADER.pack(_MAGIC, slots, ROWS, _check(slots, ROWS))
    data = header + bytes(slots * DIGEST) + b"".join(rows)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    new.replace(path)


def _check(slots: int, rows: int) -> int:
    return zlib.crc32(struct.pack("<8sII", _MAGIC, slots, rows))
