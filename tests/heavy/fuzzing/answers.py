"""What upstreams send: streams of events, whole answers, and errors.

The first byte of an input says how it comes: in pieces of how many bytes, or with which status.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from gateway.backends.body import Body, Decoder
from gateway.backends.exchange import Reply, incoming
from gateway.backends.failures import read_failure, without
from gateway.backends.wire import read_embeddings
from gateway.chat.relay import Passing, check_whole, joined, passed, refusal, request_id
from gateway.completion import Assembly, Watch, look, replay
from gateway.errors import GatewayError, UpstreamError
from gateway.resilience.retry import retry_after
from gateway.sse import Events
from gateway.vectors import InvalidVectorError, unit
from tests.heavy.fuzzing.target import Target

_TEXTS = ("a text that somebody sent", "x")
_STATUSES = (200, 201, 307, 400, 401, 404, 408, 413, 429, 500, 503, 504)
_LIMIT = 1 << 20
_PIECES = 200
"""As many as a stream comes in, about."""


class _Came:
    """An open answer of which all has come."""

    status = 200

    def __init__(self, pieces: Sequence[bytes], headers: dict[str, str]) -> None:
        self.headers = headers
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def read(self) -> bytes:
        return b"".join(self._pieces)

    async def aclose(self) -> None:
        pass


def try_stream(data: bytes) -> None:
    """An UpstreamError or an answer may come of it; no byte is lost, wherever pieces are cut."""
    stream = data[1:]
    size = max(1 + data[0] if data else 1, len(stream) // _PIECES)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    events, watch, assembly = Events(), Watch(), Assembly()
    cut = [event for piece in pieces for event in events.feed(piece)]
    assert b"".join(cut) + events.rest() == stream
    for event in cut:
        watch.see(event)
        assembly.add(event)
    if (whole := assembly.whole()) is not None:
        _told_again(whole)
    with suppress(GatewayError):
        _runner().run(_relayed(pieces))


@cache
def _runner() -> asyncio.Runner:
    """Return one for all inputs: a loop for each would take longer than what runs in it."""
    return asyncio.Runner()


def _told_again(whole: bytes) -> None:
    again = Assembly()
    for event in replay(whole, include_usage=True):
        again.add(event)
    told = again.whole()
    # What is said in odd forms can be told, and not be put together again.
    assert told is None or look(told).complete


async def _relayed(pieces: Sequence[bytes]) -> None:
    passing = Passing(_Came(pieces, {}), Watch(), "u", _refuse)
    joined([seen async for some in passing for seen in some], with_usage=False)


def _refuse(reply: Reply) -> GatewayError:
    failure = read_failure(reply, "u", "messages")
    assert failure is not None
    return failure.final(spent=False)


def try_answer(data: bytes) -> None:
    """Vectors that can be served or an UpstreamError; an error that quotes no text of ours."""
    kind, body = data[0] if data else 0, data[1:]
    with suppress(UpstreamError):
        body = _decoded(body, {"content-encoding": "gzip"} if kind & 128 else {})
    headers = incoming([(b"Retry-After", body[:40]), (b"X-Request-Id", body[-40:])])
    _read_error(Reply(_STATUSES[kind % len(_STATUSES)], headers, body))
    for count in (1, 2, 3):
        with suppress(UpstreamError):
            _read_vectors(body, count, by_position=bool(kind & 64))
    with suppress(GatewayError):
        check_whole(body, "u", _refuse)
    if look(body).complete:
        _told_again(body)


def _decoded(raw: bytes, headers: dict[str, str]) -> bytes:
    decoder, body = Decoder(headers), Body(headers, _LIMIT)
    for piece in decoder.feed(raw):
        body.keep(piece)
    decoder.finish()
    return body.whole()


def _read_error(reply: Reply) -> None:
    retry_after(reply.headers, 1.7e9)
    passed(_Came([], dict(reply.headers)))
    request_id(_Came([], dict(reply.headers)))
    refusal(reply.body)
    failure = read_failure(reply, "u")
    assert (failure is None) == (reply.status < 300)
    if failure is not None:
        error = failure.final(spent=True)
        assert 400 <= error.status < 600
        error.message = without(error.message, _TEXTS, ["a-secret"])
        assert _TEXTS[0] not in error.message
        error.body()


def _read_vectors(body: bytes, count: int, *, by_position: bool) -> None:
    raw = read_embeddings(body, [5] * count, upstream="u", by_position=by_position)
    assert len(raw.rows) == len(raw.tokens) == count
    assert len({len(row) for row in raw.rows}) == 1
    for row in raw.rows:
        with suppress(InvalidVectorError):
            assert abs(float(np.linalg.norm(unit(row).astype(np.float64))) - 1) < 1e-6


def _chunk(**choice: Any) -> bytes:
    said = {"id": "c", "created": 1, "model": "m", "object": "chat.completion.chunk"}
    whole = {**said, "choices": [{"index": 0, "finish_reason": None, **choice}]}
    return b"data: " + json.dumps(whole).encode() + b"\n\n"


def _streams() -> list[bytes]:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    more = {"index": 0, "function": {"arguments": "}"}}
    probs = {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}]}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    done = (
        b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n"
    )
    error = b'event: error\ndata: {"error": {"message": "no", "code": 400}}\n\n'
    first = _chunk(delta={"role": "assistant", "content": ""})
    last = _chunk(delta={}, finish_reason="stop")
    words = first + _chunk(delta={"content": "a"}, logprobs=probs) + last + done
    calls = first + _chunk(delta={"tool_calls": [call]}) + _chunk(delta={"tool_calls": [more]})
    calls += last + done
    whole = [words, calls, b"\xef\xbb\xbf: ping\n\n" + words.replace(b"\n", b"\r\n"), first + error]
    return [bytes([size]) + stream for stream in whole for size in (0, 6, 255)]


def _bodies() -> list[bytes]:
    items = [{"object": "embedding", "index": n, "embedding": [0.5, 1.5]} for n in range(3)]
    packed = [{**item, "embedding": "AACAPwAAgD8="} for item in items]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    message = {"role": "assistant", "content": "hi", "tool_calls": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    said = [
        *({"object": "list", "data": items[:n], "usage": usage} for n in (1, 2, 3)),
        {"data": packed, "input_tokens": [1, 1, 1], "truncated": [False, True, False]},
        {"id": "c", "model": "m", "choices": [choice], "usage": usage, "system_fingerprint": "f"},
        {"error": {"message": f"no: {_TEXTS[0]}", "type": "t", "param": "p", "code": "c"}},
        {"detail": "no"},
    ]
    bodies = [json.dumps(each).encode() for each in said]
    zipped = [bytes([128]) + gzip.compress(body) for body in bodies[:2]]
    return [bytes([kind]) + body for kind, body in enumerate(bodies * 2)] + zipped


EVENTS = Target(
    try_stream,
    _streams(),
    [
        b"data: ", b"data:", b"event: error\n", b"[DONE]", b"\r\n\r\n", b"\n\n", b": ",
        b"\xef\xbb\xbf", b'"choices":', b'"delta":', b'"tool_calls":', b'"usage":', b'"index":',
        b'"finish_reason":"stop"',
    ],
)  # fmt: skip
ANSWER = Target(
    try_answer,
    _bodies(),
    [
        b'"data":', b'"embedding":', b'"index":', b'"usage":', b"NaN", b"1e999", b"AACAPw==",
        b'"error":', b'"code":', b'"choices":', b'"message":', b'"input_tokens":', b"null",
    ],
)  # fmt: skip
