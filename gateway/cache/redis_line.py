"""Connections to Redis: what the address says of them, and how they are closed."""

from typing import Any, NamedTuple

from redis.asyncio import Connection, SSLConnection
from redis.asyncio.connection import AbstractConnection, RedisSSLContext, parse_url

from gateway.errors import ConfigError


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Line(AbstractConnection):
    """A connection that closes at once.

    Closing in good form sends what is left to be sent first and, with TLS, waits for an answer:
    of a frozen server one would keep the connections, and megabytes of values in each.
    """

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """Close, and forget what was not sent."""
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(*args, **kwargs)


class _PlainLine(Line, Connection):
    """A connection in clear text."""


class _SealedLine(Line, SSLConnection):
    """A connection over TLS."""


class Access:
    """What an address says: where, as whom, under which certificates."""

    def __init__(self, url: str) -> None:
        """`url` is for redis-py; raises ConfigError for certificates that cannot be used."""
        options: dict[str, Any] = dict(parse_url(url))
        kind = options.pop("connection_class", Connection)
        self._kind = _SealedLine if kind is SSLConnection else _PlainLine
        self.address = Address(options.pop("host", "localhost"), options.pop("port", 6379))
        self._options = options | {
            "client_name": "embedding-gateway",
            # RESP2 takes a round trip less to connect, and brings nothing that was not asked for.
            "protocol": 2,
            "driver_info": None,
            # The time limits are ours.
            "socket_timeout": None,
            "socket_connect_timeout": None,
        }
        self._tls: RedisSSLContext | None = None
        self._tls = _read_certificates(self.line(self.address))

    def line(self, address: Address) -> Line:
        """Return a connection that is yet to connect."""
        line = self._kind(host=address.host, port=address.port, **self._options)
        if isinstance(line, SSLConnection) and self._tls is not None:
            # Each would read the system's certificates anew, which takes milliseconds.
            line.ssl_context = self._tls
        return line


def _read_certificates(line: Line) -> RedisSSLContext | None:
    if not isinstance(line, SSLConnection):
        return None
    try:
        line.ssl_context.get()
    except OSError as error:
        raise ConfigError(
            [f"cache.store: the certificates for Redis cannot be used: {error}"]
        ) from error
    return line.ssl_context
