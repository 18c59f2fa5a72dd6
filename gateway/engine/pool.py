"""Threads that each own one hand, and a fair queue before them.

A hand is whatever does one job at a time: here a llama.cpp context with its slot in the journal.
The pool bounds what waits, shares the hands fairly between requests and says how long a wait would
be. Knows nothing of HTTP, llama.cpp or texts.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from gateway.engine.fair import FairQueue, Flow

J = TypeVar("J")
R = TypeVar("R")
J_contra = TypeVar("J_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

SMOOTHING = 0.02
"""Weight of the newest job in the mean time of one: half of it is the last 35 jobs."""


class QueueFullError(Exception):
    """More waits than may; `wait` is the estimate, in seconds, until that has passed."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"about {wait:.1f} s of work wait")
        self.wait = wait


class JobError(Exception):
    """The job at `position` of a request failed with `cause`; the rest was dropped."""

    def __init__(self, position: int, cause: Exception) -> None:
        super().__init__(f"job {position}")
        self.position = position
        self.cause = cause


class Hand(Protocol[J_contra, R_co]):
    """Does one job at a time, always in the thread that made it."""

    def __call__(self, job: J_contra, /) -> R_co:
        """Do one job."""
        ...

    def close(self) -> None:
        """Give back what the hand holds."""
        ...


class Ticket(Generic[J, R]):
    """A request's place in the pool: so many jobs, first only counted, then handed in."""

    __slots__ = ("done", "flow", "left", "places", "results", "since")

    def __init__(self, places: int) -> None:
        self.places = places
        """Jobs still counted as waiting."""
        self.since: float | None = None
        """When the jobs were handed in; None once the first of them is taken."""
        self.flow: Flow[J] | None = None
        self.left = 0
        self.results: list[R | None] = []
        self.done: Future[list[R]] = Future()
        """All results in order, or JobError."""
        # Whoever stops waiting must not cancel the future under the thread that fulfils it.
        self.done.set_running_or_notify_cancel()


class Pool(Generic[J, R]):
    """`count` threads; each makes its own hand with `make(n)` and keeps it to itself."""

    def __init__(
        self,
        make: Callable[[int], Hand[J, R]],
        count: int,
        *,
        max_queue: int,
        clock: Callable[[], float],
        on_wait: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Make the hands, one after the other; raises what `make` raises.

        `on_wait` is told, in any thread, how long each request has waited for its first hand.
        """
        self._make = make
        self._max_queue = max_queue
        self._clock = clock
        self._on_wait = on_wait
        self._ready = threading.Condition(threading.Lock())
        self._queue: FairQueue[J] = FairQueue()
        self._tickets: dict[Flow[J], Ticket[J, R]] = {}
        self._waiting = 0
        self._busy = 0
        self._closing = False
        self._mean = 0.0
        self._threads: list[threading.Thread] = []
        for number in range(count):
            made: Future[None] = Future()
            thread = threading.Thread(
                target=self._work, args=(number, made), name=f"context-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
            made.result()

    @property
    def waiting(self) -> int:
        """Jobs that no hand has begun."""
        return self._waiting

    @property
    def busy(self) -> int:
        """Hands at work."""
        return self._busy

    def expected_wait(self) -> float:
        """Return about how many seconds it takes until what waits now has been done."""
        return (self._waiting + self._busy) * self._mean / len(self._threads)

    def reserve(self, jobs: int) -> Ticket[J, R]:
        """Count `jobs` as waiting; raises QueueFullError.

        A request larger than the whole queue is let into an empty one: it could never be served
        otherwise.
        """
        with self._ready:
            if self._waiting and self._waiting + jobs > self._max_queue:
                raise QueueFullError(self.expected_wait())
            self._waiting += jobs
        return Ticket(jobs)

    def submit(self, ticket: Ticket[J, R], jobs: Sequence[J], costs: Sequence[float]) -> None:
        """Hand in the jobs that were reserved; `ticket.done` will tell."""
        flow = Flow(jobs, costs)
        ticket.flow = flow
        ticket.left = len(jobs)
        ticket.results = [None] * len(jobs)
        ticket.since = self._clock()
        with self._ready:
            self._tickets[flow] = ticket
            self._queue.put(flow)
            self._ready.notify(len(jobs))

    def cancel(self, ticket: Ticket[J, R]) -> None:
        """Forget what has not begun: the client has gone, or the request is over."""
        with self._ready:
            self._forget(ticket)

    def close(self) -> None:
        """Let the hands finish what they are at, drop the rest, and wait for the threads."""
        with self._ready:
            self._closing = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def _forget(self, ticket: Ticket[J, R]) -> None:
        if ticket.flow is not None:
            self._queue.drop(ticket.flow)
            self._tickets.pop(ticket.flow, None)
        self._waiting -= ticket.places
        ticket.places = 0

    def _work(self, number: int, made: "Future[None]") -> None:
        try:
            hand = self._make(number)
        except Exception as error:  # noqa: BLE001 - the border of a thread: the starter raises it
            made.set_exception(error)
            return
        made.set_result(None)
        while (found := self._next()) is not None:
            ticket, flow, position, since = found
            begun = self._clock()
            if since is not None:
                self._on_wait(begun - since)
            try:
                result = hand(flow.jobs[position])
            except Exception as error:  # noqa: BLE001 - the border of a thread: the waiter raises it
                self._failed(ticket, JobError(position, error))
            else:
                self._succeeded(ticket, position, result, self._clock() - begun)
        hand.close()

    def _next(self) -> tuple[Ticket[J, R], Flow[J], int, float | None] | None:
        with self._ready:
            while not self._closing:
                found = self._queue.take()
                if found is not None:
                    flow, position = found
                    ticket = self._tickets[flow]
                    ticket.places -= 1
                    self._waiting -= 1
                    self._busy += 1
                    since, ticket.since = ticket.since, None
                    return ticket, flow, position, since
                self._ready.wait()
        return None

    def _succeeded(self, ticket: Ticket[J, R], position: int, result: R, seconds: float) -> None:
        ticket.results[position] = result
        with self._ready:
            self._busy -= 1
            self._mean += (seconds - self._mean) * (SMOOTHING if self._mean else 1.0)
            ticket.left -= 1
            last = ticket.left == 0
            if last:
                self._forget(ticket)
        if last:
            # None is only the mark of what is still to come.
            results = [found for found in ticket.results if found is not None]
            ticket.done.set_result(results)

    def _failed(self, ticket: Ticket[J, R], error: JobError) -> None:
        with self._ready:
            self._busy -= 1
            first = ticket.left > 0
            ticket.left = 0
            self._forget(ticket)
        if first:
            ticket.done.set_exception(error)
