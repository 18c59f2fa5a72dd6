"""The chunks of a stream become the one `chat.completion` that they are pieces of.

Values are kept as the bytes that came (`msgspec.Raw`); only what comes in pieces is taken apart.
Null is the same as absent, everywhere.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from gateway.completion.watch import UNREADABLE, look
from gateway.sse import read

_Part = TypeVar("_Part", "list[str]", "_Object")

_NULL = msgspec.Raw(b"null")
_EMPTY = msgspec.Raw(b'""')
# Azure's first chunk says this of each, and is about the prompt only.
_NOT_SAID = (_NULL, _EMPTY, msgspec.Raw(b"0"))

_FIRST_COUNTS = frozenset({"id", "created", "model", "system_fingerprint", "service_tier"})
_PASSED_OVER = frozenset({"object", "choices", "usage", "obfuscation", "error"})

_WHOLE_TEXTS = frozenset({"id", "name", "role", "type"})
"""Strings of a message and its parts that come whole; all others come in pieces."""

_PARTS = frozenset({"custom", "function", "function_call"})
"""Objects of a message and its tool calls whose fields come in pieces too."""

_MESSAGE: Mapping[str, Any] = {"role": "assistant", "content": None, "refusal": None}
_LOGPROBS: Mapping[str, Any] = {"content": None, "refusal": None}
"""What OpenAI always says of these, and what of it is not pieces."""

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode
_number = msgspec.json.Decoder(int).decode
_encode = msgspec.json.Encoder().encode


class _UnmergeableError(Exception):
    """The pieces do not say what they make together."""


class Assembly:
    """Puts a stream's chunks together by OpenAI's rules.

    Strings of a delta are joined, tool calls by their `index`, lists of logprobs are extended;
    what names something (`id`, `name`, `role`, `type`) is set once; usage is what was told last.
    Any other value is kept if all chunks that say it say the same; a list or an object, if only
    one does.
    """

    def __init__(self) -> None:
        self._head: dict[str, msgspec.Raw] = {}
        self._others: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._done = False
        self._broken = False

    def add(self, event: bytes) -> None:
        """Take in the stream's next event. Raises nothing; what follows [DONE] is not looked at."""
        if self._done or self._broken:
            return
        name, data = read(event)
        if name == b"error":
            self._broken = True
        elif data is not None and data.startswith(b"[DONE]"):
            self._done = True
        elif data is not None:
            try:
                self._merge(_fields(data))
            except (_UnmergeableError, *UNREADABLE):
                self._broken = True

    def whole(self) -> bytes | None:
        """Return the JSON of the answer, as it would have come without `stream`.

        None unless the stream came to its end without an error, every choice has its
        `finish_reason`, and all of it could be merged.
        """
        if self._broken or not self._done:
            return None
        choices = [self._choices[index].whole() for index in sorted(self._choices)]
        whole = _encode(
            {**self._head, "object": "chat.completion", "choices": choices, **self._others}
        )
        return whole if look(whole).complete else None

    def _merge(self, chunk: Mapping[str, msgspec.Raw]) -> None:
        choices, usage = chunk.get("choices", _NULL), chunk.get("usage", _NULL)
        if msgspec.json.decode(chunk.get("error", _NULL)) or choices == usage == _NULL:
            raise _UnmergeableError
        for name, raw in chunk.items():
            if name in _FIRST_COUNTS:
                if name not in self._head and raw not in _NOT_SAID:
                    self._head[name] = raw.copy()
            elif name not in _PASSED_OVER:
                _keep(self._others, name, raw)
        if usage != _NULL:
            self._others["usage"] = usage.copy()
        if choices != _NULL:
            for choice in _objects(choices):
                index = _number(choice.pop("index", b"0"))
                self._choices.setdefault(index, _Choice(index)).add(choice)


class _Choice:
    """One choice, as its pieces come."""

    def __init__(self, index: int) -> None:
        self._said: dict[str, Any] = {"index": index}
        self._message = _Object()
        self._tool_calls: dict[int, _Object] = {}
        self._logprobs: dict[str, Any] = {}

    def add(self, choice: Mapping[str, msgspec.Raw]) -> None:
        for name, raw in choice.items():
            if raw == _NULL:
                continue
            if name == "delta":
                self._add_delta(_fields(raw))
            elif name == "logprobs":
                self._add_logprobs(_fields(raw))
            elif name == "message":
                raise _UnmergeableError  # an answer that is whole already: not a piece of one
            else:
                _keep(self._said, name, raw)

    def whole(self) -> dict[str, Any]:
        message = {**_MESSAGE, **self._message.whole()}
        if self._tool_calls:
            calls = self._tool_calls
            message["tool_calls"] = [calls[index].whole() for index in sorted(calls)]
        logprobs = {**_LOGPROBS, **self._logprobs} if self._logprobs else None
        return {**self._said, "message": message, "logprobs": logprobs}

    def _add_delta(self, delta: dict[str, msgspec.Raw]) -> None:
        calls = delta.pop("tool_calls", _NULL)
        self._message.add(delta)
        if calls != _NULL:
            for call in _objects(calls):
                if "index" not in call:
                    raise _UnmergeableError
                index = _number(call.pop("index"))
                self._tool_calls.setdefault(index, _Object()).add(call)

    def _add_logprobs(self, logprobs: Mapping[str, msgspec.Raw]) -> None:
        for name, raw in logprobs.items():
            if name in _LOGPROBS and raw != _NULL:
                known = self._logprobs.setdefault(name, [])
                known += [value.copy() for value in _values(raw)]
            else:
                _keep(self._logprobs, name, raw)


class _Object:
    """An object whose fields come in pieces."""

    def __init__(self) -> None:
        self._said: dict[str, Any] = {}

    def add(self, fields: Mapping[str, msgspec.Raw]) -> None:
        for name, raw in fields.items():
            first = memoryview(raw)[0]
            if first in b'"' and name not in _WHOLE_TEXTS:
                self._part(name, list).append(_text(raw))
            elif first in b"{" and name in _PARTS:
                self._part(name, _Object).add(_fields(raw))
            else:
                _keep(self._said, name, raw)

    def whole(self) -> dict[str, Any]:
        return {name: _joined(part) for name, part in self._said.items()}

    def _part(self, name: str, kind: type[_Part]) -> _Part:
        part = self._said.setdefault(name, kind())
        if not isinstance(part, kind):
            raise _UnmergeableError
        return part


def _joined(part: Any) -> Any:
    match part:
        case list():
            return "".join(part)
        case _Object():
            return part.whole()
    return part


def _keep(said: dict[str, Any], name: str, raw: msgspec.Raw) -> None:
    """Keep a value that does not come in pieces; an empty string leaves it open."""
    known = said.get(name, _EMPTY)
    if raw == _NULL:
        return
    if known == _EMPTY:
        said[name] = raw.copy()
    elif raw != _EMPTY and (raw != known or memoryview(raw)[0] in b"[{"):
        raise _UnmergeableError
