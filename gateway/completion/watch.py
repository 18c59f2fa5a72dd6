"""What a chat answer says of itself: its use, its fingerprint, whether it is all there.

Nothing here changes an answer or refuses one. What is odd counts as not said.
"""

from enum import Enum, auto
from typing import Annotated, Any

import msgspec

from gateway.sse import read

MAX_FINGERPRINT = 255
"""Bytes; a longer one counts as not said."""

Tokens = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """The tokens of an answer and of what was asked."""

    prompt_tokens: Tokens
    completion_tokens: Tokens

    @property
    def total(self) -> int:
        """Of both."""
        return self.prompt_tokens + self.completion_tokens


class Kind(Enum):
    """What an event of a stream is."""

    CHUNK = auto()
    USAGE = auto()
    """The chunk that only tells the usage: `choices` is empty."""
    DONE = auto()
    ERROR = auto()
    OTHER = auto()
    """A comment, or something that is no chunk."""


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    finish_reason: Any = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    system_fingerprint: Any = None


class _Message(msgspec.Struct, gc=False):
    """The parts of a message that `replay` takes apart."""

    tool_calls: list[dict[str, msgspec.Raw]] | None = None


class _Finished(msgspec.Struct, gc=False):
    index: int
    message: _Message
    finish_reason: Annotated[str, msgspec.Meta(min_length=1)]


class _Whole(msgspec.Struct, gc=False):
    choices: Annotated[list[_Finished], msgspec.Meta(min_length=1)]


class Figures(msgspec.Struct, frozen=True, gc=False):
    """What a JSON answer says of itself; `complete`: it can be kept and replayed."""

    usage: Usage | None = None
    fingerprint: str | None = None
    complete: bool = False


UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What msgspec raises for bytes that are not the JSON that was meant."""

_chunk = msgspec.json.Decoder(_Chunk).decode
_whole = msgspec.json.Decoder(_Whole).decode


class Watch:
    """Looks at a stream's events as they pass, and remembers what they say.

    `usage` is what the stream told last, `fingerprint` what it told first. `done`: its end was
    seen; `failed`: an error event was.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.fingerprint: str | None = None
        self.done = False
        self.failed = False
        self._going: set[int] = set()
        self._ended: set[int] = set()

    @property
    def finished(self) -> bool:
        """Whether every choice that was seen has its `finish_reason`; False before the first."""
        return bool(self._ended) and not self._going

    def see(self, event: bytes) -> Kind:
        """Take in one event, and return what it was. Raises nothing.

        What comes after the end says nothing about the answer.
        """
        if self.done:
            return Kind.OTHER
        name, data = read(event)
        if name == b"error":
            return self._fail()
        if data is None:
            return Kind.OTHER
        if data.startswith(b"[DONE]"):
            self.done = True
            return Kind.DONE
        try:
            chunk = _chunk(data)
        except UNREADABLE:
            return Kind.OTHER
        if chunk.error:
            return self._fail()
        return self._take(chunk)

    def _fail(self) -> Kind:
        self.failed = True
        return Kind.ERROR

    def _take(self, chunk: _Chunk) -> Kind:
        if self.fingerprint is None:
            self.fingerprint = _fingerprint(chunk.system_fingerprint)
        if chunk.usage is not None:
            self.usage = _usage(chunk.usage)
        if chunk.choices:
            for choice in chunk.choices:
                if choice.finish_reason:
                    self._ended.add(choice.index)
                    self._going.discard(choice.index)
                elif choice.index not in self._ended:
                    self._going.add(choice.index)
            return Kind.CHUNK
        if chunk.usage is not None:
            return Kind.USAGE
        return Kind.OTHER if chunk.choices is None else Kind.CHUNK


def look(whole: bytes) -> Figures:
    """Return what the JSON of a `chat.completion` says of itself. Raises nothing."""
    try:
        said = _chunk(whole)
        usage, fingerprint = _usage(said.usage), _fingerprint(said.system_fingerprint)
    except UNREADABLE:
        return Figures()
    try:
        whole.decode()  # what is passed over is not looked at otherwise
        _whole(whole)
        complete = not said.error
    except UNREADABLE:
        complete = False
    return Figures(usage, fingerprint, complete)


def _usage(said: Any) -> Usage | None:
    try:
        return msgspec.convert(said, Usage)
    except (msgspec.ValidationError, RecursionError):
        return None


def _fingerprint(said: Any) -> str | None:
    known = isinstance(said, str) and 0 < len(said.encode()) <= MAX_FINGERPRINT
    return said if known else None
