"""Real redis-servers for tests: started on free ports, frozen, killed, started again.

with serve_redis(folder) as server:
    ...  # server.url for the gateway, server.admin for the test
"""

import asyncio
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
import redis

PATIENCE = 30.0
"""Seconds until a server that does not come up counts as broken."""


class RedisServer:
    """A redis-server of our own; `admin` is a client that may do everything."""

    def __init__(self, folder: Path, *options: str) -> None:
        """`options` are redis-server's, each with its value."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.options = options
        self.admin = redis.Redis(port=self.port, retry=None)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address, as nobody in particular."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self, *more: str) -> None:
        """Start, or start again with what is on its disk; return when it accepts connections."""
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("no `redis-server` command (Debian, Ubuntu: apt-get install redis-server)")
        basics = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen(
            [binary, *basics, "--dir", str(self.folder), "--logfile", "log", *self.options, *more],
            stdout=subprocess.DEVNULL,
        )
        wait_for(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        with suppress(redis.BusyLoadingError):
            try:
                return bool(self.admin.ping())
            except redis.ConnectionError:
                return False
        return True

    def freeze(self) -> None:
        """Stop it in its tracks: its connections stay, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; what it held is lost."""
        self.admin.close()
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Kill it if it runs, and let go of everything."""
        if self._process is not None:
            self.kill()
        self.admin.close()


@contextmanager
def serve_redis(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run one redis-server."""
    server = RedisServer(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def serve_cluster(folder: Path, size: int = 3) -> Iterator[list[RedisServer]]:
    """Run a cluster in which each server has its share of the slots, in order."""
    with ExitStack() as stack:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
        options += ["--cluster-require-full-coverage", "no"]
        servers = []
        for number in range(size):
            bus = ["--cluster-port", str(free_port())]
            place = folder / str(number)
            servers.append(stack.enter_context(serve_redis(place, *options, *bus)))
        for number, server in enumerate(servers):
            first, end = (16384 * edge // size for edge in (number, number + 1))
            server.admin.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
            server.admin.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            bus = server.options[server.options.index("--cluster-port") + 1]
            servers[0].admin.execute_command("CLUSTER MEET", "127.0.0.1", server.port, bus)
        wait_for(lambda: is_whole(servers))
        yield servers


def is_whole(servers: list[RedisServer]) -> bool:
    """Whether all know of all, and that all is well."""
    said = [server.admin.execute_command("CLUSTER INFO") for server in servers]
    return all(
        info["cluster_state"] == "ok"
        and info["cluster_size"] == str(len(servers))
        and info["cluster_slots_ok"] == "16384"
        for info in said
    )


def wait_for(happened: Callable[[], bool]) -> None:
    """Look until it happened."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listen(talk: Talk) -> AsyncIterator[str]:
    """Stand in for a server: `talk` holds each conversation. Yields the address."""
    talks: set[asyncio.Task[None]] = set()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks)


def through(server: RedisServer, way_back: Callable[[bytes], Awaitable[bytes]]) -> Talk:
    """Talk to a server for somebody; what it says goes through `way_back`."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", server.port)

        async def back() -> None:
            while data := await from_server.read(65536):
                writer.write(await way_back(data))

        answering = asyncio.create_task(back())
        try:
            while data := await reader.read(65536):
                to_server.write(data)
        finally:
            answering.cancel()
            to_server.transport.abort()
            await asyncio.gather(answering, return_exceptions=True)

    return talk
