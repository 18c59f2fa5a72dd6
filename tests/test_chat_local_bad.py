"""What is wrong with a request to a local chat model is a 400 that names the field; nobody dies."""

import math
from collections.abc import Iterator
from importlib.util import find_spec

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.heavy.kills import engines
from tests.local_chats import CHAT, asking, chat_toml, client, post
from tests.processes import GatewayProcess, gateway_process
from tests.tiny_chat import HERMES, write_chat

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        find_spec("llama_cpp") is None, reason="the package llama-cpp-python is missing"
    ),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    path = write_chat(tmp_path_factory.mktemp("m") / "m.gguf", template=HERMES, context=1024)
    with gateway_process(chat_toml(path)) as served:
        yield served


@pytest.fixture(scope="module")
def http(served: GatewayProcess) -> Iterator[httpx2.Client]:
    with client(served) as http:
        yield http


class Engine:
    """The engine's process, which must stay the same."""

    def __init__(self, served: GatewayProcess) -> None:
        self._gateway = served.pid
        self._pids = engines(served.pid)

    def same(self) -> bool:
        return len(self._pids) == 1 and self._pids == engines(self._gateway)


@pytest.fixture(scope="module")
def engine(served: GatewayProcess) -> Engine:
    return Engine(served)


def function(**fields: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": "f", **fields}}


PART = "messages[0].content[0]"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f"}}
DEEP = '{"a":' + "[" * 900 + "]" * 900 + "}"
ASSISTANT_DEEP = {
    "role": "assistant",
    "tool_calls": [CALL | {"function": {"name": "f", "arguments": DEEP}}],
}
MESSAGES = {
    "none": ([], "messages"),
    "null": (None, "messages"),
    "not a list": ("hello", "messages"),
    "of another type": (["hello"], "messages[0]"),
    "an unknown role": ([{"role": "king", "content": "x"}], "messages[0].role"),
    "a role that is none": ([{"role": 1, "content": "x"}], "messages[0].role"),
    "no role": ([{"content": "x"}], "messages[0].role"),
    "no content": ([{"role": "user"}], "messages[0].content"),
    "null for a content": ([{"role": "user", "content": None}], "messages[0].content"),
    "a number for a content": ([{"role": "user", "content": 1}], "messages[0].content"),
    "no parts": ([{"role": "user", "content": []}], "messages[0].content"),
    "an image": ([{"role": "user", "content": [IMAGE]}], f"{PART}.type"),
    "audio": ([{"role": "user", "content": [SOUND]}], f"{PART}.type"),
    "a part without its text": ([{"role": "user", "content": [{"type": "text"}]}], f"{PART}.text"),
    "an empty answer": ([{"role": "assistant"}], "messages[0].content"),
    "an answer of sound": (
        [{"role": "assistant", "content": "x", "audio": {"id": "a"}}],
        "messages[0].audio",
    ),
    "a call without arguments": (
        [{"role": "assistant", "tool_calls": [CALL]}],
        "messages[0].tool_calls[0].function.arguments",
    ),
    "arguments nested too deeply": ([ASSISTANT_DEEP], "messages"),
    "a result of no call": ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id"),
    "a name that is none": ([{"role": "user", "content": "x", "name": 1}], "messages[0].name"),
}
TOO_MANY_STOPS = ["a", "b", "c", "d", "e"]
FIELDS = {
    "model": [(None, "model"), (1, "model"), ("", "model")],
    "temperature": [("hot", None), (-0.1, None), (2.1, None), ([], None)],
    "top_p": [("x", None), (-0.1, None), (1.1, None)],
    "presence_penalty": [("x", None), (-2.1, None), (2.1, None)],
    "frequency_penalty": [("x", None), (-2.1, None), (2.1, None)],
    "logit_bias": [
        ([], None),
        ({"a": 1}, None),
        ({"-1": 1}, None),
        ({"01": 1}, None),
        ({"9" * 5000: 1}, None),
        ({"100000": 1}, None),
        ({"1": 101}, None),
        ({"1": "x"}, None),
    ],
    "logprobs": [("yes", None), (1, None)],
    "top_logprobs": [(2, None), ("x", None), (21, None), (-1, None)],
    "max_tokens": [("x", None), (0, None), (-1, None), (1.5, None), (2**40, None), (10**30, None)],
    "max_completion_tokens": [("x", None), (0, None), (-1, None), (2**40, None)],
    "n": [("x", None), (0, None), (-1, None), (129, None), (10**9, None), (10**30, None)],
    "seed": [("x", None), (1.5, None), (2**63, None), (-(2**63) - 1, None)],
    "stop": [(1, None), (TOO_MANY_STOPS, None), ([1], "stop[0]"), ("", None), (["a", ""], None)],
    "stream": [("yes", None), (1, None)],
    "stream_options": [("x", None), ({"include_usage": "x"}, None)],
    "response_format": [
        ("json", None),
        ({}, "response_format.type"),
        ({"type": "xml"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        (
            {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}},
            "response_format.json_schema.name",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "s", "schema": {"$ref": "#/no"}}},
            None,
        ),
    ],
    "tools": [
        ("x", None),
        ([{"type": "web_search"}], "tools[0].type"),
        ([{"type": "function"}], "tools[0].function"),
        ([{"type": "function", "function": {}}], "tools[0].function.name"),
        ([function(name="a b")], "tools[0].function.name"),
        ([function(name="x" * 65)], "tools[0].function.name"),
        ([function(), function()], "tools[1].function.name"),
        ([function(parameters="x")], "tools[0].function.parameters"),
        ([function(parameters={"type": "array"})], "tools[0].function.parameters"),
        ([function(name=f"f{n}") for n in range(129)], None),
    ],
    "tool_choice": [("maybe", None), ("required", None), (1, None)],
    "parallel_tool_calls": [("x", None)],
    "reasoning_effort": [("huge", None), (1, None)],
    "verbosity": [("loud", None), ("low", None)],
    "modalities": [(["text", "audio"], None), ("text", None), (["smell"], "modalities[0]")],
    "audio": [({"voice": "alloy", "format": "wav"}, None)],
    "functions": [([{"name": "f"}], None)],
    "function_call": [("auto", None)],
    "web_search_options": [({}, None)],
}
WRONG = [
    pytest.param({field: value}, param or field, id=f"{field} {str(value)[:20]}")
    for field, values in FIELDS.items()
    for value, param in values
] + [pytest.param({"messages": m}, param, id=name) for name, (m, param) in MESSAGES.items()]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("wrong", "param"), WRONG)
def test_each_wrong_field_is_a_400_that_names_it(
    http: httpx2.Client, engine: Engine, wrong: dict[str, object], param: str, stream: bool
):
    """Wrong type, out of range, too long, unknown: with OpenAI's body, and as JSON always."""
    answer = post(http, asking(stream=stream) | wrong)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert {"message", "type", "param", "code"} == error.keys()
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert engine.same()


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({"said": "a " * 1000}, ["1024"]),
        ({"said": "x" * 2_000_000}, ["1024", "2000"]),
        ({"said": "x" * 600, "max_tokens": 900}, ["1024", "900"]),
    ],
    ids=["prompt", "far too long", "with its answer"],
)
def test_what_does_not_fit_is_said_in_numbers(
    http: httpx2.Client, fields: dict[str, object], numbers: list[str]
):
    """OpenAI's code for it, with what there is and what was asked for."""
    error = post(http, asking(**fields)).json()["error"]  # type: ignore[arg-type]
    assert ("context_length_exceeded", "messages") == (error["code"], error["param"])
    assert all(number in error["message"] for number in numbers), error["message"]


