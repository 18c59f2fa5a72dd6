"""One HTTP exchange as a backend sees it, and the rules that every client keeps.

What goes out beside the caller's headers, how large an answer may grow, how calls end when the
transport is closed, and what a broken exchange is called. It imports no HTTP library, opens no
socket, and does not know the way to an upstream.
"""

import asyncio
import os
import socket
import ssl
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.errors import UpstreamConnectError, UpstreamError, UpstreamTimeoutError

_OUTGOING = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "embedding-gateway"}

INVALID = "its address or a header to send is not valid"

_ANY_KIND = "the connection broke, or spoke no HTTP, before a whole answer was there"

_CONTROLS = bytes(code for code in [*range(32), 127] if code != ord("\t"))

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
"""zlib's own flag for "look at the first bytes"."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; `headers` have lower-case names, `body` is decoded and complete."""

    status: int
    headers: Mapping[str, str]
    # Out of the repr, so that no log line can carry what a client sent or was sent.
    body: bytes = field(repr=False)


class Transport(Protocol):
    """Sends one request and brings back the whole answer. Safe for many calls at a time."""

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout: float,  # noqa: ASYNC109  # one clock for name, connection, pool, request, answer
    ) -> Reply:
        """Return the answer, whatever its status; redirects come back as they are.

        `url` is absolute and percent-encoded; credentials in it are not sent. `headers` have
        lower-case names. `timeout` is in seconds and bounds the whole call. Cancelling closes the
        connection.

        Raises UpstreamConnectError where no whole answer was had, UpstreamTimeoutError (code
        "upstream_connect_timeout" where not even a connection was), and UpstreamError with code
        "upstream_answer_too_large" or "upstream_answer_encoding" for an answer nobody can use.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection; calls on their way end with UpstreamConnectError."""
        ...


def outgoing(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers to send: the caller's, and defaults that give no library away."""
    return {**_OUTGOING, **headers}


def incoming(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return an answer's headers with lower-case names; repeated ones are joined by a comma.

    Without control characters: no header may have them (RFC 9110, 5.5), and some are passed on.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name = raw_name.decode("latin-1").lower()
        value = raw_value.translate(None, _CONTROLS).decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


class Calls:
    """The calls under way on one transport, so that closing it can end them all."""

    __slots__ = ("_idle", "_limits", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._limits: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()

    def begin(self, limit: asyncio.Timeout) -> None:
        """Count a call in, known by the timeout that bounds it; refused once closed."""
        if self.closed:
            raise closing()
        self._limits.add(limit)

    def end(self, limit: asyncio.Timeout) -> None:
        """Count it out."""
        self._limits.discard(limit)
        if self.closed and not self._limits:
            self._idle.set()

    async def close(self) -> None:
        """Let the time of every call run out now, and return when the last one has ended."""
        self.closed = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)
        if self._limits:
            await self._idle.wait()


class Body:
    """Collects an answer's body as it comes, decoded, and never more than `limit` bytes of it."""

    __slots__ = ("_inflater", "_limit", "_parts", "_size")

    def __init__(self, headers: Mapping[str, str], limit: int) -> None:
        """Raise UpstreamError where the headers already say that the body cannot be used."""
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise _undecodable("is compressed in a way that was not asked for")
        plain = encoding in ("", "identity")
        self._inflater = None if plain else zlib.decompressobj(_GZIP_OR_ZLIB)
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        declared = headers.get("content-length", "")
        # Before anything is read: what is this long compressed is longer decoded.
        if declared.isascii() and declared.isdigit() and int(declared) > limit:
            raise self._too_large()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes off the wire; raises UpstreamError over the limit or if corrupt."""
        if self._inflater is None:
            self._keep(chunk)
            return
        if self._inflater.eof:
            raise _undecodable("goes on after its compressed data has ended")
        try:
            # One byte more than may come, so that a bomb is noticed and never unfolded.
            self._keep(self._inflater.decompress(chunk, self._limit - self._size + 1))
        except zlib.error:
            raise _undecodable("is said to be compressed, and is not") from None
        if self._inflater.unused_data:
            raise _undecodable("goes on after its compressed data has ended")

    def finish(self) -> bytes:
        """Return the whole body; raises UpstreamError where the compressed data stops short."""
        if self._inflater is not None and self._parts and not self._inflater.eof:
            raise _undecodable("stops in the middle of its compressed data")
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise self._too_large()
        self._parts.append(part)

    def _too_large(self) -> UpstreamError:
        return UpstreamError(
            f"The upstream's answer is larger than the {self._limit} bytes the gateway reads.",
            code="upstream_answer_too_large",
        )


def unreachable(kind: str) -> UpstreamError:
    """Return the UpstreamConnectError for an exchange that had no whole answer."""
    return UpstreamConnectError(f"The upstream could not be reached: {kind}.")


def closing() -> UpstreamError:
    """Return the error for a call on a transport that is being closed, or has been."""
    return unreachable("the gateway is closing its connections")


def broken(error: BaseException) -> UpstreamError:
    """Return the UpstreamConnectError that a client library's error and its causes amount to.

    Only the kind is told: the libraries' own words may hold addresses, credentials and headers.
    """
    return unreachable(next(filter(None, map(_kind, _causes(error))), _ANY_KIND))


def late(*, connected: bool) -> UpstreamError:
    """Return the UpstreamTimeoutError for a call that ran out of time."""
    if connected:
        return UpstreamTimeoutError("The upstream did not answer in time.")
    return UpstreamTimeoutError(
        "The upstream could not be reached in time.", code="upstream_connect_timeout"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            # One for each address of the name; the first stands for all.
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__


def _kind(error: BaseException) -> str | None:
    # Libraries derive errors of their own from the system's; the original is among the causes.
    if type(error).__module__ not in ("builtins", "socket", "ssl"):
        return None
    if isinstance(error, ssl.SSLCertVerificationError):
        # OpenSSL's reason, without the name or address that some of them end in.
        reason = error.verify_message.partition(",")[0]
        return f"its TLS certificate cannot be trusted ({reason})"
    if isinstance(error, ssl.SSLError):
        # A constant of OpenSSL's, as WRONG_VERSION_NUMBER.
        return f"TLS failed ({error.reason})" if error.reason else "TLS failed"
    if isinstance(error, socket.gaierror):
        return "its name could not be resolved"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return None


def _undecodable(what: str) -> UpstreamError:
    return UpstreamError(f"The upstream's answer {what}.", code="upstream_answer_encoding")
