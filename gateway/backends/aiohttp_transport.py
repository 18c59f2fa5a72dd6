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
    KEEPALIVE,
    Body,
    Reply,
    TransportSettings,
    broken,
    incoming,
    late,
    outgoing,
    proxy_for,
    tls_context,
    unreachable,
)


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
        self._closed = False
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
            async with asyncio.timeout(timeout):
                return await self._exchange(method, url, headers, body)
        except aiohttp.ConnectionTimeoutError:
            failure = late(connected=False)
        except TimeoutError:
            failure = late(connected=True)
        except aiohttp.ClientHttpProxyError:
            failure = unreachable("the proxy refused to connect")
        except (aiohttp.ClientError, OSError) as error:
            failure = broken(error)
        except ValueError:
            failure = unreachable("its address or a header to send is not valid")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            # Closing cancels those who wait for a free connection, as if they had been cancelled.
            failure = unreachable("the gateway is closing its connections")
        raise failure from None

    async def aclose(self) -> None:
        """See Transport.aclose."""
        self._closed = True
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
        if self._closed:
            raise unreachable("the gateway has closed its connections")
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
        url = URL(address).with_user(None)
        proxy = proxy_for(address, self._settings)
        trust: ssl.SSLContext | bool = True
        if url.scheme == "https" or (proxy or "").startswith("https:"):
            trust = self._trust()
        return _Target(url, URL(proxy) if proxy else None, trust)

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = tls_context(self._settings.ca_file, ssl.get_default_verify_paths())
        return self._tls
