"""A crowd that asks one gateway over plain sockets, and of which many leave before the end.

Each visitor takes texts that others ask for at the same time too, so that those who leave share
upstream calls with those who stay. What is read is checked: a vector tells whose it is.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from gateway.vectors import to_base64
from tests.heavy.storm import telling

HOW = ("in the head", "in the body", "while waiting", "while reading")
"""When somebody leaves."""
_ABREAST = 200
"""Texts that are asked for at a time; with every request one is left behind and a new one comes."""
_ALONE = 2**24
"""Numbers from here on are asked for once."""


class TellingUpstream:
    """An ASGI app that answers with vectors that tell whose they are, after a while."""

    def __init__(self, seed: int, longest: float) -> None:
        """An answer takes up to `longest` seconds."""
        self.under_way = 0
        self.calls = 0
        self.draws = 0
        self._chance = random.Random(seed)
        self._longest = longest

    async def __call__(self, scope, receive, send) -> None:
        """Speak ASGI."""
        if scope["type"] != "http":
            return
        self.under_way += 1
        self.calls += 1
        try:
            await self._answer(receive, send)
        finally:
            self.under_way -= 1

    async def _answer(self, receive, send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        asked = msgspec.json.decode(body)
        await asyncio.sleep(self._longest * self._chance.random() ** 2)
        texts = asked["input"]
        draws = range(self.draws, self.draws + len(texts))
        self.draws += len(texts)
        rows = telling.drawn([telling.number_of(text) for text in texts], draws)
        data = [
            {"index": index, "embedding": msgspec.Raw(to_base64(row.tobytes()))}
            for index, row in enumerate(rows)
        ]
        answer = msgspec.json.encode({"data": data, "usage": {"prompt_tokens": 3 * len(texts)}})
        length = str(len(answer)).encode()
        head = {"status": 200, "headers": [(b"content-length", length)]}
        await send({"type": "http.response.start", **head})
        await send({"type": "http.response.body", "body": answer})


class _Item(msgspec.Struct):
    index: int
    embedding: msgspec.Raw


class _Answer(msgspec.Struct):
    data: list[_Item]


_decode = msgspec.json.Decoder(_Answer).decode


@dataclass(frozen=True, slots=True)
class _Request:
    numbers: list[int]
    base64: bool
    raw: bytes
    head: int
    """Bytes of the head in `raw`."""


_HANGS = 60.0
"""Seconds after which an answer counts as never coming."""

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_KNOCK = b"GET /health/live HTTP/1.1\r\nhost: gateway\r\n\r\n"


class Crowd:
    """Visitors of the gateway at a port, and what they saw."""

    def __init__(self, port: int, seed: int, patience: float) -> None:
        """Who leaves while waiting does so within `patience` seconds."""
        self.begun = 0
        self.vectors = 0
        """Vectors that were read and checked."""
        self.unshared = 0
        self.left: Counter[str] = Counter()
        self._port = port
        self._patience = patience
        self._chance = random.Random(seed)
        self._seen: dict[int, bytes] = {}

    async def come(self, requests: int, *, visitors: int, staying: float) -> None:
        """Make so many requests; a part of them, `staying`, is waited for.

        Raises AssertionError for an answer that is not what was asked for.
        """
        end = self.begun + requests
        async with asyncio.TaskGroup() as group:
            for _ in range(visitors):
                group.create_task(self._visit(end, staying))

    async def _visit(self, end: int, staying: float) -> None:
        line = await self._arrive()
        while self.begun < end:
            self.begun += 1
            request = self._request()
            if self._chance.random() < staying:
                await self._stay(request, *line)
            else:
                await self._leave(request)
                # Whoever leaves waits for nothing; a crowd of them would come ever quicker, and
                # be gone before the gateway has seen them.
                await _exchange(_KNOCK, *line)
            if self._chance.random() < 0.1:
                line[1].close()
                line = await self._arrive()
        line[1].close()

    async def _arrive(self) -> Line:
        return await asyncio.open_connection("127.0.0.1", self._port)

    def _request(self) -> _Request:
        chance = self._chance
        count = 100 if chance.random() < 0.02 else chance.randint(1, 4)
        # Some texts are nobody else's: their calls end with those who asked.
        first = self.begun if chance.random() < 0.6 else _ALONE + _ABREAST * self.begun
        numbers = chance.sample(range(first, first + _ABREAST), count)
        base64 = chance.random() < 0.5
        body = msgspec.json.encode(
            {
                "model": "m",
                "input": [telling.text(number) for number in numbers],
                "encoding_format": "base64" if base64 else "float",
            }
        )
        head = (
            b"POST /v1/embeddings HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        return _Request(numbers, base64, head + body, len(head))

    async def _leave(self, request: _Request) -> None:
        how = self._chance.choices(HOW, [1, 1, 6, 2])[0]
        reader, writer = await self._arrive()
        upto = len(request.raw)
        if how == "in the head":
            upto = self._chance.randrange(1, request.head)
        elif how == "in the body":
            upto = self._chance.randrange(request.head, upto)
        writer.write(request.raw[:upto])
        if how == "while reading":
            await reader.read(self._chance.randint(1, 4000))
        else:
            await asyncio.sleep(self._patience * self._chance.random())
        if self._chance.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()
        self.left[how] += 1

    async def _stay(
        self, request: _Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        fields, body = await _exchange(request.raw, reader, writer)
        items = _decode(body).data
        assert [item.index for item in items] == list(range(len(request.numbers)))
        rows = telling.sent([bytes(item.embedding) for item in items], base64=request.base64)
        numbers, _ = telling.told(rows)
        assert numbers == request.numbers, f"{request.numbers} were asked for, {numbers} came"
        self.vectors += len(rows)
        if b"unshared" in fields[b"cache-status"]:
            self.unshared += 1
            return
        for number, row in zip(numbers, rows, strict=True):
            bits = row.tobytes()
            assert self._seen.setdefault(number, bits) == bits, f"text {number} has two vectors"


async def _exchange(
    raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[Mapping[bytes, bytes], bytes]:
    """Return the head and the body of a good answer; raise AssertionError for any other."""
    writer.write(raw)
    async with asyncio.timeout(_HANGS):
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        body = await reader.readexactly(int(fields[b"content-length"]))
    assert head.startswith(b"HTTP/1.1 200"), f"{head!r} {body[:300]!r}"
    return fields, body
