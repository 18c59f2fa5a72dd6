"""What stands while configs come and go: made once for a process, ended with it."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from gateway.backends.transport import Transport, TransportSettings, open_transport
from gateway.cache.memory import MemoryStore
from gateway.cache.scopes import Scopes
from gateway.cache.tiered import TieredCache
from gateway.change import Change
from gateway.config import Cache, Config
from gateway.errors import ConfigError
from gateway.metrics.collectors import Metrics
from gateway.metrics.observed import ObservedStore, ObservedTransport
from gateway.quota.quotas import Quotas
from gateway.stores import CacheSecret, keep_secret, open_stores, own_secret
from gateway.tokens import Cl100k

OpenTransport = Callable[[TransportSettings], Transport]


class Foundation:
    """The cache, the metrics, and what else every config of a process shares.

    A reload cannot change what it is made from: [cache], and how the log looks.
    """

    def __init__(  # noqa: PLR0913 - the seams of a whole application
        self,
        config: Config,
        directory: Path,
        log: structlog.stdlib.BoundLogger,
        *,
        open_transport: OpenTransport = open_transport,
        secret: CacheSecret | None = None,
        clock: Callable[[], float] = time.monotonic,
        registry: CollectorRegistry | None = None,
        metrics_directory: Path | None = None,
        draining: Callable[[], bool] = lambda: False,
        change: Callable[[], Change] = Change,
        asks: bool = False,
    ) -> None:
        """`directory` holds the sockets of the engines (see EngineKeeper).

        With several workers `metrics_directory` is where prometheus-client keeps their values, and
        `secret` what all of them name vectors with. `draining` says whether the process is being
        stopped, `change` what became of its config, `asks` whether this process is the one that
        asks models whether they have drifted. Raises ConfigError for a secret.
        """
        self.directory = directory
        self.log = log
        self.clock = clock
        self.metrics_directory = metrics_directory
        self.draining = draining
        self.change = change
        self.asks = asks
        self.label: Callable[[str], str] = lambda _: "other"
        """Turns a client's model name into the current config's, or "other"."""
        self.metrics = Metrics(registry or CollectorRegistry(), self._label, change, draining)
        self.cache = _open_cache(
            config.cache, secret or own_secret(config.cache), self.metrics, clock, log
        )
        self.quotas = Quotas(
            config.cache,
            config.server.workers,
            log,
            on_change=self.metrics.keys.share,
            clock=clock,
        )
        self.cl100k = Cl100k()
        """Once for all configs: when it is first used, it becomes megabytes."""
        self._open_transport = open_transport
        self._beside: list[asyncio.Task[None]] = []

    def _label(self, name: str) -> str:
        return self.label(name)

    def connect(self, upstream: str, settings: TransportSettings) -> Transport:
        """Return a transport to an upstream whose calls are counted under its name.

        Raises ConfigError for a proxy or a CA file that cannot be used.
        """
        try:
            transport = self._open_transport(settings)
        except ConfigError as error:
            named = [f"upstreams.{upstream}.{problem}" for problem in error.problems]
            raise ConfigError(named) from error
        return ObservedTransport(transport, self.metrics, upstream, self.clock)

    async def start(self) -> None:
        """Get to know the stores, and begin what runs beside the requests."""
        await self.cache.meet()
        await self.quotas.start()
        beside = [self.cache.watch()]
        if self.metrics_directory:
            beside.append(self.metrics.keep_up(self.cache))
        beside.append(self.metrics.process.watch(self.clock))
        self._beside = list(map(asyncio.create_task, beside))

    async def aclose(self) -> None:
        """Let the stores have what is left for them, and close them; after the last request."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self.quotas.aclose()
        await self.cache.aclose()


def _open_cache(
    settings: Cache,
    secret: CacheSecret,
    metrics: Metrics,
    clock: Callable[[], float],
    log: structlog.stdlib.BoundLogger,
) -> TieredCache:
    stores = [ObservedStore(store, metrics, clock) for store in open_stores(settings, log)]
    metrics.caches.know(store.name for store in stores)
    return TieredCache(
        MemoryStore(settings.memory),
        stores,
        Scopes(secret.value),
        log=log,
        ttl=settings.ttl,
        shares_secret=secret.shared,
        on_corrupt=metrics.caches.corrupt,
        on_begun_anew=partial(keep_secret, settings),
    )
