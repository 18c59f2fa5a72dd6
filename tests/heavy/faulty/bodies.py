"""Whole answers that are wrong: no JSON, too much of it, compressed, refused, or other vectors.

A status of 200 is for what is only odd: then the answer has to be the true one.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from tests.heavy.faulty.kind import (
    AWAY,
    CUT,
    ENCODED,
    EVER,
    FAILED,
    GOOD,
    INVALID,
    LARGE,
    LATE,
    OTHER_WIDTH,
    REDIRECT,
    UNREACHABLE,
    Kind,
    Kinds,
    Outcome,
)
from tests.heavy.faulty.server import WIDTH, Call, HangUpError

ANY, VECTORS, CHATS, STREAMS = Kinds(), Kinds(), Kinds(), Kinds()


@VECTORS.of(INVALID, UNREACHABLE)
@CHATS.of(INVALID, UNREACHABLE)
async def shorter_than_it_is(call: Call) -> None:
    body = call.good()
    await call.send(call.head(length=len(body) - 10) + body)
    raise HangUpError


@VECTORS.of(INVALID)
@CHATS.of(INVALID)
async def broken_json(call: Call) -> None:
    await call.answer(call.good()[:-20])


@VECTORS.of(INVALID)
@CHATS.of(INVALID)
@STREAMS.of(CUT)
async def html(call: Call) -> None:
    await call.answer(b"<html><body>Welcome to nginx!</body></html>")


@VECTORS.of(INVALID)
@CHATS.of(INVALID)
async def nothing(call: Call) -> None:
    await call.answer(b"")


@VECTORS.of(INVALID)
@CHATS.of(INVALID)
async def no_content(call: Call) -> None:
    await call.send(b"HTTP/1.1 204 No Content\r\n\r\n")


@VECTORS.of(INVALID)
@CHATS.of(INVALID)
async def deep_json(call: Call) -> None:
    await call.answer(b'{"data":' + b"[" * 100_000)


@VECTORS.of(INVALID)
async def good_error(call: Call) -> None:
    await call.answer(b'{"error": {"message": "no", "type": "server_error", "code": null}}')


@VECTORS.of(LARGE)
@CHATS.of(LARGE)
@STREAMS.of(LARGE, INVALID)
async def bomb(call: Call) -> None:
    await call.answer(bomb_of_a_gigabyte(), more=b"content-encoding: gzip\r\n")


@VECTORS.of(LARGE)
@CHATS.of(LARGE)
@STREAMS.of(LATE)
async def huge_by_its_length(call: Call) -> None:
    await call.send(call.head(length=1 << 40))
    await asyncio.sleep(EVER)


@VECTORS.of(LARGE, LATE, costly=True)
@CHATS.of(LARGE, LATE, costly=True)
async def endless_body(call: Call) -> None:
    await call.send(call.head() + b"1\r\n{\r\n")
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    while True:
        await call.send(piece)


@VECTORS.of(ENCODED)
@CHATS.of(ENCODED)
@STREAMS.of(GOOD)  # what breaks behind [DONE] is nobody's loss
async def broken_gzip(call: Call) -> None:
    await call.answer(
        gzip.compress(call.good())[:-9] + b"123456789", more=b"content-encoding: gzip\r\n"
    )


@ANY.of(ENCODED)
async def not_gzip(call: Call) -> None:
    await call.answer(call.good(), more=b"content-encoding: gzip\r\n")


@ANY.of(ENCODED)
async def unknown_encoding(call: Call) -> None:
    await call.answer(call.good(), more=b"content-encoding: br\r\n")


@ANY.of(GOOD)
async def gzip_unasked(call: Call) -> None:
    await call.answer(gzip.compress(call.good()), more=b"content-encoding: gzip\r\n")


_SAID = json.dumps({"error": {"message": "no", "type": "t", "param": None, "code": None}}).encode()


def _status(
    name: str, line: str, *outcomes: Outcome, more: bytes = b"", body: bytes = _SAID
) -> None:
    async def do(call: Call) -> None:
        await call.answer(body, line, more)

    ANY[name] = Kind(do, frozenset(outcomes))


_status("status-500", "500 Internal Server Error", FAILED)
_status("status-502", "502 Bad Gateway", FAILED, body=b"<html>Bad Gateway</html>")
_status("status-503", "503 Service Unavailable", AWAY)
_status("status-503-later", "503 Service Unavailable", AWAY, more=b"retry-after: 30\r\n")
_status("status-504", "504 Gateway Timeout", LATE)
_status("status-408", "408 Request Timeout", LATE)
_status("status-401", "401 Unauthorized", (502, "upstream_authentication"))
_status("status-403", "403 Forbidden", (502, "upstream_authentication"))
_status("status-400", "400 Bad Request", (400, None))
_status("status-404", "404 Not Found", (404, "model_not_found"))
_status("status-413", "413 Content Too Large", (413, "payload_too_large"))
_status("status-422", "422 Unprocessable Content", (400, None))
_status("status-418", "418 I'm a teapot", (400, None))
_status("status-599", "599 Odd", FAILED)
_status("status-429", "429 Too Many Requests", (429, "rate_limit_exceeded"))
_status(
    "status-429-later", "429 Too Many", (429, "rate_limit_exceeded"), more=b"retry-after: 9\r\n"
)
_status(
    "status-429-odd", "429 Too Many", (429, "rate_limit_exceeded"),
    more=b"retry-after: \xff-inf\r\nretry-after-ms: nan\r\n",
)  # fmt: skip


@ANY.of(REDIRECT)
async def redirect(call: Call) -> None:
    """Point to itself: whoever followed would be given a good answer."""
    port = call.writer.get_extra_info("sockname")[1]
    place = b"location: http://127.0.0.1:%d/v1/elsewhere\r\n" % port
    await call.answer(b"", "307 Temporary Redirect", place)


def _items(
    name: str, change: Callable[[Call, list[dict[str, Any]]], Any], *outcomes: Outcome
) -> None:
    async def do(call: Call) -> None:
        await call.answer(call.list_of(change(call, call.items())))

    VECTORS[name] = Kind(do, frozenset(outcomes or (INVALID,)))


def _last(**changed: Any) -> Callable[[Call, list[dict[str, Any]]], Any]:
    return lambda _, items: [*items[:-1], {**items[-1], **changed}]


def _vector(numbers: Sequence[float]) -> Callable[[Call, list[dict[str, Any]]], Any]:
    row = np.array(numbers, np.float32)
    return lambda call, items: [*items[:-1], call.item(len(items) - 1, row)]


def _without(name: str) -> Callable[[Call, list[dict[str, Any]]], Any]:
    return lambda _, items: [{key: item[key] for key in item if key != name} for item in items]


_items("one-short", lambda _, items: items[:-1])
_items("one-more", lambda _, items: [*items, items[-1]])
_items("twice-the-same", lambda _, items: [items[0]] * (len(items) + (len(items) == 1)))
_items("no-index", _without("index"), INVALID, GOOD)  # good for a single text
_items("index-of-nobody", _last(index=99))
_items("negative-index", _last(index=-1))
_items("index-in-words", _last(index="0"))
_items("other-width", _vector([1.0] * (WIDTH - 1)), INVALID, OTHER_WIDTH)  # the latter: alone
_items("no-width", _vector([]))
_items("zero", _vector([0.0] * WIDTH))
_items("nan", _vector([float("nan")] * WIDTH))
_items("infinity", _vector([float("inf")] * WIDTH))
_items("too-large-for-float32", _last(embedding=[1e300] * WIDTH))
_items("null", _last(embedding=None))
_items("null-inside", _last(embedding=[None] * WIDTH))
_items("words", _last(embedding="these are no numbers"))
_items("half-a-float", _last(embedding="AACAPwA="))
_items("no-list", lambda _, items: {"0": items[0]})
_items("other-order", lambda _, items: items[::-1], GOOD)


def _other_form(call: Call, _: list[dict[str, Any]]) -> list[dict[str, Any]]:
    form = "float" if call.body.get("encoding_format") == "base64" else "base64"
    return Call({**call.body, "encoding_format": form}, call.writer).items()


_items("other-form", _other_form, GOOD)


@cache
def bomb_of_a_gigabyte() -> bytes:
    """Return a gigabyte in a megabyte."""
    deflate = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    return b"".join(deflate.compress(zeros) for _ in range(1024)) + deflate.flush()
