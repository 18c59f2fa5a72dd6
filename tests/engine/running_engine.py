"""A real engine in a real child process, for tests: started, asked over its socket, killed.

with RunningEngine(model, directory, contexts=2) as engine:     # or `async with`
    engine.vectors(["a text"])
"""

import asyncio
import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
import psutil

from gateway.engine_counts import COUNTS, EngineCounts, read_counts

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
Input = str | list[int]


class EngineEndedError(Exception):
    """The engine ended before it was ready; `code` is its exit code."""

    def __init__(self, code: int, log: list[dict[str, Any]]) -> None:
        super().__init__(f"exit code {code}: {log}")
        self.code = code


class RunningEngine:
    """One engine; `directory` holds its socket and journal, so another may go on from there."""

    def __init__(
        self, model: Path, directory: Path, *, python_path: Path = ROOT, **settings: Any
    ) -> None:
        self._environ = {**os.environ, "PYTHONPATH": f"{python_path}{os.pathsep}{ROOT}"}
        self.socket = directory / "engine.sock"
        self.journal = directory / "engine.journal"
        self.settings: dict[str, Any] = {
            "socket": str(self.socket),
            "model": str(model),
            "journal": str(self.journal),
            "journal_key": "5a" * 32,
            **settings,
        }
        self.log: list[dict[str, Any]] = []
        self.raw: list[bytes] = []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def start(self) -> Self:
        """Start it, and return when it can be connected to; raises EngineEndedError."""
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway.engine"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environ,
            pass_fds=[fd] if (fd := self.settings.get("fd")) is not None else [],
        )
        self.client = self.new_client()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(self.settings).encode() + b"\n")
        self.process.stdin.flush()
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()
        assert self._ready.wait(SECONDS)
        if not self.events("ready"):
            code = self.process.wait(SECONDS)
            self.stop()
            raise EngineEndedError(code, self.log)
        return self

    def stop(self) -> int:
        """End it in good order; return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.ended()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.ended()

    def ended(self) -> int:
        """Wait until it has ended by itself; return its exit code."""
        code = self.process.wait(SECONDS)
        self._reader.join()
        for stream in (self.process.stdin, self.process.stderr):
            assert stream is not None
            stream.close()
        self.client.close()
        return code

    def new_client(self) -> httpx2.Client:
        # No certificates are read for it: that takes longer than most requests here.
        transport = httpx2.HTTPTransport(uds=str(self.socket), verify=False)
        return httpx2.Client(transport=transport, base_url="http://engine", timeout=SECONDS)

    def post(self, body: Any, path: str = "/v1/embeddings") -> httpx2.Response:
        return self.client.post(path, content=json.dumps(body))

    def ask(self, inputs: Sequence[Input], **fields: Any) -> dict[str, Any]:
        """Return the whole answer; fails if it is an error."""
        response = self.post({"input": inputs, **fields})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        assert [item["index"] for item in answer["data"]] == list(range(len(inputs)))
        return answer

    def vectors(self, inputs: Sequence[Input], **fields: Any) -> list[bytes]:
        """Return the bytes of each vector."""
        data = self.ask(inputs, **fields)["data"]
        return [base64.b64decode(item["embedding"], validate=True) for item in data]

    def error(self, body: Any) -> tuple[int, dict[str, Any]]:
        """Return status and error object of a request that must fail."""
        response = self.post(body)
        assert response.status_code >= 400, response.text
        error = response.json()["error"]
        assert {"message", "type", "param", "code"} <= error.keys()
        return response.status_code, error

    def health(self) -> dict[str, Any]:
        with self.new_client() as client:
            answer: dict[str, Any] = client.get("/health").json()
        return answer

    def counts(self) -> EngineCounts:
        """Return what it and those before it have counted."""
        return read_counts(self.journal.with_suffix(COUNTS))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line.get("event") == name]

    def wait_for(self, condition: Callable[[], Any]) -> None:
        """Return when `condition` holds."""
        until(condition)

    def at_work(self) -> bool:
        """Return whether a text stands in a slot of the journal (a context's, not the last)."""
        data = self.journal.read_bytes()
        slots = int.from_bytes(data[8:12], "little")
        return any(data[20 : 20 + 32 * (slots - 1)])

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.raw.append(line)
            try:
                self.log.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # llama.cpp's last words before an abort
            if self.log[-1]["event"] == "ready":
                self._ready.set()
        self._ready.set()


def until(condition: Callable[[], Any]) -> None:
    """Return when `condition` holds; another process makes it true, so it can only be looked at."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@contextmanager
def in_background(call: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run `call` in a thread; yield a list that gets its result, or its exception."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except (httpx2.HTTPError, AssertionError) as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results
    finally:
        thread.join()


def alive(pid: int) -> bool:
    """Return whether a process runs (and is not a zombie)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
