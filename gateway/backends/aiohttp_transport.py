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
        self._calls = Calls()
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
        # Failures leave without their context: the library's own words may hold credentials.
        try:
            # Rather than aiohttp's own total, which rounds up to whole seconds.
            async with asyncio.timeout(timeout) as limit:
                self._calls.begin(limit)
                try:
                    return await self._exchange(method, url, headers, body)
                finally:
                    self._calls.end(limit)
        except aiohttp.ConnectionTimeoutError:
            failure = late(connected=False)
        except TimeoutError:
            failure = closing() if self._calls.closed else late(connected=True)
        except aiohttp.ClientHttpProxyError:
            failure = unreachable("the proxy refused to connect")
        except aiohttp.InvalidURL:
            failure = unreachable(INVALID)
        except (aiohttp.ClientError, OSError) as error:
            failure = broken(error)
        except ValueError:
            failure = unreachable(INVALID)
        raise failure from None

    async def aclose(self) -> None:
        """See Transport.aclose."""
        await self._calls.close()
        if self._session is not None:
            await self._session.close()

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Reply:
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
        try:
            answered = incoming(response.raw_headers)
            received = Body(answered, self._settings.max_answer)
            while chunk := await response.content.readany():
                received.feed(chunk)
            return Reply(response.status, answered, received.finish())
        finally:
            # A body read to its end has given its connection back to the pool already.
            if not response.closed:
                response.close()

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
