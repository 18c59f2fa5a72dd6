"""Every field of a chat request: what is taken, what it comes to, and what is refused by name."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.engine.chat.request import SMALLEST_NUCLEUS, ChatRequest, parse_request
from gateway.errors import InvalidRequestError
from tests.engine.chat.asking import LIMITS, TIME, USER, WEATHER, ask, body

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
EMPTY = {"type": "object", "properties": {}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:secret"}}


def assistant(**fields):
    return {"role": "assistant", **fields}


def test_defaults_are_those_of_openai():
    """A request with nothing but a model and a message."""
    request = ask()
    assert (request.temperature, request.top_p, request.n) == (1.0, 1.0, 1)
    assert (request.presence_penalty, request.frequency_penalty) == (0.0, 0.0)
    assert (request.max_tokens, request.seed, request.top_logprobs) == (None, None, None)
    assert (request.stream, request.include_usage, request.parallel) == (False, False, True)
    assert (request.stop, request.tools, request.schema) == ((), [], None)
    assert not request.must_call
    assert not request.functions


OPTIONAL = [
    *("frequency_penalty", "presence_penalty", "temperature", "top_p", "logit_bias", "logprobs"),
    *("top_logprobs", "max_completion_tokens", "max_tokens", "n", "seed", "stop", "stream"),
    *("stream_options", "response_format", "tools", "tool_choice", "parallel_tool_calls"),
    *("reasoning_effort", "verbosity", "modalities", "audio", "functions", "function_call"),
    *("moderation", "web_search_options", "user", "store", "metadata", "prediction"),
]


@pytest.mark.parametrize("field", OPTIONAL)
def test_null_is_absent(field):
    """SDKs send null for what is not set."""
    assert ask(**{field: None}) == ask()


def test_values_arrive_as_sent():
    """Each sampling field, at an edge of its range."""
    request = ask(
        temperature=0,
        top_p=0,
        presence_penalty=-2,
        frequency_penalty=2,
        logit_bias={"0": -100, "499": 100, "7": 1.5},
        logprobs=True,
        top_logprobs=20,
        n=128,
        seed=-(2**63),
        stop=["a", "b", "c", "d"],
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": True},
    )
    assert (request.temperature, request.top_p) == (0.0, SMALLEST_NUCLEUS)
    assert (request.presence_penalty, request.frequency_penalty) == (-2.0, 2.0)
    assert request.logit_bias == {0: -100.0, 499: 100.0, 7: 1.5}
    assert (request.top_logprobs, request.n, request.seed) == (20, 128, -(2**63))
    assert request.stop == ("a", "b", "c", "d")
    assert (request.stream, request.include_usage) == (True, True)
    assert ask(logprobs=True).top_logprobs == 0
    assert ask(stop="x").stop == ("x",)
    assert ask(stop=[]).stop == ()


def test_both_names_of_the_bound():
    """max_completion_tokens, or max_tokens, or both if they agree."""
    assert ask(max_tokens=5).max_tokens == 5
    assert ask(max_completion_tokens=6).max_tokens == 6
    assert ask(max_tokens=7, max_completion_tokens=7).max_tokens == 7
    assert ask(max_tokens=LIMITS.context).max_tokens == LIMITS.context


def test_fields_that_change_nothing_are_not_read():
    """Not even their types: they are for OpenAI's accounts and caches."""
    assert (
        ask(
            user="u",
            metadata={"a": "b"},
            safety_identifier="s",
            prompt_cache_options={"mode": "explicit"},
            prompt_cache_retention="24h",
            service_tier="flex",
            store=True,
            prediction={"type": "content", "content": "x"},
            modalities=["text"],
            verbosity="medium",
            unknown_field=[1],
        )
        == ask()
    )


