"""One process that answers requests: listeners, the current config behind them, and its end."""

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from gateway.app import Gateway
from gateway.change import Change
from gateway.config import Config
from gateway.edge.backlog import connect_no_more
from gateway.edge.server import Listeners, StartError, make_server
from gateway.errors import ConfigError
from gateway.foundation import Foundation
from gateway.running.door import Door
from gateway.running.stopping import Stopping
from gateway.stores import CacheSecret

ACCEPTS = 0.05
"""Seconds in which those who have connected are accepted, before a listener is closed."""
_TELLS = 5.0
"""Seconds between two lines about what still runs, when it is to end."""


_NO_CHANGE = Change()


@dataclass(frozen=True, slots=True)
class Running:
    """What every process of a gateway is given."""

    config: Config
    listeners: Listeners
    directory: Path
    """A private place for the sockets, status files and journals of the engines."""
    secret: CacheSecret | None = None
    """What vectors are named with; found once, so that workers agree while a store is away."""
    change: Change = _NO_CHANGE


class Stage(Protocol):
    """Where requests are answered: in this process, or in several. One change at a time."""

    @property
    def engines(self) -> frozenset[str]:
        """The engines of all configs that still answer requests."""
        ...

    async def prepare(self, config: Config) -> None:
        """Build what the config makes, beside what runs; raise StartError where it will not do."""
        ...

    async def commit(self, config: Config, change: Change) -> None:
        """Have requests answered by what was prepared for this config, from now on."""
        ...

    async def abort(self, change: Change) -> None:
        """Give up what was prepared, if anything was."""
        ...


class Service:
    """A Stage in this process. `run` has to go on meanwhile."""

    def __init__(
        self,
        running: Running,
        log: structlog.stdlib.BoundLogger,
        stopping: Stopping,
        *,
        metrics_directory: Path | None = None,
        asks: bool = True,
        on_released: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_released` is told when a config that is not current has answered its last request.

        `metrics_directory` is where workers keep theirs, `asks` whether it is this one that asks
        models whether they have drifted. Raises OSError or GGUFError for a model file that cannot
        be read, ConfigError for a secret.
        """
        self._log = log
        self._stopping = stopping
        self._change = running.change
        self._listeners = running.listeners
        self._alone = metrics_directory is None
        self._foundation = Foundation(
            running.config,
            running.directory,
            log,
            secret=running.secret,
            metrics_directory=metrics_directory,
            draining=stopping.is_set,
            change=lambda: self._change,
            asks=asks,
        )
        self._door = Door(Gateway(running.config, self._foundation), lambda _: on_released())
        self._next: Gateway | None = None
        settings = running.config.server
        refused = self._foundation.metrics.requests.refused
        public = make_server(self._door.public, settings, refused=refused)
        self._servers = [(public, running.listeners.public)]
        if self._door.admin is not None and running.listeners.admin is not None:
            admin = make_server(self._door.admin, settings, tls=False, refused=refused)
            self._servers.append((admin, running.listeners.admin))

    async def run(self) -> None:
        """Answer requests until it is to stop, and see the last ones out."""
        await self._foundation.start()
        await self._door.current.start()
        # What was made until now stays, and what a request makes dies young: looking for cycles
        # less often is worth a twentieth of a miss.
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        serving = [asyncio.create_task(server.serve([bound])) for server, bound in self._servers]
        asked = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([*serving, asked], return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            await self._delay()
        asked.cancel()
        await self._see_out(serving)
        await self._door.aclose()
        await self._foundation.aclose()

    # A Stage

    @property
    def engines(self) -> frozenset[str]:
        """See Stage.engines."""
        return frozenset(
            engine for gateway in self._door.gateways for engine in gateway.config.engines.values()
        )

    async def prepare(self, config: Config) -> None:
        """See Stage.prepare."""
        try:
            self._next = Gateway(config, self._foundation, self._door.current)
        except ConfigError as error:
            raise StartError("; ".join(error.problems)) from error
        except (OSError, ValueError) as error:
            raise StartError(f"the new config cannot be used: {error}") from error
        except Exception as error:
            # Nothing foreseen, and no reason to fall: what runs goes on.
            kind = type(error).__name__
            raise StartError(f"the new config cannot be used: {kind}") from error

    async def commit(self, config: Config, change: Change) -> None:
        """See Stage.commit."""
        self._change = change
        if self._next is None:
            raise RuntimeError("nothing was prepared")
        gateway, self._next = self._next, None
        await self._door.change(gateway)
        for server, _ in self._servers:
            try:
                server.take(config.server)
            except StartError as error:
                # It could be used a moment ago, when this was prepared.
                self._log.error("certificate not taken over", why=str(error))

    async def abort(self, change: Change) -> None:
        """See Stage.abort."""
        self._change = change
        if self._next is not None:
            await self._next.aclose(self._door.gateways)
            self._next = None

    # The end

    async def _delay(self) -> None:
        """Go on for load balancers to notice; clients are told to come back elsewhere."""
        for server, _ in self._servers:
            server.leave()
        if not self._stopping.at_once:
            delay = self._door.current.config.server.drain_delay
            self._log.info("stopping", seconds=delay, running=self._door.running)
            await asyncio.sleep(delay)
        if self._alone:
            connect_no_more(self._listeners.public)
        # Of several workers none may do that for all; their parent has done it by then.
        await asyncio.sleep(ACCEPTS if self._alone else 2 * ACCEPTS)

    async def _see_out(self, serving: list[asyncio.Task[None]]) -> None:
        telling = asyncio.create_task(self._tell())
        # Health and metrics are there to the end where they have a listener of their own.
        for (server, _), task in zip(self._servers, serving, strict=True):
            server.should_exit = True
            await task
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_TELLS)
            self._log.info("requests still run", running=self._door.running)
