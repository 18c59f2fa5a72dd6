"""A new config for a gateway that runs: read, checked, built, and put in the place of the old one.

Whatever goes wrong on the way changes nothing, and is one line in the log.
"""

import asyncio
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import structlog
from msgspec.structs import replace

from gateway.change import Change
from gateway.config import Config, show
from gateway.edge.server import StartError, check_certificate
from gateway.errors import ConfigError
from gateway.running.fleet import Fleet
from gateway.running.service import Running, Stage
from gateway.running.watching import Contents, look

_LOOKS = 1.0
"""Seconds between two looks at the files. A change is taken when two of them agree: who writes
several files is given the time."""
_AT_START = (
    "host",
    "port",
    "workers",
    "admin",
    "forwarded_allow_ips",
    "log_level",
    "log_format",
)
"""Options of [server] that are in effect until the gateway is started again."""


class Reloader:
    """Takes over one change after the other. `run` has to go on meanwhile."""

    def __init__(
        self,
        again: Callable[[], Config],
        running: Running,
        seen: Contents,
        fleet: Fleet,
        stage: Stage,
        log: structlog.stdlib.BoundLogger,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`again` reads the config anew; it raises ConfigError, and may take its time.

        `seen` is what the files held when the config that is `running` was read.
        """
        self._again = again
        self._config = running.config
        self._fleet = fleet
        self._stage = stage
        self._change = running.change
        self._log = log
        self._now = now
        self._asked = False
        self._wake = asyncio.Event()
        self._seen = seen

    def ask(self) -> None:
        """Have the config read again, soon; asked several times meanwhile, it is read once."""
        self._asked = True
        self._wake.set()

    def released(self) -> None:
        """Learn that an earlier config has answered its last request."""
        self._wake.set()

    async def run(self) -> None:
        """Do what is asked for, until cancelled."""
        watching = asyncio.create_task(self._watch())
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._turn()
                except Exception as error:  # noqa: BLE001 - there would be no reloads any more
                    self._log.error("unforeseen error at a reload", kind=type(error).__name__)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self._stage.abort(self._change)

    async def _turn(self) -> None:
        if self._asked:
            self._asked = False
            await self._reload()
        await self._fleet.keep(self._stage.engines.union(self._config.engines.values()))

    async def _watch(self) -> None:
        before = self._seen
        while True:
            await asyncio.sleep(_LOOKS)
            if self._config.server.watch:
                now = await asyncio.to_thread(look, self._config)
                if now == before and any(self._seen.get(path) != now[path] for path in now):
                    self.ask()
                before = now

    async def _reload(self) -> None:
        self._seen = await asyncio.to_thread(look, self._config)
        try:
            _refuse_lost(self._config.source, self._seen)
            config = await asyncio.to_thread(self._again)
            _refuse(at_start(self._config, config))
            await asyncio.to_thread(check_certificate, config.server)
            config = await self._fleet.begin(config)
            await self._fleet.loaded(config, patient=False)
            await self._stage.prepare(config)
        except Exception as error:  # noqa: BLE001 - whatever it is, what runs goes on
            await self._give_up(_problems(error))
            return
        # What the new config names besides, as it was read just now.
        self._seen = {**await asyncio.to_thread(look, config), **self._seen}
        changed = sections(self._config, config)
        self._config = config
        self._change = replace(
            self._change,
            hash=config_hash(config),
            since=self._now(),
            taken=self._change.taken + 1,
            failed=False,
        )
        await self._stage.commit(config, self._change)
        self._log.info(
            "config reloaded", hash=self._change.hash, changed=changed, warnings=config.warnings
        )

    async def _give_up(self, problems: str) -> None:
        self._change = replace(self._change, refused=self._change.refused + 1, failed=True)
        await self._stage.abort(self._change)
        self._log.error("config not reloaded, the old one stays", problems=problems)


def first(config: Config, now: float) -> Change:
    """Return what is told of the config that a gateway starts with."""
    return Change(hash=config_hash(config), since=now)


def config_hash(config: Config) -> str:
    """Return a name for what is in effect, equal on all replicas; secrets do not go into it."""
    _, _, text = show(config).partition("\n")
    return sha256(text.encode()).hexdigest()[:12]


def sections(old: Config, new: Config) -> list[str]:
    """Return the names of the tables of the file in which two configs differ."""
    tables = ("server", "keys", "upstreams", "models")
    differing = [name for name in tables if getattr(old, name) != getattr(new, name)]
    files = (old.files, old.ca_files, old.engines) != (new.files, new.ca_files, new.engines)
    return [*differing, *(["files"] if files else [])]


def at_start(old: Config, new: Config) -> list[str]:
    """Return the options in which two configs differ and that only a start puts into effect."""
    options = [
        f"server.{name}"
        for name in _AT_START
        if getattr(old.server, name) != getattr(new.server, name)
    ]
    if (old.server.tls_cert is None) != (new.server.tls_cert is None):
        options.append("server.tls_cert")
    return options + [
        f"cache.{name}"
        for name in new.cache.__struct_fields__
        if getattr(old.cache, name) != getattr(new.cache, name)
    ]


def _refuse(options: list[str]) -> None:
    if options:
        raise ConfigError(
            [f"{', '.join(options)}: cannot be changed without a restart of the gateway"]
        )


def _refuse_lost(source: Path | None, seen: Contents) -> None:
    # A pipe, as a shell makes for `--config <(…)`, was read to its end at the start.
    if source is not None and seen[source] is None:
        raise ConfigError([f"{source}: cannot be read again"])


def _problems(error: Exception) -> str:
    """Return what is wrong, on one line."""
    if isinstance(error, ConfigError):
        return "; ".join(error.problems)
    # Of what nobody foresaw only the kind: its message might quote anything.
    return str(error) if isinstance(error, StartError) else type(error).__name__
