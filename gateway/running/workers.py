"""Several workers behind the same listeners: children that are kept running, and kept alike.

A change of the config is prepared in all of them, and made only where all could. One that dies
meanwhile is no obstacle: its successor begins with the config that is current then. A worker's
slot, which names its metrics files, is used again only after its owner has ended.
"""

import asyncio
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import structlog
from prometheus_client.multiprocess import mark_process_dead

from gateway.change import Change
from gateway.config import Config
from gateway.edge.backlog import connect_no_more
from gateway.edge.server import StartError
from gateway.running.orders import Abort, Commit, Done, Prepare, Uses
from gateway.running.service import ACCEPTS, Running
from gateway.running.stopping import Stopping
from gateway.running.wire import Wire
from gateway.running.worker import METRICS_VARIABLE, slot_name, work

_KILL_AFTER = 5.0
"""Seconds that a worker may take longer than its drain to end."""
_RESPAWN_PAUSE = 0.5
_ANSWERS_WITHIN = 30.0
"""Seconds. A worker that is just starting takes one or two to build what a config makes."""


@dataclass(eq=False, slots=True)
class _Worker:
    """A worker as its parent knows it."""

    wire: Wire
    engines: frozenset[str]
    answers: asyncio.Queue[Done | None] = field(default_factory=asyncio.Queue)
    """What it has answered; None at its end."""


class Workers:
    """A Stage in several processes. `run` has to go on meanwhile."""

    def __init__(
        self,
        running: Running,
        log: structlog.stdlib.BoundLogger,
        stopping: Stopping,
        *,
        on_released: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_released` is told when an engine may be needed no more."""
        self._running = running
        self._log = log
        self._stopping = stopping
        self._on_released = on_released
        self._workers: set[_Worker] = set()
        self._processes: set[Any] = set()
        self._changing = asyncio.Lock()
        """Held while a config is prepared and not yet current: nobody is started then."""
        self._prepared = False
        self._numbers = count()

    async def run(self) -> None:
        """Keep all workers running until it is to stop, then see them out."""
        metrics = self._running.directory / "metrics"
        metrics.mkdir()
        # prometheus-client reads it when it is imported, which the workers have yet to do.
        os.environ[METRICS_VARIABLE] = str(metrics)
        slots = range(self._running.config.server.workers)
        closing = asyncio.create_task(self._close())
        try:
            await asyncio.gather(*(self._keep(slot) for slot in slots))
        finally:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    def kill(self) -> None:
        """End them all at once."""
        for process in self._processes:
            process.kill()

    # A Stage

    @property
    def engines(self) -> frozenset[str]:
        """See Stage.engines."""
        return frozenset().union(*(worker.engines for worker in self._workers))

    async def prepare(self, config: Config) -> None:
        """See Stage.prepare."""
        await self._changing.acquire()
        self._prepared = True
        for problem in await self._ask(Prepare(next(self._numbers), config)):
            raise StartError(problem)

    async def commit(self, config: Config, change: Change) -> None:
        """See Stage.commit."""
        self._running = replace(self._running, config=config, change=change)
        # What was promised is kept: who is late goes over as soon as it reads this.
        for problem in await self._ask(Commit(next(self._numbers), config, change)):
            self._log.warning("worker is late", why=problem)
        self._prepared = False
        self._changing.release()

    async def abort(self, change: Change) -> None:
        """See Stage.abort."""
        self._running = replace(self._running, change=change)
        for worker in self._workers:
            worker.wire.send(Abort(change))
        if self._prepared:
            self._prepared = False
            self._changing.release()

    async def _ask(self, message: Prepare | Commit) -> list[str]:
        """Have all workers do something; return the problems of those that are still there."""
        asked = [self._ask_one(worker, message) for worker in self._workers]
        return [problem for problem in await asyncio.gather(*asked) if problem is not None]

    async def _ask_one(self, worker: _Worker, message: Prepare | Commit) -> str | None:
        worker.wire.send(message)
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                while (answer := await worker.answers.get()) is not None:
                    if answer.number == message.number:
                        return answer.problem
        except TimeoutError:
            return f"a worker did not answer in {_ANSWERS_WITHIN:.0f} s"
        return None  # it has died, and its successor begins with what is current then

    async def _close(self) -> None:
        """Close the listener when the workers do, as whoever connects to ours is answered by none.

        See Service: each of them has the same delay.
        """
        await self._stopping.wait()
        if not self._stopping.at_once:
            await asyncio.sleep(self._running.config.server.drain_delay)
        connect_no_more(self._running.listeners.public)
        await asyncio.sleep(3 * ACCEPTS)
        self._running.listeners.public.close()

    # The processes

    async def _keep(self, slot: int) -> None:
        while not self._stopping.is_set():
            async with self._changing:
                process, worker = await self._start(slot)
            listening = asyncio.create_task(self._listen(worker))
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_reader(process.sentinel, ended.set)
            waits = [asyncio.create_task(ended.wait()), asyncio.create_task(self._stopping.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set() and process.pid is not None:
                await self._stop(process, ended)
            for wait in waits:
                wait.cancel()
            loop.remove_reader(process.sentinel)
            process.join()
            self._processes.discard(process)
            # What it held is held no more; what it has counted, its successor counts on.
            mark_process_dead(slot_name(slot), os.environ[METRICS_VARIABLE])  # type: ignore[no-untyped-call]
            await listening
            if not self._stopping.is_set():
                self._log.warning("worker died", slot=slot, code=process.exitcode)
                await asyncio.sleep(_RESPAWN_PAUSE)

    async def _start(self, slot: int) -> tuple[Any, _Worker]:
        ours, theirs = socket.socketpair()
        spawn = multiprocessing.get_context("spawn")
        process = spawn.Process(
            target=work, args=(self._running, slot, theirs), name=f"gateway-{slot}"
        )
        process.start()
        theirs.close()
        self._processes.add(process)
        engines = frozenset(self._running.config.engines.values())
        worker = _Worker(await Wire.over(ours), engines)
        self._workers.add(worker)
        return process, worker

    async def _stop(self, process: Any, ended: asyncio.Event) -> None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT if self._stopping.at_once else signal.SIGTERM)
        server = self._running.config.server
        with suppress(TimeoutError):
            limit = server.drain_delay + server.drain_timeout + _KILL_AFTER
            await asyncio.wait_for(ended.wait(), limit)
        process.kill()

    async def _listen(self, worker: _Worker) -> None:
        """Take what a worker says until its end."""
        with suppress(EOFError):
            while True:
                said = await worker.wire.receive()
                if isinstance(said, Uses):
                    worker.engines = said.engines
                    self._on_released()
                else:
                    worker.answers.put_nowait(said)
        self._workers.discard(worker)
        worker.answers.put_nowait(None)
        worker.wire.close()
        self._on_released()
