"""How a Transport fails: every way has one error, and leaves nothing behind."""

import asyncio
import gc
import socket
import traceback

import psutil
import pytest

from gateway.errors import UpstreamConnectError, UpstreamTimeoutError
from tests.backends.sockets import CAP, OK, answer, listen, post

pytestmark = pytest.mark.anyio


async def test_refused_connection_is_a_connect_error(make):
    """Nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UpstreamConnectError, match="connection refused"):
        await post(make(), f"http://127.0.0.1:{port}/")


HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"


@pytest.mark.parametrize(
    ("said", "reset"),
    [
        (b"", False),
        (b"", True),
        (HALF, False),
        (HALF, True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n123", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n123\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-le", False),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: ten\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000, False),
    ],
)
async def test_broken_exchange_is_a_connect_error(make, said, reset):
    """Anything short of a whole HTTP answer, however the connection ended, is the same error."""

    async def say(call):
        await call.say(said)
        call.hang_up(reset=reset)

    async with listen(say) as wire:
        with pytest.raises(UpstreamConnectError):
            await post(make(), wire.url)


async def test_call_is_bounded_as_a_whole(make):
    """Silence is cut off at the timeout, and so is a drip that never pauses for long."""

    async def drip(call):
        await call.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not call.writer.is_closing():
            await call.say(b"x")
            await asyncio.sleep(0.01)

    async def silence(call):
        await call.reader.read()

    clock = asyncio.get_running_loop().time
    for behaviour in (silence, drip):
        async with listen(behaviour) as wire:
            began = clock()
            with pytest.raises(UpstreamTimeoutError) as caught:
                await post(make(), wire.url, timeout=0.2)
            assert 0.2 <= clock() - began + 0.002 < 2
            assert caught.value.code == "upstream_timeout"
            await asyncio.wait_for(wire.left.wait(), 5)


async def test_connecting_has_its_own_bound(make):
    """A host that does not even accept is given up sooner, and with a code of its own."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        callers = [socket.socket() for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(address)
        with pytest.raises(UpstreamTimeoutError) as caught:
            await post(make(connect_timeout=0.2), f"http://127.0.0.1:{address[1]}/")
        for caller in callers:
            caller.close()
    assert caught.value.code == "upstream_connect_timeout"


async def test_calls_wait_for_a_place_in_the_pool(make):
    """With every connection busy a call waits, within its own timeout, and then has its turn."""
    transport, go = make(pool=1), asyncio.Event()

    async def hold(call):
        await go.wait()
        await call.say(OK)

    async with listen(hold) as wire:
        first = asyncio.create_task(post(transport, wire.url))
        await wire.arrived.wait()
        with pytest.raises(UpstreamTimeoutError):
            await post(transport, wire.url, timeout=0.1)
        third = asyncio.create_task(post(transport, wire.url))
        go.set()
        assert [(await task).status for task in (first, third)] == [200, 200]
    assert (wire.connections, len(wire.requests)) == (1, 2)


async def test_stale_connection_is_a_connect_error(make):
    """A kept connection that breaks when it is used again is the caller's to retry."""
    transport = make()

    async def once(call):
        if len(call.wire.requests) == 2:
            call.hang_up()
        else:
            await call.say(OK)

    async with listen(once) as wire:
        await post(transport, wire.url)
        with pytest.raises(UpstreamConnectError):
            await post(transport, wire.url)
        assert wire.connections == 1
        assert (await post(transport, wire.url)).status == 200


async def test_connection_closed_while_idle_is_replaced(make):
    """A server that closes between calls is not noticed by anybody."""
    transport = make()

    async def once(call):
        await call.say(OK)
        call.hang_up()

    async with listen(once) as wire:
        for _ in range(3):
            assert (await post(transport, wire.url)).status == 200
            await wire.left.wait()
            wire.left.clear()
            # The close must have come back to us as well: one more turn through the kernel.
            await asyncio.sleep(0.02)
    assert wire.connections == 3


@pytest.mark.parametrize("begun", [False, True])
async def test_cancelling_closes_the_connection(make, begun):
    """The upstream sees at once that nobody waits any longer, before and within an answer."""

    async def hold(call):
        if begun:
            await call.say(HALF)
        await call.reader.read()

    transport = make()
    async with listen(hold) as wire:
        call = asyncio.create_task(post(transport, wire.url))
        await wire.arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(wire.left.wait(), 5)


async def test_closing_ends_calls_and_connections(make):
    """After aclose, calls on their way, those waiting for a place and later ones all fail."""

    async def hold(call):
        await call.reader.read()

    transport = make(pool=1)
    async with listen(hold) as wire:
        calls = [asyncio.create_task(post(transport, wire.url)) for _ in range(2)]
        await wire.arrived.wait()
        await transport.aclose()
        for call in calls:
            with pytest.raises(UpstreamConnectError):
                await asyncio.wait_for(call, 5)
        with pytest.raises(UpstreamConnectError):
            await post(transport, wire.url)
        assert wire.connections == 1


async def test_no_file_descriptor_is_left(make):
    """Successes, errors and cancellations leave no socket behind once the transport is closed."""
    behaviours = [
        lambda call: call.say(OK),
        lambda call: call.say(b"garbage\r\n\r\n"),
        lambda call: call.say(HALF),
        lambda call: call.say(answer(b"x" * (CAP + 1))),
    ]
    process, before = psutil.Process(), None
    for _ in range(2):
        for behaviour in behaviours:
            transport = make()
            async with listen(behaviour) as wire:
                calls = [post(transport, wire.url, timeout=0.2) for _ in range(5)]
                await asyncio.gather(*calls, return_exceptions=True)
                await transport.aclose()
        gc.collect()
        await asyncio.sleep(0.05)
        # The first round opens what stays open for good: resolver, loop, thread pool.
        before = before or process.num_fds()
    assert process.num_fds() <= before


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://sk-user:sk-password@127.0.0.1:1/?key=sk-query", {"x": "sk-header"}),
        ("http://127.1:1/?key=sk-query", {}),
        ("http://127.0.0.1:99999/?key=sk-query", {}),
        ("sk-scheme://127.0.0.1:1/", {}),
        ("sk-relative", {}),
        ("http://[sk-host/", {}),
    ],
)
async def test_failure_tells_no_secret(make, caplog, url, headers):
    """Whatever is wrong, neither error, traceback nor log repeats what was to be sent."""
    caplog.set_level(0)
    with pytest.raises(UpstreamConnectError) as caught:
        await make().send("POST", url, headers, b"sk-body", timeout=5)
    told = "".join(traceback.format_exception(caught.value, chain=True)) + caplog.text
    frames = "".join(traceback.format_tb(caught.value.__traceback__))
    assert "sk-" not in told.replace(frames, "")


async def test_header_that_cannot_be_sent_tells_no_secret(make):
    """A key with a line break in it is an error, and neither sent nor repeated."""
    headers = {"authorization": "Bearer sk-header\r\nx: y"}
    async with listen(OK) as wire:
        with pytest.raises(UpstreamConnectError, match="address or a header") as caught:
            await make().send("POST", wire.url, headers, b"{}", timeout=5)
    assert "sk-header" not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__suppress_context__
    assert wire.requests == []


async def test_unused_transport_closes(make):
    """Closing before the first call, and twice, is nothing special."""
    transport = make()
    await transport.aclose()
    await transport.aclose()
