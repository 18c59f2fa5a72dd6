"""An upstream that fails half of its calls: it is spared, and others notice nothing.

    python -m tests.heavy.brownout [--seconds 60] [--p99 1.1]

One gateway has three models under a steady load of new texts: one on an upstream that is going to
fail, alone; one on another such upstream, with a stand-in and a third upstream that makes vectors
of another space, put in by mistake; and one that stays well. First all is well for so long, then
the brown-out lasts as long. Then at most 1.2 calls go out per request, every request that had a
stand-in was answered, the upstream of another space was never asked for a client's text, and the
third model's 99th percentile is at most 1.1 of what it was; on a busy machine a short run may have
that at `--p99 3`.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import aiohttp
import uvloop

from gateway.spaces.reference import TEXTS
from tests import upstream_behaviours as behave
from tests.heavy.trial import tell
from tests.processes import gateway_process
from tests.upstream import Exchange, FakeOpenAI, serve, truth

WIDTH = 64
RATE = 25.0
"""Requests a second to each model."""
TAKES = 0.02
"""Seconds of an upstream's answer."""
MOST_CALLS = 1.2
_WARM_UP = 2.0
_MODELS = ("alone", "backed", "well")

CONFIG = """
[server]
drift_every = "0s"
log_format = "json"
{upstreams}
[models.alone]
task = "embedding"
upstreams = ["sick"]
[models.backed]
task = "embedding"
upstreams = ["ill", "fit", "wrong"]
space = "s"
[models.well]
task = "embedding"
upstreams = ["sound"]
"""


class Another(FakeOpenAI):
    """Has another model behind every name."""

    def vector(self, model, text):
        return truth(f"another {model}", text, self.width)


class Brownout:
    """What an upstream does: it takes its time, and from a moment on fails half of its calls."""

    def __init__(self, seed: int) -> None:
        self.on = False
        self._chance = random.Random(seed)

    async def __call__(self, exchange: Exchange) -> None:
        """Behave so in one call."""
        await asyncio.sleep(TAKES)
        if self.on and self._chance.random() < 0.5:
            await behave.status(500)(exchange)


@dataclass
class Phase:
    """What became of the requests of a time."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of the requests that were answered, by model."""
    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    calls: Counter[str] = field(default_factory=Counter)
    """That went out for clients' texts, by upstream."""

    def requests(self, model: str) -> int:
        """Return how many there were."""
        return self.statuses[model].total()

    def p99(self, model: str) -> float:
        """Return the seconds in which 99 of 100 were answered."""
        ordered = sorted(self.seconds[model])
        return ordered[int(len(ordered) * 0.99)]


class Load:
    """Asks for new texts, steadily, and waits for nobody."""

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, fakes: dict[str, FakeOpenAI]
    ) -> None:
        self._session = session
        self._url = f"{base_url}/embeddings"
        self._fakes = fakes
        self._asked = 0

    async def run(self, seconds: float) -> Phase:
        """Ask for so long; return what became of it."""
        phase, before = Phase(), self._calls()
        underway: set[asyncio.Task[None]] = set()
        began = time.perf_counter()
        for number in range(int(seconds * RATE)):
            for place, model in enumerate(_MODELS):
                due = began + (number + place / len(_MODELS)) / RATE
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                self._asked += 1
                task = asyncio.ensure_future(self._ask(phase, model, f"text {self._asked}"))
                underway.add(task)
                task.add_done_callback(underway.discard)
        await asyncio.gather(*underway)
        phase.calls = self._calls() - before
        return phase

    async def _ask(self, phase: Phase, model: str, text: str) -> None:
        began = time.perf_counter()
        body = {"model": model, "input": text, "encoding_format": "base64"}
        async with self._session.post(self._url, json=body) as answer:
            await answer.read()
        phase.statuses[model][answer.status] += 1
        if answer.status == 200:
            phase.seconds[model].append(time.perf_counter() - began)

    def _calls(self) -> Counter[str]:
        return Counter(
            {
                name: sum(text not in TEXTS for text in fake.texts)
                for name, fake in self._fakes.items()
            }
        )


async def go(seconds: float) -> tuple[Phase, Phase, dict[str, str]]:
    """Be well for so long, then browned out; return both, and what is told of `backed`'s states."""
    fakes = {name: FakeOpenAI(width=WIDTH) for name in ("sick", "ill", "fit", "sound")}
    fakes["wrong"] = Another(width=WIDTH)
    troubles = [Brownout(seed) for seed in (1, 2)]
    with ExitStack() as stack:
        for name, fake in fakes.items():
            fake.always({"sick": troubles[0], "ill": troubles[1]}.get(name, behave.slow(TAKES)))
            stack.enter_context(serve(fake))
        upstreams = "".join(
            f'[upstreams.{name}]\nkind = "openai"\nbase_url = "{fake.base_url}"\n'
            for name, fake in fakes.items()
        )
        toml = CONFIG.format(upstreams=upstreams)
        gateway = await asyncio.to_thread(stack.enter_context, gateway_process(toml))
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            load = Load(session, gateway.base_url, fakes)
            await load.run(_WARM_UP)
            healthy = await load.run(seconds)
            for trouble in troubles:
                trouble.on = True
            browned = await load.run(seconds)
            async with session.get(f"{gateway.base_url}/models/backed") as answer:
                told = (await answer.json())["upstreams"]
    return healthy, browned, {each["name"]: each["state"] for each in told}


def judge(
    healthy: Phase, browned: Phase, states: dict[str, str], most_longer: float
) -> Sequence[Sequence[str]]:
    """Return what is to be told; raises AssertionError where it is not as it should be."""
    alone = browned.calls["sick"] / browned.requests("alone")
    backed = (browned.calls["ill"] + browned.calls["fit"]) / browned.requests("backed")
    longer = browned.p99("well") / healthy.p99("well")
    rows = [
        ("calls a request, alone", f"{alone:.3f}", f"{MOST_CALLS}"),
        ("calls a request, with a stand-in", f"{backed:.3f}", f"{MOST_CALLS}"),
        ("99th percentile of the healthy model", f"{longer:.3f}", f"{most_longer}"),
        ("answered, alone", _part(browned, "alone"), ""),
        ("answered, with a stand-in", _part(browned, "backed"), "1"),
        ("upstream of another space", f"{states['wrong']}, asked {browned.calls['wrong']}", "0"),
    ]
    for model in _MODELS:
        assert healthy.statuses[model].keys() == {200}, (model, healthy.statuses[model])
    for model in ("backed", "well"):
        assert browned.statuses[model].keys() == {200}, (model, browned.statuses[model])
    assert browned.statuses["alone"].keys() <= {200, 502, 503}, browned.statuses["alone"]
    assert max(alone, backed) <= MOST_CALLS, rows
    assert healthy.calls["wrong"] == browned.calls["wrong"] == 0, rows
    assert states["wrong"] == "out", rows
    assert longer <= most_longer, rows
    return rows


def _part(phase: Phase, model: str) -> str:
    return f"{phase.statuses[model][200] / phase.requests(model):.3f}"


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--p99", type=float, default=1.1)
    asked = parser.parse_args()
    sys.setswitchinterval(0.0005)  # the upstreams are threads beside the clock
    tell(("", "found", "at most"), judge(*uvloop.run(go(asked.seconds)), asked.p99))


if __name__ == "__main__":
    main()
