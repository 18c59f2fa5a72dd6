"""Large bodies: they share the room that one of them may take, and the quick go first."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge import room as rooms
from gateway.edge.bodies import SMALL, Bodies
from gateway.edge.room import Room
from gateway.errors import SlowClientError, UnavailableError


class Steps:
    """A client that sends a piece whenever it is told to."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.go = asyncio.Semaphore(0)
        self.sent = 0

    async def receive(self):
        await self.go.acquire()
        self.sent += 1
        piece = self.pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}

    def read(self, bodies: Bodies, *headers: tuple[bytes, bytes]) -> asyncio.Task[bytes]:
        scope = {"headers": list(headers)}
        return asyncio.get_running_loop().create_task(bodies.read(scope, self.receive))


async def settled():
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def length(size: int) -> tuple[bytes, bytes]:
    return (b"content-length", b"%d" % size)


def test_what_does_not_fit_is_not_read_until_something_ends():
    """Two that fill the room; the third is begun, and waits; a small one passes by all of them."""

    async def scene():
        size = 2 * SMALL
        bodies = Bodies(2 * size)
        large = [Steps(b"x" * SMALL, b"y" * SMALL) for _ in range(3)]
        reading = [client.read(bodies, length(size)) for client in large]
        for client in large:
            client.go.release()
        await settled()
        large[2].go.release()
        await settled()
        assert [client.sent for client in large] == [1, 1, 1]
        small = Steps(b"a", b"b")
        done = small.read(bodies, length(2))
        small.go.release()
        small.go.release()
        assert await done == b"ab"
        large[0].go.release()
        assert len(await reading[0]) == size
        assert len(await reading[2]) == size
        large[1].go.release()
        assert len(await reading[1]) == size

    asyncio.run(scene())


def test_of_unknown_length_is_only_what_is_large_in_need_of_room():
    """In chunks, it passes as long as it is small; then it needs what it may come to."""

    async def scene():
        bodies = Bodies(4 * SMALL)
        holder = Steps(b"x", b"x" * SMALL)
        held = holder.read(bodies, length(4 * SMALL))
        holder.go.release()
        await settled()
        small, large = Steps(b"a", b"b"), Steps(b"x" * SMALL, b"y", b"z")
        passing, waiting = small.read(bodies), large.read(bodies)
        for _ in range(3):
            small.go.release()
            large.go.release()
        assert await passing == b"ab"
        await settled()
        assert large.sent == 2
        holder.go.release()
        await held
        assert len(await waiting) == SMALL + 2

    asyncio.run(scene())


def test_who_has_room_and_is_slow_goes_when_another_wants_it(monkeypatch):
    """He is told why; nobody asks how quick he is while nobody waits."""
    monkeypatch.setattr(rooms, "GRACE", 0.05)
    monkeypatch.setattr(rooms, "_LOOKS", 0.02)

    async def scene():
        room, slow = Room(100), asyncio.Event()

        async def dawdle():
            async with room.take(100) as guest:
                guest.receives(1)
                slow.set()
                await asyncio.sleep(60)

        dawdling = asyncio.create_task(dawdle())
        await slow.wait()
        await asyncio.sleep(0.15)
        assert not dawdling.done()
        async with room.take(60):
            with pytest.raises(SlowClientError, match="too slowly"):
                await dawdling
        assert room.free == 100

    asyncio.run(scene())


def test_who_waits_too_long_and_who_comes_when_many_wait_come_again_later(monkeypatch):
    """Both get a 503 that says when; their places in the line are free for others."""
    monkeypatch.setattr(rooms, "PATIENCE", 0.1)
    monkeypatch.setattr(rooms, "MOST_WAITING", 2)

    async def scene():
        room = Room(10)

        async def want():
            async with room.take(5):
                return

        async with room.take(10):
            waiting = [asyncio.create_task(want()) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(UnavailableError) as refused:
                await want()
            assert refused.value.headers["retry-after"] == "1"
            for outcome in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(outcome, UnavailableError)
        await want()
        assert room.free == 10

    asyncio.run(scene())


visits = st.lists(
    st.tuples(st.integers(1, 10), st.integers(0, 3), st.booleans(), st.integers(0, 3)),
    min_size=1,
    max_size=25,
)


@given(visits=visits)
def test_the_room_is_never_overfull_and_always_empty_in_the_end(visits):
    """Whoever comes, stays for a while, or leaves while he waits or reads, in any order."""

    async def visit(room: Room, inside: set[object], size: int, stays: int) -> None:
        async with room.take(size) as guest:
            inside.add(guest)
            try:
                assert sum(guest.size for guest in inside) <= 10
                for _ in range(stays):
                    await asyncio.sleep(0)
            finally:
                inside.discard(guest)

    async def scene():
        room, inside = Room(10), set()
        coming = []
        for size, stays, leaves, pause in visits:
            task = asyncio.create_task(visit(room, inside, size, stays))
            coming.append(task)
            for _ in range(pause):
                await asyncio.sleep(0)
            if leaves:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(*coming, return_exceptions=True)
        assert not [o for o in outcomes if isinstance(o, AssertionError)]
        assert room.free == 10
        assert not room._guests

    asyncio.run(scene())
