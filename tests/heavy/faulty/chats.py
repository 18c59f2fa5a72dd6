"""Chats that go wrong: an error in place of an answer, and streams that stop, break or babble."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from tests.heavy.faulty.kind import CUT, EVER, FAILED, GOOD, INVALID, LATE, Kind, Kinds, Outcome
from tests.heavy.faulty.server import Call, completion, event

CHATS, STREAMS = Kinds(), Kinds()


def _completion(name: str, said: Any, *outcomes: Outcome) -> None:
    async def do(call: Call) -> None:
        await call.answer(json.dumps(said).encode())

    CHATS[name] = Kind(do, frozenset(outcomes or (INVALID,)))


_completion("error-400", {"error": {"message": "no", "code": 400}}, (400, None))
_completion("error-429", {"error": {"message": "no", "type": "rate_limit_error"}},
            (429, "rate_limit_exceeded"))  # fmt: skip
_completion("error-odd", {"error": "no"}, FAILED)
_completion("no-answer", ["no"])


def _stream(
    name: str, change: Callable[[list[bytes]], list[bytes]], *outcomes: Outcome, stall: bool = False
) -> None:
    """Note a stream of which the events are changed, and which ends well or not at all."""

    async def do(call: Call) -> None:
        await call.send(call.head())
        for piece in change(call.events()):
            await call.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        if stall:
            await asyncio.sleep(EVER)
        await call.send(b"0\r\n\r\n")

    STREAMS[name] = Kind(do, frozenset(outcomes))


_ERROR = event({"error": {"message": "no", "type": "server_error", "code": None}})
_BEGUN: Outcome = (0, "upstream_stream_cut")

_stream("empty-stream", lambda _: [b":\n\n"], CUT)
_stream("short-stream", lambda events: events[:3], _BEGUN)
_stream("cut-event", lambda events: [*events[:3], events[3][:20]], _BEGUN)
_stream("no-done", lambda events: events[:-1], GOOD)
_stream("no-blank-line", lambda events: [*events[:-1], b"data: [DONE]"], GOOD)
_stream("stalled-stream", lambda events: events[:3], (0, "upstream_timeout"), stall=True)
_stream("silent-stream", lambda _: [b": wait\n\n"], LATE, stall=True)
_stream("error-first", lambda _: [_ERROR], FAILED)
_stream(
    "error-first-400", lambda _: [event({"error": {"message": "no", "code": 400}})], (400, None)
)
_stream("error-later", lambda events: [*events[:3], _ERROR], (0, None))
_stream("error-and-done", lambda events: [*events[:3], _ERROR, events[-1]], (0, None))
_stream("garbage", lambda _: [b"\x00\xff\xfe no stream at all"], CUT)
_stream("garbage-between", lambda events: [*events[:2], b"data: {no json\n\n", *events[2:]], GOOD)
_stream("giant-event", lambda events: [*events[:2], b"data: " + b"x" * (9 << 20)],
        (0, "upstream_invalid_response"))  # fmt: skip
_stream("in-one-piece", lambda events: [b"".join(events)], GOOD)
_stream("byte-by-byte", lambda events: [bytes([byte]) for byte in b"".join(events)], GOOD)
_stream("after-the-end", lambda events: [*events, *events], GOOD)


@STREAMS.of(GOOD)
async def json_for_a_stream(call: Call) -> None:
    body = json.dumps(completion(call.texts[0])).encode()
    await call.send(
        call.head(length=len(body)).replace(b"text/event-stream", b"application/json") + body
    )
