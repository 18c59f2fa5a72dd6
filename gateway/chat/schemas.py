"""OpenAI's wire format for chat: the few fields that the gateway reads are checked.

Upstreams judge the rest, in their own words: what they learn tomorrow passes today.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from gateway.errors import InvalidRequestError
from gateway.schemas import model_name, refuse_shape, unreadable
from gateway.types import USUAL, CacheControl, ChatRequest


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    messages: list[Raw] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def parse_chat_request(body: bytes, control: CacheControl = USUAL) -> ChatRequest:
    """Read the body of `POST /v1/chat/completions`; raise InvalidRequestError for what is wrong."""
    try:
        body.decode()  # what is passed over is not looked at otherwise
        asked = _decode(body)
        fields = _decode_fields(body)
    except msgspec.ValidationError as error:
        refuse_shape(str(error))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise unreadable() from None
    if not asked.messages:
        raise InvalidRequestError(
            "'messages' must be an array with at least one message.", param="messages"
        )
    stream = bool(asked.stream)
    options = asked.stream_options if stream else None
    return ChatRequest(
        model=model_name(asked.model),
        fields=fields,
        stream=stream,
        include_usage=bool(options and options.include_usage),
        seed=asked.seed,
        cache=control,
    )


def chat_body(request: ChatRequest, **changed: Any) -> bytes:
    """Return the request's body with some fields changed, and all others byte for byte as sent."""
    return _encode({**request.fields, **changed})


def with_usage(fields: Mapping[str, Raw]) -> dict[str, Any]:
    """Return the `stream_options` that ask for a stream's tokens beside what they asked for."""
    asked = msgspec.json.decode(fields.get("stream_options", b"null"), type=dict[str, Raw] | None)
    return {**(asked or {}), "include_usage": True}


class Quotable(Sequence[str]):
    """The texts of a request that an upstream's error may quote; read only when they are needed."""

    def __init__(self, request: ChatRequest) -> None:
        self._messages = request.fields["messages"]

    @cached_property
    def _texts(self) -> list[str]:
        # Numbers may be larger than any reader takes, and are no texts.
        messages = json.loads(bytes(self._messages), parse_int=_no_text, parse_float=_no_text)
        return [text for message in messages for text in _said(message)]

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, place: Any) -> Any:
        return self._texts[place]


def _no_text(_: str) -> None:
    return None


def _said(message: Any) -> Iterator[str]:
    """Yield what a message says: its content, whole or in parts, and what it has tools called with.

    Upstreams judge messages, so one may be anything.
    """
    if not isinstance(message, dict):
        return
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    yield from (part["text"] for part in parts if isinstance(part, dict) and _is_text(part, "text"))
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and _is_text(function, "arguments"):
            yield function["arguments"]


def _is_text(holder: Mapping[str, Any], name: str) -> bool:
    return isinstance(holder.get(name), str)
