"""Files that are there whole or not at all, and are read by nobody but their owner."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gateway.commands.opened import CommandError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes this name when the block ends well, and is removed if it does not.

    What is no regular file, such as a pipe or /dev/null, is written to as it is. Raises
    CommandError where nothing can be written.
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
        if made is not None:
            made.replace(path)
    except BaseException:
        if made is not None:
            made.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> tuple[BinaryIO, Path]:
    handle, made = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    return os.fdopen(handle, "wb"), Path(made)
