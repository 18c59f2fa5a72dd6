"""The quick transport, over aiohttp (extra `fast`); the only module that imports it.

One ClientSession an upstream, with what costs time and buys us nothing switched off. It knows
addresses, headers and bytes; what an answer means is for the backends.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import aiohttp
from yarl import URL

from gateway.backends.calls import Calls, opened, read_reply
from gateway.backends.exchange import (
    INVALID,
    Opened,
    Reply,
    broken,
    incoming,
    late,
    outgoing,
    unreachable,
)
from gateway.backends.reach import KEEPALIVE, TransportSettings, bare, proxy_for, tls_context
from gateway.errors import UpstreamError


@dataclass(frozen=True, slots=True)
class _Target:
    """An address made ready: parsed once, with its proxy and its trust."""

    url: URL
    proxy: URL | None
    ssl: ssl.SSLContext | bool


class AiohttpTransport:
    """A Transport over one aiohttp session, made in the loop of the first call."""

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        # TimeoutError is an OSError.
        self._calls = Calls((aiohttp.ClientError, OSError, ValueError), _explain)
        # Parsing a URL costs as much as everything else we do here. Bounded, because a model's
        # name may be part of one.
        self._target = lru_cache(maxsize=256)(self._aim)

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout: float,  # noqa: ASYNC109  # see Transport.send
    ) -> Reply:
        """See Transport.send."""

        async def exchange() -> Reply:
            source = await self._request(method, url, headers, body)
            return await read_reply(source, self._settings.max_answer)

        return await self._calls.bounded(exchange, timeout, late)

    async def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout: float,  # noqa: ASYNC109  # see Transport.open
        silence: float,
    ) -> Opened:
        """See Transport.open."""
        source = await self._calls.bounded(
            lambda: self._request(method, url, headers, body), timeout, late
        )
        limit = self._settings.max_answer
        return await opened(source, self._calls, limit=limit, silence=silence)

    async def aclose(self) -> None:
        """See Transport.aclose."""
        await self._calls.close()
        if self._session is not None:
            await self._session.close()

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> "_Source":
        session = self._session or self._open()
        target = self._target(url)
        response = await session.request(
            method,
            target.url,
            data=body,
            headers=outgoing(headers),
            allow_redirects=False,
            proxy=target.proxy,
            ssl=target.ssl,
        )
        return _Source(response)

    def _open(self) -> aiohttp.ClientSession:
        settings = self._settings
        connector: aiohttp.BaseConnector
        if settings.uds is not None:
            connector = aiohttp.UnixConnector(
                settings.uds, limit=settings.pool, keepalive_timeout=KEEPALIVE
            )
        else:
            connector = aiohttp.TCPConnector(limit=settings.pool, keepalive_timeout=KEEPALIVE)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout),
        )
        return self._session

    def _aim(self, address: str) -> _Target:
        address = bare(address)
        # Already encoded: yarl would turn %2F in a query into a slash.
        url = URL(address, encoded=True)
        proxy = proxy_for(address, self._settings)
        trust: ssl.SSLContext | bool = True
        if url.scheme == "https" or (proxy or "").startswith("https:"):
            trust = self._trust()
        return _Target(url, URL(proxy) if proxy else None, trust)

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = tls_context(self._settings.ca_file, ssl.get_default_verify_paths())
        return self._tls


class _Source:
    """See calls.Source."""

    __slots__ = ("_closed", "_content", "_response", "headers", "next", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = incoming(response.raw_headers)
        self.next = response.content.readany
        self._content = response.content
        self._response = response
        # aiohttp hangs up on a body that breaks HTTP's rules, and leaves whoever reads it waiting.
        connection = response.connection
        protocol = None if connection is None else connection.protocol
        self._closed = None if protocol is None else protocol.closed
        if self._closed is not None:
            # One for each connection, or asyncio would log how it ended.
            self._closed.remove_done_callback(_heard)
            self._closed.add_done_callback(_heard)
            self._closed.add_done_callback(self._lost)

    async def close(self) -> None:
        if self._closed is not None:
            self._closed.remove_done_callback(self._lost)
        # A body read to its end has given its connection back to the pool already.
        if not self._response.closed:
            self._response.close()

    def _lost(self, _: object) -> None:
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientPayloadError())


def _heard(closed: asyncio.Future[None]) -> None:
    if not closed.cancelled():
        closed.exception()


def _explain(error: Exception) -> UpstreamError | None:
    """Return what a failure of aiohttp means; None where time has run out."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return late(connected=False)
    if isinstance(error, TimeoutError):
        return None
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return unreachable("the proxy refused to connect")
    if isinstance(error, aiohttp.InvalidURL):
        return unreachable(INVALID)
    if isinstance(error, (aiohttp.ClientError, OSError)):
        return broken(error)
    return unreachable(INVALID)
