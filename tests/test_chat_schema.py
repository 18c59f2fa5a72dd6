"""Every answer to a chat is one that OpenAI's API description allows, wherever it comes from.

`data/chat_schema.json` says which version of it, and how it was made.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest

from gateway.sse import DONE, Events, data_of
from tests.chat_served import BOTH, UPSTREAM, Served, chat_gateway

SCHEMA = json.loads((Path(__file__).parent / "data" / "chat_schema.json").read_text())
TOOL = {"type": "object", "properties": {"planet": {"enum": ["Mars"]}}, "required": ["planet"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": TOOL}}]
FORM = {"type": "json_schema", "json_schema": {"name": "place", "schema": TOOL}}
ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "choices": {"n": 3, "stop": ["e", "a"]},
    "chances": {"logprobs": True, "top_logprobs": 3},
    "chances without others": {"logprobs": True},
    "calls": {"tools": TOOLS, "tool_choice": "required"},
    "a named call": {
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    },
    "JSON": {"response_format": FORM, "max_tokens": 200},
    "one token": {"max_tokens": 1},
}
_seeds = count(1)


def errors(name: str, value: Any) -> list[str]:
    """Return what is wrong with a completion or a chunk, and where."""
    schema = {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]}
    found = jsonschema.Draft202012Validator(schema).iter_errors(value)
    return [f"{error.json_path}: {error.message}" for error in found]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with chat_gateway(tmp_path_factory.mktemp("chat")) as served:
        yield served


@pytest.fixture(scope="module")
def http(served: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=served.base_url, timeout=60) as http:
        yield http


class Asking:
    """One kind of request to one model, asked in both forms."""

    def __init__(self, http: httpx2.Client, model: str, asked: str) -> None:
        self._http = http
        messages = [{"role": "user", "content": "Where is «Mars» 火星?"}]
        self._body = {"model": model, "messages": messages, "max_tokens": 30, **ASKED[asked]}

    def __call__(self, *, stream: bool, **fields: Any) -> str:
        """Check all of an answer; return its Cache-Status."""
        body = self._body | fields
        if stream:
            body |= {"stream": True}
        answer = self._http.post("/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        if stream:
            self._check_stream(answer.content, usage="stream_options" in fields)
        else:
            assert not errors("completion", answer.json())
            self._check_choices(answer.json()["choices"])
        status: str = answer.headers["cache-status"]
        return status

    def _check_stream(self, content: bytes, *, usage: bool) -> None:
        events = Events().feed(content)
        assert events[-1] == DONE
        chunks = [json.loads(data_of(event) or b"") for event in events[:-1]]
        assert not [error for chunk in chunks for error in errors("chunk", chunk)]
        assert 1 == len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks})
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        ends = [choice for choice in choices if choice["finish_reason"]]
        assert self._body.get("n", 1) == len(ends)
        assert [chunk["choices"] == [] for chunk in chunks] == [
            *[False] * (len(chunks) - usage),
            *[True] * usage,
        ]
        if usage:
            assert chunks[-1]["usage"]

    def _check_choices(self, choices: list[Any]) -> None:
        assert list(range(self._body.get("n", 1))) == [choice["index"] for choice in choices]
        chances = [choice["logprobs"] is not None for choice in choices]
        assert chances == [bool(self._body.get("logprobs"))] * len(choices)


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("model", BOTH)
def test_answers_are_as_described(http: httpx2.Client, model: str, asked: str) -> None:
    """Relayed and unseeded; made with a seed; kept, and told again in either form."""
    ask = Asking(http, model, asked)
    counted = {"stream_options": {"include_usage": True}}
    for stream in (False, True):
        assert "fwd=bypass" in ask(stream=stream)
    assert "fwd=bypass" in ask(stream=True, **counted)
    for first in (False, True):
        seed = next(_seeds)
        assert "fwd=miss" in ask(stream=first, seed=seed)
        assert "hit" in ask(stream=False, seed=seed)
        assert "hit" in ask(stream=True, seed=seed)
        assert "hit" in ask(stream=True, seed=seed, **counted)
    assert "fwd=miss" in ask(stream=True, seed=next(_seeds), **counted)


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_made_up_where_an_upstream_says_less(
    http: httpx2.Client, served: Served, stream: bool
) -> None:
    """An answer without a fingerprint stays one, when it is told again too."""
    served.fake.chat.fingerprint = None
    ask = Asking(http, UPSTREAM, "plain")
    seed = next(_seeds)
    for form in (stream, not stream, stream):
        ask(stream=form, seed=seed)
    served.fake.chat.forget()


CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}],
    "usage": None,
}
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "a", "refusal": None},
            "logprobs": {
                "content": [{"token": "a", "logprob": -1, "bytes": [97], "top_logprobs": []}],
                "refusal": None,
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@pytest.mark.parametrize(("name", "right"), [("chunk", CHUNK), ("completion", COMPLETION)])
def test_the_schema_refuses_what_is_wrong(name: str, right: Any) -> None:
    """Without any field that is required, with one more, or with another type: an error."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert not errors(name, right)
    for place in objects(right):
        for field in [*at(right, place), "another"]:
            wrong = deepcopy(right)
            holder = at(wrong, place)
            if field in {"another", "usage"} or holder.keys() == {"content"}:
                holder["another"] = 1
            else:
                del holder[field]
            assert errors(name, wrong), (place, field)
            wrong = deepcopy(right)
            at(wrong, place)[field] = {"of": "no such type"}
            assert errors(name, wrong), (place, field)


def objects(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where objects are within a value, itself included."""
    if isinstance(value, dict):
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in items:
        if isinstance(inner, dict | list):
            yield from objects(inner, (*place, name))


def at(value: Any, place: tuple[Any, ...]) -> Any:
    """Return what stands at a place within a value."""
    for name in place:
        value = value[name]
    return value
