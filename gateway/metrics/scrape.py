"""`GET /metrics`: everything is brought up to date, and written."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from gateway.backends.local import LocalBackend
from gateway.cache.tiered import TieredCache
from gateway.metrics.collectors import Metrics
from gateway.metrics.engines import EngineReading

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PATIENCE = 0.5
"""Seconds that a scrape waits for an engine's figures."""


class Scrape:
    """The handler of one config's gateway."""

    def __init__(
        self,
        metrics: Metrics,
        cache: TieredCache,
        engines: Mapping[str, LocalBackend],
        directory: Path | None,
        *,
        admit: Callable[[Request], None],
        look: Callable[[], None],
    ) -> None:
        """`directory` is where several workers keep theirs.

        `admit` raises for who may not ask; `look` brings the figures of upstreams up to date.
        """
        self._metrics = metrics
        self._cache = cache
        self._engines = engines
        self._directory = directory
        self._admit = admit
        self._look = look

    async def get(self, request: Request) -> Response:
        """Answer with the text, of all workers where there are several."""
        self._admit(request)
        readings = await asyncio.gather(*map(_read, self._engines.values()))
        self._metrics.engines.take(readings)
        self._look()
        await self._metrics.look(self._cache)
        written = []
        for piece in self._metrics.page(self._directory):
            written.append(piece)
            # Others' requests come in between: of many models it is long.
            await asyncio.sleep(0)
        return Response(b"".join(written), media_type=CONTENT_TYPE)


async def _read(engine: LocalBackend) -> EngineReading:
    health = await engine.health(PATIENCE)
    return EngineReading(engine.name, engine.status().restarts, engine.counts(), health)
