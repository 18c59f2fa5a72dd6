"""A client for long runs: light, concurrent, and strict about every answer.

async with open_asker(served.base_url) as asker:
    answer = await asker.ask(["one text", "another"])
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import msgspec

MODEL = "m"

_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Answer:
    """The vectors, as base64, and what was said of where they came from."""

    vectors: list[str]
    status: str
    """The header `Cache-Status`."""
    seconds: float
    """From the first byte sent to the last received."""

    @property
    def hit(self) -> bool:
        """Whether nothing went out for it."""
        return self.status.startswith("gateway; hit")

    @property
    def unshared(self) -> bool:
        """Whether a vector is provisional."""
        return "unshared" in self.status


class Asker:
    """Asks one gateway."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._url = f"{base_url}/embeddings"

    async def ask(self, texts: Sequence[str], **headers: str) -> Answer:
        """Return a good answer.

        Raises AssertionError for any other, and aiohttp.ClientError where there is none.
        """
        body = {"model": MODEL, "input": texts, "encoding_format": "base64"}
        began = time.perf_counter()
        async with self._session.post(self._url, json=body, headers=headers) as response:
            said = await response.read()
            seconds = time.perf_counter() - began
            assert response.status == 200, f"{response.status}: {said[:300]!r}"
            vectors = [item["embedding"] for item in _decode(said)["data"]]
            assert len(texts) == len(vectors)
            return Answer(vectors, response.headers["cache-status"], seconds)


@asynccontextmanager
async def open_asker(base_url: str) -> AsyncIterator[Asker]:
    """Ask the gateway at this address for as long as the block runs."""
    timeout = aiohttp.ClientTimeout(60)
    connections = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connections) as session:
        yield Asker(session, base_url)
