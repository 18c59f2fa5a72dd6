"""The chat half of the fake upstream is asked by OpenAI's own client: it is what we say it is."""

import asyncio
import json
import socket
import time

import httpx2
import openai
import pytest

from tests import upstream_chat_behaviours as behave
from tests.upstream import FakeOpenAI, serve
from tests.upstream_behaviours import Hang, together

HELLO = [{"role": "user", "content": "Tell me of a journey to Mars."}]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        },
    },
}


@pytest.fixture(scope="module")
def served():
    fake = FakeOpenAI()
    with serve(fake):
        yield fake


@pytest.fixture
def fake(served):
    served.forget()
    served.key, served.models = None, ()
    return served


@pytest.fixture
def sdk(fake):
    with openai.OpenAI(base_url=fake.base_url, api_key="sk-test", max_retries=0) as client:
        yield client.chat.completions


def ask(sdk, **fields):
    return sdk.create(model="gpt-x", messages=HELLO, **fields)


def raw(fake, **fields):
    body = {"model": "gpt-x", "messages": HELLO, "stream": True} | fields
    return httpx2.post(f"{fake.base_url}/chat/completions", json=body).content


def test_every_answer_differs_from_every_other_seed_or_no_seed(sdk):
    """Whoever gives the same words twice did not ask twice."""
    texts = [
        ask(sdk, seed=1, temperature=0, max_tokens=3).choices[0].message.content for _ in range(60)
    ]
    assert len(set(texts)) == 60


def test_without_noise_the_same_request_has_the_same_words(fake, sdk):
    """And another seed has others; ids are never the same."""
    fake.chat.noise = False
    one, again, other = (ask(sdk, seed=seed) for seed in (1, 1, 2))
    assert one.choices[0].message.content == again.choices[0].message.content
    assert one.choices[0].message.content != other.choices[0].message.content
    assert one.id != again.id


@pytest.mark.parametrize("tools", [False, True])
def test_a_stream_says_what_the_json_says(fake, sdk, tools):
    """OpenAI's own accumulator makes of the chunks what is sent whole, with two choices."""
    fake.chat.noise = False
    fields = {"n": 2, "seed": 1, "logprobs": True, "top_logprobs": 2}
    if tools:
        fields |= {"tools": [WEATHER], "tool_choice": "required"}
    whole = ask(sdk, **fields).model_dump()
    with sdk.stream(
        model="gpt-x", messages=HELLO, stream_options={"include_usage": True}, **fields
    ) as stream:
        merged = stream.get_final_completion().model_dump()
    assert merged["usage"] == whole["usage"]
    for ours, theirs in zip(merged["choices"], whole["choices"], strict=True):
        assert ours["finish_reason"] == theirs["finish_reason"]
        assert ours["logprobs"] == theirs["logprobs"] or tools
        message, expected = ours["message"], theirs["message"]
        assert message["content"] == expected["content"]
        called = [
            [(call["function"]["name"], call["function"]["arguments"]) for call in calls or ()]
            for calls in (message["tool_calls"], expected["tool_calls"])
        ]
        assert called[0] == called[1]
        assert len(called[0]) == int(tools)


def test_usage_is_a_last_chunk_without_choices(fake):
    """And null on every other; without the option there is none at all."""
    told = [json.loads(line[6:]) for line in raw(
        fake, stream_options={"include_usage": True, "include_obfuscation": False}
    ).decode().splitlines() if line.startswith("data: {")]  # fmt: skip
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in told[:-1])
    assert told[-1]["choices"] == []
    assert told[-1]["usage"]["completion_tokens"] == len(told) - 3
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in told}) == 1
    assert b'"usage"' not in raw(fake)


def test_words_are_bounded_shaped_and_called_for(sdk):
    """max_tokens, stop, JSON schema and tools by name, as an SDK's user sees them."""
    assert ask(sdk, max_tokens=5).choices[0].finish_reason == "length"
    assert ask(sdk, stop=[" "]).choices[0].message.content.count(" ") == 0
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(ask(sdk, response_format=form).choices[0].message.content).keys() == {"city"}
    assert ask(sdk, tools=[WEATHER]).choices[0].message.tool_calls is None
    asked = [{"role": "user", "content": "Use get_weather for Rome."}]
    answer = sdk.create(model="gpt-x", messages=asked, tools=[WEATHER])
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments).keys() == {"city", "days"}


