"""Two tenants, everything mixed, one Redis: nothing of the one ever reaches the other.

    python -m tests.heavy.tenants [--requests 100000] [--seed 1]

Two gateways answer both at the same time: at one the tenants are keys of the config, at the other
callers bring keys of their own, which are sent on. The upstream marks whatever it answers with who
asked (see `marks`), so each tenant has other vectors for the same text, and is told other words.
Clients ask for few texts, so that many meet: hits in memory and in Redis, calls under way, misses;
they want floats or base64, fewer dimensions, fresh answers, chats with and without a seed, streams,
and leave whenever they like. Everything that is read is compared.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from gateway.vectors import unit
from tests.heavy.marks import SLOWEST, MarkingUpstream, said, vector
from tests.processes import gateway_process
from tests.redis_server import serve_redis
from tests.served import serve

SHORT = 8
TENANTS = {"red": "red-key-0123456789", "blue": "blue-key-987654321"}
CLIENTS = 16
"""That ask at the same time, at each gateway."""
_POOL = 60
"""Texts that are asked for at a time; with every hundred requests some of them are others."""
_LEAVING = 0.1
"""Part of the clients that leave before they are answered, perhaps."""
_CONTROLS = ("", "", "", "", "no-cache", "no-store", "max-age=0")
_PART = 5000
_LIMITS = "requests_per_minute = 100000000\ntokens_per_minute = 100000000\nusd_per_day = 1000"


@dataclass
class Seen:
    """What clients saw."""

    requests: int = 0
    left: int = 0
    vectors: int = 0
    chats: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    """Answers by what their Cache-Status says of the cache."""

    def told(self) -> str:
        """Return it in a line."""
        sources = ", ".join(f"{count:,} {source}" for source, count in sorted(self.sources.items()))
        return (
            f"{self.requests:,} requests, {self.left:,} left; {self.vectors:,} vectors and "
            f"{self.chats:,} chats read ({sources}), each its tenant's own"
        )


def run(
    directory: Path, requests: int, *, seed: int, progress: Callable[[str], None] = lambda _: None
) -> Seen:
    """Let so many requests come. Raises AssertionError for anything of another tenant's."""
    upstream = MarkingUpstream({key: name for name, key in TENANTS.items()}, seed)
    with serve(upstream) as served, serve_redis(directory / "redis") as redis, ExitStack() as stack:
        base_urls = [
            stack.enter_context(gateway_process(_config(served.address, redis.url, kind))).base_url
            for kind in ("keys", "forwarding")
        ]
        crowd = Crowd(seed)
        while crowd.seen.requests < requests:
            part = min(_PART, requests - crowd.seen.requests)
            asyncio.run(crowd.come(base_urls, part))
            progress(f"{crowd.seen.told()}; {upstream.calls:,} upstream calls")
    return crowd.seen


def _config(upstream: str, store: str, kind: str) -> str:
    keys = "".join(
        f'[[keys]]\nname = "{name}"\ntenant = "{name}"\nsecret = "{key}"\n{_LIMITS}\n'
        for name, key in TENANTS.items()
    )
    return f"""
        [server]
        drift_every = "0s"
        drain_delay = "0s"
        [cache]
        memory = "200KiB"
        store = "{store}"
        {keys if kind == "keys" else ""}
        [upstreams.far]
        base_url = "{upstream}/v1"
        kind = "openai"
        {"forward_key = true" if kind == "forwarding" else ""}
        [models.m]
        task = "embedding"
        upstreams = ["far"]
        dimensions = "any"
        price = 1
        [models.c]
        task = "chat"
        upstreams = ["far"]
        price = {{ input = 1, output = 1 }}
    """


