"""Messages between a gateway's own processes, whole and in order, over a pair of sockets."""

import asyncio
import pickle
import socket
import struct
from typing import Any

_LENGTH = struct.Struct(">Q")


class Wire:
    """One end. Who is at the other is trusted: it is this program, started by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Wire":
        """Return the wire over one end of a `socket.socketpair`, which it closes at its end."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, message: object) -> None:
        """Send a message, as far as anybody is still there; nobody waits for it to be read."""
        written = pickle.dumps(message)
        self._writer.write(_LENGTH.pack(len(written)) + written)

    async def receive(self) -> Any:
        """Return the next message; raise EOFError where none will come any more."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return pickle.loads(await self._reader.readexactly(length))  # noqa: S301
        except (asyncio.IncompleteReadError, OSError) as error:
            raise EOFError from error

    def close(self) -> None:
        """Close it; what was sent still arrives."""
        self._writer.close()
