"""Promises P2 and P4 in races: equal texts asked for at once get one vector, and few calls.

    python -m tests.heavy.races [--requests 1000] [--texts 2000]

The upstream never says the same twice. First one gateway is asked one thing by everybody at once;
then gateways and workers of several processes, on one Redis and on one SQLite file, race for the
same texts, are started again without memory, and still have the vectors that won.
"""

import argparse
import asyncio
import random
import resource
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.config import parse
from gateway.vectors import unit
from tests.asking import Answer, Asker, open_asker
from tests.processes import gateway_process
from tests.redis_server import serve_redis
from tests.running import QUIET, Running, one_model
from tests.upstream import FakeOpenAI, serve
from tests.upstream_behaviours import slow

WIDTH, NOISE = 64, 0.01
_LONGEST = 40
_BEFORE = "before the race"
_TRIES = 10
_CLIENTS = 12
"""For each worker; connections come to any worker of a gateway, so it takes some to reach all."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a race."""

    texts: int
    workers: int
    answered: int
    """Vectors that were answered while it lasted."""
    asked: int
    """Texts that the upstream was asked for."""
    raced: int
    """Texts that more than one worker asked for."""
    unshared: int
    """Answers made while the store was not to be reached, as a machine that is busy does."""

    def told(self) -> str:
        """Return it in a line."""
        return (
            f"{self.workers} workers, {self.texts:,} texts, {self.answered:,} vectors answered "
            f"({self.unshared:,} answers unshared): one vector for each text, {self.asked:,} texts "
            f"asked upstream, {self.raced:,} of them by several workers"
        )


@contextmanager
def _running(upstream: FakeOpenAI, directory: Path, options: str = "") -> Iterator[Running]:
    """Run one gateway in this process, in front of an upstream that is served meanwhile."""
    with serve(upstream):
        toml = one_model(upstream.base_url, upstream=options, rest=QUIET)
        config = parse(toml, source=None, environ={}, base_dir=directory)
        running = Running(config, directory).start()
        try:
            yield running
        finally:
            running.stop()
            running.join()


def at_once(directory: Path, requests: int) -> int:
    """Ask a cold gateway the same in so many requests at once; return how many joined a call.

    Raises AssertionError where they do not all get one vector, of one upstream call.
    """
    upstream = FakeOpenAI(width=WIDTH, noise=NOISE)
    upstream.always(slow(1.0))

    async def ask(base_url: str) -> list[Answer]:
        async with open_asker(base_url) as asker:
            return await asyncio.gather(*(asker.ask(["the text"]) for _ in range(requests)))

    with _running(upstream, directory) as running:
        answers = asyncio.run(ask(running.base_url))
    vectors = {vector for answer in answers for vector in answer.vectors}
    assert len(vectors) == 1, f"{len(vectors)} vectors for one text"
    assert upstream.calls == 1, f"{upstream.calls} upstream calls for one text"
    return sum("in-flight" in answer.status for answer in answers)


