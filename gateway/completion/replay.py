"""A kept `chat.completion`, told again as a stream."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gateway.completion.watch import look
from gateway.errors import UpstreamError
from gateway.sse import DONE, event

_NULL = msgspec.Raw(b"null")
_EMPTY = msgspec.Raw(b'""')
_NOT_IN_CHUNKS = frozenset({"object", "choices", "usage", "error"})

_Fields = dict[str, msgspec.Raw]

_fields = msgspec.json.Decoder(_Fields).decode
_objects = msgspec.json.Decoder(list[_Fields]).decode
_encode = msgspec.json.Encoder().encode


def replay(whole: bytes, *, include_usage: bool) -> list[bytes]:
    """Return the events of a valid stream that says what this JSON answer says.

    All chunks carry its `id`, `created`, `model` and whatever else is a plain value beside the
    choices; lists and objects come with the first. Choices follow each other; of each come its
    role, the message fields that are not OpenAI's, its content with the logprobs, its tool calls,
    and its end. Raises UpstreamError for what `look` does not call complete.

    An `Assembly` of the events makes an equal answer again, except that null fields and an empty
    list of tool calls are left out, the fields that OpenAI always sends are put in, and tool
    calls do not tell their `index`.
    """
    if not look(whole).complete:
        raise UpstreamError(
            "The upstream's answer is no whole chat completion.", code="upstream_invalid_response"
        )
    answer = _fields(whole)
    usage = answer.get("usage", _NULL)
    head, once = _head(answer)
    if include_usage:
        head["usage"] = _NULL
    events = []
    for choice in _objects(answer["choices"]):
        for piece in _pieces(choice):
            events.append(_chunk({**head, **once}, [piece]))
            once = {}
    if include_usage and usage != _NULL:
        events.append(_chunk({**head, "usage": usage}, []))
    return [*events, DONE]


def _chunk(head: Mapping[str, Any], choices: list[Any]) -> bytes:
    return event(_encode({"object": "chat.completion.chunk", **head, "choices": choices}))


def _head(answer: _Fields) -> tuple[_Fields, _Fields]:
    """Return what every chunk carries, and what only the first does."""
    head: _Fields = {}
    once: _Fields = {}
    for name, raw in answer.items():
        if name not in _NOT_IN_CHUNKS and raw != _NULL:
            (once if memoryview(raw)[0] in b"[{" else head)[name] = raw
    return head, once


def _pieces(choice: _Fields) -> Iterator[dict[str, Any]]:
    """Return the `choices` items of one choice's chunks, in order."""
    index, logprobs = choice.pop("index"), choice.pop("logprobs", _NULL)
    end = choice.pop("finish_reason")
    message = _fields(choice.pop("message"))
    content, refusal = message.pop("content", _NULL), message.pop("refusal", _NULL)
    calls = message.pop("tool_calls", _NULL)

    def piece(delta: Mapping[str, Any], logprobs: Any = None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    role = message.pop("role", msgspec.Raw(b'"assistant"'))
    yield piece({"role": role, "content": _NULL if content == _NULL else "", "refusal": None})
    others = {name: raw for name, raw in message.items() if raw != _NULL}
    if others:
        yield piece(others)
    said = {"content": content, "refusal": refusal}
    said = {name: raw for name, raw in said.items() if raw != _NULL}
    if said or logprobs != _NULL:
        yield piece(said, logprobs)
    for number, call in enumerate(_objects(calls) if calls != _NULL else []):
        yield piece({"tool_calls": [{**call, "index": number}]})
    yield {**piece({}), **choice, "finish_reason": end}
