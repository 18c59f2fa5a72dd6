"""What a Transport brings back: one contract, on both clients, both event loops, real sockets."""

import asyncio
import gzip
import os
import tracemalloc
import zlib
from contextlib import suppress

import httpx2
import pytest

from gateway.backends.httpx_transport import _goes_on
from gateway.errors import UpstreamConnectError, UpstreamError
from tests.backends.sockets import CAP, OK, answer, listen, opening, post

pytestmark = pytest.mark.anyio


async def test_request_and_answer_arrive_whole(make):
    """Method, path, query, headers and body go out; status, headers and body come back."""
    said = b"HTTP/1.1 201 Created\r\nX-Request-ID: req_1\r\nX-Two: a\r\nx-two: b\r\n"
    async with listen(said + b"Content-Length: 7\r\n\r\n[1,\n2]\n") as wire:
        reply = await post(make(), wire.url + "?api-version=1%2F2", b'{"input":"caf\xc3\xa9"}')
    assert (reply.status, reply.body) == (201, b"[1,\n2]\n")
    assert dict(reply.headers) == {"x-request-id": "req_1", "x-two": "a, b", "content-length": "7"}
    head, body = wire.requests[0].split(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"post /v1/embeddings?api-version=1%2f2 http/1.1"
    assert b"authorization: bearer sk-secret-key" in lines
    assert b"host: 127.0.0.1:%d" % wire.port in lines
    assert body == b'{"input":"caf\xc3\xa9"}'


async def test_no_header_brings_a_control_character(make):
    """Clients let some through; a server that passes such a header on refuses to send it."""
    said = b"HTTP/1.1 200 OK\r\nx-ratelimit-evil: a\x01b\tc\x7f\r\nContent-Length: 2\r\n\r\n{}"
    async with listen(said) as wire:
        try:
            reply = await post(make(), wire.url)
        except UpstreamConnectError:
            return  # or the client takes it for no HTTP at all
    assert reply.headers["x-ratelimit-evil"] == "ab\tc"


async def test_defaults_go_out_and_give_way(make):
    """Identity encoding is asked for, no library names itself, and the caller's word wins."""
    transport = make()
    async with listen(OK) as wire:
        await transport.send("GET", wire.url, {}, None, timeout=5)
        await transport.send("GET", wire.url, {"accept-encoding": "gzip"}, None, timeout=5)
    first, second = (request.lower() for request in wire.requests)
    assert b"accept-encoding: identity\r\n" in first
    assert b"user-agent: embedding-gateway\r\n" in first
    assert b"content-length" not in first
    assert b"accept-encoding: gzip\r\n" in second
    assert second.count(b"accept-encoding") == 1


@pytest.mark.parametrize(
    "more", [answer(b"another's"), b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["answer", "continue"]
)
@pytest.mark.parametrize("streamed", [False, True], ids=["sent", "opened"])
async def test_what_comes_behind_an_answer_is_not_the_next_one(make, more, streamed):
    """P1: nobody has asked for it; the connection is closed, and the next request has its own."""
    transport = make()
    async with listen(lambda call: call.say(answer(call.request[-1:]) + more)) as wire:
        for number in range(3):
            body = b"%d" % number
            if streamed:
                opened = await opening(transport, wire.url, body)
                assert b"".join([piece async for piece in opened]) == body
            else:
                assert (await post(transport, wire.url, body)).body == body
    assert wire.connections == 3


def test_where_nobody_can_look_no_connection_is_used_again():
    """A later httpx2 may keep its parser elsewhere: then every answer counts as going on."""
    assert _goes_on(httpx2.Response(200, content=b"{}"))


async def test_garbage_behind_an_answer_harms_no_other(make):
    """The answer counts, or it counts as broken; the next request has a connection of its own."""
    transport = make()
    async with listen(lambda call: call.say(answer(call.request[-1:]) + b"x")) as wire:
        for number in range(3):
            with suppress(UpstreamConnectError):
                assert (await post(transport, wire.url, b"%d" % number)).body == b"%d" % number
    assert wire.connections == 3


async def test_a_sound_connection_is_used_again(make):
    """One for all that follow each other."""
    transport = make()
    async with listen(OK) as wire:
        for _ in range(3):
            await post(transport, wire.url)
            assert await (await opening(transport, wire.url)).read() == b"{}"
    assert wire.connections == 1


@pytest.mark.parametrize("end", ["length", "chunked", "close"])
async def test_body_of_every_framing_is_whole(make, end):
    """Length, chunks and the end of the connection all frame a body."""
    body = os.urandom(CAP)

    async def say(call):
        if end == "length":
            await call.say(answer(body))
        elif end == "chunked":
            parts = [body[n : n + 7000] for n in range(0, CAP, 7000)]
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
            await call.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks)
            await call.say(b"0\r\n\r\n")
        else:
            await call.say(b"HTTP/1.0 200 OK\r\n\r\n" + body)
            call.hang_up()

    async with listen(say) as wire:
        assert (await post(make(), wire.url)).body == body


@pytest.mark.parametrize("framing", [b"content-length: 100001", b"transfer-encoding: chunked"])
async def test_body_over_the_cap_is_refused(make, framing):
    """One byte too many is an error; a declared length is believed before anything has come."""

    async def say(call):
        await call.say(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        if b"chunked" in framing:
            await call.say(b"%x\r\n%s\r\n" % (CAP + 1, b"x" * (CAP + 1)))

    async with listen(say) as wire:
        with pytest.raises(UpstreamError, match="larger than the 100000 bytes") as caught:
            await post(make(), wire.url)
        await asyncio.wait_for(wire.left.wait(), 5)
    assert (caught.value.code, caught.value.status) == ("upstream_answer_too_large", 502)


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
async def test_compressed_answer_is_decoded(make, encode):
    """An answer compressed unasked is read all the same."""
    body = b'{"data": []}' * 1000
    name = b"gzip" if encode is gzip.compress else b"deflate"
    async with listen(answer(encode(body), b"content-encoding: " + name)) as wire:
        assert (await post(make(), wire.url)).body == body


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (answer(gzip.compress(bytes(CAP + 1)), b"content-encoding: gzip"), "too_large"),
        (answer(b"no gzip", b"content-encoding: gzip"), "encoding"),
        (answer(gzip.compress(b"{}")[:-4], b"content-encoding: gzip"), "encoding"),
        (answer(gzip.compress(b"{}") * 2, b"content-encoding: gzip"), "encoding"),
        (answer(b"\x0b\x02\x80{}\x03", b"content-encoding: br"), "encoding"),
    ],
    ids=["bomb", "plain", "short", "long", "br"],
)
async def test_answer_that_cannot_be_decoded_is_refused(make, said, code):
    """Bombs and corrupt or unknown encodings are errors of their own."""
    async with listen(said) as wire:
        with pytest.raises(UpstreamError) as caught:
            await post(make(), wire.url)
    assert caught.value.code == f"upstream_answer_{code}"


