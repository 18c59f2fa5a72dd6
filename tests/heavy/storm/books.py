"""The books of a run: who asked for what, what upstreams drew, what stores hold, and what is wrong.

A vector tells its draw (see `telling`), and by the books a draw tells everything else: in which
call it was made, for whom, and whether that call's answer could be trusted.
"""

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from gateway.cache.keys import Key
from gateway.cache.record import unpack
from tests.heavy.storm import telling
from tests.heavy.storm.plan import Batch

Identity = tuple[str, str, int | None, int]
"""Model, tenant, seed and the text's number: what has one vector."""


@dataclass(slots=True, eq=False)
class Ask:
    """A batch on its way through a worker."""

    batch: Batch
    house: str
    worker: str
    began: int
    """The moment, as the books count."""
    at: float
    """The same as Unix time."""
    calm: Sequence[int | None]
    """For each store how often it had failed by then, None if it was not used."""
    writable: bool
    owed: bool
    """Whether the worker had vectors that the authority had not taken yet."""
    met: set[str] = field(default_factory=set)
    """What its own upstream calls came to, by mood."""
    fresh: set[Identity] = field(default_factory=set)
    """What it asked for although it is kept: nobody else is to see these vectors."""
    over: bool = False

    def identity(self, number: int) -> Identity:
        """Return what a text of it is the identity of."""
        return self.batch.model, self.batch.tenant, self.batch.seed, number

    @property
    def shares(self) -> bool:
        """Whether it says nothing of what is kept: then it shares with all that are like it."""
        control = self.batch.control
        return not (control.dated or control.no_store or control.only_if_cached)


ASKING: ContextVar[Ask] = ContextVar("asking")
"""Whose work a task does; tasks inherit it from who began them."""


@dataclass(slots=True, eq=False)
class Call:
    """One call to an upstream."""

    number: int
    ask: Ask
    model: str
    mood: str
    sound: bool
    """Whether its answer may be accepted."""
    answered: int = -1
    """The moment of the answer."""
    at: float = 0.0
    """The same as Unix time."""


class Books:
    """What happened so far, in one order of moments."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.draws: list[Call] = []
        """For each draw the call it was made in."""
        self.asked_texts = 0
        self.broken: str | None = None
        """The first thing that was found wrong, and its account."""
        self._moments = count()

    def moment(self) -> int:
        """Return a number greater than all before."""
        return next(self._moments)

    def draw(self, call: Call, texts: int) -> range:
        """Make so many draws in this call; return their numbers."""
        first = len(self.draws)
        self.draws.extend([call] * texts)
        return range(first, first + texts)

    def complain(self, ask: Ask | None, wrong: str, *draws: int) -> None:
        """Note that something is wrong, with an account of the draws it is about."""
        if self.broken is not None:
            return
        lines = [wrong]
        if ask is not None:
            lines.append(f"  asked at {ask.began} of {ask.house}/{ask.worker}: {ask.batch.told()}")
        lines += [f"  draw {draw}: {self._told(draw)}" for draw in draws]
        self.broken = "\n".join(lines)

    def _told(self, draw: int) -> str:
        if not 0 <= draw < len(self.draws):
            return "was never made"
        call = self.draws[draw]
        return (
            f"answered at {call.answered} by call {call.number} ({call.mood}) of "
            f"{call.ask.house}/{call.ask.worker} for {call.ask.batch.told()}"
        )


class Shelf:
    """What a store holds, as far as it said so: the first draw of each identity, for ever."""

    def __init__(self, books: Books, name: str, authority: "Shelf | None" = None) -> None:
        """What a near store holds must be what its `authority` holds."""
        self.name = name
        self.held: dict[Identity, tuple[int, int]] = {}
        """The moment by which it was there, and the draw."""
        self._books = books
        self._authority = authority

    def note(self, records: Iterable[tuple[Key, bytes]]) -> list[Identity]:
        """Take in that these are held now; return whose they are."""
        vectors = [unpack(key, record, "").vector for key, record in records]
        if not vectors:
            return []
        rows = np.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), -1)
        try:
            numbers, draws = telling.told(rows)
        except telling.UntoldError as error:
            self._books.complain(None, f"{self.name} holds what it should not: {error}")
            return []
        identities = []
        moment = self._books.moment()
        for number, draw in zip(numbers, draws, strict=True):
            identity = self._books.draws[draw].ask.identity(number)
            identities.append(identity)
            _, first = self.held.setdefault(identity, (moment, draw))
            if first != draw:
                wrong = f"{self.name} held another vector of text {number} before"
                self._books.complain(None, wrong, draw, first)
            if self._authority and self._authority.held.get(identity, (0, None))[1] != draw:
                wrong = f"{self.name} holds a vector of text {number} that its authority does not"
                self._books.complain(None, wrong, draw)
        return identities

    def held_before(self, identity: Identity, moment: int) -> bool:
        """Whether it was there by then."""
        held = self.held.get(identity)
        return held is not None and held[0] < moment
