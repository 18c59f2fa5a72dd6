"""One call per text: who asks for a text that is already on its way waits for that.

A flight carries keys. First it looks them up, then it asks for those that are left, in parts. It
owns that work, outlives the request that began it, and ends when it is done or when the last one
who waits for it leaves. A failure is seen by those who wait for a key of the part that failed, by
nobody after them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

from gateway.cache.entry import Entry
from gateway.cache.keys import Key

Brought = Mapping[Key, Entry]
Call = Coroutine[Any, Any, Brought]
Plan = Iterable[tuple[Collection[Key], Call]]
"""Which calls bring which keys."""


class Flight:
    """Some keys on their way."""

    __slots__ = ("_waiting", "looking", "parts")

    def __init__(self) -> None:
        self.looking: asyncio.Task[Brought] | None = None
        """Finds what can be found, and then fills `parts`."""
        self.parts: dict[Key, asyncio.Task[Brought]] = {}
        """For each key that is asked for, the call that brings it."""
        self._waiting = 0

    def join(self) -> None:
        """Count one more that waits."""
        self._waiting += 1

    def leave(self) -> None:
        """Count one less; the last one out calls the flight off."""
        self._waiting -= 1
        if not self._waiting:
            for task in self.tasks():
                task.cancel()

    def tasks(self) -> set[asyncio.Task[Brought]]:
        """Return all that is being done for this flight."""
        return {*self.parts.values(), *([self.looking] if self.looking else [])}


class Flights:
    """All the flights of this process, by the keys they carry."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Flight] = {}

    def get(self, key: Key) -> Flight | None:
        """Return the flight that will bring this key, if one is on its way.

        One that has failed or is being called off is no use to somebody who comes now.
        """
        flight = self._by_key.get(key)
        if flight is None:
            return None
        task = flight.parts.get(key) or flight.looking
        return None if task is None or task.done() or task.cancelling() else flight

    def ask(self, plan: Plan) -> Flight:
        """Begin calls for keys that nobody asks for yet; whoever begins a flight must join it."""
        flight = Flight()
        self._launch(flight, plan)
        return flight

    def look_up(
        self,
        keys: Collection[Key],
        find: Callable[[], Awaitable[Brought]],
        plan: Callable[[Brought], Awaitable[Plan]],
    ) -> Flight:
        """Look keys up that nobody asks for yet, then begin the calls of `plan` for the others."""
        flight = Flight()

        async def look() -> Brought:
            found = await find()
            self._launch(flight, await plan(found))
            return found

        for key in keys:
            self._by_key[key] = flight
        flight.looking = asyncio.get_running_loop().create_task(look())
        flight.looking.add_done_callback(
            lambda _: self._land([key for key in keys if key not in flight.parts], flight)
        )
        flight.looking.add_done_callback(_seen)
        return flight

    def _launch(self, flight: Flight, plan: Plan) -> None:
        loop = asyncio.get_running_loop()
        for keys, call in plan:
            task = loop.create_task(call)
            for key in keys:
                flight.parts[key] = task
                self._by_key[key] = flight
            task.add_done_callback(partial(self._land, keys, flight))
            task.add_done_callback(_seen)

    def _land(self, keys: Iterable[Key], flight: Flight, _: object = None) -> None:
        for key in keys:
            if self._by_key.get(key) is flight:
                del self._by_key[key]

    def __len__(self) -> int:
        return len(self._by_key)


def _seen(task: "asyncio.Task[Any]") -> None:
    """Mark a failure as seen: those who waited for it may all have left."""
    if not task.cancelled():
        task.exception()


async def land(
    own: Flight | None,
    others: Mapping[Flight, Collection[Key]],
    forgiven: tuple[type[Exception], ...] = (),
) -> dict[Key, Entry]:
    """Wait for all of one's own flight, and for some keys of others'; return what they bring.

    Raises the first failure, but not a `forgiven` one of others: then their keys are left out.
    There is no time limit here: a call ends by its own deadline. Flights are left in every case,
    also when the caller is cancelled; they go on for others who wait.
    """
    flights = _both(own, others)
    for flight in flights:
        flight.join()
    try:
        if own is not None and not others and own.looking is None and len(own.tasks()) == 1:
            # The usual case without stores, and a fifth of the cost of asyncio.wait.
            (task,) = own.tasks()
            return dict(await asyncio.shield(task))
        return await _wait(own, others, forgiven)
    finally:
        for flight in flights:
            flight.leave()


async def _wait(
    own: Flight | None,
    others: Mapping[Flight, Collection[Key]],
    forgiven: tuple[type[Exception], ...],
) -> dict[Key, Entry]:
    brought: dict[Key, Entry] = {}
    looking = {
        flight.looking: flight for flight in _both(own, others) if flight.looking is not None
    }
    pending: set[asyncio.Task[Brought]] = set(looking)

    def parts(flight: Flight) -> set[asyncio.Task[Brought]]:
        if flight is own:
            return set(flight.parts.values())
        return {flight.parts[key] for key in others[flight] if key in flight.parts}

    for flight in _both(own, others):
        if flight.looking is None:
            pending |= parts(flight)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is None:
                brought.update(task.result())
            elif not isinstance(error, forgiven) or (own is not None and task in own.tasks()):
                raise error
            if task in looking:
                pending |= parts(looking.pop(task))
    return brought


def _both(own: Flight | None, others: Iterable[Flight]) -> list[Flight]:
    return [*others] if own is None else [own, *others]
