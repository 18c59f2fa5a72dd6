"""The collectors of requests: what was asked, how long it took, what became of its texts."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway.metrics.keys import KeyMetrics
from gateway.metrics.tally import SECONDS, BulkHistogram, Tally
from gateway.reasons import Reason
from gateway.route import Route
from gateway.types import Asked, Caller, Spared

_AT_ONCE = 256
"""Requests that are counted at a time: one after the other they are twice as quick as each between
other work, whose code and data is in the processor's caches then."""


class RequestMetrics:
    """What clients asked, and what they and upstreams were told."""

    def __init__(
        self,
        registry: CollectorRegistry,
        tally: Tally,
        label: Callable[[str], str],
        cost: Counter,
        keys: KeyMetrics,
    ) -> None:
        """`label` turns a model's name into the config's; `cost` counts chats too."""
        self._tally = tally
        self._label = label
        self._cost = cost
        self._keys = keys
        self._running: dict[str, int] = defaultdict(int)
        self._ended: list[Asked] = []
        self._requests = Counter(
            "gateway_requests",
            "Requests by operation, model and status code.",
            ["operation", "model", "code"],
            registry=registry,
        )
        self._rejected = Counter(
            "gateway_rejected",
            "Requests that the gateway itself turned away, by reason.",
            ["reason"],
            registry=registry,
        )
        self._seconds = BulkHistogram(
            "gateway_request_duration_seconds",
            "From the request's headers to its last byte, by what the cache did for it.",
            ["operation", "model", "cache"],
            buckets=SECONDS,
            registry=registry,
        )
        self._overhead = BulkHistogram(
            "gateway_overhead_seconds",
            "From the request's headers to its first byte, less the time in which an upstream or"
            " an engine, its queue included, was waited for.",
            ["operation", "cache"],
            buckets=SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "gateway_requests_in_flight",
            "Requests that are being answered.",
            ["operation"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._inputs = Counter(
            "gateway_inputs",
            "Texts by where their vector came from.",
            ["model", "result"],
            registry=registry,
        )
        self._tokens = Counter(
            "gateway_input_tokens",
            "Tokens of texts, computed upstream or had already.",
            ["model", "source"],
            registry=registry,
        )

    def know(self, operations: Iterable[str]) -> None:
        """Have the requests of all operations told from the first reading on."""
        for operation in operations:
            self._running[operation] += 0

    def begun(self, operation: str) -> None:
        """Count a request that begins."""
        self._running[operation] += 1

    def ended(self, asked: Asked) -> None:
        """Count a request at its end."""
        self._running[asked.operation] -= 1
        self._ended.append(asked)
        if len(self._ended) >= _AT_ONCE:
            self.settle()

    def refused(self, reason: Reason) -> None:
        """Count a request that was turned away."""
        self._tally.add(self._rejected, (reason,))

    def settle(self) -> None:
        """Tally the requests that have come in; before models get other labels."""
        ended, self._ended = self._ended, []
        alike: dict[tuple[str, str | None, int, str], list[Asked]] = defaultdict(list)
        for one in ended:
            alike[one.operation, one.model, one.status, one.cache].append(one)
        for same in alike.values():
            self._tally_requests(same)

    def _tally_requests(self, alike: Sequence[Asked]) -> None:
        first, tally = alike[0], self._tally
        operation, cache = first.operation, first.cache
        label = "" if first.model is None else self._label(first.model)
        tally.add(self._requests, (operation, label, str(first.status)), len(alike))
        tally.observe(self._seconds, (operation, label, cache), *[one.seconds for one in alike])
        own = [one.overhead for one in alike if one.overhead is not None]
        if own:
            tally.observe(self._overhead, (operation, cache), *own)
        for one in alike:
            if one.spared is not None:
                self._tally_texts(label, one.spared)

    def _tally_texts(self, label: str, spared: Spared) -> None:
        add = self._tally.add
        for source, texts in spared.sources.items():
            if texts:
                add(self._inputs, (label, source), texts)
        if spared.tokens > 0:
            add(self._tokens, (label, "cache"), spared.tokens)
            if spared.price:
                add(self._cost, (label, "saved"), spared.tokens * spared.price / 1e6)

    def computed(self, route: Route, tokens: int, caller: Caller) -> None:
        """Count the tokens of an upstream's answer, also where nobody waits for it any more."""
        label = self._label(route.name)
        self._tally.add(self._tokens, (label, "upstream"), tokens)
        dollars = tokens * (route.price or 0.0) / 1e6
        if dollars:
            self._tally.add(self._cost, (label, "spent"), dollars)
        self._keys.spent(caller, tokens, dollars)

    def look(self) -> None:
        """Bring up to date what is being answered now."""
        for operation, running in sorted(self._running.items()):
            self._in_flight.labels(operation).set(running)
