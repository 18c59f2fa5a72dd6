"""What requests count, kept in plain numbers until somebody reads.

A counter of prometheus-client takes a microsecond, in files that workers share several; a request
needs ten. So they are brought up to date all at once: before a scrape, and every second where
other workers read them.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import Counter, Histogram, Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Buckets. A hit takes well under a millisecond, an upstream under pressure a minute."""

Labels = tuple[str, ...]


class BulkHistogram(Histogram):
    """A histogram that takes many observations at once, and is quickly read."""

    _series: Sequence[tuple[str, dict[str, str]]] = ()
    """Names and labels of a child's buckets; they do not change."""

    @property
    def bounds(self) -> Sequence[float]:
        """The upper bounds of its buckets, but for +Inf."""
        return self._upper_bounds[:-1]

    def take(self, counts: Sequence[int], total: float) -> None:
        """Add so many observations to each bucket, +Inf being the last; `total` is their sum."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)

    def collect(self) -> list[Metric]:
        """See Collector.collect: in a quarter of the library's time, as most samples are here."""
        metric = Metric(self._name, self._documentation, self._type)
        children: Iterable[BulkHistogram] = [self]
        if self._labelnames:
            children = list(self._metrics.values())  # type: ignore[arg-type]
        for child in children:
            metric.samples.extend(child.told())
        return [metric]

    def told(self) -> Iterator[Sample]:
        """Yield the samples of a child."""
        labels = dict(zip(self._labelnames, self._labelvalues, strict=True))
        if not self._series:
            name = f"{self._name}_bucket"
            bounds = map(floatToGoString, self._upper_bounds)
            self._series = [(name, {**labels, "le": bound}) for bound in bounds]
        count = 0.0
        for (name, bucket_labels), bucket in zip(self._series, self._buckets, strict=True):
            count += bucket.get()
            yield Sample(name, bucket_labels, count)
        yield Sample(f"{self._name}_count", labels, count)
        yield Sample(f"{self._name}_sum", labels, self._sum.get())


class _Observed:
    """Observations since the last reading."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.clear()

    def clear(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0


class Tally:
    """Counts and observations by collector and labels."""

    def __init__(self) -> None:
        self._sums: dict[tuple[Counter, Labels], float] = defaultdict(float)
        self._observed: dict[tuple[BulkHistogram, Labels], _Observed] = {}

    def add(self, counter: Counter, labels: Labels, amount: float = 1) -> None:
        """Add to a counter."""
        self._sums[counter, labels] += amount

    def observe(self, histogram: BulkHistogram, labels: Labels, *values: float) -> None:
        """Count values into their buckets."""
        observed = self._observed.get((histogram, labels))
        if observed is None:
            observed = self._observed[histogram, labels] = _Observed(histogram.bounds)
        counts, bounds = observed.counts, observed.bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        observed.total += sum(values)

    def flush(self) -> None:
        """Bring the collectors up to date."""
        sums, self._sums = self._sums, defaultdict(float)
        for (counter, labels), amount in sums.items():
            child = counter.labels(*labels) if labels else counter
            child.inc(amount)
        for (histogram, labels), observed in self._observed.items():
            if any(observed.counts):
                of_labels = histogram.labels(*labels) if labels else histogram
                of_labels.take(observed.counts, observed.total)
                observed.clear()
