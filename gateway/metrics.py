"""All of Prometheus: the collectors, and the wrappers that put them around the seams.

Labels come from the config only: a model name that no route covers is `other`. With several
workers prometheus-client keeps its values in files that every worker reads at a scrape.
"""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway import __version__
from gateway.backends.transport import Reply, Transport
from gateway.cache.memory import MemoryStore
from gateway.embeddings import CreatesEmbeddings, Embedded
from gateway.errors import UpstreamConnectError, UpstreamError, UpstreamTimeoutError
from gateway.types import Caller, EmbeddingRequest

BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Seconds. A hit takes well under a millisecond, an upstream under pressure a minute."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The collectors of one process, in a registry of their own."""

    def __init__(self, registry: CollectorRegistry, label: Callable[[str], str]) -> None:
        """`label` turns a client's model name into the config's, or "other"."""
        # Long, because every collector stands here, and nowhere else.
        self._registry = registry
        self._label = label
        # Finding a child again costs a tenth of asking its collector for it.
        self._finished: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._children: dict[tuple[Counter, str, str], Counter] = {}
        self.requests = Counter(
            "embgw_requests",
            "Requests by operation, model and status code.",
            ["operation", "model", "code"],
            registry=registry,
        )
        self.seconds = Histogram(
            "embgw_request_duration_seconds",
            "From the request's headers to its last byte.",
            ["operation", "model"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.inputs = Counter(
            "embgw_inputs",
            "Texts by where their vector came from.",
            ["model", "result"],
            registry=registry,
        )
        self.tokens = Counter(
            "embgw_input_tokens",
            "Tokens of texts, computed upstream or had already.",
            ["model", "source"],
            registry=registry,
        )
        self.calls = Counter(
            "embgw_upstream_requests",
            "Calls to upstreams by outcome; each retry is one.",
            ["upstream", "outcome"],
            registry=registry,
        )
        self.call_seconds = Histogram(
            "embgw_upstream_duration_seconds",
            "One call to an upstream, to its last byte.",
            ["upstream"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.cache_bytes = self._gauge("embgw_cache_bytes", "Bytes of the memory tier.", ["tier"])
        self.cache_entries = self._gauge("embgw_cache_entries", "Vectors kept.", ["tier"])
        self.engine_queue = self._engine("embgw_engine_queue_depth", "Texts waiting for a context.")
        self.engine_busy = self._engine("embgw_engine_contexts_busy", "Contexts that decode now.")
        self.engine_memory = self._engine("embgw_engine_resident_bytes", "Memory of the engine.")
        self.engine_restarts = self._engine(
            "embgw_engine_restarts", "Times the engine was started again since the gateway began."
        )
        self.engine_texts = self._engine(
            "embgw_engine_decoded_texts", "Texts that this engine process has decoded."
        )
        build = self._gauge("embgw_build_info", "Version of the gateway.", ["version"])
        build.labels(__version__).set(1)

    def request(self, operation: str, model: str | None, status: int, seconds: float) -> None:
        """Count a request at its end."""
        label = "" if model is None else self._label(model)
        key = (operation, label, status)
        children = self._finished.get(key)
        if children is None:
            children = self._finished[key] = (
                self.requests.labels(operation, label, str(status)),
                self.seconds.labels(operation, label),
            )
        children[0].inc()
        children[1].observe(seconds)

    def embedded(self, model: str, result: Embedded) -> None:
        """Count what became of a request's texts and tokens."""
        label = self._label(model)
        for source, texts in result.sources.items():
            if texts:
                self._child(self.inputs, label, source).inc(texts)
        if result.billed:
            self._child(self.tokens, label, "upstream").inc(result.billed)
        if result.tokens > result.billed:
            self._child(self.tokens, label, "cache").inc(result.tokens - result.billed)

    def memory(self, memory: MemoryStore) -> None:
        """Bring the memory tier's gauges up to date."""
        self.cache_bytes.labels("memory").set(memory.bytes)
        self.cache_entries.labels("memory").set(len(memory))

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
        for engine, said in figures.items():
            for name, gauge in gauges.items():
                gauge.labels(engine).set((said or {}).get(name, 0))

    def page(self, directory: str | None) -> bytes:
        """Return the text of `/metrics`: of all workers where they share a `directory`."""
        if directory is None:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, path=directory)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def _child(self, parent: Counter, model: str, value: str) -> Counter:
        key = (parent, model, value)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = parent.labels(model, value)
        return child

    def _gauge(self, name: str, text: str, labels: list[str]) -> Gauge:
        # Bytes and entries of all workers add up; a figure of an engine is the newest anyone saw.
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode="livesum")

    def _engine(self, name: str, text: str) -> Gauge:
        return Gauge(
            name, text, ["engine"], registry=self._registry, multiprocess_mode="livemostrecent"
        )


class ObservedEmbeddings:
    """The straight line, watched."""

    def __init__(self, inner: CreatesEmbeddings, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def create(
        self, request: EmbeddingRequest, caller: Caller, *, deadline: float
    ) -> Embedded:
        """See Embeddings.create."""
        embedded = await self._inner.create(request, caller, deadline=deadline)
        self._metrics.embedded(request.model, embedded)
        return embedded


class ObservedTransport:
    """A transport, watched: every call has an outcome and a duration."""

    def __init__(
        self,
        inner: Transport,
        metrics: Metrics,
        upstream: str,
        clock: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._calls = metrics.calls
        self._upstream = upstream
        self._seconds = metrics.call_seconds.labels(upstream)
        self._ok = metrics.calls.labels(upstream, "ok")
        self._clock = clock

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout: float,  # noqa: ASYNC109
    ) -> Reply:
        """See Transport.send."""
        began = self._clock()
        outcome = "cancelled"
        try:
            reply = await self._inner.send(method, url, headers, body, timeout=timeout)
            outcome = _outcome(reply.status)
        except UpstreamTimeoutError:
            outcome = "timeout"
            raise
        except UpstreamConnectError:
            outcome = "connect"
            raise
        except UpstreamError:
            outcome = "bad_answer"
            raise
        finally:
            self._seconds.observe(self._clock() - began)
            if outcome == "ok":
                self._ok.inc()
            else:
                self._calls.labels(self._upstream, outcome).inc()
        return reply

    async def aclose(self) -> None:
        """See Transport.aclose."""
        await self._inner.aclose()


def _outcome(status: int) -> str:
    if status < 300:
        return "ok"
    if status == 429:
        return "429"
    return "3xx" if status < 400 else "4xx" if status < 500 else "5xx"
