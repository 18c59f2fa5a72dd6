"""A thread's connection to the file of a SQLite store, whatever becomes of that file."""

import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import structlog

from gateway.cache.sqlite_errors import FAILURES, Failure, NotOursError, reason_of
from gateway.cache.sqlite_file import (
    CACHE,
    Layout,
    Mark,
    connect,
    create,
    locked,
    make_directory,
    mark_of,
    set_aside,
)
from gateway.cache.store import ForeignStoreError, StoreError

T = TypeVar("T")

_ATTEMPTS = 4


class Database:
    """Opens the file when it is first used, and whenever another one lies in its place.

    Used by one thread, but for `file`, which anybody may read.
    """

    def __init__(
        self,
        path: Path,
        *,
        writing: bool,
        log: structlog.stdlib.BoundLogger,
        clock: Callable[[], float],
        layout: Layout = CACHE,
    ) -> None:
        self._layout = layout
        self._path = path
        self._writing = writing
        self._log = log
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._mark: Mark | None = None

    @property
    def file(self) -> Mark | None:
        """Which file is open; None if none is."""
        return self._mark[:2] if self._connection is not None and self._mark else None

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returned on the file that lay at the path when it had ended.

        It runs again if another file came to lie there, or the file was damaged and has been set
        aside. What it began and did not end is undone if it fails. Raises StoreError.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                result = work(self._connection or self._open())
                if self._is_current():
                    return result
                self.close()
            except FAILURES as failure:
                self._roll_back()
                self._recover(failure, last=attempt == _ATTEMPTS)
            except BaseException:
                self._roll_back()
                raise
        raise StoreError("error", "the file is replaced again and again")

    def close(self) -> None:
        """Let go of the file, until it is used again."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with ExitStack() as stack:
            with suppress(OSError):  # a file that was moved away needs no lock
                stack.enter_context(locked(self._path))
            with suppress(sqlite3.Error):
                connection.close()

    def _open(self) -> sqlite3.Connection:
        make_directory(self._path.parent)
        with locked(self._path):
            if mark_of(self._path) is None:
                create(self._path, self._layout)
            self._mark = mark_of(self._path)
            self._connection, self._mark = connect(self._path, self._layout, writing=self._writing)
        return self._connection

    def _is_current(self) -> bool:
        if self._mark is None:
            return False
        try:
            return self._mark == mark_of(self._path, frozen=len(self._mark) > 2)
        except OSError:
            return False  # opening it again will tell

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _recover(self, failure: Failure, *, last: bool) -> None:
        """Return if it is worth another attempt, else raise StoreError."""
        reason = reason_of(failure, self._path)
        moved = self._connection is not None and not self._is_current()
        if moved or reason not in {"timeout", "full"}:
            self.close()
        if isinstance(failure, NotOursError) and not moved:
            raise ForeignStoreError(str(failure)) from failure
        if last or not (moved or reason in {"corrupt", "error"}):
            raise StoreError(reason, str(failure)) from failure
        if reason == "corrupt" and not moved:
            self._set_aside(failure)

    def _set_aside(self, failure: Failure) -> None:
        try:
            with locked(self._path):
                aside = set_aside(self._path, self._mark, self._clock())
        except TimeoutError as late:
            raise StoreError("timeout", str(late)) from late
        except OSError as refused:
            message = f"{failure}; the file could not be set aside: {refused.strerror}"
            raise StoreError("corrupt", message) from refused
        if aside is not None:
            self._log.error("cache file set aside", file=str(aside), error=str(failure))
