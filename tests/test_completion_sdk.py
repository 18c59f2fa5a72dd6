"""What we put together and tell again, as OpenAI's own SDK reads it."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.completion import Assembly, replay
from gateway.sse import DONE, data_of
from tests.completions import WHOLES, streams, told


def read_by_sdk(events):
    """Return what the SDK's own accumulator makes of a stream's events."""
    state = ChatCompletionStreamState()
    for event in events:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(data_of(event), strict=True))
    return state.current_completion_snapshot


def same(snapshot, whole):
    """Whether the SDK has what the answer says: texts, calls, logprobs, ends."""
    for choice in whole["choices"]:
        got = next(each for each in snapshot.choices if each.index == choice["index"])
        message = choice["message"]
        calls = [
            {"id": call.id, "type": call.type, "function": call.function.to_dict()}
            for call in got.message.tool_calls or []
        ]
        for call in calls:
            call["function"].pop("parsed_arguments", None)
        assert got.message.role == "assistant"
        assert (got.message.content or "") == (message["content"] or "")
        assert (got.message.refusal or "") == (message["refusal"] or "")
        assert calls == message.get("tool_calls", [])
        assert got.finish_reason == choice["finish_reason"]
        said = (choice["logprobs"] or {}).get("content") or []
        read = (got.logprobs and got.logprobs.content) or []
        assert [each.to_dict() for each in read] == said
    return (snapshot.id, snapshot.model) == (whole["id"], whole["model"])


@given(whole=WHOLES)
@settings(max_examples=50)
def test_the_sdk_reads_a_replay(whole):
    """Each chunk is one of its types, and all of them make the answer that was kept."""
    assert same(read_by_sdk(replay(json.dumps(whole).encode(), include_usage=True)[:-1]), whole)


@given(data=st.data(), whole=WHOLES)
@settings(max_examples=50)
def test_the_sdk_and_we_make_the_same_of_a_stream(data, whole):
    """Our rules are the SDK's, and what they make is one of its types.

    For one choice: of more, the SDK reads only those that begin in order.
    """
    whole["choices"] = whole["choices"][:1]
    events = [told(chunk) for chunk in data.draw(streams(whole))]
    assembly = Assembly()
    for event in [*events, DONE]:
        assembly.add(event)
    ours = assembly.whole()
    ChatCompletion.model_validate_json(ours, strict=True)
    assert same(read_by_sdk(events), json.loads(ours))
