"""Two configs that differ in all that a request meets, and upstreams that say whose they are.

A request that met a part of one and a part of the other is refused by an upstream, or is answered
with the marks of both, or by a model or a key that the config of the answer does not have.
"""

import asyncio
import random
from pathlib import Path

import msgspec
import numpy as np

from gateway.vectors import to_base64

WIDTH = 8
SIDES = "ab"
SLOW = "slowly"
"""The prompt to which streams take more than two seconds."""
EVENTS = 12
"""Chunks of a stream."""


def config(side: str, upstream: str, store: Path, *, workers: int) -> str:
    """Return the config of one side; `upstream` is the root address of MarkedUpstreams.

    Side b gives streams little time to end.
    """
    return f"""
        [server]
        watch = false
        workers = {workers}
        drain_delay = "200ms"
        drain_timeout = "{"30s" if side == "a" else "1s"}"
        [cache]
        store = "sqlite://{store}"
        [[keys]]
        name = "both"
        secret = "key-of-both"
        [[keys]]
        name = "own"
        secret = "key-of-{side}"
        [upstreams.u]
        kind = "openai"
        base_url = "{upstream}/{side}/v1"
        api_key = "upstream-key-{side}"
        max_batch = 2
        [models.both]
        upstreams = ["u"]
        upstream_model = "model-{side}"
        [models.only-{side}]
        upstreams = ["u"]
        upstream_model = "model-{side}"
    """


class MarkedUpstreams:
    """An ASGI app: the upstreams of both sides, each strict about the key and the model's name.

    A vector's first number says whose it is; no two are alike.
    """

    def __init__(self, seed: int) -> None:
        self.mixed: list[str] = []
        """Calls that had something of the other side."""
        self.calls = 0
        self._chance = random.Random(seed)

    async def __call__(self, scope, receive, send) -> None:
        """Speak ASGI."""
        if scope["type"] != "http":
            return
        side = scope["path"].split("/")[1]
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        asked = msgspec.json.decode(body)
        key = dict(scope["headers"]).get(b"authorization", b"").decode()
        if (key, asked["model"]) != (f"Bearer upstream-key-{side}", f"model-{side}"):
            self.mixed.append(f"{side} was asked with {key} for {asked['model']}")
        self.calls += 1
        if scope["path"].endswith("/embeddings"):
            await self._embed(side, asked, send)
        else:
            await self._chat(side, asked, send)

    async def _embed(self, side, asked, send) -> None:
        await asyncio.sleep(0.03 * self._chance.random())
        rows = [self._draw(side) for _ in asked["input"]]
        data = [
            {"index": index, "embedding": msgspec.Raw(to_base64(row.tobytes()))}
            for index, row in enumerate(rows)
        ]
        answer = {"data": data, "usage": {"prompt_tokens": len(rows)}}
        await _answer(send, msgspec.json.encode(answer), b"application/json")

    def _draw(self, side: str) -> np.ndarray:
        """Return a vector of length 1 but for rounding."""
        row = np.zeros(WIDTH, np.float32)
        row[0] = 0.5 if side == "a" else -0.5
        row[1:] = [self._chance.gauss(0, 1) for _ in range(WIDTH - 1)]
        row[1:] *= np.float32(0.75**0.5) / np.linalg.norm(row[1:])
        return row

    async def _chat(self, side, asked, send) -> None:
        # Slow ones outlive the drain that side b gives them.
        slow = asked["messages"][0]["content"] == SLOW
        pause = 0.2 if slow else 0.01 * self._chance.random()
        head = {"status": 200, "headers": [(b"content-type", b"text/event-stream")]}
        await send({"type": "http.response.start", **head})
        for number in range(EVENTS):
            chunk = {
                "id": "c", "object": "chat.completion.chunk", "created": 1, "model": asked["model"],
                "choices": [{"index": 0, "delta": {"content": side},
                             "finish_reason": "stop" if number == EVENTS - 1 else None}],
            }  # fmt: skip
            event = b"data: " + msgspec.json.encode(chunk) + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": True})
            await asyncio.sleep(pause)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _answer(send, body: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
