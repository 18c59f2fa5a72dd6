"""A server that chats like OpenAI: `python -m benchmarks.chat_upstream PORT`.

An answer is `CHUNKS` chunks, each with the time it was written at for its words. What the model's
name begins with says how they come: `paced`, one every `PAUSE` seconds from the first on at once,
or `rushed`, each as soon as the loop has written the one before. Not streamed, the answer comes
after `WHOLE_PAUSE` seconds, with the time it was written at for its words.

`GET` of any path returns how many calls there were, as JSON.
"""

import asyncio
import sys
from time import perf_counter_ns
from typing import TYPE_CHECKING

import msgspec
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable

PACED, RUSHED = "paced", "rushed"
MODELS = (PACED, RUSHED)
CHUNKS = 50
PAUSE = 0.01
WHOLE_PAUSE = 0.2
STAMP = b"%019d"
"""Nanoseconds on the clock that all processes of a machine share."""

_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_CHUNK = (
    b'data: {"id":"chatcmpl-benchmark","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"%b","choices":[{"index":0,"delta":{%b},"finish_reason":%b}]}\n\n'
)
_USAGE = b'"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}'
_LAST = (
    b'data: {"id":"chatcmpl-benchmark","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"%b","choices":[],%b}\n\n'
)
_COMPLETION = (
    b'{"id":"chatcmpl-benchmark","object":"chat.completion","created":1700000000,"model":"%b",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"%b","refusal":null},'
    b'"logprobs":null,"finish_reason":"stop"}],%b}'
)


class _Options(msgspec.Struct):
    include_usage: bool = False


class _Asked(msgspec.Struct):
    model: str
    stream: bool = False
    stream_options: _Options | None = None


_decode = msgspec.json.Decoder(_Asked).decode


class _Calls:
    """How many there were on all connections."""

    count = 0


class _Connection(asyncio.Protocol):
    """Answers one request after the other."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._data = b""
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write: Callable[[bytes], None] = transport.write  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = self._data[:end].lower()
        if head.startswith(b"get "):
            self._data = b""
            body = b'{"calls":%d}' % self._calls.count
            self._write(_WHOLE % (len(body), body))
            return
        at = head.find(b"\r\ncontent-length:")
        if len(self._data) < end + int(head[at + 17 : head.find(b"\r", at + 2)]):
            return
        asked = _decode(self._data[end:])
        self._data = b""
        self._calls.count += 1
        answer = self._stream if asked.stream else self._whole
        self._answering = asyncio.get_running_loop().create_task(answer(asked))

    async def _stream(self, asked: _Asked) -> None:
        model = asked.model.encode()
        pause = PAUSE if asked.model.startswith(PACED) else 0.0
        options = asked.stream_options or _Options()
        self._write(_STREAM)
        for number in range(CHUNKS):
            role = b"" if number else b'"role":"assistant",'
            words = b'"content":"%b"' % (STAMP % perf_counter_ns())
            self._send(_CHUNK % (model, role + words, b"null"))
            await asyncio.sleep(pause)
        self._send(_CHUNK % (model, b"", b'"stop"'))
        if options.include_usage:
            self._send(_LAST % (model, _USAGE % (CHUNKS, CHUNKS + 9)))
        self._send(b"data: [DONE]\n\n")
        self._write(b"0\r\n\r\n")

    async def _whole(self, asked: _Asked) -> None:
        await asyncio.sleep(WHOLE_PAUSE)
        words = STAMP % perf_counter_ns()
        usage = _USAGE % (CHUNKS, CHUNKS + 9)
        body = _COMPLETION % (asked.model.encode(), words, usage)
        self._write(_WHOLE % (len(body), body))

    def _send(self, event: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(event), event))


async def main(port: int) -> None:
    """Serve until killed."""
    calls = _Calls()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(calls), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
