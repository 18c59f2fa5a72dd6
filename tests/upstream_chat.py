"""The chat half of the fake OpenAI: `POST /v1/chat/completions`, streamed or not.

    fake = FakeOpenAI()
    with serve(fake):
        ...  # talk to fake.base_url; then look at fake.chat.calls

It behaves as documented (n, tools, response_format, logprobs, stop, max_tokens, stream_options)
until told otherwise: `fake.chat.script(*behaviours)` for the next calls, one each, or
`fake.chat.always(behaviour)`; see `upstream_chat_behaviours`. Every answer differs from every
other one, seed or no seed; with `fake.chat.noise = False` the same request has the same words.
A tool is called when `tool_choice` forces it, or when the last message is a user's and has the
tool's name in it.

Each call is kept in `fake.chat.calls`: its request (`request.raw` is what came off the wire), the
pieces that were sent, how it ended, and when its client hung up, on the clock of
`time.monotonic`. `wait_for_calls` and `wait_for_left` block until there are so many.
"""

import asyncio
import json
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.upstream_chat_answers import (
    JsonObject,
    choices_for,
    chunk_choices,
    usage_for,
    whole_choice,
)
from tests.upstream_flavours import Flavour, RefusalError

if TYPE_CHECKING:
    from tests.upstream import Request

DONE = b"data: [DONE]\n\n"

Step = bytes | Callable[[], Awaitable[None]]
"""A piece to send, or something to do before the next one."""


@dataclass(slots=True)
class ChatCall:
    """One call, as it went."""

    request: "Request"
    began: float
    """When it had arrived."""
    sent: list[bytes] = field(default_factory=list)
    """The pieces of the body."""
    ended: str | None = None
    """"whole", "cut" (by the fake) or "left" (by the client); None while it is under way."""
    left: float | None = None
    """When the client hung up, if it did before the end."""


@dataclass(slots=True)
class ChatExchange:
    """An answer in the making: behaviours change it before it is written."""

    call: ChatCall
    flavour: Flavour
    stream: bool
    whole: JsonObject
    """The `chat.completion`."""
    chunks: list[JsonObject]
    """The `chat.completion.chunk`s."""
    headers: dict[str, str]
    gone: Callable[[], Awaitable[None]]
    """Returns when the client has hung up."""
    hang_up: Callable[[], Awaitable[None]]
    """Closes the connection."""
    status: int = 200
    body: bytes | None = None
    """Sent as it is, in place of the answer."""
    edits: list[Callable[[list[Step]], list[Step]]] = field(default_factory=list)
    """Applied one after the other to what is to be sent, which is one event a step."""

    def write(self) -> list[Step]:
        """Return what is to be sent and done."""
        steps: list[Step]
        if self.body is not None:
            steps = [self.body]
        elif self.stream:
            steps = [event(chunk) for chunk in self.chunks] + [DONE]
        else:
            steps = [json.dumps(self.whole, ensure_ascii=False).encode()]
        for edit in self.edits:
            steps = edit(steps)
        return steps


ChatBehaviour = Callable[[ChatExchange], Awaitable[None]]


