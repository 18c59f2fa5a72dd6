"""Clients that leave whenever they like, over real HTTP: nothing of them may be left over.

    python -m tests.heavy.cancels [--requests 100000]

The gateway runs in this process on its own loop, over a SQLite file and a Redis, and is looked
into when all have gone: no task, flight, connection, thread or descriptor may be there that was
not there before. What was read by those who stayed is checked text by text, see `crowd`.
"""

import argparse
import asyncio
import gc
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from gateway.cache.flight import Flight
from gateway.config import parse
from tests.heavy.crowd import Crowd, TellingUpstream
from tests.redis_server import RedisServer, serve_redis
from tests.running import Running, one_model
from tests.served import serve

VISITORS = 32
STAYING = 0.4
SLOWEST = 0.1
"""Seconds in which the upstream answers, and in which clients leave: more than all else takes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run saw."""

    requests: int
    left: Mapping[str, int]
    noticed: int
    """Requests that the gateway counted as left by their client."""
    vectors: int
    unshared: int
    calls: int
    given_up: int
    """Upstream calls that were called off, as everybody had left."""
    seconds: float

    def told(self) -> str:
        """Return it in a few lines."""
        left = ", ".join(f"{number:,} {how}" for how, number in self.left.items())
        return (
            f"{self.requests:,} requests in {self.seconds:.0f} s, "
            f"{self.requests / self.seconds:,.0f}/s; left: {left} ({self.noticed:,} of them were "
            f"running); {self.vectors:,} vectors read, each right; {self.calls:,} upstream calls, "
            f"{self.given_up:,} called off; nothing left over"
        )


def run(
    directory: Path, requests: int, *, seed: int, progress: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Let so many requests come. Raises AssertionError for a wrong answer, or what is left over."""
    # Some of what libraries open, they keep: it is there before we count.
    uvloop.run(asyncio.sleep(0))
    with serve_redis(directory / "redis") as redis:
        descriptors, threads = _descriptors(), threading.active_count()
        upstream = TellingUpstream(seed, longest=SLOWEST)
        with serve(upstream) as served, _gateway(directory, redis, served.address) as running:
            crowd = Crowd(running.port, seed, patience=SLOWEST)
            uvloop.run(crowd.come(10, visitors=1, staying=1.0))
            running.wait_until(lambda: not running.servers[0].server_state.connections)
            before = _look_into(running)
            began = time.monotonic()
            for part in _parts(requests):
                uvloop.run(crowd.come(part, visitors=VISITORS, staying=STAYING))
                progress(f"{crowd.begun:,} requests, {crowd.vectors:,} vectors read")
            seconds = time.monotonic() - began
            try:
                running.wait_until(lambda: not upstream.under_way and _look_into(running) == before)
            except TimeoutError:
                after = _look_into(running)
                raise AssertionError(f"left over: {before} became {after}") from None
            noticed = running.metric("gateway_requests_total", code="499")
            given_up = running.metric("gateway_upstream_requests_total", outcome="cancelled")
        left = {
            "descriptors": _descriptors() - descriptors,
            "threads": threading.active_count() - threads,
            "flights": _flights(),
            "connections to Redis": len(redis.admin.client_list()) - 1,
        }
    assert not any(more > 0 for more in left.values()), f"left over: {left}"
    assert given_up, "no upstream call was called off"
    return Outcome(
        requests=requests,
        left=crowd.left,
        noticed=int(noticed),
        vectors=crowd.vectors,
        unshared=crowd.unshared,
        calls=upstream.calls,
        given_up=int(given_up),
        seconds=seconds,
    )


@contextmanager
def _gateway(directory: Path, redis: RedisServer, upstream: str) -> Iterator[Running]:
    rest = f'[cache]\nstore = ["sqlite://{directory / "cache.db"}", "{redis.url}"]'
    toml = one_model(f"{upstream}/v1", rest=rest)
    config = parse(toml, source=None, environ={}, base_dir=directory)
    running = Running(config, directory).start()
    try:
        yield running
    finally:
        running.stop()
        running.join()


def _look_into(running: Running) -> Mapping[str, int]:
    """Return what the gateway has to do with requests now."""
    server = running.servers[0]
    loop = server.servers[0].get_loop()

    async def count_tasks() -> int:
        return len(asyncio.all_tasks()) - 1

    return {
        "tasks": asyncio.run_coroutine_threadsafe(count_tasks(), loop).result(10),
        "requests": len(server.server_state.tasks),
        "connections": len(server.server_state.connections),
        "flights": _flights(),
    }


def _flights() -> int:
    gc.collect()
    return sum(isinstance(thing, Flight) for thing in gc.get_objects())


def _descriptors() -> int:
    gc.collect()  # what was left open by others before may be closed now
    return len(list(Path("/proc/self/fd").iterdir()))


def _parts(requests: int, part: int = 10_000) -> Iterator[int]:
    for first in range(0, requests, part):
        yield min(part, requests - first)


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
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
