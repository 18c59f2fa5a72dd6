"""An upstream's answer to a chat as it passes through: relayed as it comes, looked at beside.

Only whole events go on: a client has no use for half of one, and behind half of one no error could
be told. Knows event streams and completions; not where answers come from, or where they are kept.
"""

import re
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Protocol, Self

import msgspec

from gateway.backends import exchange
from gateway.backends.exchange import Opened, Reply
from gateway.completion import Kind, Watch
from gateway.errors import GatewayError, UpstreamError
from gateway.sse import Events, data_of

PATIENCE = 10.0
"""Seconds in which comments, which servers send to keep a connection open, are held back."""

_PASSED = ("x-ratelimit-", "openai-organization", "openai-project", "openai-version")
"""Beginnings of the headers that pass from an upstream to the client."""
_STATUSES = {
    "invalid_request_error": 400,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "overloaded_error": 503,
}
"""What errors without a status of their own amount to, by their type."""

Seen = list[tuple[bytes, Kind]]
"""Whole events, and what each of them is."""

Refuse = Callable[[Reply], GatewayError]
"""Says what an error means to the client; see ChatBackend.refused."""


class Pieces(Protocol):
    """Bytes for a client, as they come. Closed by whoever takes them, read to the end or not."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate, once."""
        ...

    async def aclose(self) -> None:
        """Leave; nothing comes after it."""
        ...


def is_stream(opened: Opened) -> bool:
    """Whether an answer is an event stream; some servers send JSON although one was asked for."""
    return opened.headers.get("content-type", "").lower().startswith("text/event-stream")


def passed(opened: Opened) -> dict[str, str]:
    """Return the headers of an answer that the client is to see."""
    return {name: value for name, value in opened.headers.items() if name.startswith(_PASSED)}


def request_id(opened: Opened) -> bytes:
    """Return what the upstream calls this request; nothing where that is odd."""
    return exchange.request_id(opened.headers)


class Passing:
    """The events of an open stream, some at a time: those that a piece of it makes whole.

    An error in place of the first chunk is raised as what it means; a later one passes. Raises
    UpstreamError and its kin for a stream that breaks, or ends before its answer does; what
    breaks behind [DONE] is nobody's loss.
    """

    def __init__(self, opened: Opened, watch: Watch, upstream: str, refuse: Refuse) -> None:
        self.begun = False
        """Whether a chunk has come, or nobody waits for it any more: then all that came may be
        told. Until then a refusal can still be told by its status."""
        self._pieces = aiter(opened)
        self._watch = watch
        self._upstream = upstream
        self._refuse = refuse
        self._events = Events()
        self._ended = False
        self._until = get_running_loop().time() + PATIENCE

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Seen:
        seen: Seen = []
        while not seen:
            if self._ended:
                raise StopAsyncIteration
            seen = await self._next()
        if not self.begun:
            self._begin(seen)
        return seen

    async def _next(self) -> Seen:
        try:
            return self._see(self._events.feed(await anext(self._pieces)))
        except StopAsyncIteration:
            return self._end()
        except UpstreamError:
            if not self._watch.done:
                raise
            return self._end()

    def _see(self, events: list[bytes]) -> Seen:
        see = self._watch.see
        return [(event, see(event)) for event in events]

    def _end(self) -> Seen:
        self._ended = True
        rest = self._events.rest()
        # Some servers leave out the blank line behind the last event.
        seen = self._see([rest]) if rest.strip() else []
        watch = self._watch
        if not (watch.done or watch.failed or watch.finished):
            raise UpstreamError(
                f"The stream of upstream '{self._upstream}' ended before its answer was whole.",
                code="upstream_stream_cut",
            )
        return seen

    def _begin(self, seen: Seen) -> None:
        first = next((each for each in seen if each[1] is not Kind.OTHER), None)
        if first is not None and first[1] is Kind.ERROR:
            raise self._refuse(refusal(data_of(first[0]) or b""))
        self.begun = first is not None or get_running_loop().time() > self._until


class Relay:
    """The stream of one upstream call, for one who reads it."""

    def __init__(
        self, opened: Opened, passing: Passing, on_end: Callable[[], None], *, drop_usage: bool
    ) -> None:
        """`drop_usage` leaves out the chunk that only the gateway asked for."""
        self._opened = opened
        self._passing = passing
        self._on_end: Callable[[], None] | None = on_end
        self._drop_usage = drop_usage
        self._held: Seen = []

    async def begin(self) -> None:
        """Wait until the stream has begun; raise what reading raises."""
        async for seen in self._passing:
            self._held += seen
            if self._passing.begun:
                return

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            seen, self._held = self._held, []
            told = joined(seen or await anext(self._passing), with_usage=not self._drop_usage)
            if told:
                return told

    async def aclose(self) -> None:
        """Close the call; at once where it was not read to its end."""
        on_end, self._on_end = self._on_end, None
        try:
            await self._opened.aclose()
        finally:
            if on_end is not None:
                on_end()


def joined(seen: Iterable[tuple[bytes, Kind]], *, with_usage: bool) -> bytes:
    """Return the events' bytes, with or without the one that tells only the tokens."""
    return b"".join([event for event, kind in seen if with_usage or kind is not Kind.USAGE])


def refusal(said: bytes) -> Reply:
    """Return the answer that an error amounts to which came under a good status.

    Servers that send their status before they look at the request put it into the error.
    """
    try:
        error = msgspec.json.decode(said, type=_Refusal).error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        error = _Error()
    code = str(error.code)
    status = int(code) if re.fullmatch("[45][0-9]{2}", code) else _STATUSES.get(str(error.type))
    return Reply(status or _STATUSES.get(code, 500), {}, said)


class _Error(msgspec.Struct):
    code: Any = None
    type: Any = None


class _Refusal(msgspec.Struct):
    error: _Error


class _Json(msgspec.Struct):
    choices: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None


def check_whole(whole: bytes, upstream: str, refuse: Refuse) -> None:
    """Raise what an error means that came in place of an answer; UpstreamError for no JSON."""
    try:
        said = msgspec.json.decode(whole, type=_Json)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise no_answer(upstream) from None
    if said.error and not said.choices:
        raise refuse(refusal(whole))


def no_answer(upstream: str) -> UpstreamError:
    """Return the error for what came in place of a whole chat completion, and is none."""
    return UpstreamError(
        f"What upstream '{upstream}' answered is no whole chat completion.",
        code="upstream_invalid_response",
    )
