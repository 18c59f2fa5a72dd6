"""The upstream: it reads HTTP, finds in the text what it is to do wrong, and writes bytes.

A text is `KIND NUMBER …`; so whoever asks decides, and asking again meets the same fault. When it
is `healthy`, or is asked for another kind of text, it answers as OpenAI does; its vectors and words
are functions of the text.
"""

import asyncio
import json
import socket
import struct
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tests.upstream import truth

WIDTH = 16
WELL = "well"
"""The kind of texts that are answered well."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends a reset, not an end."""

_TLS = b"\x16"
"""How whoever wants TLS begins."""


class HangUpError(Exception):
    """Close the connection now."""


@dataclass
class Call:
    """One request, and the way back."""

    body: Mapping[str, Any]
    writer: asyncio.StreamWriter
    headers: bytes = b""
    """Lines to add to the answer's head, each with its end."""

    @property
    def texts(self) -> list[str]:
        """What is asked to be embedded; of a chat, its last message."""
        if self.is_chat:
            return [self.body["messages"][-1]["content"]]
        asked = self.body["input"]
        return [asked] if isinstance(asked, str) else asked

    @property
    def is_chat(self) -> bool:
        """Whether it is one."""
        return "messages" in self.body

    @property
    def is_stream(self) -> bool:
        """Whether the answer is wanted as it comes."""
        return self.is_chat and self.body.get("stream") is True

    @property
    def kind(self) -> str:
        """What is to be done."""
        return self.texts[0].split(" ", 1)[0]

    def items(self) -> list[dict[str, Any]]:
        """Return the vectors of a good answer."""
        rows = [truth("m", text, WIDTH) for text in self.texts]
        return [self.item(index, row) for index, row in enumerate(rows)]

    def item(self, index: int, row: np.ndarray) -> dict[str, Any]:
        """Return one of them, in the form that was asked for."""
        packed = b64encode(row.astype("<f4").tobytes()).decode()
        packs = self.body.get("encoding_format") == "base64"
        return {
            "object": "embedding",
            "index": index,
            "embedding": packed if packs else rounded(row),
        }

    def list_of(self, items: Any) -> bytes:
        """Return the body of an answer with these vectors."""
        usage = {"prompt_tokens": 5 * len(self.texts), "total_tokens": 5 * len(self.texts)}
        return json.dumps({"object": "list", "data": items, "model": "m", "usage": usage}).encode()

    def good(self) -> bytes:
        """Return the body of a good answer."""
        if self.is_stream:
            return b"".join(self.events())
        if self.is_chat:
            return json.dumps(completion(self.texts[0])).encode()
        return self.list_of(self.items())

    def events(self) -> list[bytes]:
        """Return the events of a good stream."""
        usage = (self.body.get("stream_options") or {}).get("include_usage") is True
        return stream(self.texts[0], usage=usage)

    def head(
        self, status: str = "200 OK", *, length: int | None = None, more: bytes = b""
    ) -> bytes:
        """Return the head of an answer; without a length it is chunked."""
        kind = (
            b"text/event-stream" if self.is_stream and status == "200 OK" else b"application/json"
        )
        size = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
        lines = b"content-type: %b\r\n%b\r\n%b%b\r\n" % (kind, size, self.headers, more)
        return b"HTTP/1.1 %b\r\n%b" % (status.encode(), lines)

    def whole(self) -> bytes:
        """Return a good answer as it goes over the wire."""
        body = self.good()
        return self.head(length=len(body)) + body

    async def answer(self, body: bytes, status: str = "200 OK", more: bytes = b"") -> None:
        """Send a whole answer."""
        await self.send(self.head(status, length=len(body), more=more) + body)

    async def send(self, data: bytes) -> None:
        """Send some bytes; raise HangUpError where nobody is there any more."""
        if self.writer.transport.is_closing():
            raise HangUpError
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Break the connection off without a goodbye."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()
        raise HangUpError


def rounded(row: np.ndarray) -> list[float]:
    """Return a vector as the numbers that JSON has for it."""
    return [float(number) for number in row]


def words(text: str) -> str:
    """Return what is said to a text."""
    return f"what there is to be said to {text!r}, and nothing else"


def completion(text: str) -> dict[str, Any]:
    """Return a good answer to a chat."""
    message = {"role": "assistant", "content": words(text)}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
            "usage": usage}  # fmt: skip


def stream(text: str, *, usage: bool) -> list[bytes]:
    """Return the events of the same answer as a stream: its role, words, end, tokens and [DONE]."""
    said = words(text)
    deltas: list[Any] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": said[at : at + 9]} for at in range(0, len(said), 9)]
    chunks = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    chunks.append([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    whole: list[dict[str, Any]] = [{**head, "choices": choices} for choices in chunks]
    if usage:
        tokens = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
        whole.append({**head, "choices": [], "usage": tokens})
    return [event(chunk) for chunk in whole] + [b"data: [DONE]\n\n"]


def event(chunk: Any) -> bytes:
    """Return an event with this JSON."""
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def unit(text: str) -> bytes:
    """Return the vector of a text as the gateway has to answer it, as float32."""
    row = truth("m", text, WIDTH).astype(np.float64)
    return (row / np.linalg.norm(row)).astype("<f4").tobytes()


class Faulty:
    """Listens on a port of its own, for as long as the block runs."""

    def __init__(self, strike: Callable[[Call], Awaitable[None]]) -> None:
        """`strike` does what a call's text says; not asked for texts of the kind WELL."""
        self.healthy = False
        self.done: Counter[str] = Counter()
        """Faults that were had, by kind."""
        self.port = 0
        self._strike = strike
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (HangUpError, OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with suppress(*gone):
            while True:
                await self._answer(Call(await _read(reader), writer))
        writer.close()

    async def _answer(self, call: Call) -> None:
        if self.healthy or call.kind == WELL:
            await call.send(call.whole())
            return
        self.done[call.kind] += 1
        await self._strike(call)


async def _read(reader: asyncio.StreamReader) -> Mapping[str, Any]:
    first = await reader.readexactly(1)
    if first == _TLS:
        raise HangUpError
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            body: Mapping[str, Any] = json.loads(await reader.readexactly(int(value)))
            return body
    raise HangUpError
