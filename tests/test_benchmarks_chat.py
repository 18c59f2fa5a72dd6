"""The benchmarks of chat take an answer's pieces apart rightly, and notice what is missing."""

import asyncio
import json
from array import array
from itertools import pairwise, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.answers import expect_chat
from benchmarks.chat_rounds import answers, chunks
from benchmarks.load import Load, LoadError, Outcome
from benchmarks.report import Bound, relays
from benchmarks.requests import chat_request
from benchmarks.rounds import Figures, Measured, Workload
from benchmarks.streams import Answer, Streamed, drive
from tests.served import serve

CHUNK = b'data: {"choices":[{"delta":{"content":"%019d"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
BODY = b"".join(CHUNK % number for number in range(5)) + DONE


def workload(per=5):
    return Workload("w", repeat(b""), 1, expect_chat(stream=True), per=per)


def streaming(pieces, status=200):
    """Return an app that sends these pieces, each for itself."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": []})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0.001)
        await send({"type": "http.response.body", "body": b""})

    return app


def test_an_answer_is_the_pieces_it_came_in():
    """All of each answer is there, in order, the first piece before the last."""
    load = Load(repeat(chat_request("m", "a", stream=True), 6), 2)
    with serve(streaming([BODY[:70], BODY[70:]])) as served:
        streamed = drive(served.address, load, 10.0)
    assert [answer.body for answer in streamed.answers] == [BODY] * 6
    assert all(0 < answer.first < answer.whole for answer in streamed.answers)
    assert streamed.outcome().body == BODY
    assert 0 < streamed.seconds < 10


@pytest.mark.parametrize(("pieces", "status"), [([b"{}"], 503), ([], 200)])
def test_an_answer_that_is_none_ends_the_measurement(pieces, status):
    """Neither a refusal nor an empty answer is taken for a fast one."""
    load = Load(repeat(chat_request("m", "a", stream=True)), 2)
    with (
        serve(streaming(pieces, status)) as served,
        pytest.raises(LoadError, match=f"not a 200 with a body: {status}"),
    ):
        drive(served.address, load, 1.0)


def test_a_server_that_nobody_runs_is_no_answer():
    """A refused connection is said to be one."""
    with pytest.raises(LoadError, match="no answer"):
        drive("http://127.0.0.1:1", Load(repeat(b""), 2), 1.0)


@given(st.lists(st.integers(0, len(BODY)), max_size=12))
def test_a_chunk_came_with_the_piece_that_completes_it(cuts):
    """Whatever pieces a stream comes in, each chunk is found once, as late as its last byte."""
    bounds = [0, *sorted(cuts), len(BODY)]
    pieces = [BODY[start:end] for start, end in pairwise(bounds)]
    answer = Answer(0.0, [(float(number + 1), piece) for number, piece in enumerate(pieces)])
    figures, count = chunks(workload(), Streamed([answer], 2.0))
    # A stamp is whole with the quotation mark behind it.
    whole = [(number + 1) * len(CHUNK % 0) - len("}}]}\n\n") for number in range(5)]
    came = [
        next(time for time, end in enumerate(bounds[1:], start=1) if end >= last) for last in whole
    ]
    assert count == 5
    assert figures.rate == 2.5
    assert figures.p50 == came[0] * 1e3
    assert figures.way50 == pytest.approx(came[2] * 1e3, rel=1e-6)


def test_a_missing_chunk_ends_the_measurement():
    """A server that leaves words out is not taken for a fast one."""
    answer = Answer(0.0, [(1.0, BODY)])
    with pytest.raises(LoadError, match="5 chunks where 6 were sent"):
        chunks(workload(per=6), Streamed([answer], 1.0))


def test_whole_answers_are_timed_to_their_last_piece():
    """The rate is in answers, the time of one goes to its end."""
    answer = Answer(1.0, [(1.5, b"a"), (3.0, b"b")])
    assert answers(workload(), Streamed([answer] * 4, 8.0)) == (
        Figures(0.5, None, 2000.0, 2000.0),
        4,
    )


@pytest.mark.parametrize(
    ("stream", "body", "complaint"),
    [
        (True, BODY, None),
        (True, BODY.removesuffix(DONE), "not whole"),
        (True, BODY + b"data: 1\n\n", "not whole"),
        (False, {"choices": [{"message": {"content": "a"}}], "usage": {}}, None),
        (False, {"choices": [{"message": {"content": ""}}], "usage": {}}, "without words"),
    ],
)
def test_what_is_no_whole_chat_ends_the_measurement(stream, body, complaint):
    """A stream has its end, and a completion has words."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    outcome = Outcome(array("d", [0.1]), 0.1, b"", body)
    if complaint is None:
        expect_chat(stream=stream)(outcome)
    else:
        with pytest.raises(LoadError, match=complaint):
            expect_chat(stream=stream)(outcome)


def test_an_answer_of_another_length_ends_the_measurement():
    """What is measured in tokens has as many as were asked for."""
    usage = b'data: {"choices":[],"usage":{"completion_tokens":7}}\n\n'
    outcome = Outcome(array("d", [0.1]), 0.1, b"", usage + DONE)
    expect_chat(stream=True, tokens=7)(outcome)
    with pytest.raises(LoadError, match="another length than 8 tokens"):
        expect_chat(stream=True, tokens=8)(outcome)


@pytest.mark.parametrize(("most", "verdict"), [(2.0, "reached"), (1.0, r"\*\*missed\*\*")])
def test_what_is_added_is_the_difference_within_a_round(most, verdict):
    """Rounds that are slow for both change nothing, and the goal is compared with the median."""
    figures = {
        ("w", "gateway"): [Figures(1.0, 1.0, p50=3.0), Figures(1.0, 1.0, p50=103.0)],
        ("w", "direct"): [Figures(1.0, None, p50=1.5), Figures(1.0, None, p50=101.5)],
    }
    bound = Bound("w", "gateway", "direct", "p50", "the first chunk", most)
    (line,) = relays("Title", Measured(figures), [bound]).lines
    assert line.startswith("w: gateway adds 1.50 ms (1.50 to 1.50) to the first chunk; goal below")
    assert line.endswith(verdict.replace("\\", "") + ".")
