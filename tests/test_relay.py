"""A stream as it passes through: every byte of it, in whole events, however its pieces are cut."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.exchange import Reply
from gateway.chat.relay import Passing, Relay, check_whole, passed, refusal, request_id
from gateway.completion import Watch
from gateway.errors import (
    GatewayError,
    UpstreamConnectError,
    UpstreamError,
)
from gateway.sse import Events

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"h\xc3\xa9"}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"
DONE_CRLF = b"data: [DONE]\r\n\r\n"
COMMENT = b": ping\n\n"
ERROR = b'data: {"error":{"message":"broken","type":"server_error"}}\n\n'


class Pieces:
    """An answer whose pieces are known beforehand, and how it ends."""

    status = 200

    def __init__(self, pieces, *, broken=None, headers=()):
        self.headers = {"content-type": "text/event-stream", **dict(headers)}
        self.closed = 0
        self._pieces = iter(pieces)
        self._broken = broken

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        for piece in self._pieces:
            return piece
        if self._broken is not None:
            raise self._broken
        raise StopAsyncIteration

    async def read(self):
        return b"".join(self._pieces)

    async def aclose(self):
        self.closed += 1


def refused(reply):
    return GatewayError(reply.body.decode(), code=str(reply.status))


async def relayed(opened, watch, *, drop_usage=False):
    """Read a relay to its end; return what came of it, in its pieces, and how it failed."""
    ended = []
    passing = Passing(opened, watch, "u", refused)
    relay = Relay(opened, passing, lambda: ended.append(True), drop_usage=drop_usage)
    came, failure = [], None
    try:
        await relay.begin()
        async for piece in relay:
            came += [piece]
    except GatewayError as error:
        failure = error
    await relay.aclose()
    await relay.aclose()
    assert opened.closed == 2
    assert ended == [True]
    return came, failure


def relay(pieces, *, broken=None, watch=None, drop_usage=False):
    opened = Pieces(pieces, broken=broken)
    return asyncio.run(relayed(opened, watch or Watch(), drop_usage=drop_usage))


def cut_up(whole, cuts):
    edges = [0, *sorted({cut % (len(whole) + 1) for cut in cuts}), len(whole)]
    return [whole[begin:end] for begin, end in pairwise(edges) if begin < end]


STREAMS = st.builds(
    lambda middle, crlf, bom: (
        (b"\xef\xbb\xbf" if bom else b"")
        + (b"".join([*middle, END, USAGE, DONE]).replace(b"\n", b"\r\n" if crlf else b"\n"))
    ),
    st.lists(st.sampled_from([CHUNK, COMMENT, b"event: x\ndata: 1\n\n", b"\n"]), max_size=8),
    st.booleans(),
    st.booleans(),
)
CUTS = st.lists(st.integers(0, 2000), max_size=12)


@given(stream=STREAMS, cuts=CUTS)
def test_every_byte_passes(stream, cuts):
    """LF or CRLF, comments, several events in a piece, and pieces that end within a character."""
    watch = Watch()
    came, failure = relay(cut_up(stream, cuts), watch=watch)
    assert failure is None
    assert b"".join(came) == stream
    assert watch.usage is not None
    assert watch.done


@given(stream=STREAMS, cuts=CUTS)
def test_the_gateways_own_chunk_is_left_out(stream, cuts):
    """All others are there; a cut between CR and LF leaves a line end over, which says nothing."""
    came, failure = relay(cut_up(stream, cuts), drop_usage=True)
    line_end = b"\r\n" if b"\r\n" in stream else b"\n"
    without = stream.replace(USAGE.replace(b"\n", line_end), b"")
    assert failure is None
    assert b"".join(came) in (without, without.replace(DONE_CRLF, b"\n" + DONE_CRLF))


@given(stream=STREAMS, cuts=CUTS, upto=st.integers(0, 2000))
def test_of_a_stream_that_breaks_only_whole_events_pass(stream, cuts, upto):
    """So that an error can be told behind them; what breaks behind [DONE] is nobody's loss."""
    stream = stream[: upto % (len(stream) + 1)]
    broken, watch = UpstreamConnectError("cut"), Watch()
    came, failure = relay(cut_up(stream, cuts), broken=broken, watch=watch)
    told = b"".join(came)
    if watch.done:
        assert (failure, told) == (None, stream)
        return
    assert failure is broken
    assert stream.startswith(told)
    reader = Events()
    reader.feed(told)
    assert reader.rest() == b""


