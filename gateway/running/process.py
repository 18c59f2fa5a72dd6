"""The processes of a running gateway: engines, and one worker or several.

One worker is this very process. Several are children that share the listening sockets; this
process then only keeps the engines, watches the workers and passes on what they are to know.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import structlog
import uvloop

from gateway.backends.local import EngineStatus
from gateway.config import Config
from gateway.edge.server import StartError, listen, raise_open_files
from gateway.logs import open_log
from gateway.running.fleet import Fleet
from gateway.running.reloading import Reloader, first
from gateway.running.service import Running, Service
from gateway.running.stopping import Stopping, heed_signals
from gateway.running.watching import look
from gateway.running.workers import Workers
from gateway.stores import CacheSecret, common_secret, open_stores

Announce = Callable[[str, Mapping[str, EngineStatus]], None]
"""Told once, when everything listens: the base_url, and the state of each engine by upstream."""

PATIENCE = 3.0
"""Seconds that the announcement waits for engines; a large model goes on loading behind it."""


def serve(config: Config, announce: Announce, again: Callable[[], Config] | None = None) -> None:
    """Run until SIGTERM or SIGINT; a second signal ends it at once.

    `again` reads the config anew, for SIGHUP and where its files have changed; without it SIGHUP
    ends it too. Raises StartError: for an address that is taken, a model file or an engine that
    will not do.
    """
    raise_open_files()
    directory = Path(tempfile.mkdtemp(prefix="embedding-gateway-"))
    try:
        with closing(listen(config.server)) as listeners:
            uvloop.run(_serve(Running(config, listeners, directory), announce, again))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _serve(running: Running, announce: Announce, again: Callable[[], Config] | None) -> None:
    """Run, and heed signals; also while the model files are being read."""
    house = House(running, announce, Stopping())
    heed_signals(
        house.stopping,
        at_second=house.leave_at_once,
        at_hangup=None if again is None else house.reload,
    )
    await house.run(again)


async def run(running: Running, announce: Announce, stopping: Stopping) -> None:
    """Serve until `stopping` is asked for; raises like `serve`. Signals are the caller's."""
    await House(running, announce, stopping).run()


class House:
    """A whole gateway: the engines, and the stage on which requests are answered."""

    def __init__(self, running: Running, announce: Announce, stopping: Stopping) -> None:
        self.stopping = stopping
        self._running = running
        self._announce = announce
        server = running.config.server
        self._log = open_log(server.log_level, server.log_format)
        self._fleet = Fleet(running.directory, self._log)
        self._stage: Service | Workers | None = None
        self._seen = look(running.config)
        self._reloader: Reloader | None = None
        self._asked = False

    def reload(self) -> None:
        """Have the config read again, as soon as this one is in effect."""
        self._asked = True
        if self._reloader is not None:
            self._reloader.ask()

    def leave_at_once(self) -> None:
        """Leave nothing behind where the process ends now."""
        if isinstance(self._stage, Workers):
            self._stage.kill()
        shutil.rmtree(self._running.directory, ignore_errors=True)

    async def run(self, again: Callable[[], Config] | None = None) -> None:
        """Serve until it is to stop; raises like `serve`."""
        try:
            await self._run(again)
        finally:
            await self._fleet.keep(())

    async def _run(self, again: Callable[[], Config] | None) -> None:
        config = await self._fleet.begin(self._running.config)
        secret = await _secret(config, self._log)
        change = first(config, time.time())
        running = self._running = replace(
            self._running, config=config, secret=secret, change=change
        )
        stage = self._stage = self._open_stage(running)
        beside = [asyncio.create_task(self._load(config))]
        if again is not None:
            self._reloader = Reloader(again, running, self._seen, self._fleet, stage, self._log)
            if self._asked:
                self._reloader.ask()
            beside.append(asyncio.create_task(self._reloader.run()))
        try:
            await stage.run()
            if beside[0].done():
                beside[0].result()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    def _open_stage(self, running: Running) -> Service | Workers:
        one = running.config.server.workers == 1
        kind = Service if one else Workers
        return kind(running, self._log, self.stopping, on_released=self._released)

    def _released(self) -> None:
        if self._reloader is not None:
            self._reloader.released()

    async def _load(self, config: Config) -> None:
        """Announce once the engines have loaded or take long; stop everything where one cannot."""
        loading = asyncio.create_task(self._fleet.loaded(config))
        try:
            await asyncio.wait([loading], timeout=PATIENCE)
            if loading.done():
                loading.result()
            engines = {k.name: k.status for k in self._fleet.keepers(config)}
            self._announce(self._running.listeners.base_url, engines)
            await loading
        except StartError:
            self.stopping.ask(at_once=True)
            raise
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)


async def _secret(config: Config, log: structlog.stdlib.BoundLogger) -> CacheSecret:
    stores = open_stores(config.cache, log)
    try:
        secret = await common_secret(config.cache, stores)
        if secret.shared:
            log.warning(
                "the cache's secret is kept in Redis, where who can read it can tell which texts "
                "were embedded; set [cache] secret"
            )
        return secret
    finally:
        for store in stores:
            await store.aclose()