def test_a_chat_model_has_no_vectors(http: httpx2.Client):
    """Asked for them it says so, and the engine is not asked."""
    answer = http.post("/v1/embeddings", json={"model": CHAT, "input": "x"})
    assert (400, "model") == (answer.status_code, answer.json()["error"]["param"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
TOKENS = {"max_tokens": 4}
SPOILED = st.builds(
    lambda said, spoilt: asking(said, **TOKENS) | spoilt,
    st.text(max_size=40),
    st.dictionaries(st.sampled_from([*FIELDS, "messages", "user"]), JSON, max_size=3),
)


@settings(max_examples=80)
@given(body=SPOILED | JSON)
def test_no_body_makes_a_5xx_or_ends_the_engine(http: httpx2.Client, engine: Engine, body: object):
    """The answer is an answer, or a client's mistake; the engine stays the same process."""
    answer = post(http, body)
    assert answer.status_code in (200, 400, 404), answer.text
    assert engine.same()


def test_numbers_that_are_none_are_refused(http: httpx2.Client):
    """NaN is no JSON, and neither is half a character."""
    for value in (b"NaN", b"Infinity", b"1e999", rb'"\ud800"', b"-" * 9, b"[" * 100_000):
        body = b'{"model":"%s","messages":[],"temperature":%s}' % (CHAT.encode(), value)
        assert post(http, body).status_code == 400
    assert math.isfinite(post(http, asking(temperature=2, **TOKENS)).json()["created"])
