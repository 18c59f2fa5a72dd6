"""OpenAI's SDK and LangChain in a chat: with an upstream that jitters, and with a local model."""

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.chat_served import BOTH, UPSTREAM, Served, chat_gateway
from tests.upstream_chat_behaviours import error_event, slow

ASKED: list[Any] = [
    {"role": "system", "content": "You write the log of a ship."},
    {"role": "user", "content": "What did the crew see? «Grüße», 火星 🚀"},
]
FINISHED = {"stop", "length"}
SHORT = 40
"""Tokens, after which our own model has to end: by itself it does not."""


class Report(BaseModel):
    """Where the ship is."""

    planet: Literal["Mars", "Venus"]
    days: Annotated[int, Field(ge=0, le=99)]
    landed: bool


PARAMETERS = {
    "type": "object",
    "properties": {
        "planet": {"enum": ["Mars", "Venus"]},
        "days": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["planet", "days"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "distance", "parameters": PARAMETERS}},
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with chat_gateway(tmp_path_factory.mktemp("chat")) as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(params=BOTH)
def model(request: pytest.FixtureRequest) -> str:
    """Each of the models."""
    name: str = request.param
    return name


def read(stream: openai.Stream[Any]) -> tuple[str, list[Any]]:
    """Return a stream's text and chunks."""
    chunks = list(stream)
    parts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    return "".join(parts), chunks


def test_an_answer_has_all_that_is_asked_of_one(client: openai.OpenAI, model: str) -> None:
    """A text, why it ends, what it cost, and the fingerprint of what made it."""
    answer = client.chat.completions.create(model=model, messages=ASKED, max_tokens=SHORT)
    assert answer.model == model
    assert answer.system_fingerprint
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in FINISHED
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    total = answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.total_tokens == total


def test_a_seed_names_an_answer_streamed_or_not(client: openai.OpenAI, model: str) -> None:
    """With one seed there is one answer in either form; other seeds, and none, have others."""
    create = partial(client.chat.completions.create, model=model, messages=ASKED, max_tokens=SHORT)
    whole = create(seed=1)
    assert whole == create(seed=1)
    text, chunks = read(create(seed=1, stream=True))
    assert text == whole.choices[0].message.content
    assert {whole.id} == {chunk.id for chunk in chunks}
    assert {whole.system_fingerprint} == {chunk.system_fingerprint for chunk in chunks}
    others = [create(seed=seed) for seed in (2, 3, None, None)]
    assert len({text, *(other.choices[0].message.content for other in others)}) > 1


def test_a_stream_comes_in_parts_and_tells_tokens(client: openai.OpenAI, model: str) -> None:
    """Many chunks, one reason to end, and where it is asked for, one chunk with the tokens."""
    create = partial(
        client.chat.completions.create,
        model=model,
        messages=ASKED,
        max_tokens=SHORT,
        stream=True,
    )
    stream = create(stream_options={"include_usage": True})
    text, chunks = read(stream)
    assert text
    assert len(chunks) > 3
    ends = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
    assert len(ends) == 1
    assert ends[0] in FINISHED
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert not any(chunk.usage for chunk in read(create())[1])


def test_the_streaming_helper_puts_it_together(client: openai.OpenAI, model: str) -> None:
    """The SDK's own accumulator has the text of the events, parsed as the class it was given."""
    with client.chat.completions.stream(
        model=model, messages=ASKED, seed=7, response_format=Report
    ) as stream:
        said = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Report.model_validate_json(said)


def test_json_is_what_the_schema_says(client: openai.OpenAI, model: str) -> None:
    """`parse` has an object of its class; a plain JSON schema and json_object are kept too."""
    parsed = client.chat.completions.parse(model=model, messages=ASKED, response_format=Report)
    assert isinstance(parsed.choices[0].message.parsed, Report)
    form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": PARAMETERS}}
    answer = client.chat.completions.create(model=model, messages=ASKED, response_format=form)
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), PARAMETERS)
    answer = client.chat.completions.create(
        model=model, messages=ASKED, response_format={"type": "json_object"}, seed=1, max_tokens=900
    )
    if answer.choices[0].finish_reason == "stop":  # random weights may go on for ever
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "may_call"),
    [
        ("required", {"weather", "distance"}),
        ({"type": "function", "function": {"name": "distance"}}, {"distance"}),
    ],
)
def test_a_tool_is_called_and_its_result_heard(
    client: openai.OpenAI, model: str, choice: Any, may_call: set[str], stream: bool
) -> None:
    """The call has arguments of its schema, and the conversation goes on with the result."""
    asked: dict[str, Any] = {"model": model, "messages": ASKED, "tools": TOOLS, "seed": 3}
    asked |= {"tool_choice": choice, "parallel_tool_calls": False}
    if stream:
        with client.chat.completions.stream(**asked) as events:
            for _ in events:
                pass
            answer: Any = events.get_final_completion()
    else:
        answer = client.chat.completions.create(**asked)
    (call,) = answer.choices[0].message.tool_calls
    # OpenAI itself says "stop" where a function was named.
    assert answer.choices[0].finish_reason in {"tool_calls", "stop"}
    assert call.function.name in may_call
    jsonschema.validate(json.loads(call.function.arguments), PARAMETERS)
    heard = {"role": "tool", "tool_call_id": call.id, "content": "20 degrees"}
    message = answer.choices[0].message.to_dict()
    asked |= {"messages": [*ASKED, message, heard], "tool_choice": "none", "max_tokens": SHORT}
    further = client.chat.completions.create(**asked)
    assert further.choices[0].message.content
    assert not further.choices[0].message.tool_calls


