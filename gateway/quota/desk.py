"""What one worker knows of one key's use, and its talk with the ledger.

Requests and places are used from what is at hand; for more, and for tokens and dollars, the ledger
is asked. One exchange at a time: who comes while it lasts is served by the next, together with all
who came. While the ledger is away the worker keeps a book of its own, with its part of the limits,
and tells the ledger of tokens and dollars when it is back.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway.quota.alone import Alone
from gateway.quota.book import HELD, LEASE, Ask, Told, Wish
from gateway.quota.limits import DAY, MINUTE, UNLIMITED, Limits
from gateway.quota.reach import Reach

_SOONER = 0.8
"""Part of a lease after which it counts as over here: clocks run differently."""
_TOGETHER = 256
"""Who is served by one exchange, at most."""
_LARGEST = 100
"""A lease has at most this part of a minute's requests; so limits below twice that are exact."""
_QUICK = 0.2
"""Seconds: a lease that was used up sooner was too small."""
_SPARE, _DUE = 0.02, 0.05
"""Seconds that places nobody uses are held, and that the ledger may wait for what was billed."""
_RENEWED = HELD / 3


@dataclass(slots=True)
class _Waiting:
    """Somebody who waits for an exchange: for a request and a place, or for a wish."""

    future: "asyncio.Future[str]"
    """What there is too little of; nothing where it is granted."""
    wish: Wish | None = None


