"""Chats in rounds: a subject behind HTTP whose answers are looked at piece by piece.

It knows how figures are made of answers; it does not know what is asked or who answers.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.load import Load, LoadError
from benchmarks.rounds import Figures, Workload, count_calls
from benchmarks.servers import Server
from benchmarks.streams import Answer, Streamed, drive

_STAMP = re.compile(rb'"content": ?"(\d{19})"')
_STAMP_BYTES = 40


@dataclass(frozen=True, slots=True)
class ChatClient:
    """A subject behind HTTP; `upstream` is where its calls are counted, and may be itself."""

    server: Server
    figures: Callable[[Workload, Streamed], tuple[Figures, int]]
    """Makes figures of answers, and says how many things those are."""
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
        upstream, load = self.upstream, Load(workload.requests, workload.connections)
        before, called = self.server.cpu_seconds(), count_calls(upstream) if upstream else 0
        try:
            streamed = drive(self.server.address, load, seconds, workload.spread)
            workload.check(streamed.outcome())
            figures, things = self.figures(workload, streamed)
        except LoadError as error:
            raise LoadError(f"{workload.name}, {self.name}: {error}") from error
        cpu = (self.server.cpu_seconds() - before) / things * 1e6
        calls = count_calls(upstream) - called if upstream else 0
        return replace(
            figures,
            cpu=None if self.server is upstream else cpu,
            calls=calls / len(streamed.answers) if upstream else None,
        )


def chunks(workload: Workload, streamed: Streamed) -> tuple[Figures, int]:
    """Make figures of answers whose chunks say when they were written, `workload.per` of them.

    Raises LoadError where a chunk is missing.
    """
    firsts, ways = [], []
    for answer in streamed.answers:
        stamped = list(_stamps(answer))
        if len(stamped) != workload.per:
            raise LoadError(f"{len(stamped)} chunks where {workload.per} were sent")
        firsts.append(stamped[0][0] - answer.asked)
        ways += [came - written for came, written in stamped]
    (p50, p99), (way50, way99) = _percentiles(firsts), _percentiles(ways)
    rate = len(ways) / streamed.seconds
    return Figures(rate, None, p50, p99, way50=way50, way99=way99), len(ways)


def answers(workload: Workload, streamed: Streamed) -> tuple[Figures, int]:  # noqa: ARG001
    """Make figures of whole answers."""
    count = len(streamed.answers)
    p50, p99 = _percentiles([answer.whole for answer in streamed.answers])
    return Figures(count / streamed.seconds, None, p50, p99), count


def _stamps(answer: Answer) -> Iterator[tuple[float, float]]:
    """Yield when each chunk came and when it was written, in seconds of one clock."""
    rest = b""
    for came, piece in answer.pieces:
        text, end = rest + piece, 0
        for found in _STAMP.finditer(text):
            yield came, int(found[1]) / 1e9
            end = found.end()
        rest = text[max(end, len(text) - _STAMP_BYTES) :]


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the 50th and the 99th in milliseconds."""
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2] * 1e3, ordered[len(ordered) * 99 // 100] * 1e3