def in_order(directory: Path) -> None:
    """See that an upstream is asked for what is missing, each once, in order, in small calls.

    Raises AssertionError where it is not, or where a vector is not at its place.
    """
    upstream = FakeOpenAI(width=WIDTH, max_batch=96)
    with _running(upstream, directory, "max_batch = 96") as running:

        def asked_for(*texts: str) -> list[str]:
            upstream.forget()
            right = [unit(upstream.vector("m", text)).tolist() for text in texts]
            assert running.vectors(texts) == right, "a vector is not at its place"
            return upstream.texts

        assert asked_for("a") == ["a"]
        assert asked_for("b", "a", "c") == ["b", "c"]
        assert asked_for("x", "x", "y") == ["x", "y"]
        many = [f"text {number}" for number in range(2000)]
        assert sorted(asked_for(*many)) == sorted(many)
        sizes = [len(request.body["input"]) for request in upstream.requests]
        assert sorted(sizes) == [2000 % 96, *[96] * (2000 // 96)]
        for texts in (many, many[:300], many[::-7]):
            assert asked_for(*texts) == []


def race(store: str, workers: Sequence[int], texts: int, *, seed: int) -> Outcome:
    """Let gateways of so many workers each race for texts, all on one store.

    Then start all of them again, without memory. Raises AssertionError where a text has more than
    one vector, or was asked for again.
    """
    upstream = FakeOpenAI(width=WIDTH, noise=NOISE)
    upstream.always(slow(0.02))
    stock = [f"text {number} of the race" for number in range(texts)]
    with serve(upstream):
        with ExitStack() as stack:
            base_urls = [
                stack.enter_context(gateway_process(_config(upstream, store, count))).base_url
                for count in workers
            ]
            course = _Course(stock, seed)
            asyncio.run(course.run([*zip(base_urls, workers, strict=True)]))
        asked = Counter(text for text in upstream.texts if text != _BEFORE)
        before = len(upstream.texts)
        with ExitStack() as stack:
            base_urls = [
                stack.enter_context(
                    gateway_process(_config(upstream, store, count, memory="0"))
                ).base_url
                for count in workers
            ]
            asyncio.run(course.read_again(base_urls))
        again = len(upstream.texts) - before
    assert again == 0, f"{again} texts were asked for again after the restart"
    assert max(asked.values()) > 1, "nobody raced"
    assert max(asked.values()) <= sum(workers), "a worker asked for a text twice"
    return Outcome(
        texts=texts,
        workers=sum(workers),
        answered=course.answered,
        asked=sum(asked.values()),
        raced=sum(count > 1 for count in asked.values()),
        unshared=course.unshared,
    )


class _Course:
    """Who asks for what, and which vectors were seen."""

    def __init__(self, texts: Sequence[str], seed: int) -> None:
        self.answered = self.unshared = 0
        self.texts = texts
        self._chance = random.Random(seed)
        self._seen: dict[str, set[str]] = defaultdict(set)

    async def run(self, gateways: Sequence[tuple[str, int]]) -> None:
        """Let every client of every gateway ask for all texts, in nearly the same order."""
        async with AsyncExitStack() as stack:
            # A session for each client, as connections are what is shared out among workers.
            askers = [
                await stack.enter_async_context(open_asker(base_url))
                for base_url, workers in gateways
                for _ in range(_CLIENTS * workers)
            ]
            for asker in askers:
                # One after the other, or the first worker to wake up takes all the connections.
                await asker.ask([_BEFORE])
                await asyncio.sleep(0.01)
            await asyncio.gather(*(self._ask_for_all(asker) for asker in askers))
        self._check()

    async def _ask_for_all(self, asker: Asker) -> None:
        waiting = list(self.texts)
        while waiting:
            size = self._chance.randint(1, _LONGEST)
            batch, waiting = waiting[:size], waiting[size:]
            self._chance.shuffle(batch)
            answer = await asker.ask(batch)
            self.answered += len(batch)
            if answer.unshared:
                self.unshared += 1
                continue
            for text, vector in zip(batch, answer.vectors, strict=True):
                self._seen[text].add(vector)

    async def read_again(self, base_urls: Sequence[str]) -> None:
        """Ask every gateway for every text; nothing may have changed."""
        for base_url in base_urls:
            async with open_asker(base_url) as asker:
                for start in range(0, len(self.texts), 500):
                    batch = self.texts[start : start + 500]
                    vectors = await _kept(asker, batch)
                    for text, vector in zip(batch, vectors, strict=True):
                        self._seen[text].add(vector)
        self._check()

    def _check(self) -> None:
        several = sum(len(vectors) > 1 for vectors in self._seen.values())
        assert not several, f"{several} of {len(self.texts)} texts have more than one vector"


async def _kept(asker: Asker, texts: Sequence[str]) -> Sequence[str]:
    """Return the vectors that are kept; a store that is slow may be asked again."""
    for _ in range(_TRIES):
        try:
            return (await asker.ask(texts, **{"cache-control": "only-if-cached"})).vectors
        except AssertionError as refused:
            if not str(refused).startswith("504"):
                raise
        await asyncio.sleep(0.5)
    raise AssertionError(f"some of {len(texts)} texts are not kept")


def _allow_descriptors(number: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))


def _config(upstream: FakeOpenAI, store: str, workers: int, memory: str = "64MiB") -> str:
    rest = f'{QUIET}workers = {workers}\n[cache]\nstore = "{store}"\nmemory = "{memory}"'
    return one_model(upstream.base_url, rest=rest)


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    _allow_descriptors(4 * asked.requests)
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        joined = at_once(directory, asked.requests)
        sys.stdout.write(
            f"{asked.requests:,} equal requests at once: 1 call, joined by {joined:,}, 1 vector\n"
        )
        in_order(directory)
        sys.stdout.write("batches that are known in part: only the rest is asked for, in order\n")
        began = time.monotonic()
        with serve_redis(directory / "redis") as redis:
            outcome = race(redis.url, [4, 1, 1, 1], asked.texts, seed=asked.seed)
        sys.stdout.write(f"Redis, {time.monotonic() - began:.0f} s: {outcome.told()}\n")
        began = time.monotonic()
        store = f"sqlite://{directory / 'cache.db'}"
        outcome = race(store, [4], asked.texts, seed=asked.seed)
        sys.stdout.write(f"SQLite, {time.monotonic() - began:.0f} s: {outcome.told()}\n")


if __name__ == "__main__":
    main()
