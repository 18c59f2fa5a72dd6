"""What the fake upstream says in a chat: words, tool calls, JSON, and how OpenAI writes them down.

An answer is a function of the request, its `seed` and the number of the call, so the fake can
give a different one every time, or the same.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

_STORY = (
    "the crew of a small ship left orbit before dawn and saw red dust over wide plains while "
    "café naïve München señal 火星 生命 🚀 🛰️ жизнь звезда radio silence held for nine days until "
    "water rose under ice near old craters where quiet engines hummed against cold light"
)

WORDS = tuple(_STORY.split())

JsonObject = dict[str, Any]


@dataclass(slots=True)
class ToolCall:
    """One call of a function; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class Choice:
    """One of the answers to a request, in the tokens in which it is streamed."""

    index: int
    tokens: list[str]
    finish: str = "stop"
    tool_calls: list[ToolCall] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All tokens."""
        return "".join(self.tokens)


def choices_for(body: JsonObject, number: int, *, noise: bool) -> list[Choice]:
    """Return what is said to a request; with `noise` no two numbers are given the same words."""
    return [_choice(body, index, number if noise else 0) for index in range(body.get("n") or 1)]


def usage_for(body: JsonObject, choices: Sequence[Choice]) -> JsonObject:
    """Return the tokens: four bytes each in the prompt, what is streamed in the answer."""
    prompt = 3 + sum(3 + len(json.dumps(message)) // 4 for message in body["messages"])
    spoken = sum(
        len(choice.tokens) + sum(len(_parted(call.arguments)) for call in choice.tool_calls)
        for choice in choices
    )
    return {
        "prompt_tokens": prompt,
        "completion_tokens": spoken,
        "total_tokens": prompt + spoken,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def whole_choice(choice: Choice, body: JsonObject) -> JsonObject:
    """Return one of `choices` of a `chat.completion`."""
    message: JsonObject = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.tool_calls:
        message["content"] = None
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in choice.tool_calls
        ]
    else:
        message["annotations"] = []
    return {
        "index": choice.index,
        "message": message,
        "logprobs": _logprobs(choice.tokens, body),
        "finish_reason": choice.finish,
    }


def chunk_choices(choices: Sequence[Choice], body: JsonObject) -> list[JsonObject]:
    """Return the one choice that each chunk of a stream holds; several choices take turns."""
    turns = [_deltas(choice, body) for choice in choices]
    longest = max(map(len, turns))
    return [turn[at] for at in range(longest) for turn in turns if at < len(turn)]


def sample(schema: Mapping[str, Any], word: str, root: Mapping[str, Any] | None = None) -> Any:
    """Return a value that a plain JSON schema allows; its strings say `word`."""
    root = root or schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return sample(root.get("$defs", {}).get(name, {}), word, root)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return sample(schema[key][0], word, root)
    if "enum" in schema or "const" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        return {name: sample(inner, word, root) for name, inner in properties.items()}
    if schema.get("type") == "array":
        return [sample(schema.get("items", {}), word, root)]
    plain = {"integer": 7, "number": 0.5, "boolean": True, "null": None}
    return plain.get(schema.get("type", "string"), word)


def _choice(body: JsonObject, index: int, noise: int) -> Choice:
    named = [body["model"], body["messages"], body.get("seed"), index]
    digest = blake2b(json.dumps(named).encode(), digest_size=8).digest()
    rng = random.Random(digest)
    words = [rng.choice(WORDS) for _ in range(rng.randint(12, 24))]
    # Mostly the same, as from OpenAI: the first words are the number of the call.
    words[:3] = [WORDS[noise // len(WORDS) ** power % len(WORDS)] for power in range(3)]
    calls = [
        ToolCall(f"call_{rng.randbytes(12).hex()}", name, _json(schema, words))
        for name, schema in _called(body)
    ]
    if calls:
        return Choice(index, [], "tool_calls", calls)
    return _limited(Choice(index, _tokens(body, words)), body)


def _called(body: JsonObject) -> list[tuple[str, JsonObject]]:
    """Return names and schemas of the tools to call: those forced, or named by the last message."""
    tools = {
        tool["function"]["name"]: tool["function"].get("parameters", {})
        for tool in body.get("tools") or []
    }
    asked = body.get("tool_choice", "auto")
    if isinstance(asked, dict):
        names = [asked["function"]["name"]]
    else:
        last = body["messages"][-1]
        spoken = json.dumps(last.get("content")) if last.get("role") == "user" else ""
        named = [name for name in tools if name in spoken]
        names = {"none": [], "required": named or list(tools)[:1]}.get(asked, named)
    return [(name, tools.get(name, {})) for name in names]


def _tokens(body: JsonObject, words: list[str]) -> list[str]:
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return _parted(_json(form["json_schema"].get("schema", {}), words))
    if form.get("type") == "json_object":
        return _parted(json.dumps({"answer": " ".join(words)}, ensure_ascii=False))
    return [words[0], *(f" {word}" for word in words[1:])]


def _json(schema: JsonObject, words: list[str]) -> str:
    return json.dumps(sample(schema, " ".join(words[:3])), ensure_ascii=False)


def _limited(choice: Choice, body: JsonObject) -> Choice:
    stops = body.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        at = choice.text.find(stop)
        if at >= 0:
            choice.tokens = [choice.text[:at]]
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    if most is not None and len(choice.tokens) > most:
        choice.tokens, choice.finish = choice.tokens[:most], "length"
    return choice


def _deltas(choice: Choice, body: JsonObject) -> list[JsonObject]:
    def said(delta: JsonObject, logprobs: Any = None, finish: str | None = None) -> JsonObject:
        return {
            "index": choice.index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish,
        }

    content = None if choice.tool_calls else ""
    deltas = [said({"role": "assistant", "content": content, "refusal": None})]
    deltas += [said({"content": token}, _logprobs([token], body)) for token in choice.tokens]
    for at, call in enumerate(choice.tool_calls):
        function = {"name": call.name, "arguments": ""}
        begun = {"index": at, "id": call.id, "type": "function", "function": function}
        deltas.append(said({"tool_calls": [begun]}))
        deltas += [
            said({"tool_calls": [{"index": at, "function": {"arguments": part}}]})
            for part in _parted(call.arguments)
        ]
    return [*deltas, said({}, finish=choice.finish)]


def _logprobs(tokens: Sequence[str], body: JsonObject) -> JsonObject | None:
    if not body.get("logprobs"):
        return None

    def entry(token: str, value: float) -> JsonObject:
        return {"token": token, "logprob": value, "bytes": list(token.encode())}

    return {
        "content": [
            entry(token, -0.25)
            | {
                "top_logprobs": [
                    entry(other, -0.25 * (rank + 1))
                    for rank, other in enumerate([token, *WORDS][: body.get("top_logprobs") or 0])
                ]
            }
            for token in tokens
        ],
        "refusal": None,
    }


def _parted(text: str) -> list[str]:
    return [text[at : at + 6] for at in range(0, len(text), 6)]
