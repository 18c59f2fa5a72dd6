"""How models write calls of functions: four notations, each as a grammar and as a reader.

A reader is asked about text that begins with a call's opening, again as more of it comes. What it
has once said of a text it says of every longer one, so it makes no difference in which pieces the
text came. Knows notations; not requests or streams.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from gateway.engine.chat.rules import either, literal

_MARK = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]"]', re.DOTALL)
_SPACE = re.compile(r"\s*")
_NAMED = re.compile(r"\s{0,2}([A-Za-z0-9_-]{1,64})(?:\[CALL_ID\]\w{1,40})?(?:\[ARGS\])")
_NAMED_LENGTH = 128
"""Characters in which a name, an id and the mark behind them have room."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call as the model wrote it; `arguments` is the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Read:
    """The calls that were found, and where the text goes on. None found: this is no call."""

    calls: Sequence[Call]
    end: int


BROKEN = Read((), 0)


class ToolFormat(Protocol):
    """One notation."""

    opening: str
    """What a call begins with, wherever it stands."""
    bare: bool
    """An answer, or what follows a call, may also be a call without its opening."""

    def grammar(self, arguments: Mapping[str, str], *, parallel: bool) -> str:
        """Return an expression for a call or, with `parallel`, several.

        `arguments` are the rules of the arguments by function name.
        """

    def read(self, text: str, *, last: bool) -> Read | None:
        """Read what begins at `text`; None: it takes more text to say. `last`: there is no more."""


class Hermes:
    """`<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen and many others."""

    opening = "<tool_call>"
    bare = False
    _closing = "</tool_call>"

    def grammar(self, arguments: Mapping[str, str], *, parallel: bool) -> str:
        """Return the calls, one below the other."""
        call = _objects(f"{self.opening}\n", "arguments", arguments, f"\n{self._closing}")
        return f"{call} ({literal(chr(10))} {call})*" if parallel else call

    def read(self, text: str, *, last: bool) -> Read | None:
        """Read one call. Its closing mark may be missing: models forget it."""
        found = _object(text, len(self.opening))
        if not found or not found.calls:
            return found
        end = _skip(text, found.end)
        if text.startswith(self._closing, end):
            return Read(found.calls, end + len(self._closing))
        if self._closing.startswith(text[end:]) and not last:
            return None
        return found


class Llama3:
    """`{"name": …, "parameters": …}`, alone or behind `<|python_tag|>`: Llama 3.1 and later."""

    opening = "<|python_tag|>"
    bare = True

    def grammar(self, arguments: Mapping[str, str], *, parallel: bool) -> str:  # noqa: ARG002
        """Return one call: these models were taught no more in one answer."""
        return _objects("", "parameters", arguments, "")

    def read(self, text: str, *, last: bool) -> Read | None:  # noqa: ARG002
        """Read one call."""
        return _object(text, len(self.opening) if text.startswith(self.opening) else 0)


class Mistral:
    """`[TOOL_CALLS][{"name": …, "arguments": …}]`: Mistral's models up to 2024."""

    opening = "[TOOL_CALLS]"
    bare = False

    def grammar(self, arguments: Mapping[str, str], *, parallel: bool) -> str:
        """Return the list of calls."""
        call = _objects("", "arguments", arguments, "")
        more = f'("," " "? {call})*' if parallel else ""
        return f'{literal(f"{self.opening}[")} {call} {more} "]"'

    def read(self, text: str, *, last: bool) -> Read | None:  # noqa: ARG002
        """Read a list of calls, or one call in the newer notation."""
        start = _skip(text, len(self.opening))
        if start == len(text):
            return None
        if text[start] == "[":
            return _list(text, start)
        return _named(text, len(self.opening))


