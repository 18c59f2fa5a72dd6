"""The places at one upstream: so many calls at a time, and a bounded queue, fair between callers.

A place that is given back goes to the callers in turn, and for each caller to who came first. Who
cannot be served in time, by the pace at which places were given back of late, is told so at once
rather than kept waiting.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from gateway.errors import (
    GatewayError,
    OwnLimitError,
    UnavailableError,
    UpstreamTimeoutError,
    retry_headers,
)
from gateway.types import ANYONE, Caller

_NEWEST = 0.05
"""Weight of the newest stay in the mean of them: half of it is the last 14."""

_Line = OrderedDict[asyncio.Future[bool], None]
"""Who waits for one caller, in the order of arrival: true for a place, false where it is too late.
Ordered, and left from the middle by who is called off."""


class Places:
    """At most `count` calls at a time; who waits is let in fairly. For one event loop."""

    def __init__(
        self,
        upstream: str,
        count: int,
        *,
        max_queue: int,
        max_queue_per_key: int,
        clock: Callable[[], float],
    ) -> None:
        """`max_queue_per_key` bounds a caller with a name of its own; `clock` gives seconds."""
        self._upstream = upstream
        self._count = count
        self._free = count
        self._max_queue = max_queue
        self._max_queue_per_key = max_queue_per_key
        self._clock = clock
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        """The callers who wait, the next one first."""
        self._stay = 0.0
        """Seconds that a place is kept, in the mean; 0 as long as none was given back."""
        self._taken = 0.0
        """When the newest place was taken."""
        self.waiting = 0

    @property
    def in_flight(self) -> int:
        """Calls that have a place."""
        return self._count - self._free

    async def take(self, caller: Caller, deadline: float) -> float:
        """Wait for a place until `deadline`, a time of the event loop's clock.

        Return when it was taken, to be told when it is given back. Raises OwnLimitError or
        UnavailableError at once where the queue is too long, UpstreamTimeoutError at the deadline.
        """
        if self._free:
            self._free -= 1
        else:
            self._admit(caller, deadline)
            await self._wait(caller.name, deadline)
        self._taken = self._clock()
        return self._taken

    def leave(self, taken: float) -> None:
        """Give a place back that was taken then."""
        stay = self._clock() - taken
        self._stay += (stay - self._stay) * (_NEWEST if self._stay else 1.0)
        self._hand_on()

    def expected(self, caller: str) -> float:
        """Return about how many seconds a caller waits who comes now; too few rather than many."""
        own = len(self._lines.get(caller, ()))
        # Each round takes one of every line.
        before = sum(
            min(len(line), own + 1) for name, line in self._lines.items() if name != caller
        )
        return self._seconds(own + before)

    def _admit(self, caller: Caller, deadline: float) -> None:
        if self.waiting >= self._max_queue:
            raise self._overloaded()
        expected = self.expected(caller.name)
        if len(self._lines.get(caller.name, ())) >= self._bound(caller):
            raise OwnLimitError(
                f"Too many of your requests wait for upstream '{self._upstream}'.",
                headers=retry_headers(expected),
                reason="concurrency",
            )
        if expected > deadline - asyncio.get_running_loop().time():
            raise self._overloaded()

    def _bound(self, caller: Caller) -> int:
        # Without keys everybody is one caller, with whom nobody shares.
        return self._max_queue if caller.name == ANYONE.name else self._max_queue_per_key

    def _overloaded(self) -> GatewayError:
        return UnavailableError(
            f"Too many requests wait for upstream '{self._upstream}'.",
            code="overloaded",
            headers=retry_headers(self._seconds(self.waiting)),
            reason="overload",
        )

    def _seconds(self, places: int) -> float:
        """Return about how long it takes until so many places were given back."""
        # All that have a place have had it since the newest one was taken, at least.
        stay = max(self._stay, self._clock() - self._taken)
        return places * stay / self._count

    async def _wait(self, caller: str, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._lines.setdefault(caller, OrderedDict())[waiter] = None
        self.waiting += 1
        timer = loop.call_at(deadline, self._expire, caller, waiter)
        try:
            in_time = await waiter
        except asyncio.CancelledError:
            self._remove(caller, waiter)
            if not waiter.cancelled() and waiter.result():
                self._hand_on()  # it was called off just as its turn had come
            raise
        finally:
            timer.cancel()
        if not in_time:
            raise UpstreamTimeoutError(
                f"No place at upstream '{self._upstream}' became free in time.", reason="deadline"
            )

    def _expire(self, caller: str, waiter: asyncio.Future[bool]) -> None:
        if not waiter.done():
            self._remove(caller, waiter)
            waiter.set_result(False)

    def _remove(self, caller: str, waiter: asyncio.Future[bool]) -> None:
        line = self._lines.get(caller)
        if line is None or waiter not in line:
            return
        del line[waiter]
        self.waiting -= 1
        if not line:
            del self._lines[caller]

    def _hand_on(self) -> None:
        while self._lines:
            caller, line = next(iter(self._lines.items()))
            waiter = next(iter(line))
            self._lines.move_to_end(caller)
            self._remove(caller, waiter)
            if not waiter.done():  # or it was cancelled, and does not know yet
                waiter.set_result(True)
                return
        self._free += 1
