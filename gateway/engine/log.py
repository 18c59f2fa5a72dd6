"""The engine's log: one JSON object a line on standard error, which the parent merges into its own.

Knows no texts: whoever logs names numbers, paths of models and llama.cpp's own words.
"""

import logging
import os
import traceback
from typing import Any

import msgspec

STDERR = 2


class Log:
    """Writes lines to a file descriptor; one write a line, so threads do not mix."""

    LEVELS = ("debug", "info", "warning", "error")

    def __init__(self, level: str = "info", fd: int = STDERR) -> None:
        """Write lines of this level and above."""
        self._fd = fd
        self._written = frozenset(self.LEVELS[self.LEVELS.index(level) :])

    def writes(self, level: str) -> bool:
        """Return whether lines of this level are written."""
        return level in self._written

    def write(self, level: str, event: str, **fields: Any) -> None:
        """Write one line; a parent that no longer reads is no error."""
        if self.writes(level):
            self.tell(level, event, **fields)

    def tell(self, level: str, event: str, **fields: Any) -> None:
        """Write one line whatever the level: one that the parent waits for, not people."""
        line = msgspec.json.encode({"level": level, "event": event, **fields}) + b"\n"
        try:
            os.write(self._fd, line)
        except OSError:
            # The parent is gone, or stopped reading; there is nobody left to tell.
            return


class LogHandler(logging.Handler):
    """Brings the server library's records into the engine's log.

    Of an exception only its type and place are written: its words could hold a text.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.DEBUG if log.writes("debug") else logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line."""
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            fields["error"] = type(record.exc_info[1]).__name__
            fields["trace"] = [f"{frame.filename}:{frame.lineno}" for frame in frames]
            message = "exception in the server"
        else:
            message = record.getMessage()
        level = "error" if record.levelno >= logging.ERROR else record.levelname.lower()
        self._log.write(level, "server", message=message, **fields)
