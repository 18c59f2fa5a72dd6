"""The load: a few keep-alive connections that ask again as soon as they are answered.

It must cost less than what it measures, so it reads of an answer only its status and length. It
knows HTTP/1.1 with Content-Length; it does not know who answers, or what an answer means.
"""

import asyncio
import contextlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from urllib.parse import urlsplit

import uvloop

PATIENCE = 60.0
"""Seconds beyond the asked ones after which answers that have not come are given up."""


class LoadError(Exception):
    """A server answered something else than 200, or closed the connection."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: the `requests`, whole, over so many `connections`."""

    requests: Iterator[bytes]
    connections: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back: how long each answer took and all took, in seconds, and one whole answer."""

    latencies: "array[float]"
    seconds: float
    head: bytes
    body: bytes


@dataclass(slots=True)
class _Run:
    requests: Iterator[bytes]
    until: float
    ended: "asyncio.Future[None]"
    open: int
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    last: float = 0.0
    head: bytes = b""
    body: bytes = b""

    def fail(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(LoadError(reason))


def drive(address: str, load: Load, seconds: float) -> Outcome:
    """Ask for so many seconds and wait for the answers underway; raises LoadError."""
    return uvloop.run(_drive(address, load, seconds))


def drive_all(loads: Mapping[str, Load], seconds: float) -> list[Outcome]:
    """Ask several servers at the same time, by their addresses; see `drive`."""

    async def run() -> list[Outcome]:
        asking = (_drive(address, load, seconds) for address, load in loads.items())
        return await asyncio.gather(*asking)

    return uvloop.run(run())


async def _drive(address: str, load: Load, seconds: float) -> Outcome:
    loop = asyncio.get_running_loop()
    at = urlsplit(address)
    began = perf_counter()
    run = _Run(load.requests, began + seconds, loop.create_future(), load.connections)
    transports: list[asyncio.Transport] = []
    try:
        for _ in range(load.connections):
            transport, _ = await loop.create_connection(
                lambda: _Connection(run), at.hostname or "", at.port or 80
            )
            transports.append(transport)
        async with asyncio.timeout(seconds + PATIENCE):
            await run.ended
    except OSError as error:
        raise LoadError(f"no answer: {str(error) or 'too late'}") from error
    finally:
        for transport in transports:
            transport.abort()
    return Outcome(run.latencies, run.last - began, run.head, run.body)


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._head = b""
        self._parts: list[bytes] = []
        self._left = 0
        self._sent = 0.0
        self._first = True
        self._finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._finished:
            self._run.fail(f"the connection was closed: {exc or 'by the server'}")

    def _ask(self) -> None:
        run = self._run
        self._sent = perf_counter()
        if self._sent < run.until:
            with contextlib.suppress(StopIteration):
                self._transport.write(next(run.requests))  # type: ignore[attr-defined]
                return
        # Closed at once: some servers would close it themselves while others still work.
        self._finished = True
        self._transport.close()
        run.open -= 1
        if not run.open and not run.ended.done():
            run.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
            if self._first:
                self._parts.append(data)
        else:
            head = self._head + data
            end = head.find(b"\r\n\r\n") + 4
            if end < 4:
                self._head = head
                return
            self._head = b""
            length = _length(head[:end])
            if length is None:
                self._run.fail(f"not a plain 200: {head[: end + 300].decode('latin-1')}")
                return
            self._left = end + length - len(head)
            if self._first:
                self._run.head = head[:end]
                self._parts = [head[end:]]
        if not self._left:
            self._answered()

    def _answered(self) -> None:
        run = self._run
        run.last = perf_counter()
        run.latencies.append(run.last - self._sent)
        if self._first:
            run.body = b"".join(self._parts)
            self._first = False
        self._ask()


def _length(head: bytes) -> int | None:
    """Return the length of the body, or None where this is not a 200 that says it."""
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at < 0 or not lower.startswith(b"http/1.1 200"):
        return None
    return int(lower[at + 17 : lower.find(b"\r", at + 2)])
