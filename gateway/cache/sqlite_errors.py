"""What SQLite and the system say when something fails, as a StoreError's reason."""

import errno
import os
import sqlite3
from pathlib import Path

NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_LITTLE_ROOM = 2**20
_REASONS = {
    sqlite3.SQLITE_BUSY: "timeout",
    sqlite3.SQLITE_LOCKED: "timeout",
    sqlite3.SQLITE_PROTOCOL: "timeout",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    # No statement of ours can run into these in a sound file: rows that are there already are left
    # alone, and no batch comes near the limit on one value.
    sqlite3.SQLITE_CONSTRAINT: "corrupt",
    sqlite3.SQLITE_MISMATCH: "corrupt",
    sqlite3.SQLITE_TOOBIG: "corrupt",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "readonly",
}


class LayoutError(Exception):
    """The file is a database of ours that is damaged, or of an earlier version."""


class NotOursError(Exception):
    """There is something at the path that was never a store: it is left alone."""


class NewerLayoutError(Exception):
    """The file is of a later version of this program, which others may be using now."""


Failure = (
    sqlite3.Error | OSError | LayoutError | NewerLayoutError | NotOursError | UnicodeDecodeError
)
FAILURES = (
    sqlite3.Error,
    OSError,
    LayoutError,
    NewerLayoutError,
    NotOursError,
    UnicodeDecodeError,
)
"""What may go wrong with a file. The last is what Python makes of SQLite's words about a damaged
schema, as they quote it."""


def reason_of(failure: Failure, path: Path) -> str:
    """Return the reason; "corrupt" says that the file at the path has to be set aside."""
    if isinstance(failure, LayoutError | UnicodeDecodeError):
        return "corrupt"
    if isinstance(failure, NewerLayoutError | NotOursError):
        return "refused"
    if isinstance(failure, OSError):
        return _reason_of_system(failure)
    code = getattr(failure, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_IOERR and _has_little_room(path.parent):
        return "full"
    if code == sqlite3.SQLITE_CANTOPEN and not os.access(path.parent, os.W_OK):
        return "readonly"
    return _REASONS.get(code, "error")


def _reason_of_system(failure: OSError) -> str:
    if isinstance(failure, TimeoutError):
        return "timeout"
    if failure.errno in _FULL:
        return "full"
    return "readonly" if failure.errno in NOT_WRITABLE else "error"


def _has_little_room(directory: Path) -> bool:
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _LITTLE_ROOM
