"""What a key has used, and who may use more: the arithmetic of every ledger. Pure, clock given.

A minute's worth may be used at once; it comes back evenly, as OpenAI's does. So `owed` requests
and tokens drain away at the limit's rate, and what is asked for is granted while what is owed
stays within the limit.

Workers do not ask for each request. They take some on lease, a second long, and use them without
asking; what is out on lease is owed. So never more is used than the limit, whoever dies with what
lease: in any time t, at most limit + t * rate. What comes back unused is not owed any more.

All that a worker reports is a sum since it began, so an answer that was lost costs nothing: the
next report says it all again.
"""

from collections.abc import Sequence
from math import floor

from msgspec import Struct

from gateway.quota.limits import DAY, MINUTE, Limits

LEASE = 1.0
"""Seconds that a worker may use requests without asking again."""
HELD = 15.0
"""Seconds that a worker holds its places of concurrency without asking again."""
FORGOTTEN = 120.0
"""Seconds after which nothing is known any more of a worker that did not ask."""

_DUST = 1e-6
"""Of a request or a token: what floating point may be off by."""


class Wish(Struct, frozen=True, array_like=True):
    """Tokens and billionths of a dollar that one upstream call is expected to take."""

    tokens: int
    nanos: int


class Ask(Struct, frozen=True, kw_only=True):
    """What a worker reports of a key, and what it would like. All sums are since it began."""

    worker: str
    used: int = 0
    """Requests."""
    lease: int = 0
    """Requests that it would like to use without asking, in place of those it has."""
    busy: int = 0
    """Places that requests stand on now."""
    places: int = 0
    """Those that it would like to hold, in place of those it has."""
    tokens: int = 0
    """By which calls were billed more than they had wished for, or less."""
    nanos: int = 0
    known_tokens: int = 0
    """What of `tokens` the ledger has confirmed."""
    known_nanos: int = 0
    day: int = -1
    """The day of UTC of which it knows what was spent."""
    spent: int = 0
    """What the ledger said was spent that day: a ledger that has lost its memory takes it over."""
    wishes: Sequence[Wish] = ()


class Told(Struct, frozen=True, kw_only=True):
    """What the ledger answers."""

    lease: int
    """Requests that may be used before LEASE has passed, those in `Ask.used` not counted."""
    places: int
    refused: Sequence[str]
    """For each wish: "tokens", "budget", or nothing where it is granted."""
    requests: float
    """Owed, those on lease included."""
    tokens: float
    """Owed."""
    nanos: int
    """Spent that day."""
    day: int
    """Of UTC, since 1970."""
    workers: int
    """That asked lately, this one included."""


class Seat(Struct, array_like=True):
    """One worker, as a ledger knows it."""

    seen: float
    used: int = 0
    lease: int = 0
    places: int = 0
    tokens: int = 0
    nanos: int = 0


class Book(Struct, array_like=True):
    """What a ledger knows of one key."""

    at: float = 0.0
    """Unix time of the last exchange; 0 for a book that is new."""
    requests: float = 0.0
    """Owed."""
    tokens: float = 0.0
    """Owed."""
    day: int = 0
    nanos: int = 0
    """Spent and reserved that day."""
    seats: dict[str, Seat] = {}


def exchange(book: Book, limits: Limits, ask: Ask, now: float) -> Told:
    """Take down what a worker reports, and grant what it would like as far as that goes."""
    _pass(book, limits, ask, now)
    known = book.seats.pop(ask.worker, None)
    seat = Seat(now, used=ask.used, tokens=ask.tokens, nanos=ask.nanos)
    _settle(book, ask, known)
    _lease(book, limits, ask, known, seat)
    if limits.places is not None:
        others = sum(s.places for s in book.seats.values() if now - s.seen <= HELD)
        # Places that requests stand on cannot be taken back.
        seat.places = max(ask.busy, min(ask.places, limits.places - others))
    refused = [_grant(book, limits, wish) for wish in ask.wishes]
    book.seats[ask.worker] = seat
    return Told(
        lease=seat.lease,
        places=seat.places,
        refused=refused,
        requests=book.requests,
        tokens=book.tokens,
        nanos=book.nanos,
        day=book.day,
        workers=len(book.seats),
    )


def _pass(book: Book, limits: Limits, ask: Ask, now: float) -> None:
    """Let the time pass since the last exchange; none does where the clock was put back."""
    day = int(now // DAY)
    elapsed = max(0.0, now - book.at)
    if not book.at and ask.day == day:
        book.nanos = ask.spent
    elif book.day != day:
        book.nanos = 0
    book.at, book.day = now, day
    # Seats from the future are those of a clock that was put back.
    book.seats = {w: s for w, s in book.seats.items() if abs(now - s.seen) <= FORGOTTEN}
    out = sum(s.lease for s in book.seats.values() if now - s.seen <= LEASE)
    book.requests = max(float(out), book.requests - elapsed * (limits.requests or 0) / MINUTE)
    book.tokens = max(0.0, book.tokens - elapsed * (limits.tokens or 0) / MINUTE)


def _settle(book: Book, ask: Ask, known: Seat | None) -> None:
    """Count what calls were billed beyond what they had wished for."""
    before = (known.tokens, known.nanos) if known else (ask.known_tokens, ask.known_nanos)
    book.tokens = max(0.0, book.tokens + ask.tokens - before[0])
    book.nanos = max(0, book.nanos + ask.nanos - before[1])


def _lease(book: Book, limits: Limits, ask: Ask, known: Seat | None, seat: Seat) -> None:
    """Take back what is left of the worker's last lease, and give it another."""
    if limits.requests is None:
        book.requests = 0.0
        return
    others = sum(s.lease for s in book.seats.values() if book.at - s.seen <= LEASE)
    if known is not None:
        unused = max(0, known.lease - max(0, ask.used - known.used))
        book.requests = max(float(others), book.requests - unused)
    free = max(0, floor(limits.requests - book.requests + _DUST))
    seat.lease = min(ask.lease, free)
    book.requests += seat.lease


def _grant(book: Book, limits: Limits, wish: Wish) -> str:
    """Reserve what a call is expected to take, or say what there is too little of."""
    if limits.nanos is not None and wish.nanos and book.nanos + wish.nanos > limits.nanos:
        return "budget"
    if limits.tokens is not None and book.tokens + wish.tokens > limits.tokens + _DUST:
        return "tokens"
    book.tokens += wish.tokens
    book.nanos += wish.nanos
    return ""
