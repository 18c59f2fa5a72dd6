"""Upstream faults of every kind: nothing hangs, each has its documented error, nothing wrong stays.

    python -m tests.heavy.faults [--faults 10000] [--seed N] [--transport aiohttp|httpx2]...
                                 [--deadline 1.0] [--late 0.1]

A gateway in a process of its own asks an upstream on raw sockets (`faulty`), which does what a text
says: break the connection, stall, send other vectors, a bomb, … Many clients ask for embeddings, as
floats and as base64, and for chats, whole and as streams. Every answer has to be the true one, or
an error with a status and code of the table in `faulty`, within the deadline and 100 ms. Then
the upstream is well, and all that was asked for is asked for again: it has to be the true answer.
"""

import argparse
import asyncio
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import uvloop

from tests.heavy.faulty.asking import Answer, Asked, Client
from tests.heavy.faulty.bodies import bomb_of_a_gigabyte
from tests.heavy.faulty.kind import AWAY, GOOD, UNREACHABLE, Outcome
from tests.heavy.faulty.kinds import expected, kinds, strike
from tests.heavy.faulty.server import WELL, Faulty, unit, words
from tests.processes import ROOT, gateway_process

TRANSPORTS = ("aiohttp", "httpx2")
DEADLINE = 1.0
"""Seconds that a request has,"""
ATTEMPT = 0.4
"""and the part of them that an attempt has."""
LATE = 0.1
"""Seconds more, in which its error has to be there."""
_AT_ONCE = 24
"""Clients: as many as two cores can serve without making each other wait."""
_WELL = 0.4
"""The part of the requests that go well: an upstream at which all fails is left alone."""
_RARELY = 40
"""A costly fault is tried once for so many of each other."""
_WIDE = 0.3
"""The part of the embeddings requests that have several texts."""

_FORMS = ((False, False), (False, False), (True, False), (True, True))
"""Whether it is a chat, and whether it is wanted as a stream; vectors are what most ask for."""
_LOST = ("nobody", "tls")
"""Models whose upstream never answers: soon it is left alone."""
_LOST_ASKED = 30

_TOML = """
[server]
drift_every = "0s"
log_level = "warning"
request_timeout = "{deadline}s"
chat_timeout = "{deadline}s"
[upstreams.faulty]
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
timeout = "{attempt}s"
connect_timeout = "{attempt}s"
[upstreams.base64]
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
timeout = "{attempt}s"
encoding = "float"
[upstreams.nobody]
kind = "openai"
base_url = "http://127.0.0.1:{nobody}/v1"
[upstreams.tls]
kind = "openai"
base_url = "https://127.0.0.1:{port}/v1"
[models.m]
task = "embedding"
upstreams = ["faulty"]
[models.floats]
task = "embedding"
upstreams = ["base64"]
upstream_model = "m"
[models.chat]
task = "chat"
upstreams = ["faulty"]
cache = "always"
[models.nobody]
upstreams = ["nobody"]
[models.tls]
upstreams = ["tls"]
"""


@dataclass
class Outcomes:
    """What a run saw."""

    transport: str
    deadline: float
    late: float
    faults: Counter[str] = field(default_factory=Counter)
    """Had by the upstream, by kind; those that were tried again count again."""
    answers: Counter[Outcome] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """What should not have been."""
    tried: Counter[str] = field(default_factory=Counter)
    starved: Counter[str] = field(default_factory=Counter)
    """Requests by kind, and those for which the machine had no time: only where `late` allows."""
    worst: float = -inf
    """Seconds between a deadline and the latest answer; negative where all were in time."""
    compared: int = 0
    """Texts that were asked for again."""
    seconds: float = 0.0

    def told(self) -> str:
        """Return it in a few lines."""
        said = ", ".join(
            f"{status} {code} {n:,}" for (status, code), n in self.answers.most_common()
        )
        happened, answered = sum(self.faults.values()), sum(self.answers.values())
        return (
            f"{self.transport}: {happened:,} faults of {len(self.faults)} kinds in "
            f"{self.seconds:.0f} s; {answered:,} answers, each as documented, the latest "
            f"{self.worst * 1000:+.0f} ms from its deadline; {self.compared:,} texts asked for "
            f"again, each right\n{said}"
        )


def run(
    transport: str,
    faults: int,
    *,
    seed: int,
    deadline: float = DEADLINE,
    late: float = LATE,
    progress: Callable[[str], None] = lambda _: None,
) -> Outcomes:
    """Let so many faults happen, or each once. Raises AssertionError for what should not be.

    `deadline` is in seconds, and `late` how many of them behind it an answer may come.
    """
    return uvloop.run(_run(Outcomes(transport, deadline, late), faults, seed, progress))


async def _run(
    outcomes: Outcomes, faults: int, seed: int, progress: Callable[[str], None]
) -> Outcomes:
    bomb_of_a_gigabyte()  # made before anybody waits
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Faulty(strike))
        nobody = stack.enter_context(_bound())  # and nobody listens
        port = nobody.getsockname()[1]
        times = {"deadline": outcomes.deadline, "attempt": ATTEMPT * outcomes.deadline}
        toml = _TOML.format(port=upstream.port, nobody=port, **times)
        environ = stack.enter_context(_only(outcomes.transport))
        served = stack.enter_context(gateway_process(toml, **environ))
        client = await stack.enter_async_context(Client(served.base_url))
        plan = _plan(faults, random.Random(seed))
        await _suffer(client, plan, outcomes, progress)
        outcomes.faults += upstream.done
        upstream.healthy = True
        await _compare(client, plan, outcomes)
    outcomes.seconds = time.monotonic() - began
    often = [kind for kind, count in outcomes.starved.items() if 2 * count > outcomes.tried[kind]]
    outcomes.wrong += [f"{kind}: hangs until its time is over" for kind in often]
    few = "\n".join(outcomes.wrong[:20])
    assert not outcomes.wrong, f"{len(outcomes.wrong)} wrong answers, among them\n{few}"
    return outcomes


