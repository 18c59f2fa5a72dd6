"""What a context's thread hands to the event loop: bounded, and neither waits for the other's work.

The thread puts items in, and pauses while the reader is behind; the loop takes all that there is
at once, so a loop that is busy catches up in one step. Knows nothing of what the items are.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")

ROOM = 256
"""Items that may wait for the reader."""


class Outbox(Generic[T]):
    """A queue from one thread to the event loop that made it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, room: int = ROOM) -> None:
        self._loop = loop
        self._room = room
        self._items: list[T] = []
        self._changed = threading.Condition(threading.Lock())
        self._filled = asyncio.Event()
        self._ended = False
        self._left = False

    def put(self, item: T) -> bool:
        """Hand `item` over, waiting for room; return False where the reader has left. In a thread.

        Nothing is kept for a reader that has left.
        """
        with self._changed:
            while len(self._items) >= self._room and not self._left:
                self._changed.wait()
            if self._left:
                return False
            self._items.append(item)
            if len(self._items) == 1:
                self._loop.call_soon_threadsafe(self._filled.set)
        return True

    def end(self) -> None:
        """Say that nothing will follow; from any thread."""
        with self._changed:
            self._ended = True
            if not self._left:
                self._loop.call_soon_threadsafe(self._filled.set)

    def leave(self) -> None:
        """Stop reading: whoever puts is let go at once. In the loop."""
        with self._changed:
            self._left = True
            self._items.clear()
            self._changed.notify_all()

    async def batches(self) -> AsyncIterator[list[T]]:
        """Yield what has come since the last time, never nothing, until the end. In the loop."""
        while True:
            await self._filled.wait()
            with self._changed:
                self._filled.clear()
                items, self._items = self._items, []
                ended = self._ended
                self._changed.notify_all()
            if items:
                yield items
            if ended:
                return
