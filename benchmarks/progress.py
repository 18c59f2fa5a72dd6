"""One living line that says what is being done, and notes that stay. Both go to stderr."""

import sys
from typing import TextIO


class Say:
    """Call it with what is being done now; on a terminal each line replaces the last."""

    def __init__(self, out: TextIO = sys.stderr) -> None:
        self._out = out
        self.notes: list[str] = []
        """What was left out and why, for the report."""

    def __call__(self, doing: str) -> None:
        """Show what is being done."""
        if self._out.isatty():
            self._out.write(f"\r\x1b[K{doing}")
        else:
            self._out.write(f"{doing}\n")
        self._out.flush()

    def note(self, text: str) -> None:
        """Show something that stays."""
        self.notes.append(text)
        self.done()
        self._out.write(f"{text}\n")

    def done(self) -> None:
        """Leave the living line."""
        if self._out.isatty():
            self._out.write("\r\x1b[K")
