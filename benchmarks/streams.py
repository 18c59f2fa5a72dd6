"""The load of chats: a few keep-alive connections, and when each piece of an answer came.

It asks again as soon as an answer is over, streamed or not. It knows HTTP/1.1; it does not know who
answers, or what an answer means.
"""

import asyncio
from array import array
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httptools
import uvloop

from benchmarks.load import PATIENCE, Load, LoadError, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class Answer:
    """One answer as it came; times are seconds of `perf_counter`."""

    asked: float
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    """The body, and when each piece of it was there."""

    @property
    def first(self) -> float:
        """Seconds from the request to the first piece of the body."""
        return self.pieces[0][0] - self.asked

    @property
    def whole(self) -> float:
        """Seconds from the request to the last one."""
        return self.pieces[-1][0] - self.asked

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(piece for _, piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Streamed:
    """All answers of a load, and the seconds that they took together."""

    answers: list[Answer]
    seconds: float

    def outcome(self) -> Outcome:
        """Return the first answer, with the time that each took to its first piece."""
        firsts = array("d", (answer.first for answer in self.answers))
        return Outcome(firsts, self.seconds, b"", self.answers[0].body)


def drive(address: str, load: Load, seconds: float, spread: float = 0.0) -> Streamed:
    """Ask for so many seconds and wait for the answers underway; raises LoadError.

    `spread` is the seconds over which the connections begin: without it they go on asking all at
    the same moment where answers take equally long.
    """
    return uvloop.run(_drive(address, load, seconds, spread))


async def _drive(address: str, load: Load, seconds: float, spread: float) -> Streamed:
    loop = asyncio.get_running_loop()
    at = urlsplit(address)
    answers: list[Answer] = []
    began = perf_counter()

    async def client(number: int) -> None:
        await asyncio.sleep(spread * number / load.connections)
        transport, connection = await loop.create_connection(
            _Connection, at.hostname or "", at.port or 80
        )
        try:
            while perf_counter() < began + seconds and (request := next(load.requests, None)):
                answers.append(await connection.ask(request))
        finally:
            transport.abort()

    try:
        async with asyncio.timeout(seconds + spread + PATIENCE), asyncio.TaskGroup() as clients:
            for number in range(load.connections):
                clients.create_task(client(number))
    except* OSError as errors:
        told = str(errors.exceptions[0]) or "too late"
        raise LoadError(f"no answer: {told}") from errors
    except* LoadError as errors:
        raise LoadError(str(errors.exceptions[0])) from errors
    if not answers:
        raise LoadError("nothing was asked")
    last = max(answer.asked + answer.whole for answer in answers)
    return Streamed(answers, last - began)


class _Connection(asyncio.Protocol):
    """One request at a time; the methods `on_*` are called by the parser."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer = Answer(0.0)
        self._over: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write: Callable[[bytes], None] = transport.write  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was closed: {exc or 'by the server'}")

    def ask(self, request: bytes) -> "asyncio.Future[Answer]":
        self._over = asyncio.get_running_loop().create_future()
        self._answer = Answer(perf_counter())
        self._write(request)
        return self._over

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"no HTTP: {error}")

    def on_body(self, piece: bytes) -> None:
        self._answer.pieces.append((perf_counter(), piece))

    def on_message_complete(self) -> None:
        status, answer, over = self._parser.get_status_code(), self._answer, self._over
        if status != 200 or not answer.pieces:
            said = answer.body[:300].decode("latin-1")
            self._fail(f"not a 200 with a body: {status} {said}")
        elif over is not None and not over.done():
            over.set_result(answer)

    def _fail(self, reason: str) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(LoadError(reason))