def _bound() -> socket.socket:
    place = socket.socket()
    place.bind(("127.0.0.1", 0))
    return place


@contextmanager
def _only(transport: str) -> Iterator[dict[str, str]]:
    """Yield the environment of a process that has this client library for its upstreams."""
    with tempfile.TemporaryDirectory() as directory:
        if transport == "httpx2":
            hidden = 'import sys\nsys.modules["aiohttp"] = None\n'
            Path(directory, "sitecustomize.py").write_text(hidden)
        yield {"PYTHONPATH": f"{directory}:{ROOT}"}


def _plan(faults: int, chance: random.Random) -> list[Asked]:
    """Return what to ask for: each kind as often as any, but for costly ones; in some order."""
    wrong: list[Asked] = []
    first = True
    while first or len(wrong) < faults:
        for chat, stream in _FORMS:
            for kind in kinds(chat=chat, stream=stream):
                costly = expected(kind, chat=chat, stream=stream).costly
                if first or not costly or chance.random() < 1 / _RARELY:
                    wrong.append(_asked(kind, len(wrong), chance, chat=chat, stream=stream))
        first = False
    well = [
        _asked(WELL, number, chance, chat=chat, stream=stream)
        for number, (chat, stream) in enumerate(
            chance.choices(_FORMS, k=int(len(wrong) * _WELL / (1 - _WELL)))
        )
    ]
    lost = [Asked(model, [f"{WELL} {model} {n}"]) for model in _LOST for n in range(_LOST_ASKED)]
    plan = wrong + well + lost
    chance.shuffle(plan)
    return plan


def _asked(kind: str, number: int, chance: random.Random, *, chat: bool, stream: bool) -> Asked:
    if chat:
        return Asked("chat", [f"{kind} {number} {stream}"], chat=True, stream=stream)
    count = chance.choice((2, 3, 9)) if chance.random() < _WIDE else 1
    texts = [f"{kind} {number} {place}" for place in range(count)]
    return Asked(chance.choice(("m", "floats")), texts, base64=chance.random() < 0.5)


async def _suffer(
    client: Client, plan: Sequence[Asked], outcomes: Outcomes, progress: Callable[[str], None]
) -> None:
    """Ask for all of it, so many at a time; judge every answer."""
    for model in ("m", "floats"):
        # The first vector says how wide the others are.
        await client.ask(Asked(model, [f"{WELL} first"]))
    waiting = iter(plan)

    async def ask_on() -> None:
        for asked in waiting:
            _judge(asked, await client.ask(asked), outcomes)
            if not sum(outcomes.answers.values()) % 1000:
                progress(f"{sum(outcomes.answers.values()):,} answers")

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(ask_on())


def _judge(asked: Asked, answer: Answer, outcomes: Outcomes) -> None:
    outcomes.answers[answer.outcome] += 1
    outcomes.tried[asked.kind] += 1
    allowed = _allowed(asked)
    if answer.outcome not in allowed and _is_starved(answer, outcomes):
        outcomes.starved[asked.kind] += 1
    elif answer.outcome not in allowed:
        outcomes.wrong.append(f"{asked}: {answer.outcome}, and not one of {set(allowed)}")
    elif answer.outcome == GOOD and list(answer.said) != _truth(asked):
        outcomes.wrong.append(f"{asked}: another answer than the true one")
    late = answer.waited - answer.busy - outcomes.deadline
    outcomes.worst = max(outcomes.worst, late)
    if late > outcomes.late:
        outcomes.wrong.append(f"{asked}: {answer.outcome} after {answer.waited:.3f} s")


def _is_starved(answer: Answer, outcomes: Outcomes) -> bool:
    """Whether a call may just have had no time: on a machine that is busy with other things."""
    timed_out = answer.outcome[1] in {"upstream_timeout", "upstream_connect_timeout"}
    return timed_out and outcomes.late > LATE and answer.waited > ATTEMPT * outcomes.deadline


def _allowed(asked: Asked) -> Collection[Outcome]:
    if asked.model in _LOST:
        return (UNREACHABLE, AWAY)
    if asked.kind == WELL:
        return (GOOD,)
    return expected(asked.kind, chat=asked.chat, stream=asked.stream).outcomes


def _truth(asked: Asked) -> list[bytes]:
    return [words(text).encode() if asked.chat else unit(text) for text in asked.texts]


async def _compare(client: Client, plan: Sequence[Asked], outcomes: Outcomes) -> None:
    """Ask again for all that failed or not, now that nothing is wrong."""
    waiting = iter([asked for asked in plan if asked.model not in _LOST])

    async def ask_on() -> None:
        for asked in waiting:
            answer = await client.ask(asked)
            if answer.outcome != GOOD or list(answer.said) != _truth(asked):
                outcomes.wrong.append(f"{asked}, all being well: {answer.outcome}, not the truth")
            outcomes.compared += len(asked.texts)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(ask_on())


def main() -> None:
    """Run the whole of it, over both transports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=DEADLINE)
    parser.add_argument("--late", type=float, default=LATE)
    parser.add_argument("--transport", action="append", choices=TRANSPORTS)
    asked = parser.parse_args()
    transports = asked.transport or TRANSPORTS
    for transport in transports:
        each = -(-asked.faults // len(transports))
        outcomes = run(
            transport,
            each,
            seed=asked.seed,
            deadline=asked.deadline,
            late=asked.late,
            progress=_progress,
        )
        sys.stdout.write(f"{outcomes.told()}\n")
        sys.stdout.flush()


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
