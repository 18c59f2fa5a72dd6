"""Engine processes: each GGUF's is started, watched, and started again when it dies.

The keeper owns the listening socket and hands it to one engine after the other, so callers never
find nobody there: they wait in the socket's backlog until the next engine accepts. What it knows
of an engine it writes into a small status file, which every worker reads. The engine holds the
other end of a pipe and ends when the keeper does.
"""

import asyncio
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from gateway.backends.local import EngineFacts, EngineStatus
from gateway.engine_counts import COUNTS

_GIVES_UP = frozenset({3, 4})
"""Exit codes of an engine that would fail the same way again: 3 the model, 4 the memory. Of one
that has loaded before they are believed to pass: memory is freed, a disk is emptied."""
_INHERITED = re.compile(
    r"PATH|HOME|TMPDIR|LANG|TZ|(LC|LD|DYLD|PYTHON|VIRTUAL|GGML|CUDA|NVIDIA|HIP|VK|COVERAGE)_?\w*"
).fullmatch
"""What an engine gets of the environment: nothing that could be an upstream's key."""
_BACKLOG = 2048
_LONGEST_LINE = 2**20
_MAX_PAUSE = 5.0
_DEATHS = 3
_STOP_GRACE = 5.0


class EngineLoadError(Exception):
    """An engine could not load its model; the message says why."""


