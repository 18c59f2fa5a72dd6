"""The file of a SQLite store: made, opened, and set aside when it is damaged.

A file that is replaced is renamed, never written over: who has it open goes on with the old one,
finds at its next job that another lies at the path, and opens that. Opening, closing and setting
aside exclude each other among all processes by a lock file, because SQLite opens and removes the
files beside a database (`-wal`, `-shm`) by name: whose they are must not change in between.
"""

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from gateway.cache.sqlite_errors import (
    NOT_WRITABLE,
    LayoutError,
    NewerLayoutError,
    NotOursError,
    reason_of,
)

_ENTRIES = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    entries INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    key BLOB NOT NULL,
    created REAL NOT NULL,
    used INTEGER NOT NULL,
    size INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE UNIQUE INDEX entries_by_key ON entries (namespace, key);
CREATE INDEX entries_by_age ON entries (namespace, created);
CREATE INDEX entries_by_use ON entries (used);
CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN
    UPDATE namespaces SET entries = entries + 1, bytes = bytes + new.size
    WHERE id = new.namespace;
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    UPDATE namespaces SET entries = entries - 1, bytes = bytes - old.size
    WHERE id = old.namespace;
END;
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """What is in a database, and how it says so."""

    version: int
    """Raised whenever a table changes its form or a column its meaning."""
    application: int
    """Stands in the header of every file that was made so."""
    schema: str


CACHE = Layout(1, int.from_bytes(b"EGWc"), _ENTRIES)
"""The cache's own."""

_OBJECTS = "SELECT CAST(name AS BLOB), CAST(sql AS BLOB) FROM sqlite_master WHERE sql NOT NULL"
_SETTINGS = """
PRAGMA synchronous = NORMAL;
PRAGMA mmap_size = 0;
PRAGMA cache_size = -8192;
PRAGMA journal_size_limit = 67108864;
PRAGMA secure_delete = ON;
PRAGMA cell_size_check = ON;
PRAGMA trusted_schema = OFF;
PRAGMA temp_store = MEMORY;
"""
"""A mapped file that is cut short ends the process; a read one is an error. What is removed is
overwritten. Temporary files would hold what the database holds, elsewhere."""

_LATER = 100
"""Layouts that may come; a higher number is a damaged one."""
_BUSY = 2.0
"""Seconds to wait for a lock that another process holds."""
_KEPT_ASIDE = 3
_BESIDE = ("-wal", "-shm", "-journal")

Mark = tuple[int, ...]
"""Tells a file from another one at the same path."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Exclude all others that open, close or set aside this database.

    Raises TimeoutError after two seconds. Where no lock file can be made, nothing else can.
    """
    lock = _open_lock(_named(path, ".lock"))
    if lock is None:
        yield
        return
    try:
        deadline = time.monotonic() + _BUSY
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise TimeoutError("another process holds the lock file")
            time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def _open_lock(lock: Path) -> int | None:
    try:
        return _new(lock)
    except FileExistsError:
        return os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in NOT_WRITABLE:
            return None
        raise


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _new(path: Path) -> int:
    """Make a file that only its owner may read, from its first moment on; return it open."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)  # the umask may have taken even that
    return descriptor


def mark_of(path: Path, *, frozen: bool = False) -> Mark | None:
    """Return the mark of the file at a path; None if there is none.

    That of a `frozen` one, which is opened as if it could not change, changes with its content.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if frozen:
        beside = _named(path, "-wal")
        unmerged = beside.stat().st_size if beside.exists() else 0
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, unmerged
    return found.st_dev, found.st_ino


