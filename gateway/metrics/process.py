"""The collectors of the processes that answer requests: what they take, and how late they are.

prometheus-client's own know nothing of several workers; of those these are the sum.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway.metrics.tally import BulkHistogram, Tally

_LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Buckets, in seconds. The timers of the event loop are whole milliseconds."""
_EVERY = 0.1
"""Seconds between two looks at the lag: ten times a second 20 microseconds."""

_STATM = Path("/proc/self/statm")
_DESCRIPTORS = Path("/dev/fd")


class ProcessMetrics:
    """Memory, processor time, open files, and the event loop's lag."""

    def __init__(
        self,
        registry: CollectorRegistry,
        tally: Tally,
        *,
        now: Callable[[], float] = time.time,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        """`now` gives Unix times, `cpu` the processor seconds of this process so far."""
        self._tally = tally
        self._cpu = cpu
        self._counted = 0.0
        self._lag = BulkHistogram(
            "gateway_event_loop_lag_seconds",
            "How late the event loop is: how much longer than asked for a timer takes.",
            buckets=_LAG,
            registry=registry,
        )
        self._resident = Gauge(
            "gateway_process_resident_bytes",
            "Memory of the workers.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._cpu_seconds = Counter(
            "gateway_process_cpu_seconds",
            "Processor time of the workers, those that have ended included.",
            registry=registry,
        )
        self._open_fds = Gauge(
            "gateway_process_open_fds",
            "Open file descriptors of the workers.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        start = Gauge(
            "gateway_process_start_time_seconds",
            "Unix time at which the oldest of the workers began.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        start.set(now())
        workers = Gauge(
            "gateway_workers",
            "Processes that answer requests.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        workers.set(1)

    def look(self) -> None:
        """Bring the figures up to date, as far as this system tells them."""
        used = self._cpu()
        self._cpu_seconds.inc(used - self._counted)
        self._counted = used
        with suppress(OSError):
            # Some systems have no /proc.
            pages = int(_STATM.read_bytes().split()[1])
            self._resident.set(pages * os.sysconf("SC_PAGE_SIZE"))
        with suppress(OSError):
            # But for the one that it takes to look.
            self._open_fds.set(sum(1 for _ in _DESCRIPTORS.iterdir()) - 1)

    async def watch(self, clock: Callable[[], float]) -> None:
        """Watch the event loop, until cancelled; `clock` gives seconds that never go back."""
        while True:
            due = clock() + _EVERY
            await asyncio.sleep(_EVERY)
            self._tally.observe(self._lag, (), max(0.0, clock() - due))
