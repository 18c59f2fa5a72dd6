"""One HTTP exchange as a backend sees it, and the rules that both clients keep.

What goes out beside the caller's headers, which proxy and certificates apply, how large an answer
may grow, and what a broken exchange is called. It imports no HTTP library and opens no socket.
"""

import os
import socket
import ssl
import urllib.request
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import truststore

from gateway.errors import ConfigError, UpstreamConnectError, UpstreamError, UpstreamTimeoutError

KEEPALIVE = 30.0
"""Seconds an idle connection is kept: below the 60 s after which common load balancers hang up."""

_OUTGOING = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "embedding-gateway"}

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

        `url` is absolute, credentials in it are not sent. `headers` have lower-case names.
        `timeout` is in seconds and bounds the whole call. Cancelling closes the connection.

        Raises UpstreamConnectError where no whole answer was had, UpstreamTimeoutError (code
        "upstream_connect_timeout" where not even a connection was), and UpstreamError with code
        "upstream_answer_too_large" or "upstream_answer_encoding" for an answer nobody can use.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection; calls on their way end with UpstreamConnectError."""
        ...


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """How to reach one upstream."""

    connect_timeout: float
    """Seconds for one connection, TLS handshake included."""
    pool: int
    """Connections at a time, at most; further calls wait for one."""
    max_answer: int
    """Bytes of a decoded body, at most."""
    proxy: str | None = field(default=None, repr=False)
    """http:// or https:// address; None asks HTTPS_PROXY and NO_PROXY, "" means directly."""
    ca_file: Path | None = None
    """PEM file with the only authorities to trust; None means SSL_CERT_FILE or the system's."""
    uds: str | None = None
    """Path of a Unix socket that is connected to whatever host the URL names."""

    def check(self) -> None:
        """Raise ConfigError for a proxy or a CA file that cannot be used."""
        problems = []
        if self.proxy and not _is_proxy(self.proxy):
            problems.append("proxy: only http:// and https:// proxies are supported")
        if self.ca_file is not None:
            try:
                ssl.create_default_context(cafile=self.ca_file)
            except OSError as error:  # ssl.SSLError is one
                problems.append(f"ca_file: cannot read certificates from {self.ca_file}: {error}")
        if problems:
            raise ConfigError(problems)


def outgoing(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers to send: the caller's, and defaults that give no library away."""
    return {**_OUTGOING, **headers}


def incoming(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return an answer's headers with lower-case names; repeated ones are joined by a comma."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


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
        # Before anything is read: a compressed body may be small and grow, never the reverse.
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


def proxy_for(url: str, settings: TransportSettings) -> str | None:
    """Return the proxy to use for a URL, None for none.

    Raises UpstreamConnectError where the environment names one of a kind we do not speak.
    """
    if settings.uds is not None:
        return None
    if settings.proxy is not None:
        return settings.proxy or None
    parts = urlsplit(url)
    named = urllib.request.getproxies_environment()
    proxy = named.get(parts.scheme) or named.get("all")
    place = parts.netloc.rpartition("@")[2]
    # typeshed does not know this half of the pair.
    spared = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    if not proxy or spared(place, named):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not _is_proxy(proxy):
        raise unreachable("the environment names a proxy that is neither http:// nor https://")
    return proxy


def tls_context(ca_file: Path | None, paths: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    """Return a context that trusts `ca_file` alone, else SSL_CERT_FILE, else the system.

    `paths` says where OpenSSL looks (it reads the environment variables); where that is nowhere,
    as in python.org's build for macOS, the operating system's own store is asked.
    """
    if ca_file is not None:
        return ssl.create_default_context(cafile=ca_file)
    if paths.cafile or paths.capath:
        return ssl.create_default_context()
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def unreachable(kind: str) -> UpstreamError:
    """Return the UpstreamConnectError for an exchange that had no whole answer."""
    return UpstreamConnectError(f"The upstream could not be reached: {kind}.")


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


_ANY_KIND = "the connection broke, or spoke no HTTP, before a whole answer was there"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            # One for each address of the name; the first stands for all.
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__


def _kind(error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        # OpenSSL's reason, without the name or address that some of them end in.
        reason = error.verify_message.partition(",")[0]
        return f"its TLS certificate cannot be trusted ({reason})"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    if isinstance(error, socket.gaierror):
        return "its name could not be resolved"
    # Libraries wrap errors of the system in subclasses of their own; those carry no fixed words.
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return None


def _undecodable(what: str) -> UpstreamError:
    return UpstreamError(f"The upstream's answer {what}.", code="upstream_answer_encoding")


def _is_proxy(address: str) -> bool:
    return urlsplit(address).scheme in ("http", "https")