@pytest.mark.parametrize(
    "stream",
    [CHUNK, CHUNK + END[:-9], COMMENT, b"", b"data: {}\n\n", CHUNK + DONE[:8]],
    ids=["one chunk", "half an event", "comments", "nothing", "no chunk", "half a [DONE]"],
)
def test_a_stream_that_ends_before_its_answer_is_an_error(stream):
    """However politely; half of an event is not passed on."""
    came, failure = relay([stream] if stream else [])
    assert isinstance(failure, UpstreamError)
    assert failure.code == "upstream_stream_cut"
    assert b"".join(came) == (CHUNK if stream.startswith(CHUNK) else b"")


@pytest.mark.parametrize("end", [END, END + DONE[:-2], END + DONE[:-1], END[:-2]])
def test_a_blank_line_or_done_may_be_missing_at_the_end(end):
    """Some servers leave them out; every byte passes all the same."""
    came, failure = relay([CHUNK, end])
    assert failure is None
    assert b"".join(came) == CHUNK + end


def test_what_breaks_behind_done_is_nobodys_loss():
    """The answer was told by then, and has been paid for."""
    came, failure = relay([CHUNK, END, DONE], broken=UpstreamConnectError("cut"))
    assert failure is None
    assert b"".join(came) == CHUNK + END + DONE


def test_a_chunk_passes_as_soon_as_it_is_whole():
    """One for each piece that makes any whole, with all of its events."""
    came, _ = relay([COMMENT, CHUNK[:9], CHUNK[9:] + CHUNK, CHUNK[:5], CHUNK[5:], END, DONE])
    assert came == [COMMENT + CHUNK + CHUNK, CHUNK, END, DONE]


def test_an_error_in_place_of_the_first_chunk_is_raised():
    """Comments may come before it; nothing of the stream has been told by then."""
    came, failure = relay([COMMENT, ERROR])
    assert (came, failure.code) == ([], "500")
    assert "broken" in failure.message


def test_a_later_error_passes_as_it_is():
    """It is in a form that clients know."""
    watch = Watch()
    came, failure = relay([CHUNK, ERROR], watch=watch)
    assert failure is None
    assert b"".join(came) == CHUNK + ERROR
    assert watch.failed


def test_comments_are_held_back_only_for_a_while(monkeypatch):
    """Who sends them wants to keep a connection open, for minutes perhaps."""
    monkeypatch.setattr("gateway.chat.relay.PATIENCE", -1.0)
    came, failure = relay([COMMENT, COMMENT, ERROR])
    assert failure is None
    assert came == [COMMENT, COMMENT, ERROR]


def error(**keys):
    return str({"error": {"message": "m", **keys}}).replace("'", '"').encode()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (error(code=400), 400),
        (error(code="429"), 429),
        (error(code=503, type="invalid_request_error"), 503),
        (error(type="invalid_request_error", code="context_length_exceeded"), 400),
        (error(type="insufficient_quota"), 429),
        (error(code="rate_limit_exceeded"), 429),
        (error(type="server_error"), 500),
        (error(code=200), 500),
        (error(code=99999), 500),
        (b'{"error": "it broke"}', 500),
        (b"not json \xff", 500),
        (b"[" * 100_000, 500),
    ],
)
def test_an_error_says_which_status_it_amounts_to(said, status):
    """By its code or its type; else it is the upstream's fault."""
    assert refusal(said) == Reply(status, {}, said)


def test_a_whole_answer_may_be_an_error_too():
    """Some send it with status 200; what is no JSON is no answer either."""
    with pytest.raises(GatewayError) as raised:
        check_whole(error(code=429), "u", refused)
    assert raised.value.code == "429"
    for odd in (b"<html>", b"[]", b'"x"', b"", b'{"choices":'):
        with pytest.raises(UpstreamError) as raised:
            check_whole(odd, "u", refused)
        assert raised.value.code == "upstream_invalid_response"
    for good in (b'{"choices": []}', b'{"choices": [], "error": {"message": "x"}}', b"{}"):
        check_whole(good, "u", refused)


def test_only_some_headers_pass():
    """Limits, and what names the account; no cookies, no lengths."""
    headers = {
        "x-ratelimit-remaining-requests": "9", "openai-organization": "o", "openai-version": "1",
        "set-cookie": "a=b", "content-length": "9", "server": "x", "openai-processing-ms": "5",
    }  # fmt: skip
    assert sorted(passed(Pieces((), headers=headers))) == [
        "openai-organization", "openai-version", "x-ratelimit-remaining-requests",
    ]  # fmt: skip


@pytest.mark.parametrize("odd", ["", "a b", "ä", "x" * 129, "a\tb"])
def test_an_odd_request_id_is_none(odd):
    """It goes out in a header and into logs."""
    assert request_id(Pieces((), headers={"x-request-id": odd})) == b""
    assert request_id(Pieces((), headers={"x-request-id": "req_1-a.b:c"})) == b"req_1-a.b:c"
