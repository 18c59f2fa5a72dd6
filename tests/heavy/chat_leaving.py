"""Clients that leave their chats at any chunk, over real HTTP: nothing of them may be left over.

    python -m tests.heavy.chat_leaving [--requests 1000]

Visitors ask for streams and JSON, seeded and not, several for the same answer at a time, and many
leave: before the headers, at some chunk, at [DONE]. The gateway runs in this process and is looked
into when all have gone: no task, connection or recording may be there that was not there before,
and no upstream call may outlive those who read it. Whoever stays must be told a whole answer, and
all who asked for one that is kept the same.
"""

import argparse
import asyncio
import gc
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from gateway.chat.recording import Recording
from gateway.config import parse
from tests import upstream_chat_behaviours as chat_behave
from tests.chatting import body_of, chat_model, chunks
from tests.running import Running
from tests.upstream import FakeOpenAI, serve

VISITORS = 16
ABREAST = 8
"""Seeds that are asked for at a time."""
SLOW = 0.002
"""Seconds before each chunk."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run saw."""

    stayed: int
    left: int
    calls: int
    called_off: int
    slowest: float
    """Seconds from the last reader's leaving until the gateway was empty."""

    def told(self) -> str:
        """Return it in a line."""
        return (
            f"{self.stayed:,} read their answers to the end, {self.left:,} left; "
            f"{self.calls:,} upstream calls, {self.called_off:,} called off; nothing left over "
            f"after {self.slowest * 1000:.0f} ms"
        )


def run(
    directory: Path, requests: int, *, seed: int, progress: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Let so many come. Raises AssertionError for a broken answer, or what is left over."""
    uvloop.run(asyncio.sleep(0))  # what the library opens, it keeps
    fake = FakeOpenAI()
    fake.chat.always(chat_behave.slow(SLOW))
    with serve(fake), _gateway(directory, fake.base_url) as running:
        crowd = _Crowd(running.port, seed)
        uvloop.run(crowd.come(4, staying=1.0))
        running.wait_until(lambda: not running.servers[0].server_state.connections)
        before, slowest = look_into(running), 0.0
        for begun in range(0, requests, 100):
            uvloop.run(crowd.come(min(100, requests - begun), staying=0.4))
            slowest = max(slowest, _emptied(running, before, fake))
            progress(f"{begun + 100:,} requests")
        called_off = sum(call.ended == "left" for call in fake.chat.calls)
        calls = len(fake.chat.calls)
    assert called_off, "no upstream call was called off"
    return Outcome(crowd.stayed, crowd.left, calls, called_off, slowest)


def _emptied(running: Running, before: Mapping[str, int], fake: FakeOpenAI) -> float:
    """Wait until the gateway is as it was, and its upstream has no call; return the seconds."""
    clock = asyncio.new_event_loop()
    began = clock.time()
    try:
        running.wait_until(
            lambda: all(call.ended for call in fake.chat.calls) and look_into(running) == before
        )
        return clock.time() - began
    except TimeoutError:
        raise AssertionError(f"left over: {before} became {look_into(running)}") from None
    finally:
        clock.close()


def look_into(running: Running) -> Mapping[str, int]:
    """Return what the gateway has to do with chats now."""
    server = running.servers[0]
    loop = server.servers[0].get_loop()

    async def count_tasks() -> int:
        return len(asyncio.all_tasks()) - 1

    tasks = asyncio.run_coroutine_threadsafe(count_tasks(), loop).result(10)
    gc.collect()
    recordings = sum(isinstance(thing, Recording) for thing in gc.get_objects())
    requests = len(server.server_state.tasks)
    return {"tasks": tasks, "requests": requests, "recordings": recordings}


@contextmanager
def _gateway(directory: Path, base_url: str) -> Iterator[Running]:
    rest = f'[cache]\nstore = "sqlite://{directory / "cache.db"}"'
    config = parse(chat_model(base_url, rest=rest), source=None, environ={}, base_dir=directory)
    running = Running(config, directory).start()
    try:
        yield running
    finally:
        running.stop()
        running.join()


class _Crowd:
    """Visitors of a gateway, and what they were told."""

    def __init__(self, port: int, seed: int) -> None:
        self.begun = self.stayed = self.left = 0
        self._port = port
        self._chance = random.Random(seed)
        self._told: dict[int, str] = {}

    async def come(self, requests: int, *, staying: float) -> None:
        """Make so many requests, of which a part stays to the end."""
        end = self.begun + requests
        async with asyncio.TaskGroup() as group:
            for _ in range(VISITORS):
                group.create_task(self._visit(end, staying))

    async def _visit(self, end: int, staying: float) -> None:
        while self.begun < end:
            self.begun += 1
            # Two thirds ask for what others ask for too.
            shared = self._chance.random() < 0.66
            seed = self.begun // ABREAST if shared else None
            stream = self._chance.random() < 0.7
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            body = body_of(stream=stream, seed=seed)
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n"
            writer.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
            if self._chance.random() < staying:
                await self._stay(reader, seed, stream=stream)
            else:
                await self._leave(reader)
            writer.transport.abort() if self._chance.random() < 0.5 else writer.close()

    async def _stay(self, reader: asyncio.StreamReader, seed: int | None, *, stream: bool) -> None:
        async with asyncio.timeout(60):
            answer = await reader.read()
        head, _, told = answer.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            told = _unchunked(told)
        assert head.startswith(b"HTTP/1.1 200"), answer[:500]
        assert b"error" not in told, told[-500:]
        assert not stream or b"data: [DONE]" in told, told[-500:]
        self.stayed += 1
        if seed is not None:
            words = _words(told, stream=stream)
            assert self._told.setdefault(seed, words) == words, f"seed {seed} has two answers"

    async def _leave(self, reader: asyncio.StreamReader) -> None:
        pieces = self._chance.choice((0, 0, 1, 2, 3, 5, 8, 40))
        if not pieces:
            await asyncio.sleep(0.03 * self._chance.random())
        for _ in range(pieces):
            if not await reader.read(300):
                break
        self.left += 1


def _unchunked(body: bytes) -> bytes:
    """Return a body that was sent in chunks."""
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return whole


def _words(told: bytes, *, stream: bool) -> str:
    """Return what an answer says."""
    if not stream:
        return str(msgspec.json.decode(told)["choices"][0]["message"]["content"])
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in chunks(told)
        for choice in chunk["choices"]
    )


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        outcome = run(
            Path(directory),
            asked.requests,
            seed=asked.seed,
            progress=lambda line: print(line, file=sys.stderr),
        )
    sys.stdout.write(f"{outcome.told()}\n")


if __name__ == "__main__":
    main()
