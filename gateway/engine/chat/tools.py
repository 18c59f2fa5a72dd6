"""The text of an answer becomes content and calls, as it is written.

A call is given out whole, when its last character is there: until then it may turn out to be none,
and then it is content, as everything is that is no call of a function the request knows. Nothing is
lost but what parts calls. Knows streams; the notations are in `tool_formats.py`.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from gateway.engine.chat.tool_formats import Call, Read, ToolFormat

_BARE = re.compile(r"\s*(?:;\s*)?(?=\{)")
"""What stands before a call without its opening; `;` only between calls."""
_MAYBE_BARE = re.compile(r"\s*;?\s*")
_BLANK = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Content:
    """More of the answer's text."""

    text: str

    def as_dict(self) -> dict[str, Any]:
        """Return what stands in a chunk's `delta`."""
        return {"content": self.text}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call."""

    index: int
    id: str
    call: Call

    def as_dict(self) -> dict[str, Any]:
        """Return what stands in a chunk's `delta`."""
        function = {"name": self.call.name, "arguments": self.call.arguments}
        call = {"index": self.index, "id": self.id, "type": "function", "function": function}
        return {"tool_calls": [call]}


Delta = Content | ToolCall


class ToolReader:
    """Reads one choice. The deltas say the same however the text is cut into pieces."""

    def __init__(
        self,
        form: ToolFormat,
        functions: Collection[str],
        new_id: Callable[[], str],
        *,
        parallel: bool = True,
    ) -> None:
        """`new_id` gives the random part of an id; without `parallel`, what follows the first
        call is dropped.
        """
        self._form = form
        self._functions = functions
        self._new_id = new_id
        self._parallel = parallel
        self._text = ""
        self._fresh = True
        """Nothing but white space since the beginning, or since the last call."""
        self.calls = 0
        """Calls given out: whether the answer's finish reason is `tool_calls`."""

    def feed(self, text: str) -> list[Delta]:
        """Take more text; return what is known by now."""
        self._text += text
        return list(self._deltas(last=False))

    def finish(self) -> list[Delta]:
        """Return what was held back; a call that was not finished is content."""
        return list(self._deltas(last=True))

    def _deltas(self, *, last: bool) -> Iterator[Delta]:
        while self._text:
            if self.calls and not self._parallel:
                # The client takes one call: what the model says after it is for nobody.
                self._text = ""
                return
            start = self._opening()
            if start is None:
                yield from self._plain(last=last)
                return
            if self._text[:start].strip() and not self._fresh_bare(start):
                yield from self._said(start)
                continue
            found = self._form.read(self._text[start:], last=last)
            if found is None and not last:
                return
            yield from self._outcome(start, found)

    def _outcome(self, start: int, found: Read | None) -> Iterator[Delta]:
        """Give out what stands at `start`: calls, or text after all."""
        if found is None:
            yield from self._said(len(self._text))
        elif not found.calls:
            opened = self._text.startswith(self._form.opening, start)
            yield from self._said(start + (len(self._form.opening) if opened else 1))
        elif all(call.name in self._functions for call in found.calls):
            self._text = self._text[start + found.end :]
            self._fresh = True
            for call in found.calls if self._parallel else found.calls[:1]:
                yield ToolCall(self.calls, f"call_{self._new_id()}", call)
                self.calls += 1
        else:
            yield from self._said(start + found.end)

    def _opening(self) -> int | None:
        """Return where something begins that may be a call."""
        if self._form.bare and self._fresh:
            before = _BARE.match(self._text)
            if before and (self.calls or ";" not in before[0]):
                return before.end()
        at = self._text.find(self._form.opening)
        return None if at < 0 else at

    def _fresh_bare(self, start: int) -> bool:
        return self._fresh and self._form.bare and self._text[start] == "{"

    def _plain(self, *, last: bool) -> Iterator[Delta]:
        """Give out text in which no call begins, less what may yet become one or stands around."""
        held = 0 if last else _overlap(self._text, self._form.opening)
        ready = len(self._text) - held
        around = _MAYBE_BARE if self._form.bare and self.calls else _BLANK
        if self._fresh and around.fullmatch(self._text, 0, ready):
            if last and self.calls and not self._text.strip():
                self._text = ""
            if not last:
                return
        yield from self._said(ready)

    def _said(self, length: int) -> Iterator[Delta]:
        text, self._text = self._text[:length], self._text[length:]
        if text:
            self._fresh = False
            yield Content(text)


def _overlap(text: str, opening: str) -> int:
    """Return how many characters at the end of `text` may begin an opening."""
    lengths = range(min(len(text), len(opening) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(opening[:length])), 0)