@dataclass
class FakeChat:
    """See the module."""

    noise: bool = True
    fingerprint: str | None = "fp_44709d6fcb"
    _calls: list[ChatCall] = field(default_factory=list)
    _answers: int = 0
    _scripted: deque[ChatBehaviour] = field(default_factory=deque)
    _always: ChatBehaviour | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def script(self, *behaviours: ChatBehaviour) -> None:
        """Let the next calls behave so, one each."""
        with self._changed:
            self._scripted.extend(behaviours)

    def always(self, behaviour: ChatBehaviour | None) -> None:
        """Let every unscripted call behave so, from now on; None ends it."""
        with self._changed:
            self._always = behaviour

    @property
    def calls(self) -> list[ChatCall]:
        """Every call so far, in the order of arrival."""
        with self._changed:
            return list(self._calls)

    def wait_for_calls(self, count: int, timeout: float = 10.0) -> None:
        """Block until so many calls have arrived; raises TimeoutError."""
        self._wait(lambda: len(self._calls) >= count, timeout)

    def wait_for_left(self, count: int = 1, timeout: float = 10.0) -> None:
        """Block until so many clients have hung up in the middle; raises TimeoutError."""
        self._wait(lambda: sum(call.ended == "left" for call in self._calls) >= count, timeout)

    def forget(self) -> None:
        """Forget calls, scripts and behaviours, for the next test on the same server."""
        with self._changed:
            self._calls.clear()
            self._scripted.clear()
            self._always, self.noise, self.fingerprint = None, True, "fp_44709d6fcb"

    async def answer(
        self,
        request: "Request",
        headers: dict[str, str],
        flavour: Flavour,
        models: Sequence[str],
        scope: Any,
        receive: Any,
        send: Any,
    ) -> None:
        """Answer one request, until its client hangs up."""
        call = ChatCall(request, time.monotonic())
        with self._changed:
            self._calls.append(call)
            self._answers += 1
            number = self._answers
            behaviour = self._scripted.popleft() if self._scripted else self._always
            self._changed.notify_all()
        leaving = asyncio.ensure_future(_gone(receive))

        async def gone() -> None:
            await asyncio.wait({leaving})

        async def hang_up() -> None:
            self._end(call, "cut")
            scope["transport"].close()
            await gone()

        exchange = ChatExchange(call, flavour, False, {}, [], dict(headers), gone, hang_up)
        try:
            _check(request.body, flavour, models)
            self._make(exchange, number)
        except RefusalError as refusal:
            exchange.status, exchange.body = refusal.status, refusal.body
        answering = asyncio.ensure_future(self._speak(exchange, behaviour, send))
        await asyncio.wait({leaving, answering}, return_when=asyncio.FIRST_COMPLETED)
        self._end(call, "left")
        leaving.cancel()
        answering.cancel()
        failed = await asyncio.gather(answering, return_exceptions=True)
        if isinstance(failed[0], Exception):
            raise failed[0]

    async def _speak(
        self, exchange: ChatExchange, behaviour: ChatBehaviour | None, send: Any
    ) -> None:
        if behaviour is not None:
            await behaviour(exchange)
        steps = exchange.write()
        headers = exchange.headers
        if exchange.stream and exchange.body is None:
            headers |= {"content-type": "text/event-stream; charset=utf-8"}
        elif all(isinstance(step, bytes) for step in steps):
            headers["content-length"] = str(sum(map(len, steps)))  # type: ignore[arg-type]
        raw = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
        await send({"type": "http.response.start", "status": exchange.status, "headers": raw})
        for step in steps:
            if isinstance(step, bytes):
                exchange.call.sent.append(step)
                await send({"type": "http.response.body", "body": step, "more_body": True})
            else:
                await step()
        self._end(exchange.call, "whole")
        await send({"type": "http.response.body", "body": b""})

    def _make(self, exchange: ChatExchange, number: int) -> None:
        body = exchange.call.request.body
        choices = choices_for(body, number, noise=self.noise)
        usage = usage_for(body, choices)
        frame = {
            "id": f"chatcmpl-{os.urandom(14).hex()}",
            "created": int(time.time()),
            "model": body["model"],
            "service_tier": "default",
            "system_fingerprint": self.fingerprint,
        }
        if self.fingerprint is None:
            del frame["system_fingerprint"]
        exchange.whole = {"object": "chat.completion", **frame, "usage": usage}
        exchange.whole["choices"] = [whole_choice(choice, body) for choice in choices]
        exchange.stream = bool(body.get("stream"))
        options = body.get("stream_options") or {}
        told = {"usage": None} if options.get("include_usage") else {}
        frame = {"object": "chat.completion.chunk", **frame}
        exchange.chunks = [
            frame | {"choices": [choice]} | told for choice in chunk_choices(choices, body)
        ]
        if told:
            exchange.chunks.append(frame | {"choices": [], "usage": usage})
        if options.get("include_obfuscation", True):
            for chunk in exchange.chunks:
                chunk["obfuscation"] = os.urandom(4).hex()

    def _end(self, call: ChatCall, how: str) -> None:
        with self._changed:
            if call.ended is None:
                call.ended = how
                call.left = time.monotonic() if how == "left" else None
            self._changed.notify_all()

    def _wait(self, until: Callable[[], bool], timeout: float) -> None:
        with self._changed:
            if not self._changed.wait_for(until, timeout):
                ended = [call.ended for call in self._calls]
                raise TimeoutError(f"of the calls so far: {ended}")


def event(data: JsonObject) -> bytes:
    """Return the event of a stream that says this."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def _check(body: Any, flavour: Flavour, models: Sequence[str]) -> None:
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise flavour.refusal(400, "you must provide a model parameter")
    if models and not flavour.any_model and body["model"] not in models:
        raise flavour.refusal(
            404,
            f"The model `{body['model']}` does not exist or you do not have access to it.",
            code="model_not_found",
        )
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise flavour.refusal(400, "Missing required parameter: 'messages'.")
    if not all(isinstance(message, dict) for message in messages):
        raise flavour.refusal(400, "Invalid type for 'messages[0]': expected an object.")


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
