"""Processes under test: started on their cores, timed to their first answer, weighed, stopped.

It knows processes and ports; it does not know what a server is asked.
"""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 120.0
STOP_TIMEOUT = 15.0

_NOT_PASSED_ON = ("OPENAI_", "GATEWAY_", "LITELLM_", "LLAMA_", "COVERAGE_", "PYTHONDONT")
"""Beginnings of variables that would change what is measured."""

Cores = frozenset[int] | None
"""Where a process may run; None is anywhere."""


class StartError(Exception):
    """A server did not come up; the message ends with the last lines it said."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that takes part: how it is started on a port, and where it says that it is ready."""

    name: str
    command: Callable[[int], Sequence[str | Path]]
    ready: str = "/health"
    env: Mapping[str, str] = field(default_factory=dict)
    peer: bool = False
    """Not ours: left out where it does not start or breaks."""


def split_cores() -> tuple[Cores, Cores]:
    """Return the core of the server under test, and those of the load and the fake upstream.

    None for both where the system cannot pin, or has a single core.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    first, *others = sorted(os.sched_getaffinity(0))
    return (frozenset({first}), frozenset(others)) if others else (None, None)


@contextlib.contextmanager
def on_cores(cores: Cores) -> Iterator[None]:
    """Run on these cores for a while; what is started meanwhile stays on them."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server(contextlib.AbstractContextManager["Server"]):
    """One running contender. `start_seconds` is the time from its start to its first 200."""

    def __init__(self, contender: Contender, cores: Cores) -> None:
        """Start it; raises StartError."""
        self.contender = contender
        self.name = contender.name
        port = _free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - stop() closes it
        began = time.perf_counter()
        with on_cores(cores):
            self._process = subprocess.Popen(
                [str(word) for word in contender.command(port)],
                cwd=ROOT,
                env=environment(contender.env),
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait(port, contender.ready, began + START_TIMEOUT)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.perf_counter() - began

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process and its children so far."""
        used = [process.cpu_times() for process in self._family()]
        return float(sum(times.user + times.system for times in used))

    def memory(self) -> dict[str, int]:
        """Return bytes in memory: of the "server", and of the "engine" where it has one.

        Pages shared with other processes count in part (PSS) where the system can tell.
        """
        held: dict[str, int] = {}
        for process in self._family():
            role = "engine" if "gateway.engine" in process.cmdline() else "server"
            full = process.memory_full_info()
            held[role] = held.get(role, 0) + int(getattr(full, "pss", 0) or full.rss)
        return held

    def stop(self) -> None:
        """Ask it to end, and see to it."""
        family = self._family() if self._process.poll() is None else []
        self._process.terminate()
        _, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT)
        for process in alive:
            process.kill()
        self._process.wait()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _family(self) -> list[psutil.Process]:
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def _wait(self, port: int, path: str, until: float) -> None:
        while time.perf_counter() < until:
            if self._process.poll() is not None:
                raise StartError(
                    f"{self.name} ended with code {self._process.returncode}{self._tail()}"
                )
            if _status(port, path) == 200:
                return
            time.sleep(0.01)
        raise StartError(f"{self.name} was not ready in time{self._tail()}")

    def _tail(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()[-15:]
        return ":\n  " + "\n  ".join(lines) if lines else ""


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without what would lead a server elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_NOT_PASSED_ON) and not name.lower().endswith("_proxy")
    }
    return {**kept, **more}


def python(module: str, *words: str | Path) -> list[str | Path]:
    """Return the command that runs a module with the interpreter of this process."""
    return [sys.executable, "-m", module, *words]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
