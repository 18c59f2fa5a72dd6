"""The plain transport, over httpx2; the only module that imports it.

It uses httpx2's own transport layer below its client, which would add cookies, redirects, proxies
of its own choosing and a log line with the address. It knows addresses, headers and bytes.
"""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import lru_cache

import httpx2

from gateway.backends.exchange import (
    INVALID,
    Body,
    Calls,
    Reply,
    broken,
    closing,
    incoming,
    late,
    outgoing,
    unreachable,
)
from gateway.backends.reach import KEEPALIVE, TransportSettings, bare, proxy_for, tls_context


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
        self._calls = Calls()
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
        # Failures leave without their context: the library's own words may hold credentials.
        try:
            async with asyncio.timeout(timeout) as limit:
                self._calls.begin(limit)
                try:
                    return await self._exchange(method, url, headers, body)
                finally:
                    self._calls.end(limit)
        except httpx2.ConnectTimeout:
            failure = late(connected=False)
        except (httpx2.TimeoutException, TimeoutError):
            failure = closing() if self._calls.closed else late(connected=True)
        except httpx2.ProxyError:
            failure = unreachable("the proxy refused to connect")
        except (httpx2.InvalidURL, httpx2.LocalProtocolError, ValueError):
            failure = unreachable(INVALID)
        except (httpx2.TransportError, OSError) as error:
            failure = broken(error)
        raise failure from None

    async def aclose(self) -> None:
        """See Transport.aclose."""
        await self._calls.close()
        for pool in self._pools.values():
            await pool.aclose()

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Reply:
        target = self._target(url)
        request = httpx2.Request(
            method,
            target.url,
            headers=outgoing(headers),
            content=body,
            extensions={"timeout": {"connect": self._settings.connect_timeout}},
        )
        response = await target.pool.handle_async_request(request)
        try:
            answered = incoming(response.headers.raw)
            received = Body(answered, self._settings.max_answer)
            async with aclosing(response.aiter_raw()) as chunks:
                async for chunk in chunks:
                    received.feed(chunk)
            return Reply(response.status_code, answered, received.finish())
        finally:
            await response.aclose()

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
