"""How an open answer ends before its end: cut, silent, cancelled or closed; nothing is left."""

import asyncio
import gc
import traceback

import psutil
import pytest

from gateway.errors import UpstreamConnectError, UpstreamTimeoutError
from tests.backends.sockets import BEGUN, OK, answer, chunk, listen, opening, post

pytestmark = pytest.mark.anyio


async def hold(call):
    """Begin an answer, and wait until the client has left."""
    await call.say(BEGUN + chunk(b"first"))
    await call.reader.read()


async def mute(call):
    """Say nothing until the client has left."""
    await call.reader.read()


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "begun", [BEGUN + b"5\r\nfirst\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfirst"]
)
async def test_cut_in_the_middle_is_a_connect_error(make, begun, reset):
    """What came before the cut was read; then there is an error, and no end that looks whole."""
    read = asyncio.Event()

    async def say(call):
        await call.say(begun)
        await read.wait()
        call.hang_up(reset=reset)

    async with listen(say) as wire:
        opened = await opening(make(), wire.url)
        pieces = aiter(opened)
        assert await anext(pieces) == b"first"
        read.set()
        with pytest.raises(UpstreamConnectError):
            await anext(pieces)
        for _ in range(2):
            with pytest.raises(UpstreamConnectError):
                await anext(pieces)
        await opened.aclose()


@pytest.mark.parametrize("said", [b"zz\r\n", b"-1\r\nx\r\n", b"2\r\ntoo long\r\n"])
async def test_what_breaks_the_rules_of_http_in_the_middle_is_a_connect_error(make, said):
    """At once: nobody waits for more from a server that no longer makes sense."""
    go = asyncio.Event()

    async def say(call):
        await call.say(BEGUN)
        await go.wait()
        await call.say(said)

    transport = make()
    async with listen(say) as wire:
        whole = asyncio.create_task(post(transport, wire.url))
        opened = await opening(transport, wire.url)
        await asyncio.sleep(0.02)
        go.set()
        for reading in (whole, opened.read()):
            with pytest.raises(UpstreamConnectError):
                await asyncio.wait_for(reading, 5)
        await asyncio.wait_for(wire.left.wait(), 5)


@pytest.mark.parametrize("whole", [True, False])
async def test_silence_is_a_timeout_and_closes(make, whole):
    """Between the headers and the first piece, and between two pieces; pauses do not add up."""

    async def drip(call):
        await call.say(BEGUN)
        for _ in range(4):
            await asyncio.sleep(0.1)
            await call.say(chunk(b"x"))
        await call.reader.read()

    clock = asyncio.get_running_loop().time
    async with listen(drip) as wire:
        opened = await opening(make(), wire.url, silence=0.3)
        began = clock()
        for _ in range(0 if whole else 4):
            assert await anext(aiter(opened)) == b"x"
        with pytest.raises(UpstreamTimeoutError, match="silent") as caught:
            await opened.read()
        assert 0.7 <= clock() - began + 0.002 < 5
        assert caught.value.code == "upstream_timeout"
        await asyncio.wait_for(wire.left.wait(), 5)


async def test_headers_that_do_not_come_are_a_timeout(make):
    """The time until the headers is bounded as a whole, however slowly they drip."""

    async def drip(call):
        await call.say(b"HTTP/1.1 200 OK\r\nx: ")
        while not call.writer.is_closing():
            await call.say(b"y")
            await asyncio.sleep(0.01)

    for behaviour in (mute, drip):
        async with listen(behaviour) as wire:
            with pytest.raises(UpstreamTimeoutError) as caught:
                await opening(make(), wire.url, timeout=0.2, silence=9)
            assert caught.value.code == "upstream_timeout"
            await asyncio.wait_for(wire.left.wait(), 5)


@pytest.mark.parametrize("state", ["opening", "reading", "between"])
async def test_who_leaves_closes_the_connection_at_once(make, state):
    """The server sees it within 100 ms: by cancelling the call, a piece, or by closing.

    Several are timed and the quickest counts, as this machine may be busy with other things.
    """
    transport, clock = make(), asyncio.get_running_loop().time
    took = []
    for _ in range(5):
        async with listen(mute if state == "opening" else hold) as wire:
            if state == "opening":
                task = asyncio.create_task(opening(transport, wire.url))
                await wire.arrived.wait()
            else:
                opened = await opening(transport, wire.url)
                pieces = aiter(opened)
                assert await anext(pieces) == b"first"
                task = asyncio.create_task(anext(pieces))
                await asyncio.sleep(0.01)
            began = clock()
            if state == "between":
                await opened.aclose()
                with pytest.raises(UpstreamConnectError):
                    await task
            else:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await asyncio.wait_for(wire.left.wait(), 5)
            took.append(clock() - began)
    assert min(took) < 0.1


