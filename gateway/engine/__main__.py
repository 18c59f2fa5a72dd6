"""`python -m gateway.engine`: reads its settings, then serves the model on a Unix socket.

The process: standard input, signals, priority, the socket. It dies with its parent; it exits 0
after SIGTERM or when standard input closes, 3 for a file or config that will never do, 4 where the
machine lacks something. The socket can be connected to only when the model has been proved.
"""

import contextlib
import ctypes
import logging
import os
import secrets
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from gateway.engine.faults import RefusedError
from gateway.engine.journal import Journal
from gateway.engine.log import Log, LogHandler
from gateway.engine.settings import Settings, decode_settings

if TYPE_CHECKING:
    from gateway.engine.http import App, Receive, Send
    from gateway.engine.running import Engine

NICENESS = {"embedding": 5, "chat": 10}
"""Below the gateway, so that a cached answer never waits for a decode; and a vector, which takes
some milliseconds, never for an answer, which takes some seconds."""
SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another waits; by default a decode that ends
could wait ten times as long before it gets its next text."""
KEEP_ALIVE_SECONDS = 3600
BACKLOG = 2048
PRIVATE = 0o177
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the engine; return the exit code."""
    log = Log()
    try:
        settings = decode_settings(sys.stdin.buffer.readline())
    except ValueError as error:
        log.write("error", "refused", message=f"the settings cannot be used: {error}")
        return RefusedError.exit_code
    log = Log(settings.log_level)
    _prepare_process(NICENESS[settings.task])
    try:
        return _run(settings, log)
    except RefusedError as error:
        log.write("error", "refused", message=str(error), model=settings.model)
        return error.exit_code


def _run(settings: Settings, log: Log) -> int:
    try:
        build = _builder(settings)
    except (ImportError, OSError, RuntimeError) as error:
        raise RefusedError(
            f"llama-cpp-python cannot be loaded ({error}); it comes with the extra [local]"
        ) from error
    engine = build(
        settings, log, clock=time.time, timer=time.perf_counter, after_fork=_die_with_parent
    )
    threading.Thread(target=_watch_parent, args=(engine.journal,), daemon=True).start()
    with _listener(settings) as listener:
        log.tell("info", "ready", pid=os.getpid(), **engine.facts)
        _serve(_Used(engine.app), listener, log, settings.idle)
    engine.close()
    return 0


def _builder(settings: Settings) -> Callable[..., "Engine"]:
    # Not at the top: it loads llama.cpp, which may be missing or not fit this machine.
    if settings.task == "chat":
        from gateway.engine.chat.start import build_chat

        return partial(build_chat, randbits=secrets.randbits)
    from gateway.engine.start import build_engine

    return build_engine


def _prepare_process(niceness: int) -> None:
    os.umask(PRIVATE)
    os.nice(niceness)
    sys.setswitchinterval(SWITCH_SECONDS)
    # Ctrl-C in a terminal reaches all processes; the parent says when it is time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # An assert in llama.cpp would otherwise start a debugger on this process and wait for it.
    os.environ["GGML_NO_BACKTRACE"] = "1"
    # numpy's linear algebra is used for one dot product a text: no threads for that.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    # These make llama.cpp print the words of a batch.
    for name in ("LLAMA_BATCH_DEBUG", "LLAMA_GRAPH_INPUT_DEBUG"):
        os.environ.pop(name, None)
    _die_with_parent()


def _die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch_parent(journal: Journal) -> None:
    """Wait for the end of standard input, which is the end of the parent, and leave at once."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    journal.close()
    os._exit(0)


def _listener(settings: Settings) -> AbstractContextManager[socket.socket]:
    if settings.fd is not None:
        return socket.socket(fileno=settings.fd)
    return _listening(Path(settings.socket or ""))


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """Listen on `path`, for this user only; raises RefusedError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()  # of an engine that was killed
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        raise RefusedError(f"cannot listen on {path}: {error}") from error
    listener.setblocking(False)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


class _Used:
    """The app, and how long ago somebody last used it; asking for its health is no use of it."""

    def __init__(self, app: "App") -> None:
        self._app = app
        self._under_way = 0
        self._ended = time.monotonic()

    async def __call__(self, scope: Mapping[str, Any], receive: "Receive", send: "Send") -> None:
        if scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1
            self._ended = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last use ended; 0 during one."""
        return 0.0 if self._under_way else time.monotonic() - self._ended


def _serve(app: _Used, listener: socket.socket, log: Log, idle: float | None) -> None:
    logging.basicConfig(handlers=[LogHandler(log)], level=logging.INFO)
    config = uvicorn.Config(
        app,
        interface="asgi3",
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    _Server(config, app, idle).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends in good order, with exit code 0, on SIGTERM and when idle. SIGINT is the parent's."""

    def __init__(self, config: uvicorn.Config, app: _Used, idle: float | None) -> None:
        super().__init__(config)
        self._app = app
        self._idle = idle

    async def on_tick(self, counter: int) -> bool:
        if self._idle is not None and self._app.idle_seconds > self._idle:
            return True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if sig == signal.SIGTERM:
            self.should_exit = True


if __name__ == "__main__":
    sys.exit(main())