def test_many_choices_with_their_chances(client: openai.OpenAI, model: str) -> None:
    """`n`, `stop`, `max_tokens`, `logprobs` and `logit_bias` are what they are at OpenAI."""
    answer = client.chat.completions.create(
        model=model,
        messages=ASKED,
        n=3,
        seed=1,
        max_tokens=5,
        stop=["\n"],
        logprobs=True,
        top_logprobs=2,
        logit_bias={"5": -1},
        temperature=0.7,
    )
    assert [0, 1, 2] == [choice.index for choice in answer.choices]
    for choice in answer.choices:
        assert choice.logprobs is not None
        entries = choice.logprobs.content or []
        assert len(entries) <= 5
        assert all(len(entry.top_logprobs) == 2 for entry in entries)


def test_the_async_client_agrees(served: Served, model: str) -> None:
    """Of many calls at once, streamed or not, those with one seed have one text."""
    asked: dict[str, Any] = {"model": model, "messages": ASKED, "max_tokens": SHORT}

    async def ask(client: openai.AsyncOpenAI, seed: int, *, stream: bool) -> tuple[int, str]:
        if not stream:
            answer = await client.chat.completions.create(**asked, seed=seed)
            return seed, answer.choices[0].message.content or ""
        parts = []
        async for chunk in await client.chat.completions.create(**asked, seed=seed, stream=True):
            parts += [choice.delta.content or "" for choice in chunk.choices]
        return seed, "".join(parts)

    async def all_at_once() -> list[tuple[int, str]]:
        async with openai.AsyncOpenAI(base_url=served.base_url, api_key="any") as client:
            calls = [ask(client, 10 + at % 4, stream=at % 3 > 0) for at in range(24)]
            return await asyncio.gather(*calls)

    said = asyncio.run(all_at_once())
    assert {10, 11, 12, 13} == {seed for seed, _ in said}
    assert len(set(said)) == 4


def test_errors_arrive_as_the_sdks_own(client: openai.OpenAI, served: Served) -> None:
    """Before the first chunk by their class, in the middle of a stream as an APIError."""
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=ASKED)
    assert unknown.value.code == "model_not_found"
    served.fake.chat.script(error_event(4))
    stream = client.chat.completions.create(model=UPSTREAM, messages=ASKED, stream=True)
    with pytest.raises(openai.APIError) as broken:
        read(stream)
    assert not isinstance(broken.value, openai.APIConnectionError)
    served.fake.chat.script(error_event(0))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=UPSTREAM, messages=ASKED, stream=True)


@pytest.mark.parametrize("model", BOTH[1:], indirect=True)
def test_a_local_model_names_the_field(client: openai.OpenAI, model: str) -> None:
    """Its mistakes are a 400 with the field, and a prompt that does not fit has its own code."""
    for fields, param in (
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model=model, messages=ASKED, **fields)
        assert refused.value.param == param
    long: Any = [{"role": "user", "content": "word " * 5000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model=model, messages=long, stream=stream)
        assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize("model", BOTH[1:], indirect=True)
def test_a_drawn_seed_brings_the_answer_back(client: openai.OpenAI, model: str) -> None:
    """Without a seed a local model draws one, says so, and with it answers the same again."""
    asked: dict[str, Any] = {"model": model, "messages": ASKED, "max_tokens": SHORT}
    raw = client.chat.completions.with_raw_response.create(**asked)
    seed = int(raw.headers["x-gateway-seed"])
    again = client.chat.completions.create(**asked, seed=seed)
    assert again.choices[0].message.content == raw.parse().choices[0].message.content


def test_a_client_that_leaves_is_heard(client: openai.OpenAI, served: Served) -> None:
    """Closing the SDK's stream hangs up at the upstream."""
    served.fake.chat.forget()
    served.fake.chat.script(slow(0.2))
    stream = client.chat.completions.create(model=UPSTREAM, messages=ASKED, stream=True)
    next(iter(stream))
    stream.close()
    served.fake.chat.wait_for_left()
