"""All of Prometheus: the collectors; `observed` puts them around the seams.

Labels come from the config only: a model name that no route covers is `other`. With several
workers prometheus-client keeps its values in files that every worker reads at a scrape. A file is
named by its worker's slot, so that the next worker of the slot counts on.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric

from gateway import __version__
from gateway.cache.tiered import TieredCache
from gateway.change import Change, ChangeCollector
from gateway.metrics.caches import CacheMetrics
from gateway.metrics.chats import ChatMetrics
from gateway.metrics.drift import DriftMetrics
from gateway.metrics.engines import EngineCollector
from gateway.metrics.keys import KeyMetrics
from gateway.metrics.page import Page
from gateway.metrics.process import ProcessMetrics
from gateway.metrics.requests import RequestMetrics
from gateway.metrics.tally import Tally
from gateway.metrics.upstreams import UpstreamMetrics
from gateway.metrics.vectors import VectorMetrics

_FRESH = 1.0
"""Seconds that the figures of a worker may lag behind where another one is asked for them."""


class Metrics:
    """The collectors of one process, in a registry of their own."""

    def __init__(
        self,
        registry: CollectorRegistry,
        label: Callable[[str], str],
        change: Callable[[], Change] = Change,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        """`label` turns a client's model name into the config's, or "other".

        `change` and `draining` are told as the process knows them when somebody reads.
        """
        self.tally = Tally()
        # First of all collectors: whenever any is read, what was tallied is in them.
        registry.register(self)
        told = ChangeCollector(change, draining)
        registry.register(told)
        cost = Counter(
            "gateway_cost_usd",
            "US dollars for tokens that were computed upstream, and for those that were not.",
            ["model", "kind"],
            registry=registry,
        )
        self.keys = KeyMetrics(registry, self.tally)
        self.requests = RequestMetrics(registry, self.tally, label, cost, self.keys)
        self.chats = ChatMetrics(registry, self.tally, label, cost)
        self.upstreams = UpstreamMetrics(registry, self.tally)
        self.vectors = VectorMetrics(registry, self.tally)
        self.drift = DriftMetrics(registry, self.tally)
        self.caches = CacheMetrics(registry, self.tally)
        self.engines = EngineCollector()
        registry.register(self.engines)
        self.process = ProcessMetrics(registry, self.tally)
        build = Gauge(
            "gateway_build_info",
            "Version of the gateway.",
            ["version"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        build.labels(__version__).set(1)
        self._page = Page(registry, (told, self.engines, self.caches.evicted_by_servers))

    def collect(self) -> list[Metric]:
        """Bring the counters up to date. Prometheus asks for it before it reads."""
        self.flush()
        return []

    def flush(self) -> None:
        """Add what was counted since the last time to the collectors."""
        self.requests.settle()
        self.tally.flush()

    async def keep_up(self, cache: TieredCache) -> None:
        """Bring everything up to date every second, for other workers to read; until cancelled."""
        while True:
            await asyncio.sleep(_FRESH)
            await self.look(cache)

    async def look(self, cache: TieredCache) -> None:
        """Bring up to date what is not counted as it happens."""
        self.flush()
        self.requests.look()
        self.process.look()
        await self.caches.look(cache)

    def page(self, directory: Path | None) -> Iterator[bytes]:
        """Yield the text of `/metrics`: of all workers where they share a `directory`."""
        self.flush()
        return self._page.of_one() if directory is None else self._page.of_all(directory)
