"""Reloads and restarts under load: whatever was accepted is answered, and by one config.

    python -m tests.heavy.changes [--reloads 200] [--restarts 50] [--workers 1] [--seed 1]

Clients embed texts, known and new, and read streams, while the config changes between two that have
nothing in common (see tests.heavy.sides), by SIGHUP; then while the gateway is stopped by SIGTERM
and started again, with either of them. A client tries again only where its connection was refused.
"""

import argparse
import asyncio
import os
import random
import signal
import socket
import sys
import tempfile
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import msgspec
import numpy as np
import uvloop

from tests.heavy.sides import EVENTS, SIDES, SLOW, MarkedUpstreams, config
from tests.processes import GatewayProcess, gateway_process
from tests.served import serve

EMBEDDING, STREAMING = 8, 3
"""Clients of each kind; streams are quick and slow."""
_KNOWN = 50
_HANGS = 60.0
"""Seconds after which an answer counts as never coming."""


class Clients:
    """All who ask, and what they saw."""

    def __init__(self, port: int, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.phase = ""
        """What is being done to the gateway."""
        self.side: str | None = None
        """The config that every request meets that begins and is answered in this phase."""
        self._url = f"http://127.0.0.1:{port}/v1"
        self._chance = random.Random(seed)
        self._stored: dict[tuple[str, str], str] = {}
        self._over = False
        self._numbers = 0

    async def run(self) -> None:
        """Ask until `end`."""
        timeout = aiohttp.ClientTimeout(_HANGS)
        kept = aiohttp.TCPConnector(limit=0)
        # A stream that is ended could not say in its head that its connection would be closed.
        fresh = aiohttp.TCPConnector(limit=0, force_close=True)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=kept) as kept_open,
            aiohttp.ClientSession(timeout=timeout, connector=fresh) as closed,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(EMBEDDING):
                group.create_task(self._go_on(kept_open, self._embed))
            for _ in range(STREAMING):
                group.create_task(self._go_on(kept_open, self._stream_quickly))
                group.create_task(self._go_on(closed, self._stream_slowly))

    def end(self) -> None:
        """Begin nothing more."""
        self._over = True

    async def _go_on(self, session: aiohttp.ClientSession, ask: Callable) -> None:
        while not self._over:
            try:
                await ask(session)
            except aiohttp.ClientConnectorError:
                # Nobody took the connection: between two gateways.
                self.counts["refused"] += 1
                await asyncio.sleep(0.02)
            except (AssertionError, aiohttp.ClientError, TimeoutError) as failure:
                self.failures.append(f"{self.phase}: {type(failure).__name__}: {failure}")
                await asyncio.sleep(0.02)

    def _who(self) -> tuple[str, str | None]:
        """Return a key and the only side that takes it, if it is not for both."""
        own = self._chance.choice([None, None, None, *SIDES])
        return f"key-of-{own or 'both'}", own

    async def _embed(self, session: aiohttp.ClientSession) -> None:
        key, own = self._who()
        model = f"only-{own}" if own else "both"
        texts = [f"known {self._chance.randrange(_KNOWN)}" for _ in range(2)]
        if self._chance.random() < 0.5:
            self._numbers += 1
            texts += [f"new {self._numbers} {place}" for place in range(3)]
        body = {"model": model, "input": texts, "encoding_format": "base64"}
        headers = {"authorization": f"Bearer {key}"}
        phase = self.phase
        async with session.post(f"{self._url}/embeddings", json=body, headers=headers) as answer:
            expected = self.side if phase == self.phase else None
            said = await answer.read()
        if answer.status == 401 and own is not None and expected != own:
            self.counts["other config's key"] += 1
            return
        assert answer.status == 200, f"{answer.status} {said[:300]!r}"
        vectors = [item["embedding"] for item in msgspec.json.decode(said)["data"]]
        sides = {side_of(vector) for vector in vectors}
        assert len(sides) == 1, f"vectors of {sides} in one answer"
        (side,) = sides
        assert expected in (None, side), f"{side} answered under {expected}"
        assert own in (None, side), f"{side} answered to {key}"
        for text, vector in zip(texts, vectors, strict=True):
            assert self._stored.setdefault((side, text), vector) == vector, (
                f"{text} has two vectors"
            )
        self.counts[answer.headers["cache-status"].partition(";")[2].split(";")[0].strip()] += 1

    async def _stream_quickly(self, session: aiohttp.ClientSession) -> None:
        await self._stream(session, "quickly")

    async def _stream_slowly(self, session: aiohttp.ClientSession) -> None:
        await self._stream(session, SLOW)

    async def _stream(self, session: aiohttp.ClientSession, prompt: str) -> None:
        key, own = self._who()
        body = {
            "model": f"only-{own}" if own else "both",
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
        }
        if self._chance.random() < 0.3:
            body["seed"] = self._chance.randrange(10**6) if self._chance.random() < 0.5 else 1
        phase = self.phase
        headers = {"authorization": f"Bearer {key}"}
        url = f"{self._url}/chat/completions"
        async with session.post(url, json=body, headers=headers) as answer:
            expected = self.side if phase == self.phase else None
            said = await answer.read()
        if answer.status == 401 and own is not None and expected != own:
            self.counts["other config's key"] += 1
            return
        if answer.status == 503 and b"shutting_down" in said:
            # Accepted, not begun, and out of time: said as it should be.
            self.counts["streams refused at the deadline"] += 1
            return
        assert answer.status == 200, f"{answer.status} {said[:300]!r}"
        *events, last = said.decode().strip().split("\n\n")
        if last == "data: [DONE]":
            self.counts["streams"] += 1
        else:
            error = msgspec.json.decode(last.removeprefix("data: "))
            assert error["error"]["code"] == "shutting_down", said[-300:]
            self.counts["streams ended by an error event"] += 1
        told = [msgspec.json.decode(event.removeprefix("data: ")) for event in events]
        words = "".join(each["choices"][0]["delta"].get("content") or "" for each in told)
        assert last != "data: [DONE]" or len(words) == EVENTS, f"the whole was {words}"
        sides = set(words)
        assert len(sides) <= 1, f"chunks of {sides} in one stream"
        assert not sides or expected in (None, *sides), f"{sides} answered under {expected}"
        assert not sides or own in (None, *sides), f"{sides} answered to {key}"


