"""Gateways that go through troubles with their store under load, and what they have to keep to.

Every request succeeds; what could not be stored is said to be unshared, and only that; soon after
the end of a trouble everything is stored; and then all who share the store have the same vectors,
those that were stored before it among them.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tests.asking import Answer, Asker
from tests.heavy.load import MISS, Load, Sample
from tests.processes import GatewayProcess

Place = TypeVar("Place")

RATE = 100.0
"""Texts a second."""
FIRST = 1.0
"""Seconds in which a gateway may have to find out."""
RECOVERS_WITHIN = 15.0
LINES = 5
"""Log lines of a gateway for a change of state."""
_QUIET = 0.6
"""Seconds after a recovery in which nothing more happens: gateways have looked after the store."""
_BATCH = 500
_LOOKED_AT = 100
"""Texts that are asked for again and again, until none is unshared."""


@dataclass(frozen=True)
class Trouble(Generic[Place]):
    """What befalls a store, and what it means."""

    name: str
    begin: Callable[[Place], object]
    end: Callable[[Place], object] = lambda _: None
    keeps: bool = True
    """Whether the store has afterwards what it had before."""
    unshared: bool = True
    """Whether new vectors can not be stored for as long as it lasts."""


@dataclass
class Report:
    """What a trouble did."""

    name: str
    healthy: Sequence[Sample]
    """Requests while there was no trouble, of this or others."""
    at_first: list[Sample] = field(default_factory=list)
    then: list[Sample] = field(default_factory=list)
    recovery: float = 0.0
    """Seconds from its end until nothing was unshared any more."""
    lines: tuple[int, int] = (0, 0)
    """Log lines of the gateway that wrote most, at its beginning and at its end."""
    compared: int = 0
    """Texts for which all gateways had the same vector afterwards."""

    @property
    def figures(self) -> Sequence[str]:
        """What is to be told of any trouble."""
        samples = [*self.at_first, *self.then]
        return (
            self.name,
            f"{len(samples):,}",
            f"{sum(sample.unshared for sample in samples):,}",
            f"{self.recovery:.2f}",
            f"{self.lines[0]} + {self.lines[1]}",
            f"{self.compared:,}",
        )

    @property
    def phases(self) -> tuple[Sequence[Sample], ...]:
        """Without trouble, its first second, the rest of it."""
        return self.healthy, self.at_first, self.then


class Trial(Generic[Place]):
    """Gateways, a load on them, and the troubles that they go through."""

    def __init__(
        self,
        gateways: Sequence[GatewayProcess],
        askers: Sequence[Asker],
        place: Place,
        *,
        control: Asker | None = None,
    ) -> None:
        self.load = Load(askers, control, rate=RATE)
        self.healthy: list[Sample] = []
        """Requests while there was no trouble."""
        self._gateways = gateways
        self._askers = askers
        self._place = place

    async def go_through_all(
        self, troubles: Sequence[Trouble[Place]], seconds: float
    ) -> Sequence[Report]:
        """Go through these troubles, one after the other, each so long."""
        await self.load.warm_up()
        return [await self.go_through(trouble, seconds) for trouble in troubles]

    async def go_through(self, trouble: Trouble[Place], seconds: float) -> Report:
        """Be well for a while, then have this trouble, then recover, then compare all vectors."""
        report = Report(trouble.name, self.healthy)
        load, first_text, changed = self.load, len(self.load.texts), self.load.changed
        await load.run(seconds)
        await load.settle()
        self.healthy += load.take()
        lines = self._lines()
        begun, ended = await self._suffer(trouble, seconds)
        at_begin, lines = self._longer(lines), self._lines()
        report.recovery = await self._recover(ended)
        report.lines = at_begin, self._longer(lines)
        for sample in load.take():
            if sample.began < begun + FIRST:
                report.at_first.append(sample)
            elif sample.began < ended:
                report.then.append(sample)
        assert not load.failures, load.failures[:3]
        assert load.changed == changed or not trouble.keeps, "what had been stored has changed"
        if trouble.unshared:
            ours = [sample for sample in report.then if not sample.control]
            assert all(sample.unshared == (sample.kind == MISS) for sample in ours)
        texts = load.texts[first_text:]
        await assert_all_agree(self._askers, texts)
        report.compared = len(texts)
        return report

    async def _suffer(self, trouble: Trouble[Place], seconds: float) -> tuple[float, float]:
        """Have the trouble; return when it had begun and when its end began."""
        loading = asyncio.create_task(self.load.run(FIRST + seconds))
        await asyncio.to_thread(trouble.begin, self._place)
        begun = time.perf_counter()
        await loading
        ended = time.perf_counter()
        await asyncio.to_thread(trouble.end, self._place)
        return begun, ended

    async def _recover(self, ended: float) -> float:
        """Wait, under load, until nothing is unshared any more; return how long that took."""
        loading = asyncio.create_task(self.load.run(RECOVERS_WITHIN))
        texts = self.load.texts[-_LOOKED_AT:]
        while any([(await asker.ask(texts)).unshared for asker in self._askers]):
            assert not loading.done(), f"not well again after {RECOVERS_WITHIN:.0f} s"
            await asyncio.sleep(0.02)
        took = time.perf_counter() - ended
        await asyncio.sleep(_QUIET)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await self.load.settle()
        return took

    def _lines(self) -> list[int]:
        return [len(gateway.lines) for gateway in self._gateways]

    def _longer(self, before: Sequence[int]) -> int:
        return max(now - then for now, then in zip(self._lines(), before, strict=True))


TITLES = ("trouble", "requests", "unshared", "s to recover", "log lines", "vectors compared")
"""Of a report's figures."""


def tell(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    lines = [titles, ["---"] * len(titles), *rows]
    sys.stdout.write("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")


def judge(reports: Sequence[Report]) -> None:
    """Raise AssertionError where a recovery took too long, or a change of state too many words."""
    for report in reports:
        assert report.recovery < RECOVERS_WITHIN, (report.name, report.recovery)
        assert max(report.lines) <= LINES, (report.name, report.lines)


async def assert_all_agree(askers: Sequence[Asker], texts: Sequence[str]) -> None:
    """Raise AssertionError unless all have the same vectors of these texts, and have them stored.

    Who has never been asked for a text has it from the store.
    """
    for start in range(0, len(texts), _BATCH):
        part = texts[start : start + _BATCH]
        answers = [await _stored(asker, part) for asker in askers]
        assert all(answer.hit for answer in answers), [answer.status for answer in answers]
        assert all(answer.vectors == answers[0].vectors for answer in answers)


async def _stored(asker: Asker, texts: Sequence[str]) -> Answer:
    """Ask until the answer is stored: on a busy machine a store may seem to be away."""
    until = time.perf_counter() + RECOVERS_WITHIN
    while (answer := await asker.ask(texts)).unshared:
        assert time.perf_counter() < until, answer.status
        await asyncio.sleep(0.1)
    return answer
