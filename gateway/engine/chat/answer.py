"""Answers in OpenAI's form: one JSON object, or the events of a stream.

Both are made of the same parts, so both say the same. Knows field names; not where parts come from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


class TokenChance(msgspec.Struct):
    """A token that might have come, and the logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int]
    """Exact, where `token` is only part of a character and cannot be."""


class TokenEntry(TokenChance):
    """A token that came."""

    top_logprobs: list[TokenChance]


@dataclass(frozen=True, slots=True)
class Part:
    """Something new about one choice."""

    index: int
    delta: Mapping[str, Any]
    """OpenAI's delta: `role`, `content`, `tool_calls`."""
    logprobs: Sequence[TokenEntry] = ()
    finish: str | None = None
    """Why the choice is over: stop, length or tool_calls."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request. The one that ends an answer is not part of it, and is not counted."""

    prompt: int
    cached: int
    """Of the prompt's, those that did not have to be decoded again."""
    completion: int
    """Of all choices together."""

    def figures(self) -> dict[str, Any]:
        """Return OpenAI's `usage`."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What all chunks of an answer say alike."""

    id: str
    created: int
    """Seconds since 1970."""
    model: str
    fingerprint: str
    with_logprobs: bool
    include_usage: bool
    """Whether every chunk speaks of usage, and a last one tells it."""

    def events(self, parts: Iterable[Part]) -> bytes:
        """Return the events of a stream for these parts."""
        return b"".join(self._chunk([self._choice(part)], None) for part in parts)

    def ending(self, usage: Usage) -> bytes:
        """Return the events behind the last part."""
        told = self._chunk([], usage.figures()) if self.include_usage else b""
        return told + DONE

    def whole(self, choices: Sequence["Choice"], usage: Usage) -> bytes:
        """Return the answer as one JSON object."""
        listed = [
            {
                "index": index,
                "message": choice.message(),
                "logprobs": self._logprobs(choice.entries),
                "finish_reason": choice.finish,
            }
            for index, choice in enumerate(choices)
        ]
        figures = {"choices": listed, "usage": usage.figures()}
        return _encode(self._common("chat.completion") | figures)

    def _chunk(self, choices: list[Any], usage: Mapping[str, Any] | None) -> bytes:
        chunk = self._common("chat.completion.chunk") | {"choices": choices}
        if self.include_usage:
            chunk["usage"] = usage
        return event(_encode(chunk))

    def _choice(self, part: Part) -> dict[str, Any]:
        return {
            "index": part.index,
            "delta": part.delta,
            "logprobs": self._logprobs(part.logprobs) if part.logprobs else None,
            "finish_reason": part.finish,
        }

    def _logprobs(self, entries: Sequence[TokenEntry]) -> dict[str, Any] | None:
        return {"content": entries, "refusal": None} if self.with_logprobs else None

    def _common(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


@dataclass(slots=True)
class Choice:
    """One choice put together of its parts."""

    texts: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    entries: list[TokenEntry] = field(default_factory=list)
    finish: str | None = None

    def add(self, part: Part) -> None:
        """Take the next part."""
        if part.delta.get("content"):
            self.texts.append(part.delta["content"])
        for call in part.delta.get("tool_calls", ()):
            self._call(call)
        self.entries += part.logprobs
        self.finish = part.finish

    def message(self) -> dict[str, Any]:
        """Return OpenAI's `message`."""
        text = "".join(self.texts)
        content = None if self.calls and not text else text
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self.calls:
            message["tool_calls"] = [call for _, call in sorted(self.calls.items())]
        return message

    def _call(self, delta: Mapping[str, Any]) -> None:
        """Begin a call, or add to the arguments of one."""
        function = delta["function"]
        call = self.calls.get(delta["index"])
        if call is None:
            begun = {"name": function["name"], "arguments": function["arguments"]}
            self.calls[delta["index"]] = {"id": delta["id"], "type": "function", "function": begun}
        else:
            call["function"]["arguments"] += function["arguments"]


def event(data: bytes) -> bytes:
    """Return one event of a stream."""
    return b"data: " + data + b"\n\n"
