"""Stands between a gateway and its Redis, and can be in the way: slow, or resetting connections.

async with open_proxy(server.port) as proxy:
    ...  # proxy.url for the gateway
    proxy.delay = 1.0
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_LINGER = struct.pack("ii", 1, 0)
"""Closing sends a reset, and nothing that waits to be sent."""


class Proxy:
    """Passes bytes on, both ways."""

    def __init__(self, port: int) -> None:
        """`port` is where the server listens."""
        self.delay = 0.0
        """Seconds by which every answer comes later."""
        self._port = port
        self._resets = False
        self._server: asyncio.Server
        self._lines: set[asyncio.StreamWriter] = set()
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The address, as nobody in particular."""
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def reset(self, *, on: bool) -> None:
        """Reset every connection that there is, and every new one with its first command."""
        self._resets = on
        if on:
            for line in list(self._lines):
                _reset(line)

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._hold, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Close everything."""
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        self._lines.add(writer)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._talk(reader, writer)
        finally:
            self._talks.discard(talk)
            self._lines.discard(writer)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        answering = asyncio.create_task(self._answer(from_server, writer))
        try:
            while data := await reader.read(65536):
                if self._resets:
                    _reset(writer)
                    return
                to_server.write(data)
        finally:
            answering.cancel()
            to_server.transport.abort()
            await asyncio.gather(answering, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(65536):
            if self.delay:
                loop.call_later(self.delay, _write, writer, data)
            else:
                writer.write(data)
        writer.transport.abort()


def _write(line: asyncio.StreamWriter, data: bytes) -> None:
    if not line.is_closing():
        line.write(data)


def _reset(line: asyncio.StreamWriter) -> None:
    own = line.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    line.transport.abort()


@asynccontextmanager
async def open_proxy(port: int) -> AsyncIterator[Proxy]:
    """Stand before the server on this port for as long as the block runs."""
    proxy = Proxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
