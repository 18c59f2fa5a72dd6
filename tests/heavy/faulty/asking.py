"""A client that measures how long it waits, and tells what an answer came to."""

import asyncio
import json
import time
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import numpy as np

from gateway.sse import Events, data_of
from tests.heavy.faulty.kind import Outcome

_GIVES_UP = 20.0
"""Seconds after which a request hangs."""
_TICK = 0.005


@dataclass(frozen=True, slots=True)
class Asked:
    """A request."""

    model: str
    texts: Sequence[str]
    """What to embed, or what to say in a chat."""
    chat: bool = False
    stream: bool = False
    base64: bool = False

    @property
    def kind(self) -> str:
        """What befalls it."""
        return self.texts[0].split(" ", 1)[0]

    def body(self) -> dict[str, Any]:
        """Return what is sent."""
        if self.chat:
            messages = [{"role": "user", "content": self.texts[0]}]
            return {"model": self.model, "messages": messages, "stream": self.stream}
        form = "base64" if self.base64 else "float"
        return {"model": self.model, "input": self.texts, "encoding_format": form}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request."""

    outcome: Outcome
    said: Sequence[bytes]
    """Of a good answer: the vectors, as float32, or the words."""
    waited: float
    """Seconds: the longest that it did not hear anything."""
    busy: float
    """Seconds of it that this process was too busy to listen."""


class Client:
    """Asks one gateway."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._lags: list[tuple[float, float]] = []
        self._ticked = time.perf_counter()

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(_GIVES_UP)
        connections = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connections)
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ticker.cancel()
        await self._session.close()

    async def ask(self, asked: Asked) -> Answer:
        """Return the answer, whatever it is. Raises TimeoutError for one that does not come."""
        path = "chat/completions" if asked.chat else "embeddings"
        began = heard = time.perf_counter()
        waited, pieces = 0.0, []
        async with self._session.post(f"{self._base_url}/{path}", json=asked.body()) as response:
            async for piece in response.content.iter_any():
                now = time.perf_counter()
                waited, heard = max(waited, now - heard), now
                pieces.append(piece)
        waited = max(waited, time.perf_counter() - heard)
        outcome, said = _read(asked, response.status, b"".join(pieces))
        return Answer(outcome, said, waited, self._busy(began))

    def _busy(self, since: float) -> float:
        overdue = time.perf_counter() - self._ticked - _TICK
        return max([overdue, 0.0, *(lag for at, lag in self._lags if at >= since)])

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            now = time.perf_counter()
            if (lag := now - self._ticked - _TICK) > _TICK:
                self._lags.append((now, lag))
                del self._lags[:-1000]
            self._ticked = now


def _read(asked: Asked, status: int, body: bytes) -> tuple[Outcome, Sequence[bytes]]:
    if status != 200:
        return (status, json.loads(body)["error"]["code"]), ()
    if asked.stream:
        return _read_stream(body)
    answer = json.loads(body)
    if ("choices" if asked.chat else "data") not in answer:
        return (200, None), [body]  # which is never the truth
    if asked.chat:
        return (200, None), [answer["choices"][0]["message"]["content"].encode()]
    items = sorted(answer["data"], key=lambda item: int(item["index"]))
    return (200, None), [_vector(item["embedding"]) for item in items]


def _vector(embedding: str | list[float]) -> bytes:
    if isinstance(embedding, str):
        return b64decode(embedding)
    return np.array(embedding, np.float32).astype("<f4").tobytes()


def _read_stream(body: bytes) -> tuple[Outcome, Sequence[bytes]]:
    """Return (0, code) for an error in it; AssertionError for a stream without a proper end."""
    said = ""
    ended = False
    for event in Events().feed(body):
        data = data_of(event)
        if data == b"[DONE]":
            return (200, None), [said.encode()]
        chunk = _json(data)
        if "error" in chunk:
            error = chunk["error"]
            return (0, error["code"] if isinstance(error, dict) else None), ()
        for choice in chunk.get("choices", ()):
            said += choice["delta"].get("content") or ""
            ended = ended or choice["finish_reason"] is not None
    assert ended, f"a stream without an end: {body[-300:]!r}"
    return (200, None), [said.encode()]


def _json(data: bytes | None) -> dict[str, Any]:
    """Return a chunk; an upstream's garbage, which is passed on, is none."""
    try:
        chunk = json.loads(data or b"{}")
    except ValueError:
        return {}
    return chunk if isinstance(chunk, dict) else {}
