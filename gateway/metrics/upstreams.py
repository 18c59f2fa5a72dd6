"""What Prometheus is told of upstreams' health; `observed_upstreams` tells it."""

from collections import Counter as Counted
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway.backends.upstream import Upstream
from gateway.metrics.tally import SECONDS, BulkHistogram, Tally

_REMAINING = {
    "requests": "x-ratelimit-remaining-requests",
    "tokens": "x-ratelimit-remaining-tokens",
}
_DIGITS = 15
"""Of the largest number that is believed."""


class UpstreamMetrics:
    """The collectors of it; every label is a name of the config."""

    def __init__(self, registry: CollectorRegistry, tally: Tally) -> None:
        self._tally = tally
        self._calls = Counter(
            "gateway_upstream_requests",
            "Calls to upstreams by outcome; each retry is one.",
            ["upstream", "outcome"],
            registry=registry,
        )
        self._call_seconds = BulkHistogram(
            "gateway_upstream_duration_seconds",
            "One call to an upstream, to its last byte.",
            ["upstream"],
            buckets=SECONDS,
            registry=registry,
        )
        # Workers learn for themselves; the worst of what they know is shown.
        self.circuit = Gauge(
            "gateway_circuit_state",
            "Whether an upstream is asked: 0 as usual, 1 to see whether it is back, 2 not.",
            ["upstream"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.similarity = Gauge(
            "gateway_space_similarity",
            "Least cosine of an upstream's vectors to those of its space; 0 of another width.",
            ["space", "upstream", "model"],
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._failovers = Counter(
            "gateway_upstream_failovers",
            "Calls that failed and went on to another upstream.",
            ["model", "from", "to"],
            registry=registry,
        )

        self._in_flight = Gauge(
            "gateway_upstream_in_flight",
            "Calls to an upstream that have a place.",
            ["upstream"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._queue_depth = Gauge(
            "gateway_upstream_queue_depth",
            "Calls that wait for a place at an upstream.",
            ["upstream"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._retries = Counter(
            "gateway_upstream_retries",
            "Calls that were made again, by what had become of them.",
            ["upstream", "reason"],
            registry=registry,
        )
        self._remaining = Gauge(
            "gateway_upstream_ratelimit_remaining",
            "What an upstream last said may still be asked of it.",
            ["upstream", "kind"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._said: dict[tuple[str, str], str] = {}

    def called(self, upstream: str, outcome: str) -> None:
        """Count a call by what became of it."""
        self._tally.add(self._calls, (upstream, outcome))

    def took(self, upstream: str, seconds: float) -> None:
        """Count the time of a call."""
        self._tally.observe(self._call_seconds, (upstream,), seconds)

    def pressed(self, upstream: Upstream) -> None:
        """Bring up to date what waits for an upstream, and what was asked of it again."""
        self._in_flight.labels(upstream.name).set(upstream.places.in_flight)
        self._queue_depth.labels(upstream.name).set(upstream.places.waiting)
        retries, upstream.retries = upstream.retries, Counted()
        for reason, count in retries.items():
            self._retries.labels(upstream.name, reason).inc(count)

    def answered(self, upstream: str, headers: Mapping[str, str]) -> None:
        """Take note of what an answer says may still be asked; `flush` tells it."""
        for kind, name in _REMAINING.items():
            said = headers.get(name)
            if said is not None:
                self._said[upstream, kind] = said

    def flush(self) -> None:
        """Tell what answers said: setting a gauge for each would cost more than reading them."""
        said, self._said = self._said, {}
        for labels, number in said.items():
            if number.isdecimal() and len(number) <= _DIGITS:
                self._remaining.labels(*labels).set(int(number))

    def failed_over(self, model: str, failed: str, following: str) -> None:
        """Count a call that went on to another upstream."""
        self._failovers.labels(model, failed, following).inc()
