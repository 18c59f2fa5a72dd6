"""One call per text: who asks for a text that is already being asked for waits for that call.

A flight owns its call. It outlives the request that began it and ends when it is done, or when
the last one who waits for it leaves. A failure is seen by those who waited, by nobody after them.
"""

import asyncio
from collections.abc import Collection, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from gateway.cache.keys import Key

T = TypeVar("T")


class Flight(Generic[T]):
    """A call on its way for some keys; `task` is the call."""

    __slots__ = ("_waiting", "task")

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self._waiting = 0

    def join(self) -> None:
        """Count one more that waits."""
        self._waiting += 1

    def leave(self) -> None:
        """Count one less; the last one out calls the flight off."""
        self._waiting -= 1
        if not self._waiting:
            self.task.cancel()


class Flights(Generic[T]):
    """All the flights of this process, by the keys they carry."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Flight[T]] = {}

    def get(self, key: Key) -> Flight[T] | None:
        """Return the flight that will bring this key, if one is on its way.

        One that has failed or is being called off is no use to somebody who comes now.
        """
        flight = self._by_key.get(key)
        if flight is None or flight.task.done() or flight.task.cancelling():
            return None
        return flight

    def begin(self, keys: Collection[Key], call: Coroutine[Any, Any, T]) -> Flight[T]:
        """Start a call for keys that nobody asks for yet; whoever begins it must join it."""
        flight = Flight(asyncio.get_running_loop().create_task(call))
        for key in keys:
            self._by_key[key] = flight
        flight.task.add_done_callback(lambda _: self._land(keys, flight))
        return flight

    def _land(self, keys: Iterable[Key], flight: Flight[T]) -> None:
        for key in keys:
            if self._by_key.get(key) is flight:
                del self._by_key[key]
        if not flight.task.cancelled():
            flight.task.exception()  # marks it as seen: those who waited may all have left

    def __len__(self) -> int:
        return len(self._by_key)


async def land(
    own: Collection[Flight[T]],
    others: Collection[Flight[T]] = (),
    forgiven: tuple[type[Exception], ...] = (),
) -> None:
    """Wait until all are done; raise the first failure, but not a `forgiven` one of `others`.

    There is no time limit here: a call ends by its own deadline. Flights are left in every case,
    also when the caller is cancelled; they go on for others who wait.
    """
    flights = [*own, *others]
    for flight in flights:
        flight.join()
    try:
        if len(flights) == 1 and own:
            # The usual case, and a fifth of the cost of asyncio.wait.
            await asyncio.shield(flights[0].task)
            return
        mine = {flight.task for flight in own}
        pending = {flight.task for flight in flights}
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                error = task.exception()
                if error is not None and (task in mine or not isinstance(error, forgiven)):
                    raise error
    finally:
        for flight in flights:
            flight.leave()
