"""A worker: one of several processes that answer requests; it does what its parent says."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import structlog
import uvloop
from prometheus_client import values

from gateway.config import Config
from gateway.edge.server import StartError
from gateway.logs import open_log
from gateway.running.orders import Abort, Commit, Done, Prepare, Uses
from gateway.running.service import Running, Service
from gateway.running.stopping import Stopping, heed_signals
from gateway.running.wire import Wire

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def slot_name(slot: int) -> str:
    """Return what the metrics files of a slot are called by, whoever its worker is."""
    return f"worker{slot}"


def work(running: Running, slot: int, end: socket.socket) -> None:
    """Be the worker of a slot; `end` is its end of the wire to the parent."""
    name = slot_name(slot)
    values.ValueClass = values.MultiProcessValue(lambda: name)  # type: ignore[no-untyped-call]
    server = running.config.server
    log = open_log(server.log_level, server.log_format).bind(worker=slot)
    uvloop.run(_serve(running, log, end, asks=slot == 0))


async def _serve(
    running: Running, log: structlog.stdlib.BoundLogger, end: socket.socket, *, asks: bool
) -> None:
    stopping = Stopping()
    # What SIGHUP means is the parent's to decide.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heed_signals(stopping)
    wire = await Wire.over(end)
    service = Service(
        running,
        log,
        stopping,
        metrics_directory=Path(os.environ[METRICS_VARIABLE]),
        asks=asks,
        on_released=lambda: wire.send(Uses(service.engines)),
    )
    obeying = asyncio.create_task(_obey(wire, service, stopping))
    try:
        await service.run()
    finally:
        obeying.cancel()
        await asyncio.gather(obeying, return_exceptions=True)
        wire.close()


async def _obey(wire: Wire, service: Service, stopping: Stopping) -> None:
    """Do what the parent says; end with it."""
    try:
        while True:
            said = await wire.receive()
            if isinstance(said, Prepare):
                wire.send(Done(said.number, await _problem(service, said.config)))
            elif isinstance(said, Commit):
                await service.commit(said.config, said.change)
                wire.send(Uses(service.engines))
                wire.send(Done(said.number))
            elif isinstance(said, Abort):
                await service.abort(said.change)
    except EOFError:
        if not stopping.is_set():
            stopping.ask()


async def _problem(service: Service, config: Config) -> str | None:
    try:
        await service.prepare(config)
    except StartError as error:
        return str(error)
    return None
