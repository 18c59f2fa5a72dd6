"""Clients that do not wait for answers before they ask on, in processes of their own.

A stream of requests comes at its rate whatever becomes of them, as the many people do who know
nothing of each other. Times are from the moment a request is written to its last byte, by a loop
that has little else to do; how late that loop itself was is told too.
"""

import asyncio
import json
import multiprocessing
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import uvloop

_HANGS = 60.0
"""Seconds after which an answer is not expected any more."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests of one kind."""

    kind: str
    rate: float
    """A second."""
    path: str = "/v1/embeddings"
    key: str = "any"
    text: str | None = None
    """What is asked for again and again; None: each time a text of its own; "" for a GET."""
    words: int = 4
    """Of a text of its own."""

    def request(self, mark: str) -> bytes:
        """Return the bytes of one; `mark` makes its text one that nobody has asked for."""
        common = f"{self.path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {self.key}\r\n"
        if self.text == "":
            return f"GET {common}\r\n".encode()
        text = self.text or " ".join([mark, *["word"] * (self.words - 1)])
        body = json.dumps({"model": "m", "input": text, "encoding_format": "base64"}).encode()
        sized = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        return f"POST {common}{sized}".encode() + body


@dataclass(frozen=True, slots=True)
class Sample:
    """A request and what came of it."""

    kind: str
    status: int
    seconds: float
    ended: float
    """By time.monotonic, which all processes share."""
    honest: bool
    """Whether a refusal said when to come back."""


@dataclass
class Came:
    """All that came of streams."""

    samples: list[Sample] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    """Seconds by which requests were sent later than they were due."""
    ends: float = 0.0
    """When the last requests were sent, by time.monotonic."""

    def of(self, *kinds: str, status: int | None = None) -> list[Sample]:
        """Return the samples of these kinds that have this status."""
        return [s for s in self.samples if s.kind in kinds and status in (None, s.status)]


def percentile(seconds: Sequence[float], part: float) -> float:
    """Return the seconds within which this part of them lie; 0 for none."""
    ordered = sorted(seconds)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0


async def arrive(
    port: int, streams: Sequence[Stream], seconds: float, *, processes: int = 2
) -> Came:
    """Let these streams run for so long against a port of this machine."""
    shares = [_share(stream, processes) for stream in streams]
    came = Came()
    async for part in _in_processes(processes, partial(_arrive, port, shares, seconds)):
        came.samples += part.samples
        came.lateness += part.lateness
        came.ends = max(came.ends, part.ends)
    return came


async def saturate(port: int, stream: Stream, clients: int, seconds: float) -> float:
    """Let so many clients ask one request after the other; return the answers a second."""
    answered = [
        n async for n in _in_processes(1, partial(_saturate, port, stream, clients, seconds))
    ]
    return answered[0] / seconds


def _share(stream: Stream, processes: int) -> Stream:
    return Stream(
        stream.kind, stream.rate / processes, stream.path, stream.key, stream.text, stream.words
    )


async def _in_processes(count, work):
    loop = asyncio.get_running_loop()
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=fresh) as pool:
        # All are up before any begins: Python takes a second to start.
        await asyncio.gather(*(loop.run_in_executor(pool, time.sleep, 1.5) for _ in range(count)))
        for done in [loop.run_in_executor(pool, work, number) for number in range(count)]:
            yield await done


def _arrive(port: int, streams: Sequence[Stream], seconds: float, number: int) -> Came:
    return uvloop.run(_Clients(port, number).arrive(streams, seconds))


def _saturate(port: int, stream: Stream, clients: int, seconds: float, number: int) -> int:
    return uvloop.run(_Clients(port, number).saturate(stream, clients, seconds))


class _Clients:
    """The clients of one process, and the connections that they have open."""

    def __init__(self, port: int, number: int) -> None:
        self._port = port
        self._mark = f"{time.time_ns()}-{number}"
        self._chance = random.Random(number)
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._asked = 0
        self._came = Came()

    async def arrive(self, streams: Sequence[Stream], seconds: float) -> Came:
        """Send requests when they are due, and wait for all answers at the end."""
        running = [self._run(stream, seconds) for stream in streams]
        underway = [task for tasks in await asyncio.gather(*running) for task in tasks]
        self._came.ends = time.monotonic()
        await asyncio.gather(*underway)
        self._close()
        return self._came

    async def saturate(self, stream: Stream, clients: int, seconds: float) -> int:
        """Ask from so many clients; return how many good answers came in time."""
        end = time.monotonic() + seconds

        async def client() -> None:
            while time.monotonic() < end:
                await self._ask(stream)

        await asyncio.gather(*(client() for _ in range(clients)))
        self._close()
        assert all(sample.status == 200 for sample in self._came.samples)
        return sum(sample.ended <= end for sample in self._came.samples)

    async def _run(self, stream: Stream, seconds: float) -> list[asyncio.Task[None]]:
        underway = []
        due = time.monotonic()
        end = due + seconds
        while (due := due + self._chance.expovariate(stream.rate)) < end:
            await asyncio.sleep(due - time.monotonic())
            self._came.lateness.append(time.monotonic() - due)
            underway.append(asyncio.ensure_future(self._ask(stream)))
        return underway

    async def _ask(self, stream: Stream) -> None:
        self._asked += 1
        request = stream.request(f"{self._mark}-{self._asked}")
        async with asyncio.timeout(_HANGS):
            reader, writer = await self._connection()
            began = time.monotonic()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
            await reader.readexactly(int(fields[b"content-length"]))
            ended = time.monotonic()
        if fields.get(b"connection") == b"close":
            writer.close()
        else:
            self._free.append((reader, writer))
        status = int(head[9:12])
        honest = b"retry-after" in fields and b"retry-after-ms" in fields
        self._came.samples.append(Sample(stream.kind, status, ended - began, ended, honest))

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():
                return reader, writer
        return await asyncio.open_connection("127.0.0.1", self._port)

    def _close(self) -> None:
        for _, writer in self._free:
            writer.close()
