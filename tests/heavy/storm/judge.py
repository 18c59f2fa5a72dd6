"""What an answer, or a failure, has to be: promises P1, P2, P3, and honest errors.

P4, which is about what is asked upstream, is judged where that happens, see `worker`.
"""

from collections import Counter

import numpy as np

from gateway.embedded import Embedded
from gateway.errors import (
    GatewayError,
    InvalidRequestError,
    NotCachedError,
    RateLimitError,
    UnavailableError,
    UpstreamError,
    UpstreamTimeoutError,
)
from tests.heavy.storm import telling
from tests.heavy.storm.books import Ask, Books, Call
from tests.heavy.storm.plan import LONG
from tests.heavy.storm.worker import Worker

_CODES = {"upstream_invalid_response", "upstream_error", "upstream_unreachable"}
"""What an upstream that fails for itself may be called."""
_LAG = 0.5
"""Seconds that a clock may be read later than the upstream's."""


class Judge:
    """Looks at everything that comes back; what it finds wrong is in the books."""

    def __init__(self, books: Books) -> None:
        self.count: Counter[str] = Counter()
        """Batches by what became of them, and texts by where their vectors came from."""
        self._books = books
        self._bits: dict[tuple[int, int], bytes] = {}
        """By draw and width: a draw is one vector."""

    def answered(self, ask: Ask, worker: Worker, embedded: Embedded) -> None:
        """Judge an answer, item by item."""
        self.count["unshared" if embedded.unshared else "shared"] += 1
        self.count.update({f"texts {where}": n for where, n in embedded.sources.items()})
        try:
            rows = telling.sent(embedded.fragments, base64=ask.batch.base64)
            numbers, draws = telling.told(rows)
        except ValueError as error:
            self._books.complain(ask, f"the answer cannot be read: {error}")
            return
        if wrong := self._wrong_form(ask, worker, embedded, rows):
            self._books.complain(ask, wrong)
            return
        for place, (number, draw) in enumerate(zip(numbers, draws, strict=True)):
            wrong = self._wrong(ask, worker, place, number, draw, unshared=embedded.unshared)
            bits = rows[place].tobytes()
            if self._bits.setdefault((draw, rows.shape[1]), bits) != bits:
                wrong = "it is not what this draw was before, bit for bit"
            if wrong:
                first = worker.house.shared.get(ask.identity(number), draw)
                asked = ask.batch.numbers[place]
                self._books.complain(ask, f"input[{place}], text {asked}: {wrong}", draw, first)

    def _wrong_form(
        self, ask: Ask, worker: Worker, embedded: Embedded, rows: telling.Rows
    ) -> str | None:
        """Return what is wrong with the answer as a whole, if anything."""
        batch = ask.batch
        if batch.mistake:
            return "what cannot be answered was answered"
        if rows.shape != (len(batch.numbers), batch.dimensions or telling.WIDTH):
            return f"{len(rows)} vectors were answered, {rows.shape[1]} wide"
        if sum(embedded.sources.values()) != len(rows):
            return f"the sources are told wrongly: {embedded.sources}"
        norms = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1))
        if np.abs(norms - 1).max() > 1e-6:
            return f"the vectors' lengths are between {norms.min()} and {norms.max()}"
        if embedded.unshared and self._was_calm(ask, worker):
            return "it is said to be unshared, and no store failed"
        return None

    def _wrong(
        self, ask: Ask, worker: Worker, place: int, number: int, draw: int, *, unshared: bool
    ) -> str | None:
        """Return why this vector should not have been answered here, if so."""
        batch = ask.batch
        if number != batch.numbers[place]:
            return f"it is the vector of text {number}"
        if not 0 <= draw < len(self._books.draws):
            return "nobody drew it"
        call = self._books.draws[draw]
        if not call.sound:
            return "it is from an answer that had to be refused"
        if call.ask is ask and not ask.shares:
            return None
        if wrong := self._made_for_another(ask, number, call):
            return wrong
        if batch.control.dated and batch.control.max_age != LONG:
            return self._too_old(ask, worker, number, call)
        if unshared:
            return self._from_elsewhere(ask, worker, number, draw, call)
        if worker.house.shared.setdefault(ask.identity(number), draw) != draw:
            return "another vector was answered for it before as the one that all share"
        return None

    @staticmethod
    def _made_for_another(ask: Ask, number: int, call: Call) -> str | None:
        """Return why a vector must not go from the request it was made for to this one, if so."""
        made_for = call.ask
        if made_for.identity(number) != ask.identity(number) or call.model != ask.batch.model:
            return "it was made for another model, tenant or seed"
        if made_for.house != ask.house:
            return "it comes from another house"
        if made_for.batch.control.no_store or ask.batch.control.no_store:
            return "no-store: it had to stay with the request it was made for"
        if made_for is not ask and ask.identity(number) in made_for.fresh:
            return "no-cache: it was to leave what is kept as it is"
        return None

    def _too_old(self, ask: Ask, worker: Worker, number: int, call: Call) -> str | None:
        """A fresh vector was wanted; what can be demanded is only that of stores that worked."""
        if not self._was_calm(ask, worker) or not worker.stores:
            return None
        shelf = worker.stores[-1].shelf
        if not shelf.held_before(ask.identity(number), ask.began):
            return None
        control = ask.batch.control
        if control.no_cache:
            return "no-cache: it had been made for another request"
        oldest = ask.at - (control.max_age or 0) - _LAG
        return "max-age: it is too old" if call.at < oldest else None

    def _from_elsewhere(
        self, ask: Ask, worker: Worker, number: int, draw: int, call: Call
    ) -> str | None:
        """What is unshared is either shared after all, or of the worker's own making."""
        identity = ask.identity(number)
        if call.ask.worker == worker.name or worker.house.shared.get(identity) == draw:
            return None
        if any(store.shelf.held.get(identity, (0, None))[1] == draw for store in worker.stores):
            return None
        return "it is unshared, and another worker's"

    def _was_calm(self, ask: Ask, worker: Worker) -> bool:
        return (
            None not in ask.calm
            and list(ask.calm) == list(worker.calm())
            and ask.writable
            and worker.writable
            and not ask.owed
        )

    def failed(self, ask: Ask, worker: Worker, error: BaseException) -> None:
        """Judge how a request failed."""
        self.count[f"failed: {getattr(error, 'code', None) or type(error).__name__}"] += 1
        if not isinstance(error, GatewayError):
            self._books.complain(ask, f"it failed with {error!r}")
        elif not self._may_fail(ask, worker, error):
            met = ", ".join(sorted(ask.met)) or "nothing"
            told = f"{type(error).__name__}, {error.code}: {error.message}"
            self._books.complain(ask, f"it failed with {told}; its own calls met {met}")

    def _may_fail(self, ask: Ask, worker: Worker, error: GatewayError) -> bool:
        if isinstance(error, NotCachedError):
            return ask.batch.control.only_if_cached and not self._all_held(ask, worker)
        if isinstance(error, InvalidRequestError):
            # Nobody is told of a mistake that is in somebody else's request.
            return ask.batch.mistake or "400" in ask.met
        if isinstance(error, UpstreamTimeoutError):
            return "late" in ask.met or ask.batch.patience < 1
        if isinstance(error, UpstreamError):
            return error.code in _CODES
        return isinstance(error, RateLimitError | UnavailableError)

    def _all_held(self, ask: Ask, worker: Worker) -> bool:
        if not worker.stores or not self._was_calm(ask, worker):
            return False
        shelf = worker.stores[-1].shelf
        return all(shelf.held_before(ask.identity(n), ask.began) for n in ask.batch.numbers)
