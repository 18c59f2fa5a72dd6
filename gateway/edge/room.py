"""Room for what comes in: so many bytes, given to who came first, and kept by who is quick."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.errors import SlowClientError, UnavailableError, retry_headers

PATIENCE = 5.0
"""Seconds that somebody waits for room."""
MOST_WAITING = 64
GRACE = 5.0
"""Seconds for which nobody who has room is asked how quick he is."""
QUICK = 100_000
"""Bytes a second; who comes with less, where others wait, is sent away: 1 Mbit/s of an uplink."""
_LOOKS = 0.5
"""Seconds between two looks of one who waits at those who have what he wants."""


class Guest:
    """One who has room, or waits for it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.admitted = asyncio.Event()
        self.since = 0.0
        """When he was, by the loop's clock."""
        self.end = asyncio.timeout(None)
        self._received = 0

    def receives(self, size: int) -> None:
        """Note that so many bytes came."""
        self._received += size

    def pace(self, now: float) -> float:
        """Return the bytes a second that came so far."""
        return self._received / max(now - self.since, 1e-9)


class Room:
    """So many bytes; what is asked for at a time is at most that."""

    def __init__(self, size: int) -> None:
        self.free = size
        self._guests: set[Guest] = set()
        self._waiting: deque[Guest] = deque()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[Guest]:
        """Have so much room for as long as the block runs.

        Raises UnavailableError where too many wait, or nothing gets free in time; SlowClientError,
        in the midst of the block, where others wait and what is read into it comes too slowly.
        """
        guest = Guest(size)
        await self._enter(guest)
        try:
            async with guest.end:
                yield guest
        except TimeoutError as error:
            raise SlowClientError(
                "The body came too slowly while others waited for the room that it takes."
            ) from error
        finally:
            self._guests.discard(guest)
            self.free += size
            self._admit()

    async def _enter(self, guest: Guest) -> None:
        if len(self._waiting) >= MOST_WAITING:
            raise _crowded()
        self._waiting.append(guest)
        self._admit()
        try:
            async with asyncio.timeout(PATIENCE):
                while not guest.admitted.is_set():
                    await self._look(guest)
        except BaseException as error:
            if guest.admitted.is_set():
                self._guests.discard(guest)
                self.free += guest.size
            else:
                self._waiting.remove(guest)
            self._admit()
            if isinstance(error, TimeoutError):
                raise _crowded() from error
            raise

    async def _look(self, guest: Guest) -> None:
        """Send the slowest away if he is slow, and wait a little."""
        now = asyncio.get_running_loop().time()
        settled = [other for other in self._guests if now - other.since > GRACE]
        slowest = min(settled, key=lambda other: other.pace(now), default=None)
        if slowest is not None and slowest.pace(now) < QUICK:
            self._guests.discard(slowest)
            slowest.end.reschedule(now)
        try:
            async with asyncio.timeout(_LOOKS):
                await guest.admitted.wait()
        except TimeoutError:
            return

    def _admit(self) -> None:
        while self._waiting and self._waiting[0].size <= self.free:
            guest = self._waiting.popleft()
            self.free -= guest.size
            self._guests.add(guest)
            guest.since = asyncio.get_running_loop().time()
            guest.admitted.set()


def _crowded() -> UnavailableError:
    return UnavailableError(
        "Too many large requests come in at once; send this one again.",
        code="overloaded",
        headers=retry_headers(1.0),
        reason="overload",
    )
