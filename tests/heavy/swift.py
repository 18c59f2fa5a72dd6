"""A client that costs little: requests as bytes, several on their way on a connection, one parser.

connection = await connect(port)
for answer in await connection.ask([request("/v1/embeddings", {"model": "m", "input": "a"})]): …
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httptools
import msgspec

PATIENCE = 30.0
"""Seconds for all answers to what was asked at once."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: Mapping[bytes, bytes]
    """By their names in lower case."""


def request(
    path: str, body: Any = None, *, key: str = "", method: str = "POST", headers: str = ""
) -> bytes:
    """Return the bytes of a request; `headers` are lines, each with its end."""
    content = b"" if body is None else msgspec.json.encode(body)
    return (
        f"{method} {path} HTTP/1.1\r\nhost: gateway\r\n"
        f"{f'authorization: Bearer {key}{chr(13)}{chr(10)}' if key else ''}{headers}"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    ).encode("utf-8", "surrogateescape") + content


class Connection(asyncio.Protocol):
    """One connection, which is kept open until the other side closes it."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answers: deque[Answer] = deque()
        self._body: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._wanted = 0
        self._all: asyncio.Future[None] | None = None
        self.closed = False

    async def ask(self, requests: Sequence[bytes]) -> list[Answer]:
        """Send all of them, and return their answers in order; fewer where it was closed."""
        self._wanted = len(requests)
        self._all = asyncio.get_running_loop().create_future()
        self._transport.write(b"".join(requests))
        async with asyncio.timeout(PATIENCE):
            await self._all
        answers = list(self._answers)
        self._answers.clear()
        return answers

    def leave(self, requests: Sequence[bytes]) -> None:
        """Send all of them, and hang up without waiting for anything."""
        self._transport.write(b"".join(requests))
        self._transport.close()

    def close(self) -> None:
        """Close it."""
        self._transport.close()

    # For asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed = True
        if self._all is not None and not self._all.done():
            self._all.set_result(None)

    # For the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._answers.append(Answer(status, b"".join(self._body), self._headers))
        self._body, self._headers = [], {}
        if len(self._answers) == self._wanted and self._all and not self._all.done():
            self._all.set_result(None)


async def connect(port: int) -> Connection:
    """Return a connection to this port of this machine."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
    return connection
