"""The plain transport, over httpx2; the only module that imports it.

It uses httpx2's own transport layer below its client, which would add cookies, redirects, proxies
of its own choosing and a log line with the address. It knows addresses, headers and bytes.
"""

import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import httpx2

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
    """An address made ready: parsed once, with the pool that leads there."""

    url: httpx2.URL
    pool: httpx2.AsyncHTTPTransport


class HttpxTransport:
    """A Transport over httpx2's connection pools: one a proxy and scheme, so most often one."""

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._pools: dict[tuple[str | None, str], httpx2.AsyncHTTPTransport] = {}
        self._tls: ssl.SSLContext | None = None
        # TimeoutError is an OSError.
        failures = (httpx2.TransportError, httpx2.InvalidURL, OSError, ValueError)
        self._calls = Calls(failures, _explain)
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
        for pool in self._pools.values():
            await pool.aclose()

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> "_Source":
        target = self._target(url)
        request = httpx2.Request(
            method,
            target.url,
            headers=outgoing(headers),
            content=body,
            extensions={"timeout": {"connect": self._settings.connect_timeout}},
        )
        return _Source(await target.pool.handle_async_request(request))

    def _aim(self, address: str) -> _Target:
        address = bare(address)
        url = httpx2.URL(address)
        proxy = proxy_for(address, self._settings)
        way = (proxy, url.scheme)
        if way not in self._pools:
            self._pools[way] = self._open(proxy, secure=url.scheme == "https")
        return _Target(url, self._pools[way])

    def _open(self, proxy: str | None, *, secure: bool) -> httpx2.AsyncHTTPTransport:
        settings = self._settings
        tunnel = proxy is not None and proxy.startswith("https:")
        # Reading the system's certificates takes tens of milliseconds; plain HTTP needs none.
        tls = self._trust() if secure or tunnel else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return httpx2.AsyncHTTPTransport(
            verify=tls,
            limits=httpx2.Limits(
                max_connections=settings.pool,
                max_keepalive_connections=settings.pool,
                keepalive_expiry=KEEPALIVE,
            ),
            proxy=httpx2.Proxy(proxy, ssl_context=tls if tunnel else None) if proxy else None,
            uds=settings.uds,
        )

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = tls_context(self._settings.ca_file, ssl.get_default_verify_paths())
        return self._tls


class _Source:
    """See calls.Source."""

    __slots__ = ("_chunks", "_reading", "_response", "headers", "status")

    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = incoming(response.headers.raw)
        self._response = response
        # The response's own iterators give the connection back before we could look at it.
        pieces = aiter(cast("httpx2.AsyncByteStream", response.stream))
        self._chunks = cast("AsyncGenerator[bytes]", pieces)
        self._reading = False

    async def next(self) -> bytes:
        self._reading = True
        try:
            piece = await anext(self._chunks, b"")
            if not piece and _goes_on(self._response):
                await self._response.extensions["network_stream"].aclose()
            return piece
        finally:
            self._reading = False

    async def close(self) -> None:
        # A generator cannot be closed while somebody waits in it; closing the response ends both.
        if not self._reading:
            await self._chunks.aclose()
        await self._response.aclose()


def _goes_on(response: httpx2.Response) -> bool:
    """Whether more has come than the answer that was just read to its end.

    httpx2 would take it for the answer to the next request on this connection, which is another's.
    It has no public way to ask (2.16); where the way taken here is gone, no connection is used
    twice.
    """
    try:
        stream: Any = response.stream
        machine = stream._httpcore_stream._stream._connection._h11_state  # noqa: SLF001
        return bool(machine.trailing_data[0])
    except AttributeError:
        return True


def _explain(error: Exception) -> UpstreamError | None:
    """Return what a failure of httpx2 means; None where time has run out."""
    if isinstance(error, httpx2.ConnectTimeout):
        return late(connected=False)
    if isinstance(error, (httpx2.TimeoutException, TimeoutError)):
        return None
    if isinstance(error, httpx2.ProxyError):
        return unreachable("the proxy refused to connect")
    if isinstance(error, (httpx2.InvalidURL, httpx2.LocalProtocolError, ValueError)):
        return unreachable(INVALID)
    return broken(error)
