"""A kept answer is told again as a stream, and is the same answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.completion import Figures, Kind, Watch, look, replay
from gateway.errors import UpstreamError
from gateway.sse import DONE, Events, data_of
from tests.completions import JSON, WHOLES, assembled


def chunks_of(events):
    return [json.loads(data_of(event)) for event in events[:-1]]


@given(WHOLES)
def test_an_answer_that_is_told_again_becomes_itself(whole):
    """Both forms of a kept answer are the same answer."""
    events = replay(json.dumps(whole).encode(), include_usage=True)
    assert assembled(events) == whole
    assert events[-1] == DONE
    assert Events().feed(b"".join(events)) == events


@given(whole=WHOLES, include_usage=st.booleans())
def test_a_replay_is_a_stream_as_openai_sends_them(whole, include_usage):
    """One id, role first, an empty end; usage in a chunk of its own, and only if asked for."""
    chunks = chunks_of(replay(json.dumps(whole).encode(), include_usage=include_usage))
    names = ("id", "created", "model", "system_fingerprint")
    assert all(chunk.get(name) == whole.get(name) for chunk in chunks for name in names)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    if include_usage and "usage" in whole:
        last = chunks.pop()
        assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert all(
        chunk.get("usage", "none") == (None if include_usage else "none") for chunk in chunks
    )
    for choice in whole["choices"]:
        pieces = [each for chunk in chunks for each in chunk["choices"]]
        first, *_, last = (each for each in pieces if each["index"] == choice["index"])
        assert first["delta"]["role"] == "assistant"
        assert (last["delta"], last["finish_reason"]) == ({}, choice["finish_reason"])


@given(whole=WHOLES, include_usage=st.booleans())
def test_a_replay_is_watched_as_the_answer_is_looked_at(whole, include_usage):
    """Metrics and prices come out the same whichever form goes out."""
    body = json.dumps(whole).encode()
    figures, watch = look(body), Watch()
    kinds = [watch.see(event) for event in replay(body, include_usage=include_usage)]
    assert figures.complete
    assert (watch.finished, watch.done, watch.failed) == (True, True, False)
    assert (watch.fingerprint, figures.fingerprint) == (whole.get("system_fingerprint"),) * 2
    assert (figures.usage is not None) == ("usage" in whole)
    if include_usage:
        assert watch.usage == figures.usage
    assert kinds.count(Kind.USAGE) == (include_usage and "usage" in whole)


def test_what_other_servers_say_beside_is_told_too():
    """Nulls, an empty list of calls, calls with an index, logprobs without `refusal`."""
    choice = {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "a",
            "function_call": None,
            "tool_calls": [],
            "reasoning": "b",
        },
        "logprobs": {"content": []},
        "finish_reason": "stop",
        "stop_reason": None,
    }
    whole = {"id": "c", "created": 1, "model": "m", "choices": [choice], "usage": None}
    events = replay(json.dumps(whole | {"prompt_logprobs": None}).encode(), include_usage=True)
    assert not any("prompt_logprobs" in chunk for chunk in chunks_of(events))
    again = assembled(events)
    assert again["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "a", "refusal": None, "reasoning": "b"},
            "logprobs": {"content": [], "refusal": None},
            "finish_reason": "stop",
        }
    ]
    assert "usage" not in again


COMPLETE = {
    "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}],
}


@pytest.mark.parametrize(
    "whole",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 10**5,
        {},
        COMPLETE | {"choices": []},
        COMPLETE | {"choices": None},
        COMPLETE | {"error": {"message": "no"}},
        COMPLETE | {"choices": [{"index": 0, "message": {}, "finish_reason": None}]},
        COMPLETE | {"choices": [{"index": 0, "message": {}, "finish_reason": ""}]},
        COMPLETE | {"choices": [{"index": 0, "finish_reason": "stop"}]},
        COMPLETE | {"choices": [{"message": {}, "finish_reason": "stop"}]},
        COMPLETE
        | {"choices": [{"index": 0, "message": {"tool_calls": [1]}, "finish_reason": "stop"}]},
        json.dumps(COMPLETE | {"x": "?"}).encode().replace(b"?", b"\xff"),
    ],
)
def test_an_answer_that_is_not_whole_is_not_told(whole):
    """It is not kept either: `look` says the same of it."""
    assert look(json.dumps(COMPLETE).encode()).complete
    body = whole if isinstance(whole, bytes) else json.dumps(whole).encode()
    assert not look(body).complete
    with pytest.raises(UpstreamError):
        replay(body, include_usage=False)


def test_figures_of_what_is_unreadable_are_none():
    """An HTML page with status 200 has no usage."""
    assert look(b"<html>") == Figures(usage=None, fingerprint=None, complete=False)


@given(JSON, st.booleans())
def test_whatever_looks_complete_can_be_told(said, include_usage):
    """Replaying what was kept fails for nobody."""
    choice = {"index": 0, "message": said, "finish_reason": "stop"}
    for whole in (said, {"choices": [choice], "x": said}, {"choices": [choice], "usage": said}):
        body = json.dumps(whole).encode()
        if look(body).complete:
            assert replay(body, include_usage=include_usage)[-1] == DONE
