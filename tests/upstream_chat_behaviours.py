"""How a fake upstream can misbehave in a chat: each is something some real server has done.

A behaviour changes a `ChatExchange` before it is written. `upstream_behaviours.together` combines
several. To stall before the headers, use `upstream_behaviours.Hang`, which is a behaviour itself;
to stall later, `stall(hang, at)`. Positions (`at`) count the events of a stream from 0, which is
the first chunk, and from the end where they are negative: -1 is `[DONE]`.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from tests.upstream_behaviours import Hang
from tests.upstream_chat import ChatBehaviour, ChatExchange, Step, event

ERROR = {
    "message": "The server had an error while processing your request.",
    "type": "server_error",
    "param": None,
    "code": None,
}


def refuse(
    status: int,
    *,
    message: str = "The server had an error.",
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> ChatBehaviour:
    """Answer with this status, and OpenAI's kind of error unless there is a body."""

    async def behave(exchange: ChatExchange) -> None:
        exchange.headers |= headers or {}
        refusal = exchange.flavour.refusal(status, message, code=code)
        exchange.status, exchange.body = status, refusal.body if body is None else body

    return behave


def error_event(at: int = 0, error: Mapping[str, Any] | None = None) -> ChatBehaviour:
    """Send an error in place of this event, and nothing after it."""

    async def behave(exchange: ChatExchange) -> None:
        exchange.edits.append(lambda steps: [*steps[:at], event({"error": dict(error or ERROR)})])

    return behave


def cut(at: int, *, inside: bool = True) -> ChatBehaviour:
    """Close the connection in the middle of this event, or just before it."""

    async def behave(exchange: ChatExchange) -> None:
        def edit(steps: list[Step]) -> list[Step]:
            half = steps[at]
            assert isinstance(half, bytes)
            part: list[Step] = [half[: len(half) // 2]] if inside else []
            return [*steps[:at], *part, exchange.hang_up]

        exchange.edits.append(edit)

    return behave


async def no_done(exchange: ChatExchange) -> None:
    """End the stream without `[DONE]`."""
    exchange.edits.append(lambda steps: steps[:-1])


def short(at: int) -> ChatBehaviour:
    """End the stream politely before this event, as if it were all."""

    async def behave(exchange: ChatExchange) -> None:
        exchange.edits.append(lambda steps: steps[:at])

    return behave


def stall(hang: Hang, at: int) -> ChatBehaviour:
    """Stop before this event until `hang` is released or the client leaves."""

    async def behave(exchange: ChatExchange) -> None:
        async def hold() -> None:
            await hang(exchange)  # type: ignore[arg-type]  # it asks only when the client is gone

        exchange.edits.append(lambda steps: [*steps[:at], hold, *steps[at:]])

    return behave


def slow(seconds: float, *, headers: float = 0.0) -> ChatBehaviour:
    """Wait so long before each event, and before the headers."""

    async def behave(exchange: ChatExchange) -> None:
        await asyncio.sleep(headers)
        exchange.edits.append(lambda steps: _between(steps, seconds))

    return behave


def split(size: int, seconds: float = 0.0) -> ChatBehaviour:
    """Send pieces of so many bytes, wherever that cuts events and characters."""

    async def behave(exchange: ChatExchange) -> None:
        def edit(steps: list[Step]) -> list[Step]:
            whole = b"".join(step for step in steps if isinstance(step, bytes))
            pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
            return _between(pieces, seconds)

        exchange.edits.append(edit)

    return behave


def batched(count: int) -> ChatBehaviour:
    """Send so many events in one piece."""

    async def behave(exchange: ChatExchange) -> None:
        def edit(steps: list[Step]) -> list[Step]:
            events = [step for step in steps if isinstance(step, bytes)]
            return [b"".join(events[at : at + count]) for at in range(0, len(events), count)]

        exchange.edits.append(edit)

    return behave


async def crlf(exchange: ChatExchange) -> None:
    """End lines with CR LF."""
    exchange.edits.append(lambda steps: _each(steps, lambda data: data.replace(b"\n", b"\r\n")))


async def bom(exchange: ChatExchange) -> None:
    """Begin with a byte order mark."""
    exchange.edits.append(lambda steps: [b"\xef\xbb\xbf", *steps])


async def pings(exchange: ChatExchange) -> None:
    """Send a comment before each event, as servers do to keep connections open."""
    exchange.edits.append(lambda steps: _each(steps, lambda data: b": ping\n\n" + data))


async def json_although_stream(exchange: ChatExchange) -> None:
    """Answer with JSON, whatever was asked for."""
    exchange.stream = False


async def stream_although_json(exchange: ChatExchange) -> None:
    """Answer with a stream, whatever was asked for."""
    exchange.stream = True


async def no_usage(exchange: ChatExchange) -> None:
    """Tell no tokens, whether they were asked for or not."""
    exchange.whole.pop("usage", None)
    exchange.chunks = [chunk for chunk in exchange.chunks if chunk.get("choices")]
    for chunk in exchange.chunks:
        chunk.pop("usage", None)


async def extra_fields(exchange: ChatExchange) -> None:
    """Think aloud and tell of the provider, as DeepSeek, vLLM and others do; all can be merged."""
    thought = ["I ", "think ", "so."]
    _later(exchange, {"provider": "somebody", "x_region": {"name": "eu"}})
    for choice in exchange.whole.get("choices", ()):
        choice["message"]["reasoning_content"] = "".join(thought)
    for chunk, part in zip(exchange.chunks[1:], thought, strict=False):
        for choice in chunk["choices"]:
            choice["delta"]["reasoning_content"] = part


async def unmergeable(exchange: ChatExchange) -> None:
    """Send numbers and objects in the deltas that differ from chunk to chunk."""
    for number, chunk in enumerate(exchange.chunks):
        for choice in chunk["choices"]:
            choice["delta"]["x_progress"] = number / 10
            choice["delta"]["x_state"] = {"step": number}


async def nameless(exchange: ChatExchange) -> None:
    """Leave out id, created and fingerprint."""
    for said in (exchange.whole, *exchange.chunks):
        for name in ("id", "created", "system_fingerprint"):
            said.pop(name, None)


def _later(exchange: ChatExchange, fields: Mapping[str, Any]) -> None:
    for said in (exchange.whole, *exchange.chunks):
        said.update(fields)


def _each(steps: list[Step], change: Any) -> list[Step]:
    return [change(step) if isinstance(step, bytes) else step for step in steps]


def _between(steps: list[Any], seconds: float) -> list[Step]:
    async def pause() -> None:
        await asyncio.sleep(seconds)

    return [each for step in steps for each in (pause, step)]