class Crowd:
    """Clients of both tenants, at both gateways."""

    def __init__(self, seed: int) -> None:
        self.seen = Seen()
        self._chance = random.Random(seed)

    async def come(self, base_urls: Sequence[str], requests: int) -> None:
        """Make so many requests. Raises AssertionError for a wrong answer."""
        end = self.seen.requests + requests
        connections = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(connector=connections) as session,
            asyncio.TaskGroup() as group,
        ):
            for base_url in base_urls:
                for _ in range(CLIENTS):
                    group.create_task(self._visit(session, base_url, end))

    async def _visit(self, session: aiohttp.ClientSession, base_url: str, end: int) -> None:
        chance = self._chance
        while self.seen.requests < end:
            self.seen.requests += 1
            tenant = chance.choice(list(TENANTS))
            ask = self._embed if chance.random() < 0.6 else self._chat
            patience = chance.random() * SLOWEST if chance.random() < _LEAVING else 60.0
            try:
                async with asyncio.timeout(patience):
                    await ask(session, base_url, tenant)
            except TimeoutError:
                assert patience < 60.0, "an answer did not come"
                self.seen.left += 1

    def _text(self) -> str:
        newest = self.seen.requests // 20 + _POOL
        return f"text {self._chance.randrange(newest - _POOL, newest)}"

    async def _embed(self, session: aiohttp.ClientSession, base_url: str, tenant: str) -> None:
        chance = self._chance
        texts = [self._text() for _ in range(chance.choice((1, 1, 1, 3, 8)))]
        short, base64 = chance.random() < 0.2, chance.random() < 0.5
        body: dict[str, Any] = {"model": "m", "input": texts, "user": tenant}
        body["encoding_format"] = "base64" if base64 else "float"
        if short:
            body["dimensions"] = SHORT
        if chance.random() < 0.2:
            body["seed"] = chance.randrange(2)
        answer = json.loads(await self._post(session, f"{base_url}/embeddings", tenant, body))
        for text, item in zip(texts, answer["data"], strict=True):
            found = item["embedding"]
            got = np.frombuffer(b64decode(found), "<f4") if base64 else np.array(found, "<f4")
            assert np.allclose(got, _right(tenant, text, short=short), atol=1e-6), (
                f"a vector of '{text}' at {base_url} is not that of {tenant}"
            )
            self.seen.vectors += 1

    async def _chat(self, session: aiohttp.ClientSession, base_url: str, tenant: str) -> None:
        chance = self._chance
        prompt = self._text()
        body: dict[str, Any] = {"model": "c", "user": tenant, "stream": chance.random() < 0.5}
        body["messages"] = [{"role": "user", "content": prompt}]
        if chance.random() < 0.7:
            body["seed"] = 1
        if body["stream"] and chance.random() < 0.5:
            body["stream_options"] = {"include_usage": True}
        answer = await self._post(session, f"{base_url}/chat/completions", tenant, body)
        marks, words = _heard(answer) if body["stream"] else _read(answer)
        assert marks == {tenant}, f"{tenant} was told what is {marks}'s at {base_url}"
        assert words == said(tenant, prompt), f"{tenant} was told '{words}'"
        self.seen.chats += 1

    async def _post(
        self, session: aiohttp.ClientSession, url: str, tenant: str, body: dict[str, Any]
    ) -> bytes:
        headers = {"authorization": f"Bearer {TENANTS[tenant]}"}
        if control := self._chance.choice(_CONTROLS):
            headers["cache-control"] = control
        async with session.post(url, json=body, headers=headers) as response:
            answer = await response.read()
            assert response.status == 200, f"{response.status}: {answer[:300]!r}"
            status = response.headers["cache-status"]
            self.seen.sources[status.split(";")[1].strip()] += 1
            return answer


def _right(tenant: str, text: str, *, short: bool) -> np.ndarray:
    whole = unit(vector(tenant, text))
    return unit(whole[:SHORT].copy()) if short else whole


def _read(answer: bytes) -> tuple[set[str], str]:
    """Return whose a whole answer is, and what it says."""
    whole = json.loads(answer)
    return {whole["system_fingerprint"]}, whole["choices"][0]["message"]["content"]


def _heard(stream: bytes) -> tuple[set[str], str]:
    """Return whose chunks are in a stream, and what they say."""
    lines = [line.removeprefix(b"data: ") for line in stream.split(b"\n") if line.strip()]
    assert lines[-1] == b"[DONE]", "a stream was cut"
    chunks = [json.loads(line) for line in lines[:-1]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return {chunk["system_fingerprint"] for chunk in chunks}, "".join(
        delta.get("content") or "" for delta in deltas
    )


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tenants-") as made:
        seen = run(
            Path(made),
            asked.requests,
            seed=asked.seed,
            progress=lambda line: print(line, file=sys.stderr),
        )
    sys.stdout.write(f"{seen.told()}; {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
