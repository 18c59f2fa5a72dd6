"""One answer on its way to all who asked for it: each reads it from its start, as it comes.

A recording owns the upstream call: it goes on when the one who began it leaves. When nobody is left
it is called off, unless all of it is there and has only to be kept. A failure is seen by those who
read it then, and by nobody after them.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Self

from gateway.cache.keys import Key
from gateway.chat.relay import Seen, joined
from gateway.completion import Watch
from gateway.errors import UpstreamError

if TYPE_CHECKING:
    from gateway.chat.answers import Kept

LONGEST = 64 * 2**20
"""Bytes of a stream; one that goes on is no answer, and nothing else would hold it up."""


class Recording:
    """What has come of an answer so far: the events of a stream, or all of it as JSON."""

    def __init__(self) -> None:
        self.streamed = False
        self.headers: Mapping[str, str] = {}
        self.request_id = b""
        self.watch = Watch()
        self.whole: bytes | None = None
        """The answer as one JSON, at the end; None for a stream that cannot be one."""
        self.kept: Kept | None = None
        """In place of all that: an answer that was there already."""
        self.stored = False
        self.unshared = False
        self._events: Seen = []
        self._size = 0
        self._begun = False
        self._grown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._readers = 0

    # For the one who makes it

    def start(self, making: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Have it made: `making` calls `add` for a stream, and sets `whole`."""
        self._task = asyncio.get_running_loop().create_task(making)
        self._task.add_done_callback(self._end)
        return self._task

    def add(self, seen: Seen, *, begun: bool = True) -> None:
        """Add events that have come; raise UpstreamError for too many.

        Until one is `begun` nobody is told of them: see relay.Passing.
        """
        self.streamed = True
        self._begun = begun
        self._events += seen
        self._size += sum([len(event) for event, _ in seen])
        if self._size > LONGEST:
            raise UpstreamError(
                f"The upstream's stream has more than {LONGEST:,} bytes.",
                code="upstream_answer_too_large",
            )
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def _end(self, task: "asyncio.Task[None]") -> None:
        self._grown.set()
        if not task.cancelled():
            task.exception()  # counts as seen: those who waited for it may all have left

    @property
    def so_far(self) -> bytes:
        """All events that have come."""
        return joined(self._events, with_usage=True)

    # For those who read it

    @property
    def useful(self) -> bool:
        """Whether somebody who comes now can still read it."""
        return self._task is not None and not (self._task.done() or self._task.cancelling())

    def join(self) -> None:
        """Count one more who reads it."""
        self._readers += 1

    def leave(self) -> None:
        """Count one less; the last one out calls it off while it is not all there."""
        self._readers -= 1
        all_there = self.watch.done or self.whole is not None
        if not self._readers and not all_there and self._task is not None:
            self._task.cancel()

    async def begun(self) -> None:
        """Wait until a stream has begun, or for the end; raise what made it fail."""
        while not self._begun and not self._over():
            await self._grown.wait()

    async def ended(self) -> None:
        """Wait for the end; raise what made it fail."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def after(self, read: int) -> Seen:
        """Return the events behind the first `read` of them as soon as there are any.

        None are the end; raises what made it fail.
        """
        while len(self._events) == read and not self._over():
            await self._grown.wait()
        return self._events[read:]

    def _over(self) -> bool:
        """Whether nothing more comes; raises what made it fail."""
        task = self._task
        if task is None or not task.done():
            return False
        task.result()
        return True


class Reader:
    """One who reads a recording as a stream; see relay.Pieces."""

    def __init__(self, recording: Recording, *, with_usage: bool) -> None:
        """`with_usage` keeps the chunk that tells only the tokens."""
        self._recording = recording
        self._with_usage = with_usage
        self._read = 0
        self._left = False
        recording.join()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while seen := await self._recording.after(self._read):
            self._read += len(seen)
            if told := joined(seen, with_usage=self._with_usage):
                return told
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leave."""
        if not self._left:
            self._left = True
            self._recording.leave()


class Recordings:
    """The answers that are on their way in this process, by their keys."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Recording] = {}

    def get(self, key: Key) -> Recording | None:
        """Return the recording that will hold this answer, if there is one."""
        recording = self._by_key.get(key)
        return recording if recording is not None and recording.useful else None

    def begin(self, key: Key, make: Callable[[Recording], Coroutine[Any, Any, None]]) -> Recording:
        """Begin a recording; it can be found until it ends. Whoever begins one must read it."""
        recording = self._by_key[key] = Recording()

        def forget(_: object) -> None:
            if self._by_key.get(key) is recording:
                del self._by_key[key]

        recording.start(make(recording)).add_done_callback(forget)
        return recording

    def __len__(self) -> int:
        return len(self._by_key)
