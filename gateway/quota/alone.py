"""A worker's own count while the ledger is away: within its part of the limits."""

from msgspec.structs import replace

from gateway.quota.book import Ask, Book, Told, exchange
from gateway.quota.limits import DAY, MINUTE, Limits


class Alone:
    """A book that only its worker writes into, from when the ledger goes until it is back."""

    def __init__(self, workers: int) -> None:
        """`workers` are those of this gateway."""
        self.ways = 0
        """In how many parts the limits are shared out; 0 while they are not."""
        self._workers = workers
        self._book = Book()

    def end(self) -> None:
        """Take note that the ledger is back."""
        self.ways = 0

    def exchange(
        self, limits: Limits, ask: Ask, last: Told | None, owed: tuple[float, float], now: float
    ) -> Told:
        """Answer in the ledger's place; `last` is what it said last.

        `owed` are the requests and tokens that all together owe now. What is granted here the
        ledger has to be told of: see `billed`.
        """
        day = int(now // DAY)
        if not self.ways:
            self.ways = max(self._workers, last.workers if last else 1)
            self._begin(limits.share(self.ways), owed, now)
        spent = last.nanos if last and last.day == day else 0
        part = limits.share(self.ways, spent)
        return exchange(self._book, part, replace(ask, day=-1), now)

    def billed(self, worker: str, tokens: int, nanos: int) -> None:
        """Take note that what was granted here is reported from now on, and counted already."""
        seat = self._book.seats[worker]
        seat.tokens += tokens
        seat.nanos += nanos

    def _begin(self, part: Limits, owed: tuple[float, float], now: float) -> None:
        """Share out what all owe, too; what this worker owes since it was last alone it owes."""
        before = self._book
        minutes = max(0.0, now - before.at) / MINUTE
        self._book = Book(
            at=now,
            requests=max(before.requests - minutes * (part.requests or 0), owed[0] / self.ways),
            tokens=max(before.tokens - minutes * (part.tokens or 0), owed[1] / self.ways),
            day=int(now // DAY),
        )