def test_headers_and_requests_are_there_to_look_at(fake, sdk):
    """Request id and limits go out; what came in is kept byte for byte."""
    answer = ask(sdk, seed=7)
    assert answer._request_id.startswith("req_")
    (call,) = fake.chat.calls
    assert json.loads(call.request.raw)["seed"] == 7
    assert (call.ended, call.left) == ("whole", None)


def test_refusals_keep_their_status(fake, sdk):
    """On command, for a wrong key, an unknown model, and a body without messages."""
    fake.chat.script(behave.refuse(429, headers={"retry-after": "1"}))
    with pytest.raises(openai.RateLimitError):
        ask(sdk)
    with pytest.raises(openai.BadRequestError):
        sdk.create(model="gpt-x", messages=[])
    fake.models = ("gpt-y",)
    with pytest.raises(openai.NotFoundError):
        ask(sdk)
    fake.key = "sk-other"
    with pytest.raises(openai.AuthenticationError):
        ask(sdk)


@pytest.mark.parametrize(
    "behaviour",
    [
        behave.split(1),
        behave.split(7),
        behave.batched(3),
        behave.crlf,
        behave.pings,
        together(behave.crlf, behave.pings, behave.split(5)),
        behave.slow(0.001),
        behave.extra_fields,
        behave.unmergeable,
        behave.no_done,
    ],
)
def test_odd_streams_say_the_same(fake, sdk, behaviour):
    """OpenAI's client reads them as it reads the plain one."""
    fake.chat.noise = False
    expected = ask(sdk, seed=3).choices[0].message.content
    fake.chat.script(behaviour)
    chunks = list(ask(sdk, seed=3, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == expected


def test_split_pieces_arrive_one_by_one(fake):
    """The fake sends what it says it sends, and keeps it."""
    fake.chat.script(behave.split(1000, 0.005))
    body = raw(fake)
    (call,) = fake.chat.calls
    assert b"".join(call.sent) == body
    assert {len(piece) for piece in call.sent[:-1]} == {1000}


@pytest.mark.parametrize("at", [0, 3, -1])
def test_errors_and_cuts_stand_where_they_are_asked_for(fake, sdk, at):
    """An error event ends a stream at any place; a cut leaves half an event."""
    fake.chat.script(behave.error_event(at), behave.cut(at), behave.short(at))
    with pytest.raises(openai.APIError, match="had an error"):
        list(ask(sdk, stream=True))
    with pytest.raises(httpx2.RemoteProtocolError):
        raw(fake)
    said = raw(fake)
    assert b"[DONE]" not in said
    assert at == -1 or said.count(b"data: ") == at
    assert [call.ended for call in fake.chat.calls] == ["whole", "cut", "whole"]


def test_json_comes_although_a_stream_was_asked_for(fake):
    """As from servers that do not know `stream`."""
    fake.chat.script(behave.json_although_stream)
    assert json.loads(raw(fake))["object"] == "chat.completion"


@pytest.mark.parametrize("at", [None, 0, 4])
def test_a_client_that_leaves_is_noticed_at_once(fake, at):
    """Before the headers, before the first chunk and in the middle; with the time."""
    hang = Hang()
    fake.chat.script(hang if at is None else behave.stall(hang, at))
    body = json.dumps({"model": "m", "messages": HELLO, "stream": True}).encode()
    address = httpx2.URL(fake.base_url)
    with socket.create_connection((address.host, address.port)) as client:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
        client.sendall(head % len(body) + body)
        hang.reached.result(10)
        left = time.monotonic()
    fake.chat.wait_for_left()
    (call,) = fake.chat.calls
    assert 0 <= call.left - left < 5
    assert len(call.sent) == (at or 0)


def test_a_stall_goes_on_when_it_is_released(fake):
    """So a test can let an answer through when it has seen enough."""

    async def scene():
        hang = Hang()
        fake.chat.script(behave.stall(hang, 2))
        asking = asyncio.create_task(asyncio.to_thread(raw, fake))
        await asyncio.wrap_future(hang.reached)
        hang.release()
        assert (await asking).endswith(b"data: [DONE]\n\n")

    asyncio.run(scene())
