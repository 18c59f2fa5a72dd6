"""Bodies of requests: read whole, of one kind, and no more of them at a time than memory is for."""

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from gateway.edge.room import Guest, Room
from gateway.errors import PayloadTooLargeError, UnsupportedMediaError

SMALL = 64 * 2**10
"""Bytes of a body that need no room: about what a connection holds before it is read on."""


class Bodies:
    """Reads the bodies of JSON requests; of the large ones only as many at a time as there is room.

    Together they have as much of it as the largest may take, so a thousand clients that send
    without end cost no more memory than one. Who waits is not read from, and small ones never wait.
    """

    def __init__(self, limit: int) -> None:
        """`limit` is the largest body, in bytes."""
        self._limit = limit
        self._room = Room(limit)

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """Return the whole body.

        Raises UnsupportedMediaError for another or a compressed type, PayloadTooLargeError beyond
        the limit (before reading it where the length is announced), UnavailableError where too many
        large ones come at once, and SlowClientError for a large one that
        is too slow while others wait.
        """
        announced = self._check(scope["headers"])
        message = await receive()
        if message.get("more_body"):
            return await self._rest([message["body"]], announced, receive)
        return self._whole([message.get("body", b"")], message)

    async def _rest(self, pieces: list[bytes], announced: int | None, receive: Receive) -> bytes:
        last: Message = {"type": "http.request", "more_body": True}
        small = min(SMALL, self._limit)
        if announced is None or announced <= small:
            last = await _more(pieces, last, receive, small)
        if last.get("more_body") and sum(map(len, pieces)) <= self._limit:
            async with self._room.take(announced or self._limit) as guest:
                last = await _more(pieces, last, receive, self._limit, guest)
        return self._whole(pieces, last)

    def _whole(self, pieces: list[bytes], last: Message) -> bytes:
        if last["type"] == "http.disconnect":
            raise ClientDisconnect
        if sum(map(len, pieces)) > self._limit:
            raise _too_large(self._limit)
        return b"".join(pieces)

    def _check(self, headers: list[tuple[bytes, bytes]]) -> int | None:
        """Return the length that is announced, if one is; raise for what will not be read."""
        announced = None
        for name, value in headers:
            if name == b"content-type":
                _check_type(value)
            elif name == b"content-encoding" and value.strip().lower() != b"identity":
                raise UnsupportedMediaError("Send the body uncompressed, without Content-Encoding.")
            elif name == b"content-length":
                announced = int(value)
                if announced > self._limit:
                    raise _too_large(self._limit)
        return announced


async def _more(
    pieces: list[bytes], last: Message, receive: Receive, enough: int, guest: Guest | None = None
) -> Message:
    """Add what comes until the end, or until it is more than enough; return what came last."""
    size = sum(map(len, pieces))
    while last.get("more_body") and size <= enough:
        last = await receive()
        pieces.append(last.get("body", b""))
        size += len(pieces[-1])
        if guest is not None:
            guest.receives(len(pieces[-1]))
    return last


def _check_type(content_type: bytes) -> None:
    essence = content_type.split(b";", 1)[0].strip().lower()
    if essence == b"application/json" or essence.endswith(b"+json") or not essence:
        return
    raise UnsupportedMediaError(
        f"Unsupported content type: '{essence[:100].decode('latin-1')}'. This API reads "
        "'application/json'; set the header Content-Type: application/json."
    )


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The body is larger than {limit} bytes; split the request.")
