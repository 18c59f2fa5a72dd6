"""What `Transport.open` brings back, piece by piece: one contract, both clients, both loops."""

import asyncio
import gzip
import os
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.body import Decoder
from gateway.errors import UpstreamConnectError, UpstreamError
from tests.backends.sockets import BEGUN, CAP, OK, answer, chunk, listen, opening

pytestmark = pytest.mark.anyio


async def test_headers_come_before_the_body(make):
    """Status, whatever it is, and all headers are there while the body is still to be said."""
    go = asyncio.Event()

    async def say(call):
        await call.say(b"HTTP/1.1 503 Busy\r\nX-One: a\r\nx-one: b\r\nContent-Length: 2\r\n\r\n")
        await go.wait()
        await call.say(b"{}")

    async with listen(say) as wire:
        opened = await opening(make(), wire.url, b'{"a":1}')
        assert opened.status == 503
        assert dict(opened.headers) == {"x-one": "a, b", "content-length": "2"}
        go.set()
        assert await opened.read() == b"{}"
    head, body = wire.requests[0].lower().split(b"\r\n\r\n")
    assert b"authorization: bearer sk-secret-key" in head.split(b"\r\n")
    assert b"accept-encoding: identity" in head.split(b"\r\n")
    assert body == b'{"a":1}'


async def test_pieces_arrive_as_they_are_sent(make):
    """The next piece is said only when the last one was read: nothing waits in a buffer."""
    read = asyncio.Queue()
    pieces = [b"data: 1\n\n", b"\xe7\x81", b"\xab", b"x" * 70_000, b"data: [DONE]\n\n"]

    async def say(call):
        await call.say(BEGUN)
        for piece in pieces:
            await call.say(chunk(piece))
            got = b""
            while len(got) < len(piece):
                got += await read.get()
            assert got == piece
        await call.say(chunk(b""))

    async with listen(say) as wire:
        opened = await opening(make(), wire.url)
        whole = b""
        async for piece in opened:
            assert piece
            whole += piece
            read.put_nowait(piece)
        assert whole == b"".join(pieces)


@pytest.mark.parametrize("end", ["length", "chunked", "close"])
@pytest.mark.parametrize("whole", [True, False])
async def test_body_of_every_framing_is_read(make, end, whole):
    """Piece by piece or as a whole; and reading on after the end gives nothing more."""
    body = os.urandom(CAP)

    async def say(call):
        if end == "length":
            await call.say(answer(body))
        elif end == "chunked":
            await call.say(BEGUN + chunk(body[:999]) + chunk(body[999:]) + chunk(b""))
        else:
            await call.say(b"HTTP/1.0 200 OK\r\n\r\n" + body)
            call.hang_up()

    async with listen(say) as wire:
        opened = await opening(make(), wire.url)
        got = await opened.read() if whole else b"".join([piece async for piece in opened])
        assert got == body
        assert await opened.read() == b""
        assert [piece async for piece in opened] == []


async def test_body_that_is_read_leaves_its_connection_to_others(make):
    """Read to its end, with or without a body, closed afterwards or not."""
    transport = make()
    async with listen(OK) as wire:
        for close in (True, False, True):
            opened = await opening(transport, wire.url)
            assert await opened.read() == b"{}"
            if close:
                await opened.aclose()
    async with listen(answer(b"")) as empty:
        for _ in range(2):
            assert [piece async for piece in await opening(transport, empty.url)] == []
    assert (wire.connections, empty.connections) == (1, 1)


async def test_read_is_bounded_and_pieces_are_not(make):
    """One byte too many is an error of the whole; who reads piece by piece may have them all."""

    async def say(call):
        await call.say(BEGUN + chunk(b"x" * CAP) + chunk(b"y"))
        if len(call.wire.requests) == 2:
            await call.say(chunk(b""))

    transport = make()
    async with listen(say) as wire:
        opened = await opening(transport, wire.url)
        with pytest.raises(UpstreamError, match="larger than the 100000 bytes") as caught:
            await opened.read()
        assert caught.value.code == "upstream_answer_too_large"
        await asyncio.wait_for(wire.left.wait(), 5)
        opened = await opening(transport, wire.url)
        assert sum([len(piece) async for piece in opened]) == CAP + 1


async def test_declared_length_is_believed_before_anything_has_come(make):
    """A whole that will be too large is not waited for, and its connection is closed."""
    async with listen(b"HTTP/1.1 200 OK\r\ncontent-length: 100001\r\n\r\n") as wire:
        opened = await opening(make(), wire.url)
        with pytest.raises(UpstreamError, match="larger than"):
            await opened.read()
        await asyncio.wait_for(wire.left.wait(), 5)