class MistralNamed(Mistral):
    """`[TOOL_CALLS]name[ARGS]{…}`: Mistral's models from 2025 on."""

    def grammar(self, arguments: Mapping[str, str], *, parallel: bool) -> str:
        """Return the calls, one behind the other."""
        call = either(
            [f"{literal(f'{self.opening}{name}[ARGS]')} {rule}" for name, rule in arguments.items()]
        )
        return f"({call})+" if parallel else call


def format_of(template: str) -> ToolFormat | None:
    """Return the notation a template teaches its model; None: none that is known here."""
    # Others write something else than JSON between the same tags.
    if "<tool_call>" in template and '"arguments' in template:
        return Hermes()
    if "[TOOL_CALLS]" in template:
        return MistralNamed() if "[ARGS]" in template else Mistral()
    if "<|start_header_id|>" in template and '"parameters"' in template:
        return Llama3()
    return None


_ABSENT = msgspec.Raw(b"{}")


class _Written(msgspec.Struct):
    """A call as an object; Llama says `parameters`."""

    name: str
    arguments: msgspec.Raw = _ABSENT
    parameters: msgspec.Raw = _ABSENT


_decode_call = msgspec.json.Decoder(_Written).decode
_decode_calls = msgspec.json.Decoder(list[_Written]).decode


def _objects(before: str, word: str, arguments: Mapping[str, str], after: str) -> str:
    """Return a call as an object, the function's name first."""
    end = literal("}" + after)
    heads = {name: f'{before}{{"name": "{name}", "{word}": ' for name in arguments}
    return either([f"{literal(heads[name])} {rule} {end}" for name, rule in arguments.items()])


def _object(text: str, start: int) -> Read | None:
    start = _skip(text, start)
    if start == len(text):
        return None
    if text[start] != "{":
        return BROKEN
    end = _end(text, start)
    if end is None:
        return None
    try:
        call = _call(_decode_call(text[start:end]))
    except (msgspec.DecodeError, RecursionError):
        return BROKEN
    return BROKEN if call is None else Read((call,), end)


def _list(text: str, start: int) -> Read | None:
    end = _end(text, start)
    if end is None:
        return None
    try:
        calls = [_call(written) for written in _decode_calls(text[start:end])]
    except (msgspec.DecodeError, RecursionError):
        return BROKEN
    good = [call for call in calls if call is not None]
    return Read(good, end) if good and len(good) == len(calls) else BROKEN


def _named(text: str, start: int) -> Read | None:
    head = _NAMED.match(text, start)
    if head is None:
        short = len(text) - start < _NAMED_LENGTH and "[ARGS]" not in text
        return None if short else BROKEN
    opened = _skip(text, head.end())
    if opened == len(text):
        return None
    if text[opened] != "{":
        return BROKEN
    end = _end(text, opened)
    if end is None:
        return None
    arguments = _arguments(msgspec.Raw(text[opened:end].encode()))
    return BROKEN if arguments is None else Read((Call(head[1], arguments),), end)


def _call(written: _Written) -> Call | None:
    raw = written.parameters if written.arguments is _ABSENT else written.arguments
    arguments = _arguments(raw)
    return None if arguments is None else Call(written.name, arguments)


def _arguments(raw: msgspec.Raw) -> str | None:
    """Return the arguments' own text; some models write it as a string once more."""
    text = bytes(raw).decode()
    try:
        value = msgspec.json.decode(text)
        if isinstance(value, str):
            text, value = value, msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return None
    return text if isinstance(value, dict) else None


def _end(text: str, start: int) -> int | None:
    """Return where the JSON value that opens at `start` is closed; None: not yet."""
    depth = 0
    for mark in _MARK.finditer(text, start):
        found = mark[0]
        if found == '"':  # a string that has no end yet
            return None
        if len(found) == 1:
            depth += 1 if found in "{[" else -1
            if depth == 0:
                return mark.end()
    return None


def _skip(text: str, start: int) -> int:
    """Return where the white space that begins at `start` ends."""
    found = _SPACE.match(text, start)
    return found.end() if found else start
