"""Connections that break, fall silent, or speak something else: they befall every call alike."""

import asyncio
import json

from tests.heavy.faulty.kind import EVER, GOOD, LATE, REDIRECT, UNREACHABLE, Kinds
from tests.heavy.faulty.server import WIDTH, Call, HangUpError, completion

ANY, VECTORS = Kinds(), Kinds()
"""What befalls every call, and those that do not want a stream of any length."""


@ANY.of(UNREACHABLE)
async def reset_at_once(call: Call) -> None:
    call.reset()


@ANY.of(UNREACHABLE)
async def close_at_once(call: Call) -> None:
    raise HangUpError


@ANY.of(UNREACHABLE)
async def reset_in_headers(call: Call) -> None:
    await call.send(call.whole()[:40])
    call.reset()


@ANY.of(UNREACHABLE)
async def close_in_headers(call: Call) -> None:
    await call.send(call.whole()[:40])
    raise HangUpError


@ANY.of(UNREACHABLE)
async def reset_after_headers(call: Call) -> None:
    await call.send(call.head(length=1000))
    call.reset()


@ANY.of(UNREACHABLE)
async def reset_in_body(call: Call) -> None:
    await call.send(_half(call))
    call.reset()


@ANY.of(UNREACHABLE)
async def close_in_body(call: Call) -> None:
    await call.send(_half(call))
    raise HangUpError


@ANY.of(UNREACHABLE)
async def close_in_a_chunk(call: Call) -> None:
    await call.send(call.head() + b"400\r\n" + call.good()[:100])
    raise HangUpError


@ANY.of(UNREACHABLE)
async def close_between_chunks(call: Call) -> None:
    await call.send(call.head() + b"32\r\n" + call.good()[:50] + b"\r\n")
    raise HangUpError


@ANY.of(LATE)
async def stall_at_once(call: Call) -> None:
    await asyncio.sleep(EVER)


@ANY.of(LATE)
async def stall_in_headers(call: Call) -> None:
    await call.send(call.whole()[:40])
    await asyncio.sleep(EVER)


@ANY.of(LATE)
async def stall_after_headers(call: Call) -> None:
    await call.send(call.head(length=1000))
    await asyncio.sleep(EVER)


@ANY.of(LATE)
async def stall_in_body(call: Call) -> None:
    await call.send(_half(call))
    await asyncio.sleep(EVER)


@VECTORS.of(LATE)
async def slow_drip(call: Call) -> None:
    for byte in call.whole():
        await call.send(bytes([byte]))
        await asyncio.sleep(0.02)


@ANY.of(LATE, UNREACHABLE)
async def continue_for_ever(call: Call) -> None:
    while True:
        await call.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0.02)


@ANY.of(LATE)
async def longer_than_it_is(call: Call) -> None:
    body = call.good()
    await call.send(call.head(length=len(body) + 10) + body[:-3])
    await asyncio.sleep(EVER)


@ANY.of(UNREACHABLE)
async def tls_alert(call: Call) -> None:
    await call.send(b"\x15\x03\x01\x00\x02\x02\x46" * 4)
    raise HangUpError


@ANY.of(UNREACHABLE)
async def strange_status_line(call: Call) -> None:
    await call.send(call.whole().replace(b"HTTP/1.1 200 OK", b"HTTP/1.1 abc OK", 1))


@ANY.of(UNREACHABLE)
async def no_colon(call: Call) -> None:
    call.headers = b"this is no header\r\n"
    await call.send(call.whole())
    raise HangUpError


@ANY.of(UNREACHABLE)
async def nul_in_a_header(call: Call) -> None:
    call.headers = b"x-odd: a\0b\r\n"
    await call.send(call.whole())
    raise HangUpError


@ANY.of(GOOD)
async def odd_header_bytes(call: Call) -> None:
    call.headers = b"x-odd: \xff\xfe \x80\r\nx-ratelimit-limit-requests: \xe9\xff\r\n"
    await call.send(call.whole())


@ANY.of(UNREACHABLE, costly=True)
async def endless_headers(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await call.send(b"x-one-more: header\r\n" * 1000)


@ANY.of(UNREACHABLE)
async def long_header(call: Call) -> None:
    call.headers = b"x-long: %b\r\n" % (b"x" * 1_000_000)
    await call.send(call.whole())
    raise HangUpError


@ANY.of(UNREACHABLE)
async def two_lengths(call: Call) -> None:
    body = call.good()
    call.headers = b"content-length: %d\r\n" % (len(body) - 7)
    await call.send(call.head(length=len(body)) + body)
    raise HangUpError


@ANY.of(UNREACHABLE)
async def negative_length(call: Call) -> None:
    await call.send(call.head(length=-5) + call.good())
    raise HangUpError


@ANY.of(UNREACHABLE)
async def strange_chunk(call: Call) -> None:
    await call.send(call.head() + b"zz\r\n" + call.good() + b"\r\n0\r\n\r\n")
    raise HangUpError


@ANY.of(UNREACHABLE, REDIRECT)
async def other_protocol(call: Call) -> None:
    await call.send(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
    )
    raise HangUpError


@ANY.of(GOOD, UNREACHABLE)
async def two_answers(call: Call) -> None:
    """Send one more answer than was asked for, which is nobody's."""
    body = call.good()
    items = [{"object": "embedding", "index": 0, "embedding": [9.0] * WIDTH}]
    strange = completion("nobody") if call.is_chat else {"object": "list", "data": items}
    more = json.dumps(strange).encode()
    other = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    await call.send(call.head(length=len(body)) + body + other % (len(more), more))


def _half(call: Call) -> bytes:
    body = call.good()
    return call.head(length=len(body)) + body[: len(body) // 2]
