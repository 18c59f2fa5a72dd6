"""How calls run over any client library: their clocks, their end, and their failures.

A transport gives its library's part as a `Source`, and the kinds of its failures; all that the
contract promises beyond that is kept here, for every library alike.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Protocol, Self, TypeVar

from gateway.backends.body import Body, Decoder
from gateway.backends.exchange import Reply, closing, silent
from gateway.errors import UpstreamError

T = TypeVar("T")


class Source(Protocol):
    """An answer whose headers are there, as a client library hands it over."""

    status: int
    headers: Mapping[str, str]

    async def next(self) -> bytes:
        """Return what has come off the wire, not decoded; b"" at the end."""
        ...

    async def close(self) -> None:
        """Close the connection unless the body was read to its end; who reads it then fails."""
        ...


class Calls:
    """The calls under way on one transport, so that closing it can end them all.

    `failures` are the exceptions that `explain` knows; where it returns None, time has run out.
    """

    __slots__ = ("_explain", "_failures", "_idle", "_limits", "closed")

    def __init__(
        self,
        failures: tuple[type[Exception], ...],
        explain: Callable[[Exception], UpstreamError | None],
    ) -> None:
        self.closed = False
        self._failures = failures
        self._explain = explain
        self._limits: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()

    async def bounded(
        self, call: Callable[[], Awaitable[T]], seconds: float, late: Callable[[], UpstreamError]
    ) -> T:
        """Call within so many seconds; whatever fails is one of ours, `late` where time ran out."""
        # Failures leave without their context: the library's own words may hold credentials.
        try:
            # Rather than the library's own clocks: aiohttp's rounds up to whole seconds.
            async with asyncio.timeout(seconds) as limit:
                self._begin(limit)
                try:
                    return await call()
                finally:
                    self._end(limit)
        except self._failures as error:
            failure = self._explain(error) or (closing() if self.closed else late())
        raise failure from None

    async def close(self) -> None:
        """Let the time of every call run out now, and return when the last one has ended.

        Open answers that nobody reads just now end with their connections, and with `closed`.
        """
        self.closed = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)
        if self._limits:
            await self._idle.wait()

    def _begin(self, limit: asyncio.Timeout) -> None:
        if self.closed:
            raise closing()
        self._limits.add(limit)

    def _end(self, limit: asyncio.Timeout) -> None:
        self._limits.discard(limit)
        if self.closed and not self._limits:
            self._idle.set()


async def read_reply(source: Source, limit: int) -> Reply:
    """Return the whole answer, of at most `limit` bytes, and be done with its source."""
    try:
        decoder, body = Decoder(source.headers), Body(source.headers, limit)
        while chunk := await source.next():
            for piece in decoder.feed(chunk):
                body.keep(piece)
        decoder.finish()
        return Reply(source.status, source.headers, body.whole())
    finally:
        await source.close()


class Answer:
    """An open answer of any library, read piece by piece; see `Opened`."""

    __slots__ = (
        "_calls", "_closed", "_decoder", "_ended", "_limit", "_pieces", "_silence", "_source",
        "headers", "status",
    )  # fmt: skip

    def __init__(self, source: Source, calls: Calls, *, limit: int, silence: float) -> None:
        """Raise UpstreamError for an encoding that nobody asked for; see `opened`."""
        self.status = source.status
        self.headers = source.headers
        self._decoder = Decoder(source.headers)
        self._pieces: Iterator[bytes] = iter(())
        self._source = source
        self._calls = calls
        self._limit = limit
        self._silence = silence
        self._ended = False
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            while (piece := next(self._pieces, None)) is None:
                await self._receive()
        except BaseException:
            # The end of the body is one of them; then there is nothing left to close.
            await self.aclose()
            raise
        return piece

    async def read(self) -> bytes:
        """See Opened.read."""
        try:
            body = Body(self.headers, self._limit)
            async for piece in self:
                body.keep(piece)
        except BaseException:
            await self.aclose()
            raise
        return body.whole()

    async def aclose(self) -> None:
        """See Opened.aclose."""
        if not self._closed:
            self._closed = True
            await self._source.close()

    async def _receive(self) -> None:
        """Make the next chunk's pieces ready; raises StopAsyncIteration after the last one."""
        if self._ended:
            raise StopAsyncIteration
        if self._closed:
            raise closing()
        chunk = await self._calls.bounded(self._source.next, self._silence, silent)
        if chunk:
            self._pieces = self._decoder.feed(chunk)
            return
        self._decoder.finish()
        self._ended = True
        raise StopAsyncIteration


async def opened(source: Source, calls: Calls, *, limit: int, silence: float) -> Answer:
    """Return an open answer, or close the source where its body could not be read."""
    try:
        return Answer(source, calls, limit=limit, silence=silence)
    except UpstreamError:
        await source.close()
        raise
