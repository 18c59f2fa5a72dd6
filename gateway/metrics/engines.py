"""The collectors of local models: what their engines and the engines' keepers say of themselves.

Whichever worker is asked, it reads what all others would read; nothing of it is kept here.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from gateway.engine_counts import WAITS, EngineCounts


class EngineReading(NamedTuple):
    """What is known of an engine now."""

    name: str
    restarts: int
    """Times that its keeper has started it again."""
    counts: EngineCounts
    """What it has done since its keeper began, in all its lives."""
    health: Mapping[str, Any] | None
    """What it says of itself; None where it does not run now."""


_COUNTERS = {
    "restarts": "Times the engine was started again.",
    "texts": "Texts or chats that the engine has decoded, whatever process it was then.",
    "tokens": "Tokens that the engine has decoded and written.",
}
_GAUGES = {
    "queue_depth": ("queue_depth", "Texts or chats that wait for a context."),
    "contexts_busy": ("busy", "Contexts that decode now."),
    "resident_bytes": ("rss_bytes", "Memory of the engine."),
}


class EngineCollector(Collector):
    """Writes the last readings."""

    def __init__(self) -> None:
        self._readings: tuple[EngineReading, ...] = ()

    def take(self, readings: Iterable[EngineReading]) -> None:
        """Take over what is known of all engines of the config now."""
        self._readings = tuple(readings)

    def collect(self) -> Iterator[Metric]:
        """See Collector.collect."""
        yield from map(self._counter, _COUNTERS)
        yield from map(self._gauge, _GAUGES)
        waits = HistogramMetricFamily(
            "gateway_engine_queue_wait_seconds",
            "From when a request's texts, or a chat, are ready to when a context takes the first.",
            labels=["engine"],
        )
        for reading in self._readings:
            counts = reading.counts
            waits.add_metric([reading.name], _cumulated(counts.waits), counts.wait_seconds)
        yield waits

    def _counter(self, name: str) -> Metric:
        family = CounterMetricFamily(f"gateway_engine_{name}", _COUNTERS[name], labels=["engine"])
        for reading in self._readings:
            value = reading.restarts if name == "restarts" else getattr(reading.counts, name)
            family.add_metric([reading.name], value)
        return family

    def _gauge(self, name: str) -> Metric:
        said, text = _GAUGES[name]
        family = GaugeMetricFamily(f"gateway_engine_{name}", text, labels=["engine"])
        for reading in self._readings:
            # One that is idle, or just being started, takes nothing.
            family.add_metric([reading.name], (reading.health or {}).get(said, 0))
        return family


def _cumulated(counts: Iterable[int]) -> list[tuple[str, float]]:
    bounds = [*map(str, WAITS), "+Inf"]
    total = 0
    buckets = []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
