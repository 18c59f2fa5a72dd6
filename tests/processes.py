"""A whole gateway as people run it: `gateway serve` in a process of its own, on a free port.

with gateway_process(LOCAL) as served:
    openai.OpenAI(base_url=served.base_url, api_key="any")

It has a directory of its own for its config and its temporary files. What it writes to stderr is
read by a thread, so that it never waits for us and a test may wait for a line. Leaving the block
stops it as Ctrl-C would, which does not wait for load balancers, and asks that it ends well.
"""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx2

Found = TypeVar("Found")

ROOT = Path(__file__).parent.parent
LOCAL = (ROOT / "config" / "local.toml").read_text()
"""The config of the bundled model alone."""

STARTS_WITHIN = 60.0
ENDS_WITHIN = 45.0
"""Seconds. A gateway gives running requests 30 of them to end."""

_BASE_URL = re.compile(r"base_url = .*?(http[^\s\x1b]+)")
_NOT_INHERITED = ("OPENAI_API_KEY", "GATEWAY_CONFIG", "XDG_CACHE_HOME")


class GatewayProcess:
    """A running `gateway serve`."""

    def __init__(
        self, process: subprocess.Popen[str], directory: Path, authority: Path | None = None
    ) -> None:
        self.process = process
        self.verify = True if authority is None else ssl.create_default_context(cafile=authority)
        """How clients make sure that it is this one."""
        self.config = directory / "gateway.toml"
        """Its config, to be written again."""
        self.temporary = directory / "tmp"
        """Its temporary files, among them the engines' sockets."""
        self.base_url = ""
        """What an SDK is given; known once it is ready."""
        self._lines: list[str] = []
        self._read = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._collect, name="stderr", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id of the gateway (the engines' are in their "ready" events)."""
        return self.process.pid

    @property
    def address(self) -> str:
        """The root address, without /v1."""
        return self.base_url.removesuffix("/v1")

    @property
    def lines(self) -> list[str]:
        """All lines of stderr so far."""
        with self._read:
            return list(self._lines)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log entries so far whose `event` is `name`, oldest first."""
        entries = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == name]

    def wait_for(self, wanted: Callable[[], Found], *, timeout: float, what: str) -> Found:
        """Return what `wanted`, asked after every line of stderr, returns once that is true.

        Raises AssertionError, with `what` and the last lines, when `timeout` seconds have passed
        or stderr has ended without it.
        """
        with self._read:
            self._read.wait_for(lambda: self._ended or wanted(), timeout)
            ended = self._ended
        found = wanted()
        if not found and ended:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)  # what it said has ended, and so will it
            raise AssertionError(self.told(f"it ended without {what}"))
        if not found:
            raise AssertionError(self.told(f"not within {timeout:.0f} s: {what}"))
        return found

    def told(self, message: str) -> str:
        """Return the message with the state of the process and its last lines."""
        code = self.process.poll()
        state = "still running" if code is None else f"ended with {code}"
        return "\n".join([f"{message} (gateway {self.pid} {state}); it said:", *self.lines[-40:]])

    def started(self, timeout: float = STARTS_WITHIN) -> None:
        """Return when it listens and its engines have loaded; raise AssertionError if not."""
        give_up = time.monotonic() + timeout
        self.base_url = self.wait_for(self._announced, timeout=timeout, what="its base_url")
        while self._readiness() != 200:
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError(self.told(f"the gateway was not ready in {timeout:.0f} s"))
            time.sleep(0.05)  # nothing but its readiness says that an engine has loaded

    def stop(self) -> None:
        """Stop it with SIGINT.

        Raises AssertionError where it does not end soon, with 0, and leaving nothing behind.
        """
        self.process.send_signal(signal.SIGINT)
        self.ends_well()

    def ends_well(self) -> None:
        """Return when it has ended with 0, leaving nothing behind; raise AssertionError if not."""
        try:
            code = self.process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired as error:
            message = self.told(f"the gateway did not end in {ENDS_WITHIN:.0f} s")
            raise AssertionError(message) from error
        assert code == 0, self.told("the gateway did not end well")
        self._reader.join(10)
        assert not self._reader.is_alive(), self.told("a child outlives the gateway")
        left = [path.name for path in self.temporary.iterdir()]
        assert not left, self.told(f"the gateway left {left} behind")

    def reload(self, toml: str, event: str = "config reloaded") -> dict[str, Any]:
        """Give it another config and send SIGHUP; return the line in which it says what it did.

        Raises AssertionError where it does not say `event`.
        """
        told = len(self.events(event))
        self.write(toml)
        os.kill(self.pid, signal.SIGHUP)
        return self.next_event(event, told)

    def write(self, toml: str) -> None:
        """Give it another config, whole from the first moment."""
        new = self.config.with_suffix(".new")
        new.write_text(toml)
        new.replace(self.config)

    def next_event(self, event: str, told: int) -> dict[str, Any]:
        """Return the line `event` that follows those that were `told` already."""
        what = f'"{event}", {told} of which had been told'
        found = self.wait_for(lambda: self.events(event)[told:], timeout=STARTS_WITHIN, what=what)
        return found[0]

    def kill(self) -> None:
        """End it, and all it started, at once; nothing happens where they have ended."""
        with suppress(ProcessLookupError, PermissionError):  # macOS forbids it for a dead group
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(5)

    def _announced(self) -> str:
        found = next(filter(None, map(_BASE_URL.search, self.lines)), None)
        return found[1] if found else ""

    def _readiness(self) -> int:
        try:
            ready = f"{self.address}/health/ready"
            return httpx2.get(ready, timeout=5, trust_env=False, verify=self.verify).status_code
        except httpx2.TransportError:
            return 0

    def _collect(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                with self._read:
                    self._lines.append(line.rstrip("\n"))
                    self._read.notify_all()
        with self._read:
            self._ended = True
            self._read.notify_all()


@contextmanager
def gateway_process(
    toml: str | None,
    *options: str,
    starts_within: float = STARTS_WITHIN,
    config: Path | None = None,
    authority: Path | None = None,
    **environ: str,
) -> Iterator[GatewayProcess]:
    """Run `gateway serve` on this config for as long as the block runs; None: on none.

    `config` is a file that is there already, in place of `toml`; `authority` says who has signed
    its certificate. `options` are further options of `serve`, `environ` further environment
    variables. Raises AssertionError, with what the gateway said, where it does not start or end as
    it should.
    """
    # Not pytest's tmp_path: the path of a Unix socket has no more than about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="gw-") as made:
        directory = Path(made)
        (directory / "tmp").mkdir()
        command = [sys.executable, "-m", "gateway", "serve"]
        if config is None and toml is not None:
            config = directory / "gateway.toml"
            config.write_text(toml)
        if config is not None:
            command += ["--config", str(config)]
        process = subprocess.Popen(
            [*command, "--port", "0", *options],
            cwd=ROOT,
            env=_environ(directory) | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        served = GatewayProcess(process, directory, authority)
        try:
            served.started(starts_within)
            yield served
            served.stop()
        finally:
            served.kill()


def _environ(directory: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    # A home of its own, where the store of LOCAL is: no test finds what another one kept.
    own = {"TMPDIR": str(directory / "tmp"), "HOME": str(directory / "home")}
    return inherited | own | {"PYTHONUNBUFFERED": "1"}
