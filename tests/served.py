"""Any ASGI app on a real uvicorn and a free port, for tests that want real sockets.

with serve(app) as served:          # or `async with`
    httpx2.get(served.address + "/…")
"""

import asyncio
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Served(AbstractContextManager["Served"]):
    """An ASGI app on a uvicorn of its own, in a thread with a loop of its own."""

    def __init__(self, app: Any, config: uvicorn.Config) -> None:
        self.app = app
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name="served", daemon=True)

    @property
    def address(self) -> str:
        """The root address, without a path; for a Unix socket a made-up host."""
        config = self._server.config
        if config.uds:
            return "http://localhost"
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"{'https' if config.is_ssl else 'http'}://127.0.0.1:{port}"

    def start(self) -> Self:
        """Start, and return when it listens."""
        self._thread.start()
        if not self._server.listening.wait(10) or not self._server.started:
            raise RuntimeError("the test server did not start")
        if hasattr(self.app, "served_at"):
            self.app.served_at(self.address)
        return self

    def stop(self) -> None:
        """Stop, and return when every connection is closed; calls underway get a second."""
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive(), "a server that goes on would slow all tests after it"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._server.serve())
        finally:
            self._server.listening.set()


def serve(
    app: Any, *, port: int = 0, uds: Path | None = None, tls: tuple[Path, Path] | None = None
) -> Served:
    """Return a server to be entered, with or without `async`; `tls` is (certificate, key)."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        uds=str(uds) if uds else None,
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
        http=_Protocol,
        log_level="critical",
        access_log=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    return Served(app, config)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class _Protocol(HttpToolsProtocol):
    """Lets the app hang up, which ASGI has no word for."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["transport"] = self.transport  # type: ignore[typeddict-unknown-key]
