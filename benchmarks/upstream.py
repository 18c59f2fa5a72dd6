"""A server that answers like OpenAI's embeddings: `python -m benchmarks.upstream PORT [SECONDS]`.

It answers at once, or after so many seconds, however many ask.
Its answers to single texts are made once. It knows the body's fields that decide an answer's form;
it does not know HTTP beyond Content-Length, and its vectors say nothing of the texts.

`GET` of any path returns how many texts and calls there were, as JSON.
"""

import asyncio
import base64
import sys

import msgspec
import numpy as np
import uvloop

WIDTH = 1536
MODEL = "text-embedding-3-small"


class _Asked(msgspec.Struct):
    input: str | list[str]
    encoding_format: str = "float"


_decode = msgspec.json.Decoder(_Asked).decode


class Answers:
    """Ready-made answers: 64 vectors that take turns, and the whole answer for a single text."""

    def __init__(self) -> None:
        rows = np.random.default_rng(1).standard_normal((64, WIDTH)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        self._forms = {
            "base64": [b'"%b"' % base64.b64encode(row.tobytes()) for row in rows],
            "float": [msgspec.json.encode(row.tolist()) for row in rows],
        }
        self._single = {form: self._whole(form, 1) for form in self._forms}
        self.calls = 0

    def answer(self, body: bytes) -> bytes:
        """Return the whole HTTP answer to a request's body."""
        asked = _decode(body)
        self.calls += 1
        if isinstance(asked.input, str) or len(asked.input) == 1:
            return self._single[asked.encoding_format]
        return self._whole(asked.encoding_format, len(asked.input))

    def count(self) -> bytes:
        """Return the HTTP answer that tells the calls so far."""
        return _http(b'{"calls":%d}' % self.calls)

    def _whole(self, form: str, count: int) -> bytes:
        vectors = self._forms[form]
        item = b'{"object":"embedding","index":%d,"embedding":%b}'
        items = b",".join(item % (place, vectors[place % 64]) for place in range(count))
        usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (8 * count, 8 * count)
        body = b'{"object":"list","data":[%b],"model":"%b","usage":%b}'
        return _http(body % (items, MODEL.encode(), usage))


def _http(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


class _Connection(asyncio.Protocol):
    def __init__(self, answers: Answers, delay: float) -> None:
        self._answers = answers
        self._delay = delay
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = self._data[:end].lower()
        delay = 0.0
        if head.startswith(b"get "):
            answer = self._answers.count()
        else:
            delay = self._delay
            at = head.find(b"\r\ncontent-length:")
            if len(self._data) < end + int(head[at + 17 : head.find(b"\r", at + 2)]):
                return
            answer = self._answers.answer(self._data[end:])
        self._data = b""
        if delay:
            asyncio.get_running_loop().call_later(delay, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: bytes) -> None:
        self._transport.write(answer)  # type: ignore[attr-defined]


async def main(port: int, delay: float = 0.0) -> None:
    """Serve until killed."""
    answers = Answers()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answers, delay), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *map(float, sys.argv[2:])))
