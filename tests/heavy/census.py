"""What a gateway's processes hold: memory, descriptors, tasks, objects, and series of metrics.

The tasks are counted by the process itself: it is started with a signal handler (see `counted`)
that no gateway has otherwise.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import psutil

from tests.processes import ROOT, GatewayProcess

_HANDLER = """
import asyncio, gc, json, os, signal

def tell(*_):
    try:
        tasks = len(asyncio.all_tasks())
    except RuntimeError:
        tasks = 0  # a process without a loop
    said = {"event": "census", "pid": os.getpid(), "tasks": tasks, "objects": len(gc.get_objects())}
    os.write(2, json.dumps(said).encode() + b"\\n")

signal.signal(signal.SIGUSR2, tell)
"""


@dataclass(frozen=True, slots=True)
class Census:
    """What there is at a moment, in all processes together."""

    resident: int
    """Bytes of memory."""
    descriptors: int
    threads: int
    tasks: int
    objects: int
    series: frozenset[str]
    """Each with its labels."""

    def told(self) -> str:
        """Return it in a line."""
        return (
            f"{self.resident / 2**20:.1f} MiB, {self.descriptors} descriptors, {self.threads} "
            f"threads, {self.tasks} tasks, {self.objects:,} objects, {len(self.series):,} series"
        )


@contextmanager
def counted() -> Iterator[dict[str, str]]:
    """Yield the environment in which a gateway can be counted."""
    with TemporaryDirectory() as directory:
        Path(directory, "sitecustomize.py").write_text(_HANDLER)
        yield {"PYTHONPATH": f"{directory}:{ROOT}"}


def count(served: GatewayProcess, key: str = "") -> Census:
    """Count what there is now; `key` is one that may read the metrics."""
    parent = psutil.Process(served.pid)
    processes = [parent, *parent.children(recursive=True)]
    told = [_ask(served, process.pid) for process in processes]
    headers = {"authorization": f"Bearer {key}"} if key else {}
    for _ in range(2):  # the first time is a request with series of its own
        page = httpx2.get(f"{served.address}/metrics", headers=headers, timeout=30)
        assert page.status_code == 200, page.text
    return Census(
        resident=sum(process.memory_info().rss for process in processes),
        descriptors=sum(process.num_fds() for process in processes),
        threads=sum(process.num_threads() for process in processes),
        tasks=sum(tasks for tasks, _ in told),
        objects=sum(objects for _, objects in told),
        series=frozenset(
            line.rpartition(" ")[0] for line in page.text.splitlines() if not line.startswith("#")
        ),
    )


def _ask(served: GatewayProcess, pid: int) -> tuple[int, int]:
    known = sum(event["pid"] == pid for event in served.events("census"))
    os.kill(pid, signal.SIGUSR2)
    give_up = time.monotonic() + 10
    while True:
        told = [event for event in served.events("census") if event["pid"] == pid]
        if len(told) > known:
            return told[-1]["tasks"], told[-1]["objects"]
        assert time.monotonic() < give_up, served.told(f"{pid} does not tell its tasks")
        time.sleep(0.01)
