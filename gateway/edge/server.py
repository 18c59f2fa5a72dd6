"""Uvicorn as this gateway runs it: connections, signals and the way it ends are ours.

It serves whatever application it is given; `process` decides how many processes there are.
"""

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from gateway.config import Server as Settings
from gateway.edge.patience import Terms
from gateway.edge.protocol import Protocol
from gateway.reasons import Reason

_BACKLOG = 2048
"""Connections that may wait to be accepted; as uvicorn has it."""
HANDSHAKE = 10.0
"""Seconds for TLS to be set up."""
_ON_ITS_WAY = 0.1
"""Seconds in which a request may still come on a connection that is to be closed."""
_LAST_WORDS = 1.0
"""Seconds to write what ended requests are answered."""
_TICK = 0.02


class StartError(Exception):
    """The gateway cannot start; the message says why."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """The bound sockets, and the address to tell people."""

    public: socket.socket
    admin: socket.socket | None
    base_url: str

    def close(self) -> None:
        """Close them, as a server that has started does itself when it ends."""
        for bound in filter(None, (self.public, self.admin)):
            bound.close()


class Server(uvicorn.Server):
    """A uvicorn server of our connections, which leaves the signals to whoever runs it."""

    servers: list[asyncio.base_events.Server]

    def __init__(
        self, config: uvicorn.Config, settings: Settings, refused: Callable[[Reason], None]
    ) -> None:
        """`refused` is told of every request that did not even begin."""
        super().__init__(config)
        self.terms = Terms(
            settings.header_timeout, settings.body_timeout, settings.max_header, refused
        )
        self._grace = settings.drain_timeout

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    @property
    def requests(self) -> int:
        """How many run now."""
        return len(self.server_state.tasks)

    def leave(self) -> None:
        """From now on close every connection behind its next answer, which says so."""
        self.terms.leaving = True
        for connection in self._connections():
            connection.leave()

    def take(self, settings: Settings) -> None:
        """Go by other settings from now on, and by what the certificate's files hold now.

        Raises StartError for a certificate that cannot be used; then nothing has changed.
        """
        if self.config.ssl is not None:
            check_certificate(settings)
            if settings.tls_cert is not None:
                self.config.ssl.load_cert_chain(settings.tls_cert, settings.tls_key)
        self.terms.header_timeout = settings.header_timeout
        self.terms.body_timeout = settings.body_timeout
        self.terms.max_header = settings.max_header
        self._grace = settings.drain_timeout

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. Uvicorn's own leaves a client a minute to set up TLS."""
        config, loop = self.config, asyncio.get_running_loop()
        wait = HANDSHAKE if config.ssl is not None else None
        self.servers = [
            await loop.create_server(
                lambda: Protocol(config, self.server_state, self.terms),
                sock=bound,
                ssl=config.ssl,
                backlog=_BACKLOG,
                ssl_handshake_timeout=wait,
            )
            for bound in sockets or []
        ]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and return when what runs has ended, or has been ended.

        A request may be on its way on a connection that is kept, so those stay open meanwhile.
        """
        self.leave()
        await asyncio.sleep(0)  # whoever waits to be accepted is
        for server in self.servers:
            server.close()
        for bound in sockets or []:
            bound.close()
        await asyncio.sleep(_ON_ITS_WAY)
        await self._until(self._is_done, self._grace)
        for connection in self._connections():
            connection.end()
        await self._until(lambda: not self.server_state.connections, _LAST_WORDS)
        for connection in self._connections():
            connection.abort()
        await self._until(lambda: not self.server_state.tasks, _LAST_WORDS)

    def _connections(self) -> Sequence[Protocol]:
        return [c for c in self.server_state.connections if isinstance(c, Protocol)]

    def _is_done(self) -> bool:
        return not self.server_state.tasks and not any(c.busy for c in self._connections())

    async def _until(self, true: Callable[[], bool], seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not true():  # noqa: ASYNC110 - of many connections
                    await asyncio.sleep(_TICK)


def make_server(
    app: ASGIApp,
    settings: Settings,
    *,
    tls: bool = True,
    refused: Callable[[Reason], None] = lambda _: None,
) -> Server:
    """Return a server for one listener; it is given its bound sockets when it is started.

    `refused` is told of every request that did not even begin.
    """
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="none",
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=settings.forwarded_allow_ips is not None,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        ssl_certfile=settings.tls_cert if tls else None,
        ssl_keyfile=settings.tls_key if tls else None,
    )
    config.load()
    return Server(config, settings, refused)


def raise_open_files() -> None:
    """Let this process have as many connections as the system allows; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS names a limit that it does not give
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def bind(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; raise OSError where that cannot be.

    Who connects from now on waits for a server instead of being refused.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    bound.set_inheritable(True)
    return bound


def listen(server: Settings) -> Listeners:
    """Bind what the config asks for; raises StartError for an address or certificate that fails."""
    scheme = "https" if server.tls_cert else "http"
    check_certificate(server)
    public = _bind(server.host, server.port, "port")
    host, port = public.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    admin = None
    if server.admin is not None:
        admin_host, _, admin_port = server.admin.rpartition(":")
        admin = _bind(admin_host.strip("[]"), int(admin_port), "admin")
    return Listeners(public, admin, f"{scheme}://{shown}:{port}/v1")


def check_certificate(server: Settings) -> None:
    """Raise StartError where the certificate and its key cannot be used together."""
    if server.tls_cert is None or server.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(server.tls_cert, server.tls_key)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StartError(
            f"server.tls_cert and server.tls_key cannot be used together: {reason}"
        ) from error


def _bind(host: str, port: int, option: str) -> socket.socket:
    try:
        return bind(host, port)
    except OSError as error:
        raise StartError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); "
            f"is something else there? Choose another with server.{option}."
        ) from error