def side_of(vector: str) -> str:
    """Return whose upstream has made a vector."""
    return "a" if np.frombuffer(b64decode(vector), "<f4")[0] > 0 else "b"


class Gateways:
    """One gateway after the other, on one port."""

    def __init__(self, text: Callable[[str], str], port: int) -> None:
        """`text` is the config of a side."""
        self._text = text
        self._port = port
        self._running = ExitStack()
        self._served: GatewayProcess | None = None

    def start(self, side: str) -> None:
        """Start one with this side's config, and return when it is ready."""
        begun = gateway_process(self._text(side), "--port", str(self._port))
        self._served = self._running.enter_context(begun)

    def reload(self, side: str) -> None:
        """Have it go over to this side, and return when it has."""
        assert self._served is not None
        self._served.reload(self._text(side))

    def stop(self) -> None:
        """Send SIGTERM; raise AssertionError where it does not end well."""
        assert self._served is not None
        os.kill(self._served.pid, signal.SIGTERM)
        self._served.ends_well()
        self._running.close()


async def run(*, reloads: int, restarts: int, workers: int, seed: int) -> tuple[Clients, float]:
    """Reload, then restart, under load.

    Returns what the clients saw, and the seconds that a reload took, and the pause after it.
    """
    upstreams = MarkedUpstreams(seed)
    with tempfile.TemporaryDirectory(prefix="gw-") as folder, serve(upstreams) as served:
        store, port = Path(folder, "cache.db"), free_port()
        gateways = Gateways(lambda side: config(side, served.address, store, workers=workers), port)
        clients = Clients(port, seed)
        await asyncio.to_thread(gateways.start, "a")
        asking = asyncio.create_task(clients.run())
        began = time.monotonic()
        for number in range(reloads):
            side = SIDES[(number + 1) % 2]
            clients.side, clients.phase = None, f"reload {number}"
            await asyncio.to_thread(gateways.reload, side)
            clients.side, clients.phase = side, f"after reload {number}"
            await asyncio.sleep(0.05)
        clients.side = None
        took = (time.monotonic() - began) / max(1, reloads)
        for number in range(restarts):
            clients.phase = f"restart {number}"
            await asyncio.to_thread(gateways.stop)
            await asyncio.to_thread(gateways.start, SIDES[number % 2])
            await asyncio.sleep(0.3)
        clients.end()
        await asking
        await asyncio.to_thread(gateways.stop)
    clients.failures += upstreams.mixed
    return clients, took


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    clients, took = uvloop.run(
        run(
            reloads=asked.reloads,
            restarts=asked.restarts,
            workers=asked.workers,
            seed=asked.seed,
        )
    )
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(clients.counts.items()))
    sys.stdout.write(
        f"{asked.reloads} reloads ({1000 * took:.0f} ms each, pauses included) and "
        f"{asked.restarts} restarts: {counts}; {len(clients.failures)} failures\n"
    )
    assert not clients.failures, clients.failures[:20]


if __name__ == "__main__":
    main()
