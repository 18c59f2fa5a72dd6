"""What both kinds of engine share of HTTP: how a body is read, an answer sent, a leaving seen.

Knows ASGI; not what is asked or answered.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.errors import PayloadTooLargeError

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY = 64 << 20


class App(Protocol):
    """An ASGI app for HTTP."""

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send, /) -> None:
        """Answer one request."""
        ...


@dataclass(frozen=True, slots=True)
class Health:
    """What `GET /health` says: what does not change, and a function for what does."""

    fixed: Mapping[str, Any]
    moving: Callable[[], Mapping[str, Any]]


class GoneError(Exception):
    """The client has left before its request was whole."""


async def read_body(receive: Receive) -> bytes:
    """Return the whole body; raises GoneError or PayloadTooLargeError."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GoneError
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            raise PayloadTooLargeError(f"The body has more than {MAX_BODY} bytes.")
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def begin(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """Send the status and the headers."""
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})


async def send_json(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a whole answer."""
    length = str(len(body))
    fields = {"content-type": "application/json", "content-length": length, **headers}
    await begin(send, status, fields)
    await send({"type": "http.response.body", "body": body})
