"""The processes of a running gateway: engines, and one worker or several.

One worker is this very process. Several are children that share the listening sockets; this
process then only keeps the engines, watches the workers and passes the signals on. A worker's
slot, which names its metrics files, is used again only after its owner has ended.
"""

import asyncio
import gc
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
import uvloop
from prometheus_client import values

from gateway.app import create_app
from gateway.backends.local import EngineStatus
from gateway.config import Config
from gateway.engines import EngineKeeper, EngineLoadError
from gateway.local_models import open_keepers, with_files
from gateway.logs import open_log
from gateway.server import GRACE, Listeners, StartError, listen, make_server
from gateway.stores import CacheSecret, common_secret, open_stores

Announce = Callable[[str, Mapping[str, EngineStatus]], None]
"""Told once, when everything listens: the base_url, and the state of each engine by upstream."""

PATIENCE = 3.0
"""Seconds that the announcement waits for engines; a large model goes on loading behind it."""

_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_KILL_AFTER = GRACE + 5.0
_RESPAWN_PAUSE = 0.5
_SAME_SIGNAL = 0.3
"""Seconds within which a second signal is the first one again: a terminal and `timeout` send theirs
to every process of a group, and whoever passes signals on adds another."""


@dataclass(frozen=True, slots=True)
class Running:
    """What every process of a gateway is given."""

    config: Config
    listeners: Listeners
    directory: Path
    """A private place for the sockets, status files and journals of the engines."""
    secret: CacheSecret | None = None
    """What vectors are named with; found once, so that workers agree while a store is away."""


def serve(config: Config, announce: Announce) -> None:
    """Run until SIGTERM, SIGINT or SIGHUP; a second signal ends it at once.

    Raises StartError: for an address that is taken, a model file or an engine that will not do.
    """
    directory = Path(tempfile.mkdtemp(prefix="embedding-gateway-"))
    try:
        with closing(listen(config.server)) as listeners:
            uvloop.run(_serve(Running(config, listeners, directory), announce))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _serve(running: Running, announce: Announce) -> None:
    await run(running, announce, _stop_on_signals(running.directory))


async def run(running: Running, announce: Announce, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set; raises like `serve`. Signals are the caller's."""
    config = await with_files(running.config)
    log = open_log(config.server.log_level, config.server.log_format)
    running = replace(running, config=config, secret=await _secret(config, log))
    # Offline nothing is asked, so nobody has to be there to answer.
    keepers = [] if config.server.offline else open_keepers(config, running.directory, log)
    try:
        for keeper in keepers:
            keeper.start()
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"cannot make a socket in {running.directory}: {reason}") from error
    load = asyncio.create_task(_load(running, keepers, announce, stopping))
    try:
        if config.server.workers == 1:
            await _work(running, log, stopping)
        else:
            await _supervise(running, log, stopping)
        if load.done():
            load.result()
    finally:
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        await asyncio.gather(*(keeper.stop() for keeper in keepers))


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


async def _load(
    running: Running,
    keepers: Sequence[EngineKeeper],
    announce: Announce,
    stopping: asyncio.Event,
) -> None:
    """Announce once the engines have loaded or take long; stop everything where one cannot."""
    loads = [asyncio.create_task(k.loaded()) for k in keepers if not k.waits_for_use]
    try:
        if loads:
            await asyncio.wait(loads, timeout=PATIENCE, return_when=asyncio.FIRST_EXCEPTION)
        for load in loads:
            if load.done():
                load.result()
        announce(running.listeners.base_url, {k.name: k.status for k in keepers})
        await asyncio.gather(*loads)
    except EngineLoadError as error:
        stopping.set()
        raise StartError(str(error)) from error
    finally:
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)


async def _work(
    running: Running,
    log: structlog.stdlib.BoundLogger,
    stopping: asyncio.Event,
    metrics_directory: str | None = None,
) -> None:
    """Serve in this process until `stopping`."""
    settings = running.config.server
    gateway = create_app(
        running.config,
        running.directory,
        log,
        secret=running.secret,
        metrics_directory=metrics_directory,
        draining=stopping.is_set,
    )
    servers = [(make_server(gateway.app, settings), running.listeners.public)]
    if gateway.admin is not None and running.listeners.admin is not None:
        admin = make_server(gateway.admin, settings, tls=False)
        servers.append((admin, running.listeners.admin))
    # What was made until now stays, and what a request makes dies young: looking for cycles less
    # often is worth a twentieth of a miss.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    tasks = [asyncio.create_task(server.serve([bound])) for server, bound in servers]
    ended = asyncio.create_task(stopping.wait())
    await asyncio.wait([*tasks, ended], return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    for server, _ in servers:
        server.should_exit = True
    await asyncio.gather(*tasks)


async def _supervise(
    running: Running, log: structlog.stdlib.BoundLogger, stopping: asyncio.Event
) -> None:
    """Keep all workers running until `stopping`, then see them out."""
    metrics = running.directory / "metrics"
    metrics.mkdir()
    # prometheus-client reads it when it is imported, which the workers have yet to do.
    os.environ[_METRICS_VARIABLE] = str(metrics)
    slots = range(running.config.server.workers)
    await asyncio.gather(*(_keep_worker(running, slot, log, stopping) for slot in slots))


async def _keep_worker(
    running: Running, slot: int, log: structlog.stdlib.BoundLogger, stopping: asyncio.Event
) -> None:
    spawn = multiprocessing.get_context("spawn")
    loop = asyncio.get_running_loop()
    while not stopping.is_set():
        worker = spawn.Process(target=_worker, args=(running, slot), name=f"gateway-{slot}")
        worker.start()
        ended = asyncio.Event()
        loop.add_reader(worker.sentinel, ended.set)
        waits = [asyncio.create_task(ended.wait()), asyncio.create_task(stopping.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set() and worker.pid is not None:
            worker.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _KILL_AFTER)
            worker.kill()
        for wait in waits:
            wait.cancel()
        loop.remove_reader(worker.sentinel)
        worker.join()
        if not stopping.is_set():
            log.warning("worker died", slot=slot, code=worker.exitcode)
            await asyncio.sleep(_RESPAWN_PAUSE)


def _worker(running: Running, slot: int) -> None:
    """Be a worker; the entry point of its process."""
    values.ValueClass = values.MultiProcessValue(lambda: f"worker{slot}")  # type: ignore[no-untyped-call]
    log = open_log(running.config.server.log_level, running.config.server.log_format)
    uvloop.run(_serve_worker(running, log.bind(worker=slot)))


async def _serve_worker(running: Running, log: structlog.stdlib.BoundLogger) -> None:
    stopping = _stop_on_signals(None)
    parent = multiprocessing.parent_process()
    if parent is not None:
        asyncio.get_running_loop().add_reader(parent.sentinel, stopping.set)
    await _work(running, log, stopping, os.environ[_METRICS_VARIABLE])


def _stop_on_signals(directory: Path | None) -> asyncio.Event:
    """Return what SIGTERM, SIGINT and SIGHUP set; a second signal ends the process at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    first = 0.0

    def stop() -> None:
        nonlocal first
        if not stopping.is_set():
            first = loop.time()
            stopping.set()
        elif loop.time() - first > _SAME_SIGNAL:
            # Asked twice: whatever still runs is not waited for. Engines end with us.
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)
            os._exit(1)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    return stopping
