"""The health of upstreams, watched: told to Prometheus, and to the log where it changes."""

import asyncio
from collections.abc import Mapping

import structlog

from gateway.backends.member import Backend
from gateway.metrics.upstreams import UpstreamMetrics
from gateway.spaces.space import Spaces

_EVERY = 1.0
"""Seconds; a circuit stays open for longer, so no change is missed."""
_NUMBERS = {"closed": 0, "half-open": 1, "open": 2}


class ObservedUpstreams:
    """The upstreams of a config, watched."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        spaces: Spaces,
        metrics: UpstreamMetrics,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._backends = backends
        self._spaces = spaces
        self._metrics = metrics
        self._log = log
        self._failing: set[str] = set()

    def adopt(self, before: "ObservedUpstreams") -> None:
        """Take over what was told of already."""
        self._failing = before._failing  # noqa: SLF001 - of its own class

    async def watch(self) -> None:
        """Look every second, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY)

    def look(self) -> None:
        """Bring the figures up to date, and log what has changed."""
        self._metrics.flush()
        for name, backend in self._backends.items():
            state = backend.circuit.state
            self._metrics.circuit.labels(name).set(_NUMBERS[state])
            self._metrics.pressed(backend.upstream)
            if state == "open" and name not in self._failing:
                self._failing.add(name)
                self._log.warning("upstream fails", upstream=name, reason=backend.circuit.reason)
            elif state == "closed" and name in self._failing:
                self._failing.remove(name)
                self._log.info("upstream is back", upstream=name)
        for space in self._spaces:
            for (upstream, model), standing in space.standings.items():
                if standing.similarity is not None or standing.state == "out":
                    labels = (space.name, upstream, model or "")
                    self._metrics.similarity.labels(*labels).set(standing.similarity or 0.0)
