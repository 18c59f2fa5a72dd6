"""One HTTP exchange as a backend sees it, and the rules that every client keeps.

What goes out beside the caller's headers, what comes back, and what a broken exchange is called.
It imports no HTTP library, opens no socket, and does not know the way to an upstream.
"""

import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.errors import UpstreamConnectError, UpstreamError, UpstreamTimeoutError

_OUTGOING = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "embedding-gateway"}

_REQUEST_ID = re.compile(r"[\w.:\-]{1,128}", re.ASCII).fullmatch

INVALID = "its address or a header to send is not valid"

_ANY_KIND = "the connection broke, or spoke no HTTP, before a whole answer was there"

_CONTROLS = bytes(code for code in [*range(32), 127] if code != ord("\t"))


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; `headers` have lower-case names, `body` is decoded and complete."""

    status: int
    headers: Mapping[str, str]
    # Out of the repr, so that no log line can carry what a client sent or was sent.
    body: bytes = field(repr=False)


def request_id(headers: Mapping[str, str]) -> bytes:
    """Return what the upstream calls a request; nothing where that is odd."""
    named = headers.get("x-request-id", "")
    return named.encode() if _REQUEST_ID(named) else b""


class Opened(Protocol):
    """An answer whose headers are there and whose body is still coming; for one reader.

    A failure while reading, and cancelling who reads, close the connection at once. After that,
    and after `aclose`, reading on raises UpstreamConnectError.
    """

    @property
    def status(self) -> int:
        """The status, whatever it is."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """All of the upstream's headers, with lower-case names."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the body's pieces as they arrive, decoded and never empty.

        Raises as `Transport.send` does: UpstreamConnectError where the body is cut,
        UpstreamTimeoutError where it is silent for too long. Its size is not bounded.
        """
        ...

    async def read(self) -> bytes:
        """Return the whole body; raises as `Transport.send` does, also where it is too large."""
        ...

    async def aclose(self) -> None:
        """Close the connection at once unless the body was read to its end; twice is harmless.

        Who reads meanwhile gets an UpstreamConnectError.
        """
        ...


class Transport(Protocol):
    """Sends requests and brings back the answers. Safe for many calls at a time."""

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

    async def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout: float,  # noqa: ASYNC109  # one clock until the answer's headers
        silence: float,
    ) -> Opened:
        """Return the answer when its headers are there; close it, or read it to its end.

        `timeout` is in seconds and covers name, connection, pool and request; `silence` is the
        longest time, in seconds, between the headers and the first piece, and between two pieces.
        All else is as for `send`.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection; calls and open answers end with UpstreamConnectError."""
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


def unreachable(kind: str) -> UpstreamError:
    """Return the UpstreamConnectError for an exchange that had no whole answer."""
    return UpstreamConnectError(f"The upstream could not be reached: {kind}.")


def closing() -> UpstreamError:
    """Return the error for a call on a transport, or an answer, that is or was being closed."""
    return unreachable("the gateway is closing its connections")


def broken(error: BaseException) -> UpstreamError:
    """Return the UpstreamConnectError that a client library's error and its causes amount to.

    Only the kind is told: the libraries' own words may hold addresses, credentials and headers.
    """
    return unreachable(next(filter(None, map(_kind, _causes(error))), _ANY_KIND))


def late(*, connected: bool = True) -> UpstreamError:
    """Return the UpstreamTimeoutError for a call that ran out of time."""
    if connected:
        return UpstreamTimeoutError("The upstream did not answer in time.")
    return UpstreamTimeoutError(
        "The upstream could not be reached in time.", code="upstream_connect_timeout"
    )


def silent() -> UpstreamError:
    """Return the UpstreamTimeoutError for an answer that was begun and not gone on with."""
    return UpstreamTimeoutError("The upstream fell silent in the middle of its answer.")


def undecodable(what: str) -> UpstreamError:
    """Return the error for an answer that is not encoded as its headers say."""
    return UpstreamError(f"The upstream's answer {what}.", code="upstream_answer_encoding")


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