class Desk:
    """Who is at it has what he asked for, or is told what there is too little of."""

    def __init__(
        self,
        key: str,
        worker: str,
        reach: Reach,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        """`key` is its name in the config; `clock` is monotonic, `now` Unix time."""
        self.key = key
        self.limits = UNLIMITED
        """What the config says now."""
        self._worker = worker
        self._reach = reach
        self._clock = clock
        self._now = now
        self._told: Told | None = None
        self._told_at = 0.0
        self._told_tokens = 0
        self._last: Told | None = None
        """The ledger's, not that of our own book."""
        self._alone = Alone(reach.workers)
        self._used = self._lease = 0
        self._lease_until = 0.0
        self._chunk = 1
        self._leased_at = 0.0
        self._busy = self._places = 0
        self._places_until = 0.0
        self._tokens = self._nanos = 0
        self._known_tokens = self._known_nanos = 0
        self._waiting: list[_Waiting] = []
        self._trim = self._restless = False
        self._talk: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # Requests and places

    def enter(self) -> bool:
        """Take a request and a place of those at hand; False where there are none."""
        now, limits = self._clock(), self.limits
        if limits.requests is not None and (self._lease <= 0 or now >= self._lease_until):
            return False
        no_place = self._busy >= self._places or now >= self._places_until
        if limits.places is not None and no_place:
            return False
        self._lease -= 1
        self._used += 1
        self._busy += 1
        return True

    async def ask_to_enter(self) -> str:
        """Take a request and a place; return what there is none of: "rate" or "concurrency"."""
        waiting = self._wait()
        try:
            return await waiting.future
        except asyncio.CancelledError:
            if _granted(waiting.future):
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back."""
        self._busy -= 1
        if self.limits.places is not None:
            self._soon(_SPARE)

    # Tokens and dollars

    async def reserve(self, wish: Wish) -> str:
        """Reserve them; return what there is too little of: "tokens" or "budget"."""
        waiting = self._wait(wish)
        try:
            return await waiting.future
        except asyncio.CancelledError:
            if _granted(waiting.future):
                self.settle(-wish.tokens, -wish.nanos)
            raise

    def settle(self, tokens: int, nanos: int) -> None:
        """Count what a call was billed beyond its wish."""
        self._tokens += tokens
        self._nanos += nanos
        if tokens or nanos:
            self._soon(_DUE)

    # What is left

    @property
    def ways(self) -> int:
        """In how many parts the limits are shared out now; one of them is ours."""
        return self._alone.ways or self._reach.ways

    @property
    def part(self) -> Limits:
        """What this worker enforces: all of the limits, or its part of them."""
        return self.limits.share(self.ways)

    def requests_left(self) -> float:
        """Return how many requests may still be made now, as far as this worker knows."""
        limit = self.part.requests or 0
        lease = self._lease if self._clock() < self._lease_until else 0
        return min(float(limit), limit - self._owed_requests() + max(0, lease))

    def tokens_left(self) -> float:
        """Return how many tokens may still be used now; below zero where too many were."""
        return (self.part.tokens or 0) - self._owed_tokens()

    def _owed_requests(self) -> float:
        drained = (self._clock() - self._told_at) * (self.part.requests or 0) / MINUTE
        return max(0.0, self._told.requests - drained) if self._told else 0.0

    def _owed_tokens(self) -> float:
        drained = (self._clock() - self._told_at) * (self.part.tokens or 0) / MINUTE
        owed = self._told.tokens + self._tokens - self._told_tokens if self._told else 0.0
        return max(0.0, owed - drained)

    def until_tomorrow(self) -> float:
        """Return the seconds until the dollars of a new day may be spent."""
        return DAY - self._now() % DAY

    # The talk

    @property
    def restless(self) -> bool:
        """Whether the ledger should hear from it, though nobody waits."""
        unsettled = (self._tokens, self._nanos) != (self._known_tokens, self._known_nanos)
        ageing = self._clock() > self._places_until - HELD + _RENEWED
        return unsettled or (self._busy > 0 and self.limits.places is not None and ageing)

    def refresh(self) -> None:
        """Tell the ledger what there is to tell."""
        self._restless = True
        if self._talk is None:
            self._talk = asyncio.get_running_loop().create_task(self._exchange_all())

    async def aclose(self) -> None:
        """Tell it for the last time."""
        if self._timer is not None:
            self._timer.cancel()
        if self.restless or self._places:
            self._trim = True
            self.refresh()
        if self._talk is not None:
            await self._talk

    def _wait(self, wish: Wish | None = None) -> _Waiting:
        waiting = _Waiting(asyncio.get_running_loop().create_future(), wish)
        self._waiting.append(waiting)
        if self._talk is None:
            self._talk = asyncio.get_running_loop().create_task(self._exchange_all())
        return waiting

    def _soon(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._time)

    def _time(self) -> None:
        self._timer = None
        self._trim = self._busy < self._places
        if self._trim or self.restless:
            self.refresh()

    async def _exchange_all(self) -> None:
        served: list[_Waiting] = []
        try:
            while self._waiting or self._restless:
                self._restless = False
                served, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
                await self._exchange(served)
        except BaseException as error:
            for waiting in served + self._waiting:
                if waiting.future.done():
                    continue
                if isinstance(error, Exception):
                    waiting.future.set_exception(error)
                else:
                    waiting.future.cancel()
            self._waiting = []
            raise
        finally:
            self._talk = None

    async def _exchange(self, served: list[_Waiting]) -> None:
        began = self._clock()
        ask = self._ask(served, began)
        told = await self._reach.exchange(self.key, self.limits, ask)
        if told is not None:
            self._last = told
            self._alone.end()
            self._known_tokens, self._known_nanos = ask.tokens, ask.nanos
            self._told_tokens = ask.tokens
        else:
            told = self._exchange_alone(ask)
            self._told_tokens = self._tokens
        self._told, self._told_at = told, self._clock()
        self._lease = told.lease - (self._used - ask.used)
        self._lease_until = began + LEASE * _SOONER
        self._places = told.places
        self._places_until = began + HELD * _SOONER
        refusals = iter(told.refused)
        for waiting in served:
            self._serve(waiting, next(refusals) if waiting.wish else None)

    def _ask(self, served: list[_Waiting], now: float) -> Ask:
        entries = sum(waiting.wish is None for waiting in served)
        # What is at hand is used meanwhile; those who wait need theirs besides.
        lease = self._lease = max(0, self._lease) if now < self._lease_until else 0
        if entries:
            quick = now - self._leased_at < _QUICK
            most = max(1, (self.limits.requests or 0) // _LARGEST)
            self._chunk = min(2 * self._chunk, most) if quick else 1
            self._leased_at = now
            lease = max(lease + entries, self._chunk)
        if self._trim:
            self._places = min(self._places, self._busy)
        places = max(self._places, self._busy) + entries
        self._trim = False
        last = self._last
        return Ask(
            worker=self._worker,
            used=self._used,
            lease=lease,
            busy=self._busy,
            places=places,
            tokens=self._tokens,
            nanos=self._nanos,
            known_tokens=self._known_tokens,
            known_nanos=self._known_nanos,
            day=last.day if last else -1,
            spent=last.nanos if last else 0,
            wishes=[waiting.wish for waiting in served if waiting.wish],
        )

    def _exchange_alone(self, ask: Ask) -> Told:
        """Answer ourselves: within our part of the limits."""
        owed = self._owed_requests(), self._owed_tokens()
        told = self._alone.exchange(self.limits, ask, self._last, owed, self._now())
        for wish, refused in zip(ask.wishes, told.refused, strict=True):
            if not refused:
                self._tokens += wish.tokens
                self._nanos += wish.nanos
                self._alone.billed(self._worker, wish.tokens, wish.nanos)
        return told

    def _serve(self, waiting: _Waiting, refused: str | None) -> None:
        if waiting.future.done():
            if waiting.wish is not None and not refused:
                self.settle(-waiting.wish.tokens, -waiting.wish.nanos)
            return
        if refused is None:
            lacking = self.limits.requests is not None and self._lease <= 0
            refused = "" if self.enter() else "rate" if lacking else "concurrency"
        waiting.future.set_result(refused)


def _granted(future: "asyncio.Future[str]") -> bool:
    return future.done() and not future.cancelled() and not future.result()
