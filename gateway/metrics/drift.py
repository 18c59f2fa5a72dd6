"""What Prometheus is told of drift; every label is a name of the config, or a word of ours."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway.cache.facts import Checked
from gateway.metrics.tally import Tally

RESULTS = ("steady", "noise", "drift", "failed")
"""Of rounds: a verdict, or that there was no answer."""


class DriftMetrics:
    """The collectors of it. All workers know the same, so the largest is what is meant."""

    def __init__(self, registry: CollectorRegistry, tally: Tally) -> None:
        self._registry = registry
        self._tally = tally
        self._distance = self._gauge(
            "gateway_drift_distance",
            "Largest 1 - cosine of a model's canary texts to what it first said of them.",
        )
        self._noise = self._gauge(
            "gateway_drift_noise",
            "Largest 1 - cosine between the draws of a canary text that a model first gave.",
        )
        self._detected = self._gauge(
            "gateway_drift_detected", "Whether a model's vectors are not what they were."
        )
        self._last = self._gauge(
            "gateway_drift_last_check_timestamp_seconds",
            "When a model was last compared with what it first said; 0: since a purge not yet.",
        )
        self._checks = Counter(
            "gateway_drift_checks",
            "Times a model was compared: steady (bit for bit), noise, drift, or it failed.",
            ["model", "result"],
            registry=registry,
        )
        self._shown: set[str] = set()

    def watched(self, model: str) -> None:
        """See gateway.drift.watch.Tells; a rise is seen only of a series that is there before."""
        for result in RESULTS:
            self._tally.add(self._checks, (model, result), 0)

    def checked(self, model: str, result: str) -> None:
        """See gateway.drift.watch.Tells."""
        self._tally.add(self._checks, (model, result))

    def stand(self, models: Mapping[str, Checked]) -> None:
        """See gateway.drift.watch.Tells; of one that was purged, or is gone, nothing is known."""
        for model in self._shown - models.keys():
            for gauge in (self._distance, self._noise, self._detected, self._last):
                gauge.labels(model).set(0)
        for model, checked in models.items():
            self._distance.labels(model).set(checked.distance)
            self._noise.labels(model).set(checked.noise)
            self._detected.labels(model).set(checked.verdict == "drift")
            self._last.labels(model).set(checked.at)
        self._shown |= models.keys()

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["model"], registry=self._registry, multiprocess_mode="livemax")