async def test_closing_before_and_within_reading(make):
    """Before any piece and after the first: the connection closes, and there is no more to read."""
    transport = make()
    for pieces in (0, 1):
        async with listen(hold) as wire:
            opened = await opening(transport, wire.url)
            for _ in range(pieces):
                assert await anext(aiter(opened)) == b"first"
            await opened.aclose()
            await opened.aclose()
            await asyncio.wait_for(wire.left.wait(), 5)
            with pytest.raises(UpstreamConnectError):
                await anext(aiter(opened))
            with pytest.raises(UpstreamConnectError):
                await opened.read()


async def test_leaving_a_loop_early_and_closing_is_enough(make):
    """`break` leaves nothing behind that somebody would have to collect."""
    transport = make()
    async with listen(hold) as wire:
        for _ in range(3):
            opened = await opening(transport, wire.url)
            async for _ in opened:
                break
            await opened.aclose()
            await asyncio.wait_for(wire.left.wait(), 5)
            wire.left.clear()


async def test_an_open_answer_has_its_connection_to_itself(make):
    """With the pool full a call waits; closing the answer makes room for it."""
    transport = make(pool=1)

    async def say(call):
        await (hold(call) if len(call.wire.requests) == 1 else call.say(OK))

    async with listen(say) as wire:
        opened = await opening(transport, wire.url)
        with pytest.raises(UpstreamTimeoutError):
            await opening(transport, wire.url, timeout=0.1)
        waiting = asyncio.create_task(opening(transport, wire.url))
        await asyncio.sleep(0.01)
        await opened.aclose()
        assert await (await waiting).read() == b"{}"


async def test_closing_the_transport_ends_every_answer(make):
    """Those being opened, those being read and those that nobody reads just now."""
    transport = make()

    async def say(call):
        await (mute(call) if call.request.endswith(b"mute") else hold(call))

    async with listen(say) as wire:
        calls = [asyncio.create_task(opening(transport, wire.url, b"mute"))]
        for _ in range(2):
            opened = await opening(transport, wire.url)
            assert await anext(aiter(opened)) == b"first"
            calls.append(asyncio.create_task(anext(aiter(opened))))
        idle = await opening(transport, wire.url)
        calls.append(asyncio.create_task(opened_whole(transport, wire.url)))
        while len(wire.requests) < 5:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        await transport.aclose()
        for call in calls:
            with pytest.raises(UpstreamConnectError):
                await asyncio.wait_for(call, 5)
        with pytest.raises(UpstreamConnectError):
            await anext(aiter(idle))
        with pytest.raises(UpstreamConnectError):
            await opening(transport, wire.url)


async def opened_whole(transport, url):
    return await (await opening(transport, url)).read()


async def test_no_file_descriptor_is_left(make):
    """Read, cut, silent, cancelled, closed and forgotten answers leave no socket behind."""
    process, before = psutil.Process(), None

    async def half(call):
        await call.say(BEGUN + chunk(b"first"))
        call.hang_up()

    async def once(transport, url):
        opened = await opening(transport, url, timeout=0.2, silence=0.2)
        await anext(aiter(opened))
        await opened.read()

    for _ in range(2):
        for behaviour in (OK, half, hold, mute):
            transport = make()
            async with listen(behaviour) as wire:
                calls = [asyncio.create_task(once(transport, wire.url)) for _ in range(5)]
                await asyncio.sleep(0.02)
                calls[0].cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                # Nobody reads or closes this one.
                await asyncio.gather(
                    opening(transport, wire.url, timeout=0.2), return_exceptions=True
                )
                await transport.aclose()
        gc.collect()
        await asyncio.sleep(0.05)
        before = before or process.num_fds()
    assert process.num_fds() <= before


async def test_failure_in_the_middle_tells_no_secret(make):
    """Neither the error nor what led to it repeats what was sent."""

    go = asyncio.Event()

    async def say(call):
        await call.say(BEGUN)
        await go.wait()
        await call.say(b"zz\r\n")

    async with listen(say) as wire:
        opened = await opening(make(), wire.url + "?key=sk-query", b"sk-body")
        go.set()
        with pytest.raises(UpstreamConnectError) as caught:
            await opened.read()
    told = "".join(traceback.format_exception(caught.value, chain=True))
    frames = "".join(traceback.format_tb(caught.value.__traceback__))
    assert "sk-" not in told.replace(frames, "")


async def test_answers_and_calls_share_the_connections(make):
    """What is read to its end serves the next call, and the other way round."""
    transport = make()
    async with listen(answer(b"[]")) as wire:
        for _ in range(3):
            assert (await post(transport, wire.url)).body == b"[]"
            assert await opened_whole(transport, wire.url) == b"[]"
    assert wire.connections == 1
