"""Messages between processes: whole, in order, and an end that is noticed."""

import asyncio
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.running.wire import Wire


@settings(max_examples=30)
@given(st.lists(st.one_of(st.integers(), st.text(), st.integers(0, 300_000).map(bytes))))
def test_messages_arrive_whole_and_in_order(messages):
    """Though they are longer than what a socket holds, and nobody reads meanwhile."""
    assert asyncio.run(through(messages)) == messages


async def through(messages):
    one, other = socket.socketpair()
    sender, receiver = await Wire.over(one), await Wire.over(other)
    for message in messages:
        sender.send(message)
    sender.close()
    received = [await receiver.receive() for _ in messages]
    with pytest.raises(EOFError):
        await receiver.receive()
    receiver.close()
    await asyncio.sleep(0)
    return received


def test_an_end_in_the_middle_of_a_message_is_an_end():
    """Half of what a process that died was saying is nothing."""

    async def half() -> None:
        one, other = socket.socketpair()
        receiver = await Wire.over(other)
        one.sendall(b"\0\0\0\0\0\0\0\x09half")
        one.close()
        with pytest.raises(EOFError):
            await receiver.receive()
        receiver.close()
        await asyncio.sleep(0)

    asyncio.run(half())