def make_directory(directory: Path) -> None:
    """Make it and those above it, where they are missing, for their owner only."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    for each in reversed(missing):
        with suppress(FileExistsError):
            each.mkdir(mode=0o700)
            each.chmod(0o700)


def create(path: Path, layout: Layout) -> None:
    """Make a database where there is none; for who holds the lock.

    It is made beside its place and moved there whole, so who finds a file finds a finished one.
    """
    new = _named(path, ".new")
    for leftover in (new, *(_named(base, suffix) for base in (new, path) for suffix in _BESIDE)):
        leftover.unlink(missing_ok=True)
    os.close(_new(new))
    connection = _connect(new, "mode=rw")
    try:
        connection.executescript(layout.schema)
        connection.execute("INSERT INTO facts VALUES ('epoch', ?)", (os.urandom(16),))
        connection.execute(f"PRAGMA application_id = {layout.application}")
        connection.execute(f"PRAGMA user_version = {layout.version}")
    finally:
        connection.close()
    new.rename(path)


def connect(path: Path, layout: Layout, *, writing: bool) -> tuple[sqlite3.Connection, Mark | None]:
    """Open the database at a path, and say by which mark it is known; for who holds the lock.

    For reading, one that may not be written will do. Raises one of FAILURES.
    """
    mark = mark_of(path)
    if not path.is_file():
        raise NotOursError(f"{path} is no regular file; name another place for the store")
    try:
        if not os.access(path, os.W_OK):
            # SQLite would open it all the same, and make files beside it that nobody can write.
            raise PermissionError(errno.EACCES, "the file may not be written")
        return _checked(_connect(path, "mode=rw"), layout), mark
    except (sqlite3.OperationalError, PermissionError) as failure:
        if writing or reason_of(failure, path) not in {"readonly", "full"}:
            raise
    frozen = mark_of(path, frozen=True)
    if frozen is None or frozen[-1]:
        return _checked(_connect(path, "mode=ro"), layout), mark
    # Nothing waits beside it to be merged, and SQLite may make no file to say that it reads: the
    # database is whole, and is read as it is until its mark changes.
    return _checked(_connect(path, "mode=ro&immutable=1"), layout), frozen


def _connect(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?{how}", uri=True, timeout=_BUSY, isolation_level=None
    )
    try:
        connection.text_factory = _decoded
        connection.executescript(_SETTINGS)
    except BaseException:
        connection.close()
        raise
    return connection


def _decoded(text: bytes) -> str:
    return text.decode(errors="replace")


def _checked(connection: sqlite3.Connection, layout: Layout) -> sqlite3.Connection:
    """Return it if it is of our layout; the first read also opens the files beside it.

    Every word of the schema is compared: one bit of a trigger changes what a write does.
    """
    try:
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        ours, objects = layout.version, connection.execute(_OBJECTS).fetchall()
        if version == ours and _objects(layout).issubset(objects):
            return connection
        _refuse_anothers(connection, layout)
        if ours < version <= ours + _LATER:
            # Not set aside: during an update both versions run, and would take turns at that.
            raise NewerLayoutError(f"its layout is {version}, of a later version than this one")
        if version != ours:
            raise LayoutError(f"its layout is {version}, not {ours}")
        raise LayoutError("its tables are not those that were made")
    except BaseException:
        connection.close()
        raise


def _refuse_anothers(connection: sqlite3.Connection, layout: Layout) -> None:
    """Raise NotOursError for a sound database of another program, which one slip in a path names.

    It says nothing of us in its header, and none of its tables has a name of ours.
    """
    ((application,),) = connection.execute("PRAGMA application_id").fetchall()
    names = {name for name, _ in connection.execute(_OBJECTS).fetchall()}
    ours = {name for name, _ in _objects(layout)}
    if application != layout.application and names and not names & ours:
        raise NotOursError("it is the database of another program; name another file for the store")


@cache
def _objects(layout: Layout) -> frozenset[tuple[bytes, bytes]]:
    """Return name and definition of all that is in a database of ours."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(layout.schema)
        return frozenset(connection.execute(_OBJECTS).fetchall())


def set_aside(path: Path, mark: Mark | None, now: float) -> Path | None:
    """Rename a damaged database, unless another one lies there; for who holds the lock.

    Returns its new name, or None. Of those set aside before, the newest are kept.
    """
    if mark is None or mark_of(path) != mark[:2]:
        return None
    moment = datetime.fromtimestamp(now, UTC)
    while (aside := _named(path, f".corrupt-{moment:%Y%m%dT%H%M%S.%fZ}")).exists():
        moment += timedelta(microseconds=1)
    path.rename(aside)
    for suffix in _BESIDE:
        with suppress(FileNotFoundError):
            _named(path, suffix).rename(_named(aside, suffix))
    for old in _set_aside_before(path)[:-_KEPT_ASIDE]:
        for file in (old, *(_named(old, suffix) for suffix in _BESIDE)):
            file.unlink(missing_ok=True)
    return aside


def _set_aside_before(path: Path) -> list[Path]:
    begins = path.name + ".corrupt-"
    found = [file for file in path.parent.iterdir() if file.name.startswith(begins)]
    return sorted(file for file in found if file.name.endswith("Z"))


def _named(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