def test_messages_become_plain_texts():
    """Every role, parts, names, calls and their results."""
    request = ask(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            assistant(content=None, tool_calls=[CALL]),
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "4"}]},
            assistant(content=[{"type": "refusal", "refusal": "no"}], name="bot"),
            assistant(refusal="never"),
        ]
    )
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    assert request.messages == [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "4", "tool_call_id": "c1", "name": "f"},
        {"role": "assistant", "content": "no", "name": "bot"},
        {"role": "assistant", "content": "never"},
    ]


def test_broken_arguments_of_an_earlier_call_stay_text():
    """The model may have written them, so they are no fault of the client."""
    for arguments in ("{", "3", ""):
        call = CALL | {"function": {"name": "f", "arguments": arguments}}
        request = ask(messages=[USER, assistant(tool_calls=[call])])
        assert request.messages[1]["tool_calls"][0]["function"]["arguments"] == arguments


def test_tool_choices():
    """Which functions may be called, whether one must be, and what the template shows."""
    both = {"tools": [WEATHER, TIME]}
    assert set(ask(**both).functions) == {"get_weather", "get_time"}
    assert not ask(**both, tool_choice="auto").must_call
    required = ask(**both, tool_choice="required", parallel_tool_calls=False)
    assert (required.must_call, required.parallel) == (True, False)
    named = ask(**both, tool_choice={"type": "function", "function": {"name": "get_time"}})
    assert named.must_call
    assert list(named.functions) == ["get_time"]
    assert len(named.tools) == 2
    none = ask(**both, tool_choice="none")
    assert (none.tools, dict(none.functions), none.must_call) == ([], {}, False)
    assert ask(tools=[]).tools == []
    assert ask(**both).tools[0] == WEATHER
    shown = {"name": "get_time", "description": "", "parameters": EMPTY}
    assert ask(**both).tools[1] == {"type": "function", "function": shown}


def test_response_formats():
    """text is nothing, json_object is any object, json_schema is the schema."""
    assert ask(response_format={"type": "text"}).schema is None
    assert ask(response_format={"type": "json_object"}).schema == {"type": "object"}
    schema = {"type": "integer"}
    named = {"name": "n", "strict": True, "schema": schema}
    assert ask(response_format={"type": "json_schema", "json_schema": named}).schema == schema
    free = {"type": "json_schema", "json_schema": {"name": "n"}}
    assert ask(response_format=free).schema == {"type": "object"}


def user(*parts):
    return {"messages": [USER, {"role": "user", "content": list(parts)}]}


def tool(**function):
    return {"tools": [{"type": "function", "function": function}]}


