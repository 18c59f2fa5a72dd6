"""The collectors of the cache: its memory, and the stores behind it."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from gateway.cache.store import StoreError
from gateway.cache.tiered import TieredCache
from gateway.metrics.tally import SECONDS, BulkHistogram, Tally


class CacheMetrics:
    """What the tiers hold, and how their operations go."""

    def __init__(self, registry: CollectorRegistry, tally: Tally) -> None:
        self._tally = tally
        self._registry = registry
        self._evicted: dict[str, int] = {}
        self._operations = Counter(
            "gateway_cache_operations",
            "Operations of stores by result: ok, or why not.",
            ["tier", "operation", "result"],
            registry=registry,
        )
        self._operation_seconds = BulkHistogram(
            "gateway_cache_operation_duration_seconds",
            "One operation of a store.",
            ["tier", "operation"],
            buckets=SECONDS,
            registry=registry,
        )
        self._corrupt_entries = Counter(
            "gateway_cache_corrupt_entries",
            "Entries that were damaged, and replaced instead of served.",
            ["tier"],
            registry=registry,
        )
        self._evictions = Counter(
            "gateway_cache_evictions",
            "Entries that made room for others.",
            ["tier"],
            registry=registry,
        )
        self.evicted_by_servers = ServersEvictions()
        """What servers count themselves, for all workers alike."""
        registry.register(self.evicted_by_servers)
        # Of all workers' memories the sum; of a store the newest that anyone saw.
        self._bytes = self._gauge(
            "gateway_cache_bytes", "Bytes of vectors in the workers' memory, by tier.", "livesum"
        )
        self._entries = self._gauge(
            "gateway_cache_entries", "Vectors in the workers' memory, by tier.", "livesum"
        )
        newest = "livemostrecent"
        self._store_bytes = self._gauge("gateway_store_bytes", "Bytes in a store.", newest)
        self._store_entries = self._gauge("gateway_store_entries", "Entries in a store.", newest)
        self._up = self._gauge("gateway_store_up", "Whether a store can be read now.", newest)

    def know(self, stores: Iterable[str]) -> None:
        """Begin what is counted of stores at 0, so that the first event is a rise."""
        for tier in stores:
            self._corrupt_entries.labels(tier)

    def corrupt(self, tier: str) -> None:
        """Count an entry that was found damaged."""
        self._corrupt_entries.labels(tier).inc()

    def operation(self, tier: str, operation: str, result: str, seconds: float) -> None:
        """Count an operation of a store at its end."""
        self._tally.add(self._operations, (tier, operation, result))
        self._tally.observe(self._operation_seconds, (tier, operation), seconds)

    async def look(self, cache: TieredCache) -> None:
        """Bring the figures up to date; stores that are away keep their last ones."""
        self._bytes.labels("memory").set(cache.memory.bytes)
        self._entries.labels("memory").set(len(cache.memory))
        self._evict("memory", cache.memory.evicted)
        for tier in cache.tiers:
            up = tier.known and not tier.reading.is_open
            self._up.labels(tier.name).set(up)
            if not up:
                continue
            with suppress(StoreError):
                usage = await tier.store.usage()
                self._store_bytes.labels(tier.name).set(usage.bytes)
                self._store_entries.labels(tier.name).set(usage.entries)
                if usage.by_server:
                    self.evicted_by_servers.told[tier.name] = usage.evicted
                else:
                    self._evict(tier.name, usage.evicted)

    def _evict(self, tier: str, evicted: int) -> None:
        before = self._evicted.get(tier, 0)
        self._evicted[tier] = evicted
        # A store that was opened again begins at 0 again.
        self._evictions.labels(tier).inc(max(0, evicted - before))

    def _gauge(self, name: str, text: str, mode: str) -> Gauge:
        return Gauge(
            name,
            text,
            ["tier"],
            registry=self._registry,
            multiprocess_mode=mode,  # type: ignore[arg-type]
        )


class ServersEvictions(Collector):
    """Evictions as servers tell them: every worker is told the same, so they are not added up."""

    def __init__(self) -> None:
        self.told: dict[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        """See Collector.collect."""
        family = CounterMetricFamily(
            "gateway_cache_evictions", "Entries that made room for others.", labels=["tier"]
        )
        for tier, evicted in self.told.items():
            family.add_metric([tier], evicted)
        yield family
