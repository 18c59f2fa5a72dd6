"""The collectors of vectors as upstreams send them: accepted or not, and how long they were."""

from collections.abc import Iterable
from typing import get_args

from prometheus_client import CollectorRegistry, Counter

from gateway.errors import VectorsRefusedError
from gateway.metrics.tally import BulkHistogram, Tally
from gateway.reasons import Fault
from gateway.types import RawEmbeddings
from gateway.vectors import norms

_NORMS = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1.001, 1.01, 1.1, 2.0, 5.0, 10.0, 50.0, 100.0)
"""Buckets. Most models make unit vectors; a change of that tells of another model or pooling."""


class VectorMetrics:
    """What became of upstreams' vectors; see backends.openai.SeesVectors."""

    def __init__(self, registry: CollectorRegistry, tally: Tally) -> None:
        self._tally = tally
        self._refused = Counter(
            "gateway_vectors_refused",
            "Answers of upstreams whose vectors were not accepted, by what is wrong with them.",
            ["upstream", "reason"],
            registry=registry,
        )
        self._norms = BulkHistogram(
            "gateway_vector_norm",
            "L2 norms of vectors as upstreams sent them, before they are scaled to 1.",
            ["upstream"],
            buckets=_NORMS,
            registry=registry,
        )

    def know(self, upstreams: Iterable[str]) -> None:
        """Begin what is counted of upstreams at 0, so that the first event is a rise."""
        for upstream in upstreams:
            for fault in get_args(Fault):
                self._refused.labels(upstream, fault)

    def sent(self, raw: RawEmbeddings) -> None:
        """Take note of vectors that are sound."""
        for norm in norms(raw.rows):
            self._tally.observe(self._norms, (raw.upstream,), norm)

    def refused(self, error: VectorsRefusedError) -> None:
        """Count an answer that is not accepted."""
        self._refused.labels(error.upstream, error.fault).inc()