REFUSED = [
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"model": 3}, "model"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "secret"}, "messages"),
    ({"messages": [USER, "secret"]}, "messages[1]"),
    ({"messages": [{"content": "secret"}]}, "messages[0].role"),
    ({"messages": [{"role": "secret", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [USER | {"name": 5}]}, "messages[0].name"),
    (user(), "messages[1].content"),
    (user(IMAGE), "messages[1].content[0].type"),
    (user({"type": "text", "text": "x"}, {"type": "file"}), "messages[1].content[1].type"),
    (user({"type": "input_audio"}), "messages[1].content[0].type"),
    (user({"type": "refusal", "refusal": "x"}), "messages[1].content[0].type"),
    (user({"type": "text"}), "messages[1].content[0].text"),
    (user({"type": "text", "text": 3}), "messages[1].content[0].text"),
    (user({"text": "secret"}), "messages[1].content[0].type"),
    (user("secret"), "messages[1].content[0]"),
    ({"messages": [assistant()]}, "messages[0].content"),
    ({"messages": [assistant(tool_calls=[])]}, "messages[0].content"),
    ({"messages": [assistant(content="x", audio={"id": "a"})]}, "messages[0].audio"),
    ({"messages": [assistant(function_call={"name": "f"})]}, "messages[0].function_call"),
    ({"messages": [assistant(tool_calls=[{"id": "c"}])]}, "messages[0].tool_calls[0].function"),
    (
        {"messages": [assistant(tool_calls=[CALL | {"type": "custom"}])]},
        "messages[0].tool_calls[0].type",
    ),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"temperature": 2.01}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": "secret"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"frequency_penalty": -2.1}, "frequency_penalty"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"500": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"01": 1}}, "logit_bias"),
    ({"logit_bias": {"٣": 1}}, "logit_bias"),
    ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": False, "top_logprobs": 0}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": -1}, "max_completion_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": LIMITS.context + 1}, "max_tokens"),
    ({"max_completion_tokens": 2**62}, "max_completion_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": 10**40}, "n"),
    ({"seed": 2**63}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a", ""]}, "stop"),
    ({"stop": ["a", 3]}, "stop[1]"),
    ({"stream": "secret"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "secret"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        "response_format.json_schema.name",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
        "response_format.json_schema.name",
    ),
    ({"tools": [TIME] * 129}, "tools"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    (tool(name="bad name"), "tools[0].function.name"),
    (tool(name="x" * 65), "tools[0].function.name"),
    (tool(name="name\n"), "tools[0].function.name"),
    (tool(name="f", parameters={"type": "string"}), "tools[0].function.parameters"),
    (tool(name="f", parameters=[1]), "tools[0].function.parameters"),
    ({"tools": [TIME, TIME]}, "tools[1].function.name"),
    ({"tools": [TIME], "tool_choice": "secret"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    (
        {"tools": [TIME], "tool_choice": {"type": "function", "function": {"name": "secret"}}},
        "tool_choice.function.name",
    ),
    ({"tools": [TIME], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
    ({"parallel_tool_calls": "secret"}, "parallel_tool_calls"),
    ({"reasoning_effort": "secret"}, "reasoning_effort"),
    ({"verbosity": "low"}, "verbosity"),
    ({"verbosity": "secret"}, "verbosity"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"modalities": []}, "modalities"),
    ({"audio": {"voice": "alloy"}}, "audio"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": "auto"}, "function_call"),
    ({"moderation": {"model": "m"}}, "moderation"),
    ({"web_search_options": {}}, "web_search_options"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: str(value)[:60])
def test_wrong_fields_are_refused_by_name(fields, param):
    """A 400 whose `param` is the place at fault, and which quotes nothing of the request."""
    with pytest.raises(InvalidRequestError) as caught:
        ask(**fields)
    assert caught.value.param == param
    assert param.partition("[")[0].rpartition(".")[2] in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b'{"model": "m", "temperature": NaN}',
        b'{"model": "\xff"}',
        b'{"model": "m", "x": ' + b"[" * 5000,
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
    ],
)
def test_what_is_no_json_object_is_refused(raw):
    """Cut, not UTF-8, not JSON, halves of characters, nested without end."""
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(raw, LIMITS)
    assert caught.value.param is None


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "auto", "required", "function", "text", "json_schema", "get_time"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "function", "name", "parameters", "schema", "1"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    fields=st.dictionaries(st.sampled_from(["model", "messages", *OPTIONAL]), values, max_size=5)
)
@example(fields={"seed": 10**4000})
@example(fields={"temperature": float("nan")})
def test_no_field_surprises_the_parser(fields):
    """Whatever a field holds: a request, or a 400."""
    check(body(**fields))


@given(at=st.integers(0, 400), byte=st.integers(0, 255), insert=st.booleans())
def test_no_damaged_body_surprises_the_parser(at, byte, insert):
    """One byte put in or changed anywhere in a right body."""
    whole = bytearray(
        body(
            messages=[USER, assistant(tool_calls=[CALL]), {"role": "user", "content": [IMAGE]}],
            tools=[WEATHER],
            logit_bias={"1": 2},
            stop=["é"],
        )
    )
    at %= len(whole)
    whole[at : at + (not insert)] = bytes([byte])
    check(bytes(whole))


def check(raw: bytes) -> None:
    try:
        request = parse_request(raw, LIMITS)
    except InvalidRequestError as error:
        json.loads(error.body())
        return
    assert isinstance(request, ChatRequest)
    assert request.messages
