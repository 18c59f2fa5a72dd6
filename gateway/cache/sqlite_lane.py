"""A thread of our own that works on a file for callers on an event loop, in order.

It is a daemon and knows nothing of who asks: a caller that was cancelled, a loop that is closed,
a store that was forgotten or an interpreter that ends leave it with nothing to wait for.
"""

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from gateway.cache.store import StoreError

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]
"""What is done with the file; it runs in the thread, perhaps more than once."""

_PATIENCE = 3.0
"""Seconds that a caller waits."""
_PATIENCE_AT_END = 10.0


class _Job:
    """Work and who waits for it; `work` is taken back when nobody does any more."""

    __slots__ = ("future", "size", "work")

    def __init__(self, work: Work[Any], size: int, future: asyncio.Future[Any] | None) -> None:
        self.work: Work[Any] | None = work
        self.size = size
        self.future = future


class Lane:
    """Does what it is given in one thread, which starts with the first job."""

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Work[Any]]], Sequence[Any]],
        end: Callable[[], None],
        *,
        together: int = 0,
    ) -> None:
        """`run` is given what waits: one job, and more as long as their sizes are below `together`.

        It returns what came of each, or the exception that its caller is to have. `end` is the
        last thing that the thread does.
        """
        self._run = run
        self._end = end
        self._together = together
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._closed = False
        self._ended: asyncio.Future[None] | None = None

    async def ask(self, work: Work[T], size: int = 0) -> T:
        """Return what came of it, or raise it; StoreError if that takes more than three seconds.

        What nobody waits for any more is not begun.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        job = _Job(work, size, future)
        self._put(job)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await future
        except TimeoutError as late:
            raise StoreError("timeout", "the file did not answer in time") from late
        finally:
            job.work = None

    def tell(self, work: Work[Any]) -> None:
        """Have something done; nobody learns what came of it."""
        self._put(_Job(work, 0, None))

    async def aclose(self) -> None:
        """Finish what waits and end the thread. What comes later is refused."""
        if self._closed:
            return
        self._ended = asyncio.get_running_loop().create_future()
        self.stop()
        if self._thread.is_alive():
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_AT_END):
                    await self._ended
                self._thread.join()

    def stop(self) -> None:
        """Let the thread end when it has done what waits; does not wait for it."""
        self._closed = True
        self._queue.put(None)

    def _put(self, job: _Job) -> None:
        if self._closed:
            raise StoreError("refused", "the store is closed")
        if self._thread.ident is None:
            self._thread.start()
        self._queue.put(job)

    def _work(self) -> None:
        while self._turn():
            pass
        self._end()
        if self._ended is not None:
            _wake(self._ended.get_loop(), [(self._ended, None)])

    def _turn(self) -> bool:
        """Do what waits; return whether more can come."""
        jobs, ending = self._take()
        works = [(job, work) for job in jobs if (work := job.work) is not None]
        if works:
            outcomes = self._run([work for _, work in works])
            answers = defaultdict(list)
            for (job, _), outcome in zip(works, outcomes, strict=True):
                if job.future is not None:
                    answers[job.future.get_loop()].append((job.future, outcome))
            for loop, answered in answers.items():
                _wake(loop, answered)
        return not ending

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for a job and take those behind it; the second value says that no more will come."""
        jobs: list[_Job] = []
        size = 0
        job = self._queue.get()
        while job is not None:
            jobs.append(job)
            size += job.size
            if size >= self._together:
                return jobs, False
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs, False
        return jobs, True


def _wake(
    loop: asyncio.AbstractEventLoop, answers: Sequence[tuple[asyncio.Future[Any], Any]]
) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(_answer, answers)


def _answer(answers: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in answers:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
