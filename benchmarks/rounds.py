"""Rounds: every subject does every workload for a moment, in turn, again and again.

What the machine does meanwhile then falls on all alike, and a ratio is taken within one round. It
knows how figures are made of an outcome; it does not know what is asked or who answers.
"""

import http.client
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol
from urllib.parse import urlsplit

from benchmarks.load import Load, LoadError, Outcome, drive
from benchmarks.progress import Say
from benchmarks.servers import Server


@dataclass(frozen=True, slots=True)
class Plan:
    """How long it all takes: a warm-up of half a round's seconds, then the rounds."""

    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked: requests, how many at a time, and what a right answer is."""

    name: str
    requests: Iterator[bytes]
    connections: int
    check: Callable[[Outcome], None]
    """Raises LoadError for an answer that is not what was asked for."""
    per: int = 1
    """How many things one answer counts for, as a batch of 32 texts does for 32."""
    spread: float = 0.0
    """Seconds over which the connections of a load of chats begin."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One subject in one round; times are for one thing, latencies for one answer."""

    rate: float
    """Things a second."""
    cpu: float | None
    """Microseconds of the subject's processes."""
    p50: float | None = None
    """Milliseconds; of a stream, to its first chunk."""
    p99: float | None = None
    calls: float | None = None
    """Calls to the fake upstream for one request."""
    way50: float | None = None
    """Milliseconds from where a stream's chunk was written to where it was read."""
    way99: float | None = None


class Subject(Protocol):
    """Something that can be measured."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    @property
    def optional(self) -> bool:
        """Whether it may be left out where it breaks."""
        ...

    def measure(self, workload: Workload, seconds: float) -> Figures:
        """Work for so many seconds; raises LoadError."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """All figures, by workload and subject, one for each round."""

    figures: Mapping[tuple[str, str], Sequence[Figures]]

    def middle(self, workload: str, subject: str, figure: str) -> float | None:
        """Return the median of one figure over the rounds."""
        values = [getattr(each, figure) for each in self.figures[workload, subject]]
        return None if None in values else float(median(values))

    def beyond(self, workload: str, subject: str, other: str, figure: str) -> list[float]:
        """Return by how much the subject's figure is above the other's in each round."""
        pairs = zip(self.figures[workload, subject], self.figures[workload, other], strict=True)
        return sorted(getattr(mine, figure) - getattr(theirs, figure) for mine, theirs in pairs)

    def ratios(self, workload: str, subject: str, other: str) -> list[float]:
        """Return the subject's rate over the other's in each round, lowest first."""
        pairs = zip(self.figures[workload, subject], self.figures[workload, other], strict=True)
        return sorted(mine.rate / theirs.rate for mine, theirs in pairs)


@dataclass(frozen=True, slots=True)
class Client:
    """A subject behind HTTP; `upstream` is where its calls are counted."""

    server: Server
    upstream: Server | None = None

    @property
    def name(self) -> str:
        """See Subject.name."""
        return self.server.name

    @property
    def optional(self) -> bool:
        """See Subject.optional."""
        return self.server.contender.peer

    def measure(self, workload: Workload, seconds: float) -> Figures:
        """See Subject.measure."""
        before, called = self.server.cpu_seconds(), self._calls()
        try:
            outcome = drive(
                self.server.address, Load(workload.requests, workload.connections), seconds
            )
            workload.check(outcome)
        except LoadError as error:
            raise LoadError(f"{workload.name}, {self.name}: {error}") from error
        cpu, calls = self.server.cpu_seconds() - before, self._calls() - called
        answers = len(outcome.latencies)
        things = answers * workload.per
        latencies = sorted(outcome.latencies)
        return Figures(
            rate=things / outcome.seconds,
            cpu=cpu / things * 1e6,
            p50=latencies[answers // 2] * 1e3,
            p99=latencies[answers * 99 // 100] * 1e3,
            calls=calls / answers if self.upstream else None,
        )

    def _calls(self) -> int:
        return count_calls(self.upstream) if self.upstream else 0


def count_calls(upstream: Server) -> int:
    """Return how many calls a fake upstream has had so far."""
    return int(json.loads(fetch(upstream.address))["calls"])


def fetch(address: str) -> bytes:
    """Return what a `GET` brings."""
    at = urlsplit(address)
    connection = http.client.HTTPConnection(at.netloc, timeout=10)
    try:
        connection.request("GET", at.path or "/")
        return connection.getresponse().read()
    finally:
        connection.close()


def play(
    title: str, subjects: Sequence[Subject], workloads: Sequence[Workload], plan: Plan, say: Say
) -> Measured:
    """Play a warm-up and all rounds; raises LoadError for a subject that is not optional."""
    figures: dict[tuple[str, str], list[Figures]] = {}
    for number in range(plan.rounds + 1):
        for workload in workloads:
            for subject in list(subjects):
                stage = f"round {number} of {plan.rounds}" if number else "warm-up"
                say(f"{title}: {stage}, {workload.name}, {subject.name}")
                try:
                    made = subject.measure(workload, plan.seconds if number else plan.seconds / 2)
                except LoadError as error:
                    if not subject.optional:
                        raise
                    say.note(f"{title}: {subject.name} is left out: {error}")
                    subjects = [each for each in subjects if each is not subject]
                else:
                    figures.setdefault((workload.name, subject.name), []).append(made)
    names = {subject.name for subject in subjects}
    return Measured({key: made[1:] for key, made in figures.items() if key[1] in names})
