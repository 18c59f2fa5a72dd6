"""The chunks of a stream become one answer, or none where that could be wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.completion import Assembly
from gateway.sse import DONE
from tests.completions import HELLO, USAGE, WHOLES, assembled, chunk, piece, streams, told


def test_a_stream_becomes_what_would_have_come_without():
    """OpenAI's own form, with all that its schema requires."""
    assert assembled(HELLO) == {
        "id": "c-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


@given(data=st.data(), whole=WHOLES)
def test_any_stream_of_an_answer_becomes_that_answer(data, whole):
    """However its texts are cut, its choices and tool calls mixed, and its nulls strewn."""
    events = [told(chunk) for chunk in data.draw(streams(whole))]
    assert assembled([*events, DONE]) == whole


@given(data=st.data(), whole=WHOLES)
def test_a_stream_that_lacks_an_end_becomes_nothing(data, whole):
    """Cut anywhere, with an error anywhere: what is not whole is never kept."""
    events = [told(chunk) for chunk in data.draw(streams(whole))]
    at = data.draw(st.integers(0, len(events)))
    error = data.draw(st.sampled_from([told({"error": {"message": "no"}}), b"event: error\n\n"]))
    assert assembled(events[:at]) is None
    assert assembled([*events[:at], error, *events[at:], DONE]) is None
    ended = [event for event in events if b'"finish_reason"' not in event]
    assert assembled([*ended, DONE]) is None


@pytest.mark.parametrize(
    "chunks",
    [
        # Lists and objects that come twice: which of the many ways to join them is not known.
        [chunk(piece({"reasoning_details": [1]})), chunk(piece({"reasoning_details": [1]}))],
        [chunk(piece({"audio": {"id": "a"}})), chunk(piece({"audio": {"data": "b"}}))],
        [chunk(piece({}, content_filter_results={})), chunk(piece({}, content_filter_results={}))],
        [chunk(citations=["a"]), chunk(citations=["a"])],
        # Values that contradict each other.
        [chunk(provider="a"), chunk(provider="b")],
        [chunk(piece({"role": "assistant"})), chunk(piece({"role": "user"}))],
        [chunk(piece({"content": "a"})), chunk(piece({"content": ["b"]}))],
        [chunk(piece({"details": ["b"]})), chunk(piece({"details": "a"}))],
        [chunk(piece({"function_call": "f"})), chunk(piece({"function_call": {"name": "f"}}))],
        [chunk(piece({}, end="length"))],
        # Tool calls that do not say which they are.
        [chunk(piece({"tool_calls": [{"id": "a", "function": {"name": "f"}}]}))],
        [
            chunk(piece({"tool_calls": [{"index": 0, "function": {"name": "f"}}]})),
            chunk(piece({"tool_calls": [{"index": 0, "function": {"name": "g"}}]})),
        ],
        # An error beside a chunk; what is no chunk, or no piece.
        [chunk(piece({"content": "a"}), error={"message": "no"})],
        [b"data: {\n\n"],
        [b"data: {}\n\n"],
        [b'data: {"choices": [{"index": "0"}]}\n\n'],
        [b'data: {"choices": [], "x": "\xff"}\n\n'],
        [chunk({"index": 0, "message": {"content": "a"}})],
    ],
)
def test_what_cannot_be_merged_becomes_nothing(chunks):
    """A guess would be kept, and be the answer for ever."""
    assert assembled(HELLO) is not None
    assert assembled([HELLO[0], *chunks, *HELLO[3:]]) is None


def test_what_comes_once_or_alike_is_kept():
    """Fields of other servers, beside OpenAI's; what is said empty is said later."""
    whole = assembled(
        [
            told({"id": "", "created": 0, "model": "", "choices": [], "prompt_filter": [1]}),
            chunk(piece({"role": "assistant"}, stop=None), provider="p", cost=0.10),
            b": ping\n\n",
            chunk(piece({"role": "", "content": "a", "details": [{}]}), provider="p", usage=USAGE),
            chunk(piece({"content": None}, end="stop", stop=17), provider="p", cost=0.10),
            DONE,
            b"data: {\n\n",
        ]
    )
    choice = whole["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": "a",
        "refusal": None,
        "details": [{}],
    }
    assert (choice["stop"], whole["provider"], whole["cost"]) == (17, "p", 0.1)
    assert (whole["prompt_filter"], whole["usage"], whole["id"]) == ([1], USAGE, "c-1")


def test_of_names_the_first_counts_and_of_calls_the_index():
    """A router that goes to another system in the middle, calls that begin in any order."""
    calls = [{"index": index, "id": f"call-{index}"} for index in (1, 0)]
    whole = assembled(
        [
            chunk(piece({"tool_calls": calls[:1]}), system_fingerprint="a", service_tier="flex"),
            chunk(piece({"tool_calls": calls[1:]}, end="tool_calls"), id="c-2", created=8),
            chunk(usage=USAGE, model="n", system_fingerprint="b", service_tier="default"),
            DONE,
        ]
    )
    head = {name: whole[name] for name in whole.keys() - {"choices", "usage"}}
    assert head == {
        "id": "c-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "system_fingerprint": "a",
        "service_tier": "flex",
    }
    message = whole["choices"][0]["message"]
    assert message["tool_calls"] == [{"id": "call-0"}, {"id": "call-1"}]


def test_numbers_keep_their_digits():
    """What is not taken apart is not read either: no rounding on the way."""
    end = b'{"index":0,"delta":{},"finish_reason":"stop"}'
    precise = b'"usage":{"prompt_tokens":1,"completion_tokens":1,"cost":0.12345678901234567891}'
    assembly = Assembly()
    assembly.add(b'data: {"id":"a","choices":[' + end + b"]," + precise + b"}\n\n")
    assembly.add(DONE)
    assert precise in assembly.whole()