async def test_compressed_pieces_are_decoded_as_they_come(make):
    """What a server flushes is understood at once, though its end is not there yet."""
    read = asyncio.Event()
    pieces = [b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"]

    async def say(call):
        await call.say(BEGUN.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"))
        deflate = zlib.compressobj(wbits=31)
        for piece in pieces:
            await call.say(chunk(deflate.compress(piece) + deflate.flush(zlib.Z_SYNC_FLUSH)))
            await read.wait()
            read.clear()
        await call.say(chunk(deflate.flush()) + chunk(b""))

    async with listen(say) as wire:
        got = []
        async for piece in await opening(make(), wire.url):
            got.append(piece)
            read.set()
        assert got == pieces


@pytest.mark.parametrize(
    ("said", "first"),
    [
        (gzip.compress(b"a" * 50_000)[:-4], True),
        (gzip.compress(b"a") + b"more", True),
        (b"no gzip", False),
    ],
    ids=["short", "long", "plain"],
)
async def test_corrupt_pieces_are_an_error_and_close(make, said, first):
    """What could be decoded before is not taken back; after that there is nothing to read."""
    async with listen(answer(said, b"content-encoding: gzip")) as wire:
        opened = await opening(make(), wire.url)
        if first:
            assert await anext(aiter(opened))
        with pytest.raises(UpstreamError) as caught:
            await opened.read()
        assert caught.value.code == "upstream_answer_encoding"
        with pytest.raises(UpstreamConnectError):
            await anext(aiter(opened))


async def test_unknown_encoding_is_refused_when_it_is_opened(make):
    """Nobody asked for it; the connection is closed, its body unread."""

    async def say(call):
        await call.say(BEGUN.replace(b"\r\n\r\n", b"\r\ncontent-encoding: br\r\n\r\n"))
        await call.reader.read()

    async with listen(say) as wire:
        with pytest.raises(UpstreamError) as caught:
            await opening(make(), wire.url)
        assert caught.value.code == "upstream_answer_encoding"
        await asyncio.wait_for(wire.left.wait(), 5)


async def test_bomb_comes_in_small_pieces_and_is_not_read_whole(make):
    """64 MiB in 64 kB are never held in memory, nor unfolded, whichever way they are read."""
    bomb = gzip.compress(bytes(64 << 20), compresslevel=1)
    pieces = []
    async with listen(answer(bomb, b"content-encoding: gzip")) as wire:
        transport = make(max_answer=1 << 20)
        tracemalloc.start()
        opened = await opening(transport, wire.url)
        with pytest.raises(UpstreamError, match="more than 100 times what was sent"):
            pieces += [len(piece) async for piece in opened]
        opened = await opening(transport, wire.url)
        with pytest.raises(UpstreamError, match="larger than the 1048576 bytes"):
            await opened.read()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert max(pieces, default=0) <= 1 << 16
    assert sum(pieces) < 16 << 20
    assert peak < 16 << 20


async def test_what_is_well_compressed_is_no_bomb(make):
    """Chunks that say nearly the same, 4 MiB of them: they fold to a twentieth."""
    said = b"".join(b'data: {"id":"chatcmpl-1","model":"m","n":%d}\n\n' % n for n in range(90_000))
    folded = gzip.compress(said)
    assert len(said) > 4 << 20
    assert len(said) > 9 * len(folded)
    async with listen(answer(folded, b"content-encoding: gzip")) as wire:
        opened = await opening(make(max_answer=1 << 30), wire.url)
        assert b"".join([piece async for piece in opened]) == said


async def test_many_answers_at_a_time_keep_apart(make):
    """100 streams that take turns: each has its own request's pieces, in order."""
    turn = asyncio.Barrier(100)

    async def say(call):
        await call.say(BEGUN)
        for number in range(5):
            await turn.wait()
            await call.say(chunk(call.request.partition(b"\r\n\r\n")[2] + b":%d\n" % number))
        await call.say(chunk(b""))

    transport = make()

    async def read(number):
        opened = await opening(transport, wire.url, b"%d" % number)
        return b"".join([piece async for piece in opened])

    async with listen(say) as wire:
        answers = await asyncio.gather(*(read(number) for number in range(100)))
    for number, said in enumerate(answers):
        assert said == b"".join(b"%d:%d\n" % (number, turn) for turn in range(5))


@given(
    data=st.binary(max_size=300) | st.integers(1, 400_000).map(bytes),
    encoding=st.sampled_from(["", "identity", "gzip", "deflate"]),
    cuts=st.lists(st.integers(0, 500), max_size=12),
)
def test_any_split_is_decoded_to_the_same(data, encoding, cuts):
    """Wherever the wire cuts a body, its pieces are the body, never empty, never large."""
    encode = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)
    wire = encode(data)
    places = sorted({min(cut, len(wire)) for cut in cuts} | {0, len(wire)})
    decoder = Decoder({"content-encoding": encoding})
    pieces = []
    for start, end in pairwise(places):
        pieces += decoder.feed(wire[start:end])
    decoder.finish()
    assert b"".join(pieces) == data
    assert all(pieces)
    assert encoding in ("", "identity") or all(len(piece) <= 1 << 16 for piece in pieces)
