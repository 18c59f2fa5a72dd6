"""A steady load on gateways that share a store: each request is one text, known or new.

It does not wait for answers before it asks on, so what takes long shows, and holds up nobody.
Beside them it may ask a gateway without a store, which shows how busy the machine is.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from tests.asking import Answer, Asker
from tests.draws import mark

HIT, MISS = "hit", "miss"
KNOWN = 100
"""Texts that every gateway has in memory."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A request and what came of it."""

    began: float
    """By time.perf_counter."""
    kind: str
    seconds: float
    unshared: bool
    control: bool
    """Whether the gateway without a store was asked."""


class Load:
    """Asks; remembers how long that took, and which vectors were said to be stored."""

    def __init__(
        self, askers: Sequence[Asker], control: Asker | None, *, rate: float, seed: int = 1
    ) -> None:
        """`rate` is in texts a second; half of them are known."""
        self.failures: list[str] = []
        self.texts: list[str] = [f"known {number}" for number in range(KNOWN)]
        """All that was asked for so far."""
        self.changed = 0
        """How often a text had another vector than one that had been stored."""
        self._askers = askers
        self._control = control
        self._all = [*askers, control] if control else list(askers)
        self._rate = rate
        self._chance = random.Random(seed)
        self._samples: list[Sample] = []
        self._stored: dict[str, bytes] = {}
        self._underway: set[asyncio.Task[None]] = set()

    async def warm_up(self) -> None:
        """Let every gateway have the known texts in memory."""
        for asker in self._all:
            await self._ask(asker, self.texts, HIT)
        self.take()

    async def run(self, seconds: float) -> None:
        """Ask for so long; what is underway at the end goes on."""
        until = time.perf_counter() + seconds
        while (now := time.perf_counter()) < until:
            self._ask_one()
            await asyncio.sleep(1 / self._rate - (time.perf_counter() - now))

    async def settle(self) -> None:
        """Wait for all answers."""
        await asyncio.gather(*self._underway)

    def take(self) -> list[Sample]:
        """Return the samples since the last time."""
        taken, self._samples = self._samples, []
        return taken

    def _ask_one(self) -> None:
        if self._chance.random() < 0.5:
            text = self._chance.choice(self.texts[:KNOWN])
            self._begin(self._chance.choice(self._all), text, HIT)
            return
        text = f"new {len(self.texts)}"
        self.texts.append(text)
        # Every other text is asked for everywhere at once: without the store the vectors differ.
        if len(self.texts) % 2:
            for asker in self._askers:
                self._begin(asker, text, MISS)
        else:
            self._begin(self._chance.choice(self._askers), text, MISS)
            if self._control:
                self._begin(self._control, text, MISS)

    def _begin(self, asker: Asker, text: str, kind: str) -> None:
        task = asyncio.get_running_loop().create_task(self._ask(asker, [text], kind))
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)

    async def _ask(self, asker: Asker, texts: Sequence[str], kind: str) -> None:
        began, control = time.perf_counter(), asker is self._control
        try:
            answer = await asker.ask(texts)
        except (AssertionError, aiohttp.ClientError, TimeoutError) as failure:
            self.failures.append(f"{type(failure).__name__}: {failure}")
            return
        self._samples.append(Sample(began, kind, answer.seconds, answer.unshared, control))
        if not control and not answer.unshared:
            self._saw(texts, answer)

    def _saw(self, texts: Sequence[str], answer: Answer) -> None:
        for text, vector in zip(texts, answer.vectors, strict=True):
            now = mark(vector)
            self.changed += self._stored.get(text, now) != now
            self._stored[text] = now
