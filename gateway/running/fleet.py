"""All the engines that any config in use needs: those that a reload leaves alone go on."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import structlog
from msgspec.structs import replace

from gateway.config import Config, LlamaUpstream
from gateway.edge.server import StartError
from gateway.engines import EngineKeeper, EngineLoadError
from gateway.running.local_models import (
    Digests,
    engine_settings,
    lasting_settings,
    local_upstreams,
    with_files,
)


@dataclass(frozen=True, slots=True)
class _Kept:
    keeper: EngineKeeper
    settings: Mapping[str, Any]

    def serves(self, name: str, settings: Mapping[str, Any], *, waits: bool) -> bool:
        """Whether it is the engine that a config wants for the upstream `name`."""
        keeper = self.keeper
        wanted = (keeper.name, keeper.waits_for_use) == (name, waits)
        return wanted and self.settings == settings and keeper.serves


class Fleet:
    """Keepers of engines, by what the engines are called."""

    def __init__(
        self,
        directory: Path,
        log: structlog.stdlib.BoundLogger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`directory` holds the sockets of the engines."""
        self._directory = directory
        self._log = log
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._digests: Digests = {}
        self._numbers = count(2)

    async def begin(self, config: Config) -> Config:
        """Return the config with what its files hold and what its engines are called.

        Engines that do not run yet are started, beside those of other configs. Raises StartError
        for a wrong model file, or where no engine can be started.
        """
        config = await with_files(config, self._digests)
        if config.server.offline:
            return config  # nothing is asked, so nobody has to be there to answer
        engines = {
            name: self._found(name, upstream, config) or self._start(name, upstream, config)
            for name, upstream in local_upstreams(config).items()
        }
        return replace(config, engines=engines)

    def keepers(self, config: Config) -> list[EngineKeeper]:
        """Return the keepers of a config's engines."""
        return [self._kept[engine].keeper for engine in config.engines.values()]

    async def loaded(self, config: Config, *, patient: bool = True) -> None:
        """Wait until all engines of a config have loaded that do not wait for their first use.

        Raises StartError as soon as one cannot; see EngineKeeper.loaded.
        """
        loads = [
            asyncio.create_task(keeper.loaded(patient=patient))
            for keeper in self.keepers(config)
            if not keeper.waits_for_use
        ]
        try:
            await asyncio.gather(*loads)
        except EngineLoadError as error:
            raise StartError(str(error)) from error
        finally:
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)

    async def keep(self, engines: Collection[str]) -> None:
        """Stop all engines but these."""
        over = [self._kept.pop(engine) for engine in set(self._kept) - set(engines)]
        await asyncio.gather(*(kept.keeper.stop() for kept in over))

    def _found(self, name: str, upstream: LlamaUpstream, config: Config) -> str | None:
        settings = lasting_settings(name, upstream, config)
        waits = upstream.load == "first-use"
        fitting = (e for e, kept in self._kept.items() if kept.serves(name, settings, waits=waits))
        return next(fitting, None)

    def _start(self, name: str, upstream: LlamaUpstream, config: Config) -> str:
        engine = name if name not in self._kept else f"{name}\n{next(self._numbers)}"
        keeper = EngineKeeper(
            name,
            engine_settings(name, upstream, config, self._directory, engine),
            self._directory,
            engine=engine,
            waits_for_use=upstream.load == "first-use",
            log=self._log,
            clock=self._clock,
        )
        self._kept[engine] = _Kept(keeper, lasting_settings(name, upstream, config))
        try:
            keeper.start()
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(f"cannot make a socket in {self._directory}: {reason}") from error
        return engine