async def test_bomb_is_not_unfolded(make):
    """64 MiB in 64 kB are refused at the cap, without ever being held in memory."""
    bomb = gzip.compress(bytes(64 << 20), compresslevel=1)
    async with listen(answer(bomb, b"content-encoding: gzip")) as wire:
        transport = make(max_answer=1 << 20)
        tracemalloc.start()
        with pytest.raises(UpstreamError, match="larger than the 1048576 bytes"):
            await post(transport, wire.url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 << 20


async def test_compressed_answer_may_not_go_on(make):
    """What follows the end of the compressed data, even later, makes the answer unusable."""

    async def say(call):
        await call.say(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n")
        await call.say(b"transfer-encoding: chunked\r\n\r\n")
        for part in (gzip.compress(b"{}"), b"more"):
            await call.say(b"%x\r\n%s\r\n" % (len(part), part))
            # Two packets: the second is read on its own.
            await asyncio.sleep(0.02)
        await call.say(b"0\r\n\r\n")

    async with listen(say) as wire:
        with pytest.raises(UpstreamError, match="goes on after") as caught:
            await post(make(), wire.url)
    assert caught.value.code == "upstream_answer_encoding"


async def test_redirect_comes_back_as_it_is(make):
    """Nobody is led anywhere: the key stays where it was sent."""
    async with listen(OK) as other:
        moved = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n"
        async with listen(moved % other.url.encode()) as wire:
            reply = await post(make(), wire.url)
    assert (reply.status, reply.headers["location"]) == (307, other.url)
    assert other.connections == 0


async def test_cookies_are_not_kept(make):
    """A cookie that was set does not go out with the next call."""
    transport = make()
    async with listen(answer(b"{}", b"set-cookie: session=1; path=/")) as wire:
        # By a name: cookie jars ignore what addresses set.
        url = wire.url.replace("127.0.0.1", "localhost")
        await post(transport, url)
        await post(transport, url)
    assert b"cookie" not in wire.requests[1].lower()


async def test_connections_are_used_again(make):
    """One connection carries one call after the other, after error statuses too."""
    transport = make()
    async with listen(OK.replace(b"200 OK", b"503 Busy")) as wire:
        for _ in range(5):
            assert (await post(transport, wire.url)).status == 503
    assert (wire.connections, len(wire.requests)) == (1, 5)


async def test_many_calls_at_a_time_keep_apart(make):
    """200 calls over at most 50 connections: each gets the answer to its own request."""

    async def echo(call):
        await call.say(answer(call.request.partition(b"\r\n\r\n")[2]))

    transport = make(pool=50)
    async with listen(echo) as wire:
        calls = [post(transport, wire.url, b"%d" % number) for number in range(200)]
        replies = await asyncio.gather(*calls)
    assert [reply.body for reply in replies] == [b"%d" % number for number in range(200)]
    assert wire.connections <= 50


async def test_userinfo_of_an_address_is_not_sent(make):
    """Credentials travel in headers that the caller gives, and in nothing else."""
    async with listen(OK) as wire:
        await post(make(), wire.url.replace("http://", "http://user:secret@"))
    head = wire.requests[0].lower()
    assert b"authorization: bearer sk-secret-key\r\n" in head
    assert head.count(b"authorization") == 1
    assert b"secret@" not in head
