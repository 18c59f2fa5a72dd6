"""An upstream that marks whatever it answers with who asked: by their key, or by `user`."""

import asyncio
import json
import random
from base64 import b64encode
from typing import Any

import numpy as np

from tests.upstream import truth

WIDTH = 32
SLOWEST = 0.03
"""Seconds that an answer takes, at most: enough that equal requests meet."""

_JSON = [(b"content-type", b"application/json")]
_EVENTS = [(b"content-type", b"text/event-stream")]


def vector(mark: str, text: str) -> np.ndarray:
    """Return the vector that a text has for whoever has this mark."""
    return truth(mark, text, WIDTH)


class MarkingUpstream:
    """The app. `marks` are by the key that is sent; `calls` are counted."""

    def __init__(self, marks: dict[str, str], seed: int) -> None:
        self.marks = marks
        self.calls = 0
        self._chance = random.Random(seed)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Speak ASGI."""
        if scope["type"] != "http":
            return
        self.calls += 1
        raw, more = b"", True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        body = json.loads(raw)
        key = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
        mark = self.marks.get(key) or body["user"]
        await asyncio.sleep(self._chance.random() * SLOWEST)
        if scope["path"].endswith("/embeddings"):
            await _answer(send, _JSON, _embedded(mark, body["input"]))
        elif body.get("stream"):
            await self._speak(mark, body, send)
        else:
            await _answer(send, _JSON, _chatted(mark, body))

    async def _speak(self, mark: str, body: dict[str, Any], send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
        for event in _chunks(mark, body):
            await asyncio.sleep(self._chance.random() * SLOWEST / 4)
            piece = b"data: " + event + b"\n\n"
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def said(mark: str, prompt: str) -> str:
    """Return what is answered to a prompt."""
    return f"{mark} says: {prompt}"


def _embedded(mark: str, texts: list[str]) -> bytes:
    data = [
        {"index": index, "embedding": b64encode(vector(mark, text).tobytes()).decode()}
        for index, text in enumerate(texts)
    ]
    tokens = len(texts)
    return json.dumps({"data": data, "usage": {"prompt_tokens": tokens}}).encode()


def _frame(mark: str, kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1", "object": kind, "created": 1, "model": "c", "system_fingerprint": mark
    }  # fmt: skip


def _chatted(mark: str, body: dict[str, Any]) -> bytes:
    message = {"role": "assistant", "content": said(mark, body["messages"][0]["content"])}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    whole = {**_frame(mark, "chat.completion"), "choices": [choice], "usage": usage}
    return json.dumps(whole).encode()


def _chunks(mark: str, body: dict[str, Any]) -> list[bytes]:
    words = said(mark, body["messages"][0]["content"]).split(" ")
    deltas = [
        {"role": "assistant", "content": words[0]},
        *({"content": f" {w}"} for w in words[1:]),
    ]
    frame = _frame(mark, "chat.completion.chunk")
    choices = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    choices.append([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    events = [json.dumps({**frame, "choices": choice}).encode() for choice in choices]
    if (body.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        events.append(json.dumps({**frame, "choices": [], "usage": usage}).encode())
    return [*events, b"[DONE]"]


async def _answer(send: Any, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
