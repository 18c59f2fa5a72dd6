"""Random names of models, paths and keys: no new series of metrics, and no more memory.

    python -m tests.heavy.cardinality [--requests 100000] [--seed N]

Each request has a name, a path, a key and headers that never were before. Some names fit a pattern
of the config and are answered, most are nobody's. Metrics may not know one of them.
"""

import argparse
import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from urllib.parse import quote

import uvloop

from tests.heavy.census import Census, count, counted
from tests.heavy.faulty.server import Faulty
from tests.heavy.swift import connect, request
from tests.processes import gateway_process

KEY = "the-only-key-there-is"
MEMORY = 16 * 2**20
"""Bytes that may come on top: what an allocator keeps differs by as much from time to time."""
_CONNECTIONS, _AT_ONCE = 8, 16
_WARM = 0.3
"""As many requests more, before anything is counted: tables of bounded size are full then."""
_LOOKS = 3.0
"""Seconds in which the gateway has seen what came in to be watched for drift."""
_ODD = "aZ09-_.~:é\u2028/*%#?&=[]{} \t<>|\\^`\"'"
_TOML = """
[server]
log_level = "warning"
[cache]
memory = "2MiB"
[[keys]]
name = "one"
secret = "{key}"
admin = true
[upstreams.fake]
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
[models."served-*"]
upstreams = ["fake"]
[models."chat-*"]
task = "chat"
upstreams = ["fake"]
[models.m]
task = "embedding"
upstreams = ["fake"]
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run saw."""

    statuses: Counter[int]
    before: Census
    after: Census

    def told(self) -> str:
        """Return it in a few lines."""
        said = ", ".join(f"{status} {number:,}" for status, number in self.statuses.most_common())
        return (
            f"{self.statuses.total():,} requests ({said})\n"
            f"before: {self.before.told()}\nafter:  {self.after.told()}"
        )


def run(requests: int, *, seed: int, progress: Callable[[str], None] = lambda _: None) -> Outcome:
    """Send so many requests. Raises AssertionError for a series or a leak."""
    outcome = uvloop.run(_run(requests, seed, progress))
    late = sorted(outcome.after.series - outcome.before.series)
    assert not late, f"{outcome.told()}\n{late}"
    more = outcome.after.resident - outcome.before.resident
    assert more < MEMORY, f"{more:,} bytes more\n{outcome.told()}"
    assert not any(status >= 500 for status in outcome.statuses), outcome.told()
    return outcome


async def _run(requests: int, seed: int, progress: Callable[[str], None]) -> Outcome:
    statuses: Counter[int] = Counter()
    async with Faulty(_well) as upstream:
        upstream.healthy = True
        toml = _TOML.format(key=KEY, port=upstream.port)
        with counted() as environ, gateway_process(toml, **environ) as served:
            port = int(served.address.rpartition(":")[2])
            plan = _requests(random.Random(seed))
            await _send(islice(plan, int(requests * _WARM)), port, Counter(), progress)
            await asyncio.sleep(_LOOKS)
            before = await asyncio.to_thread(count, served, KEY)
            await _send(islice(plan, requests), port, statuses, progress)
            after = await asyncio.to_thread(count, served, KEY)
    return Outcome(statuses, before, after)


async def _well(_: object) -> None:
    """Do nothing wrong."""


async def _send(
    plan: Iterator[bytes], port: int, statuses: Counter[int], progress: Callable[[str], None]
) -> None:
    async def ask_on() -> None:
        connection = await connect(port)
        while some := list(islice(plan, _AT_ONCE)):
            asked = 0
            while asked < len(some):
                if connection.closed:
                    connection = await connect(port)
                answers = await connection.ask(some[asked:])
                asked += len(answers)
                statuses.update(answer.status for answer in answers)
                if statuses.total() % 10_000 < len(answers):
                    progress(f"{statuses.total():,} requests")
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(_CONNECTIONS):
            group.create_task(ask_on())


def _requests(chance: random.Random) -> Iterator[bytes]:
    """Yield requests, no two of which are alike."""
    while True:
        for make in (_embed, _chat, _other_path, _other_key, _ask_of_model):
            yield make(_word(chance), chance)


def _word(chance: random.Random) -> str:
    return "".join(chance.choices(_ODD, k=6)) + f"{chance.getrandbits(64):x}"


def _embed(word: str, chance: random.Random) -> bytes:
    model = chance.choice((word, f"served-{word}", "m"))
    body = {"model": model, "input": word, "user": word, word: 1}
    return request("/v1/embeddings", body, key=KEY, headers=f"x-request-id: {word[-16:]}\r\n")


def _chat(word: str, chance: random.Random) -> bytes:
    messages = [{"role": "user", "content": word}]
    body = {"model": chance.choice((word, f"chat-{word}")), "messages": messages}
    return request("/v1/chat/completions", body, key=KEY, headers=f"user-agent: {word[-16:]}\r\n")


def _other_path(word: str, chance: random.Random) -> bytes:
    path = f"/{chance.choice(('', 'v1/', 'v1/embeddings/', 'metrics/'))}{quote(word, safe='')}"
    return request(path, key=KEY, method=chance.choice(("GET", "POST", "DELETE", "PUT")))


def _other_key(word: str, chance: random.Random) -> bytes:
    key = f"sk-{quote(word)}" if chance.random() < 0.5 else KEY[:-1] + word[-1]
    return request("/v1/embeddings", {"model": "m", "input": "a"}, key=key)


def _ask_of_model(word: str, chance: random.Random) -> bytes:
    name = quote(chance.choice((word, f"served-{word}")), safe="")
    return request(f"/v1/models/{name}", key=KEY, method="GET")


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    outcome = run(
        asked.requests,
        seed=asked.seed,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    sys.stdout.write(f"{outcome.told()}\n")


if __name__ == "__main__":
    main()
