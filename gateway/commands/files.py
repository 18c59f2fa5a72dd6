"""Files that are there whole or not at all, and are read by nobody but their owner."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import BinaryIO

from gateway.commands.opened import CommandError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes this name when the block ends well, and is removed if it does not.

    What is no regular file, such as a pipe or /dev/null, is written to as it is. What a process
    that was killed has left beside it is removed. Raises CommandError where nothing can be written.
    """
    path = Path(os.path.realpath(path))
    special = path.exists() and not path.is_file()
    try:
        out, made = (path.open("wb"), None) if special else _beside(path)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with out:
            yield out
            out.flush()
            if made is not None:
                os.fsync(out.fileno())
                # Before it is closed, for it is locked: nobody takes it for a leftover.
                made.replace(path)
    except BaseException:
        if made is not None:
            made.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> tuple[BinaryIO, Path]:
    """Make a file that is locked while it is open, so that others see that its process lives."""
    _sweep(path)
    while True:
        handle, made = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        out = os.fdopen(handle, "wb")
        if _is_ours(out):
            return out, Path(made)
        out.close()


def _is_ours(out: BinaryIO) -> bool:
    """Lock a new file; return False if somebody who swept was quicker."""
    try:
        flock(out, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks in this file system: nobody can sweep there either
        return True
    return os.fstat(out.fileno()).st_nlink > 0


def _sweep(path: Path) -> None:
    """Remove what processes that are gone have left of this file, as far as that can be done."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.part")
    with suppress(OSError):
        for left in path.parent.iterdir():
            if ours.fullmatch(left.name):
                _remove_unless_locked(left)


def _remove_unless_locked(left: Path) -> None:
    with suppress(OSError):
        handle = os.open(left, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            flock(file, LOCK_EX | LOCK_NB)
            left.unlink()