class EngineKeeper:
    """Keeps one engine running. `settings` go to it as JSON; `waits_for_use` delays the start."""

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        directory: Path,
        *,
        engine: str = "",
        waits_for_use: bool = False,
        log: structlog.stdlib.BoundLogger,
        clock: Callable[[], float],
    ) -> None:
        """`engine` is what it is called where that is not as the upstream, `name`."""
        self.name = name
        self.socket_path, self.status_path = engine_paths(directory, engine or name)
        self._settings = settings
        self._model = Path(settings["model"])
        self._stamp = stamp(self._model)
        self.waits_for_use = waits_for_use
        self._log = log.bind(engine=name)
        self._clock = clock
        self.status = EngineStatus("waiting" if waits_for_use else "starting")
        self._loaded = asyncio.Event()
        self._dying = asyncio.Event()
        self._reason: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Bind the socket and begin to keep; returns at once."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.socket_path))
        self.socket_path.chmod(0o600)
        self._listener.listen(_BACKLOG)
        self._write(self.status)
        self._task = asyncio.get_running_loop().create_task(self._keep(self._listener))

    async def loaded(self, *, patient: bool = True) -> None:
        """Wait for the first load; raise EngineLoadError if it failed for good.

        Who is not `patient` takes it for failed when the engine has died some times over it.
        """
        waits = [asyncio.ensure_future(self._loaded.wait())]
        if not patient:
            waits.append(asyncio.ensure_future(self._dying.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self._loaded.is_set():
            raise EngineLoadError(
                f"upstreams.{self.name}: the engine died {_DEATHS} times while it loaded the model"
            )
        if self.status.state == "failed":
            raise EngineLoadError(f"upstreams.{self.name}: {self.status.reason}")

    async def stop(self) -> None:
        """End the engine: it finishes what it decodes, or is killed after some seconds."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_GRACE)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._listener is not None:
            self._listener.close()
        status = self.status_path
        lasting = (status.with_suffix(".journal"), status.with_suffix(COUNTS))
        for left in (self.socket_path, status, *lasting):
            left.unlink(missing_ok=True)

    @property
    def serves(self) -> bool:
        """Whether it may go on: it has not failed, and its model file is the one it began with."""
        return self.status.state != "failed" and self._stamp == stamp(self._model)

    async def _keep(self, listener: socket.socket) -> None:
        failures = 0
        while True:
            if self.waits_for_use:
                await self._used(listener)
            if self._stamp != stamp(self._model):
                # Its vectors would be kept under the name of the file that was there before.
                self._reason = f"{self._model} was changed: reload the config to use it"
                self._fail(listener)
                return
            began = self._clock()
            code = await self._run(listener)
            was_ready = self.status.state == "ready"
            if code in _GIVES_UP and self.status.facts is None:
                self._fail(listener)
                return
            if code == 0 and self.waits_for_use:
                # It had nothing to do for its idle time.
                self._write(replace(self.status, state="waiting", pid=None))
                continue
            failures = 0 if was_ready else failures + 1
            if failures == _DEATHS and self.status.facts is None:
                self._dying.set()
            self._log.warning("engine died", code=code, seconds=round(self._clock() - began, 3))
            restarts = self.status.restarts + 1
            self._write(replace(self.status, state="starting", restarts=restarts, pid=None))
            await asyncio.sleep(min(_MAX_PAUSE, 0.1 * 2**failures) if failures else 0)

    async def _used(self, listener: socket.socket) -> None:
        """Wait until somebody connects; the connection stays in the backlog for the engine."""
        loop = asyncio.get_running_loop()
        used = asyncio.Event()
        loop.add_reader(listener, used.set)
        try:
            await used.wait()
        finally:
            loop.remove_reader(listener)

    async def _run(self, listener: socket.socket) -> int:
        """Run one engine to its end; return its exit code (negative: the signal)."""
        self._write(replace(self.status, state="starting", pid=None))
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.engine",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            pass_fds=[listener.fileno()],
            env={name: value for name, value in os.environ.items() if _INHERITED(name)},
        )  # fmt: skip
        settings = {**self._settings, "fd": listener.fileno(), "restarts": self.status.restarts}
        if process.stdin is None or process.stderr is None:
            raise RuntimeError("the engine was started without its pipes")
        process.stdin.write(msgspec.json.encode(settings) + b"\n")
        async for line in process.stderr:
            self._heard(line, process.pid)
        return await process.wait()

    def _heard(self, line: bytes, pid: int) -> None:
        """Take a line of the engine's log: ours are JSON, anything else is llama.cpp's or worse."""
        try:
            said = msgspec.json.decode(line, type=dict[str, Any])
            event, level = str(said.pop("event")), str(said.pop("level", "info"))
        except (msgspec.DecodeError, KeyError, UnicodeDecodeError):
            self._log.warning("engine", said=line.decode(errors="replace").rstrip()[:500])
            return
        if event == "ready":
            facts = msgspec.convert(said, EngineFacts)
            self._write(EngineStatus("ready", self.status.restarts, pid, facts=facts))
            self._loaded.set()
        if level == "error":
            self._reason = str(said.get("message", event))
        log = {"error": self._log.error, "warning": self._log.warning, "debug": self._log.debug}
        log.get(level, self._log.info)(event, **said)

    def _fail(self, listener: socket.socket) -> None:
        # Nobody will accept any more: callers must be refused, not kept waiting.
        listener.close()
        self.socket_path.unlink(missing_ok=True)
        reason = self._reason or "the engine could not load its model"
        self._write(EngineStatus("failed", self.status.restarts, reason=reason))
        self._loaded.set()

    def _write(self, status: EngineStatus) -> None:
        self.status = status
        new = self.status_path.with_suffix(".new")
        try:
            new.write_bytes(msgspec.json.encode(status))
            new.rename(self.status_path)
        except OSError as error:
            # A full disk: workers go on with what was written last, and so does the engine.
            self._log.warning("status not written", reason=error.strerror)


def stamp(model: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced or written to; None where there is none."""
    try:
        found = model.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def engine_paths(directory: Path, name: str) -> tuple[Path, Path]:
    """Return the socket and the status file of the engine that is called this.

    Named by a digest, as a Unix socket's path may hold about a hundred bytes and config names any.
    """
    stem = f"engine-{sha256(name.encode()).hexdigest()[:12]}"
    return directory / f"{stem}.sock", directory / f"{stem}.json"
