"""Uvicorn as this gateway runs it: a client that leaves ends its request, and signals are ours.

It serves whatever application it is given; `process` decides how many processes there are.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.config import Server as Settings
from gateway.errors import InvalidRequestError

_OFFER = re.compile(rb"\r\nupgrade:", re.IGNORECASE)

_BACKLOG = 2048
"""Connections that may wait to be accepted; as uvicorn has it."""

UNREAD = 60.0
"""Seconds that a client may leave what it was sent unread, with the buffers full."""

GRACE = 30.0
"""Seconds that running requests have to end after SIGTERM."""


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


class Protocol(HttpToolsProtocol):
    """One connection. When the client closes it, the request that runs on it is cancelled.

    ASGI only lets an application ask whether the client is still there, which costs a task for
    every request; the connection knows, and costs nothing.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._application: ASGIApp = self.app
        self._running: asyncio.Task[Any] | None = None
        self._left = False
        self._deaf = False
        self._unread: asyncio.TimerHandle | None = None
        self.app = self._attended

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol.

        A client may offer to go on in another protocol, as Java's does with HTTP/2, and must then
        be answered in this one (RFC 9110, 7.8). The parser would stop at the offer and take the
        body for the next request; so the offer is renamed before the parser sees it.
        """
        if self._deaf:
            return
        if b"pgrade:" in data or b"PGRADE:" in data:
            head, end, body = data.partition(b"\r\n\r\n")
            cycle: RequestResponseCycle | None = self.cycle
            if cycle is None or not cycle.more_body:
                data = _OFFER.sub(b"\r\nx-offered:", head) + end + body
        super().data_received(data)

    def _unsupported_upgrade_warning(self) -> None:
        # An offer that came in pieces and was not seen above: what follows cannot be told apart
        # from another request, so none of it is read, and the connection ends with the answer.
        self._deaf = True
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in the form of every other error, and close."""
        body = InvalidRequestError(f"Your request could not be read: {msg}", code="bad_http").body()
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
        self.transport.write(
            b"%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (head, len(body), body)
        )
        self.transport.close()

    async def _attended(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._running = asyncio.current_task()
        try:
            await self._application(scope, receive, send)
        except asyncio.CancelledError:
            if not self._left:
                raise
        finally:
            self._running = None

    def pause_writing(self) -> None:
        """See asyncio.Protocol: the client does not read as fast as we write."""
        super().pause_writing()
        # One that does not read at all would hold what it was given for ever: an upstream's place,
        # or a local model's only context.
        self._unread = self.loop.call_later(UNREAD, self.transport.abort)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        self._forget_unread()

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(exc)
        self._forget_unread()
        if self._running is not None:
            self._left = True
            self._running.cancel()


class Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def make_server(app: ASGIApp, settings: Settings, *, tls: bool = True) -> Server:
    """Return a server for one listener; it is given its bound sockets when it is started."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        loop="none",
        lifespan="on",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=settings.forwarded_allow_ips is not None,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        ssl_certfile=settings.tls_cert if tls else None,
        ssl_keyfile=settings.tls_key if tls else None,
        timeout_graceful_shutdown=int(GRACE),
        timeout_keep_alive=75,
    )
    return Server(config)


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
    _check_certificate(server)
    public = _bind(server.host, server.port, "port")
    host, port = public.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    admin = None
    if server.admin is not None:
        admin_host, _, admin_port = server.admin.rpartition(":")
        admin = _bind(admin_host.strip("[]"), int(admin_port), "admin")
    return Listeners(public, admin, f"{scheme}://{shown}:{port}/v1")


def _check_certificate(server: Settings) -> None:
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
