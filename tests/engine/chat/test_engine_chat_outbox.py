"""The way from a decoding thread to the event loop: in order, bounded, and free of traps."""

import asyncio
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.engine.chat.outbox import Outbox


async def filled(outbox, count, *, before_end=None):
    """Put `count` numbers from a thread of its own; return the thread."""
    accepted = []

    def work():
        accepted.extend(outbox.put(number) for number in range(count))
        if before_end is not None:
            before_end()
        outbox.end()

    thread = threading.Thread(target=work)
    thread.start()
    return thread, accepted


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 200), room=st.integers(1, 20), naps=st.sets(st.integers(0, 50)))
def test_everything_arrives_in_order_and_never_more_than_there_is_room_for(count, room, naps):
    """However slow the reader is."""

    async def run():
        outbox = Outbox(asyncio.get_running_loop(), room)
        thread, _ = await filled(outbox, count)
        read = []
        async for batch in outbox.batches():
            assert 1 <= len(batch) <= room
            read += batch
            if len(read) in naps:
                await asyncio.sleep(0.001)
        await asyncio.to_thread(thread.join)
        assert list(range(count)) == read

    asyncio.run(run())


def test_the_writer_pauses_while_nobody_reads():
    """It stands at the bound until the reader comes."""

    async def run():
        outbox = Outbox(asyncio.get_running_loop(), 3)
        thread, accepted = await filled(outbox, 10)
        while len(accepted) < 3:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert (3, True) == (len(accepted), thread.is_alive())
        read = [number async for batch in outbox.batches() for number in batch]
        assert list(range(10)) == read
        await asyncio.to_thread(thread.join)

    asyncio.run(run())


def test_a_reader_that_leaves_lets_the_writer_go():
    """Whether it waits for room or not; what it then puts is refused and not kept."""

    async def run():
        outbox = Outbox(asyncio.get_running_loop(), 2)
        thread, accepted = await filled(outbox, 5)
        while len(accepted) < 2:
            await asyncio.sleep(0.001)
        outbox.leave()
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
        assert [True, True, False, False, False] == accepted

    asyncio.run(run())


def test_a_busy_loop_catches_up_in_one_step():
    """What came while it was away is one batch, so it is not woken for every token."""

    async def run():
        outbox = Outbox(asyncio.get_running_loop(), 100)
        ended = threading.Event()
        thread, _ = await filled(outbox, 100, before_end=ended.set)
        ended.wait(10)  # the loop does nothing meanwhile
        thread.join(10)
        assert [100] == [len(batch) async for batch in outbox.batches()]

    asyncio.run(run())
