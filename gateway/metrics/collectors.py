"""All of Prometheus: the collectors; `observed` puts them around the seams.

Labels come from the config only: a model name that no route covers is `other`. With several
workers prometheus-client keeps its values in files that every worker reads at a scrape.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway import __version__
from gateway.cache.store import StoreError
from gateway.cache.tiered import TieredCache
from gateway.change import Change, ChangeCollector
from gateway.embedded import Embedded
from gateway.metrics.chats import BUCKETS, ChatMetrics
from gateway.metrics.keys import KeyMetrics
from gateway.metrics.upstreams import UpstreamMetrics
from gateway.reasons import Reason
from gateway.route import Route
from gateway.types import Caller

_FRESH = 1.0
"""Seconds that the figures of a worker may lag behind where another one is asked for them."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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
        # Long, because every collector stands here, and nowhere else.
        self._registry = registry
        self._label = label
        self._tally: dict[tuple[Counter, tuple[str, ...]], float] = defaultdict(float)
        self._engines: set[str] = set()
        self._durations: dict[tuple[str, str], Histogram] = {}
        # First of all collectors: whenever any is read, what was tallied is in them.
        registry.register(self)
        self._change = ChangeCollector(change, draining)
        registry.register(self._change)
        self.requests = Counter(
            "gateway_requests",
            "Requests by operation, model and status code.",
            ["operation", "model", "code"],
            registry=registry,
        )
        self.rejected = Counter(
            "gateway_rejected",
            "Requests that the gateway itself turned away, by reason.",
            ["reason"],
            registry=registry,
        )
        self.seconds = Histogram(
            "gateway_request_duration_seconds",
            "From the request's headers to its last byte.",
            ["operation", "model"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.inputs = Counter(
            "gateway_inputs",
            "Texts by where their vector came from.",
            ["model", "result"],
            registry=registry,
        )
        self.tokens = Counter(
            "gateway_input_tokens",
            "Tokens of texts, computed upstream or had already.",
            ["model", "source"],
            registry=registry,
        )
        self.calls = Counter(
            "gateway_upstream_requests",
            "Calls to upstreams by outcome; each retry is one.",
            ["upstream", "outcome"],
            registry=registry,
        )
        self.call_seconds = Histogram(
            "gateway_upstream_duration_seconds",
            "One call to an upstream, to its last byte.",
            ["upstream"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.cost = Counter(
            "gateway_cost_usd",
            "US dollars for tokens that were computed upstream, and for those that were not.",
            ["model", "kind"],
            registry=registry,
        )
        self.chats = ChatMetrics(registry, label, self.cost, self._add)
        self.upstreams = UpstreamMetrics(registry)
        self.keys = KeyMetrics(registry, self._add)
        self._cache(registry)
        self.engine_queue = self._newest(
            "gateway_engine_queue_depth", "Texts waiting for a context.", "engine"
        )
        self.engine_busy = self._newest(
            "gateway_engine_contexts_busy", "Contexts that decode now.", "engine"
        )
        self.engine_memory = self._newest(
            "gateway_engine_resident_bytes", "Memory of the engine.", "engine"
        )
        self.engine_restarts = self._newest(
            "gateway_engine_restarts",
            "Times the engine was started again since the gateway began.",
            "engine",
        )
        self.engine_texts = self._newest(
            "gateway_engine_decoded_texts",
            "Texts that this engine process has decoded.",
            "engine",
        )
        build = self._gauge("gateway_build_info", "Version of the gateway.", ["version"])
        build.labels(__version__).set(1)

    def _cache(self, registry: CollectorRegistry) -> None:
        self.operations = Counter(
            "gateway_cache_operations",
            "Operations of stores by result: ok, or why not.",
            ["tier", "operation", "result"],
            registry=registry,
        )
        self.operation_seconds = Histogram(
            "gateway_cache_operation_duration_seconds",
            "One operation of a store.",
            ["tier", "operation"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.corrupt_entries = Counter(
            "gateway_cache_corrupt_entries",
            "Entries that were damaged, and replaced instead of served.",
            ["tier"],
            registry=registry,
        )
        self.evictions = Counter(
            "gateway_cache_evictions",
            "Entries that made room for others.",
            ["tier"],
            registry=registry,
        )
        self.cache_bytes = self._gauge(
            "gateway_cache_bytes", "Bytes of vectors in the workers' memory, by tier.", ["tier"]
        )
        self.cache_entries = self._gauge(
            "gateway_cache_entries", "Vectors in the workers' memory, by tier.", ["tier"]
        )
        self.store_bytes = self._newest("gateway_store_bytes", "Bytes in a store.", "tier")
        self.store_entries = self._newest("gateway_store_entries", "Entries in a store.", "tier")
        self.store_up = self._newest("gateway_store_up", "Whether a store can be read now.", "tier")
        self._evicted: dict[str, int] = {}

    def request(self, operation: str, model: str | None, status: int, seconds: float) -> None:
        """Count a request at its end."""
        label = "" if model is None else self._label(model)
        self._tally[self.requests, (operation, label, str(status))] += 1
        duration = self._durations.get((operation, label))
        if duration is None:
            duration = self._durations[operation, label] = self.seconds.labels(operation, label)
        duration.observe(seconds)

    def refused(self, reason: Reason) -> None:
        """Count a request that was turned away."""
        self._tally[self.rejected, (reason,)] += 1

    def embedded(self, model: str, result: Embedded) -> None:
        """Count what became of a request's texts and tokens."""
        label = self._label(model)
        tally = self._tally
        for source, texts in result.sources.items():
            if texts:
                tally[self.inputs, (label, source)] += texts
        spared = max(0, result.tokens - result.billed)
        if spared:
            tally[self.tokens, (label, "cache")] += spared
            if result.price:
                tally[self.cost, (label, "saved")] += spared * result.price / 1e6

    def computed(self, route: Route, tokens: int, caller: Caller) -> None:
        """Count the tokens of an upstream's answer, also where nobody waits for it any more."""
        label = self._label(route.name)
        self._tally[self.tokens, (label, "upstream")] += tokens
        dollars = tokens * (route.price or 0.0) / 1e6
        if dollars:
            self._tally[self.cost, (label, "spent")] += dollars
        self.keys.spent(caller, tokens, dollars)

    def _add(self, counter: Counter, labels: tuple[str, ...], amount: float) -> None:
        self._tally[counter, labels] += amount

    def collect(self) -> list[Metric]:
        """Bring the counters up to date; see `flush`. Prometheus asks for it before it reads."""
        self.flush()
        return []

    def flush(self) -> None:
        """Add what was tallied to the counters.

        A counter of prometheus-client takes a microsecond, in files several; a request needs five.
        """
        tally, self._tally = self._tally, defaultdict(float)
        for (counter, labels), amount in tally.items():
            counter.labels(*labels).inc(amount)

    def corrupt(self, tier: str) -> None:
        """Count an entry that was found damaged."""
        self.corrupt_entries.labels(tier).inc()

    def operation(self, tier: str, operation: str, result: str, seconds: float) -> None:
        """Count an operation of a store at its end."""
        self.operations.labels(tier, operation, result).inc()
        self.operation_seconds.labels(tier, operation).observe(seconds)

    async def keep_up(self, cache: TieredCache) -> None:
        """Bring everything up to date every second, for other workers to read; until cancelled."""
        while True:
            await asyncio.sleep(_FRESH)
            self.flush()
            await self.cache(cache)

    async def cache(self, cache: TieredCache) -> None:
        """Bring the figures of the cache up to date; stores that are away keep their last ones."""
        self.cache_bytes.labels("memory").set(cache.memory.bytes)
        self.cache_entries.labels("memory").set(len(cache.memory))
        self._evict("memory", cache.memory.evicted)
        for tier in cache.tiers:
            up = tier.known and not tier.reading.is_open
            self.store_up.labels(tier.name).set(up)
            if not up:
                continue
            with suppress(StoreError):
                usage = await tier.store.usage()
                self.store_bytes.labels(tier.name).set(usage.bytes)
                self.store_entries.labels(tier.name).set(usage.entries)
                self._evict(tier.name, usage.evicted)

    def _evict(self, tier: str, evicted: int) -> None:
        before = self._evicted.get(tier, 0)
        self._evicted[tier] = evicted
        # A store that counts for itself begins at 0 again when it is restarted.
        self.evictions.labels(tier).inc(max(0, evicted - before))

    def engines(
        self, figures: Mapping[str, Mapping[str, Any] | None], restarts: Mapping[str, int]
    ) -> None:
        """Take over what the engines said of themselves; None of one that does not run now.

        How often each was started again is known of all of them, from their keepers.
        """
        for engine, count in restarts.items():
            self.engine_restarts.labels(engine).set(count)
        gauges = {
            "queue_depth": self.engine_queue,
            "busy": self.engine_busy,
            "rss_bytes": self.engine_memory,
            "decoded_texts": self.engine_texts,
        }
        # One that is in no config any more is at rest, as one that does not run now.
        self._engines |= figures.keys()
        for engine in self._engines:
            said = figures.get(engine)
            for name, gauge in gauges.items():
                gauge.labels(engine).set((said or {}).get(name, 0))

    def page(self, directory: str | None) -> bytes:
        """Return the text of `/metrics`: of all workers where they share a `directory`."""
        self.flush()
        if directory is None:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, path=directory)  # type: ignore[no-untyped-call]
        together.register(self._change)
        return generate_latest(together)

    def _gauge(self, name: str, text: str, labels: list[str]) -> Gauge:
        # Bytes and entries of all workers add up; a figure of an engine is the newest anyone saw.
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode="livesum")

    def _newest(self, name: str, text: str, label: str) -> Gauge:
        return Gauge(
            name, text, [label], registry=self._registry, multiprocess_mode="livemostrecent"
        )
