"""What a key is told: why it is refused and when to come back, and what it has left."""

from gateway.errors import OwnLimitError, retry_headers
from gateway.quota.desk import Desk
from gateway.quota.limits import MINUTE, NANOS

_SOON = 1.0
"""Seconds after which a place may be free; nobody knows when a request ends."""


def rate(desk: Desk) -> OwnLimitError:
    """Return the 429 for too many requests a minute."""
    limit = desk.part.requests or 1
    wait = (1 - desk.requests_left()) * MINUTE / limit
    return OwnLimitError(
        f"Rate limit reached for this key: {limit:,} requests a minute{_shared(desk)}. Please try "
        f"again in {duration(wait)}.",
        headers=retry_headers(wait),
        reason="rate",
    )


def concurrency(desk: Desk) -> OwnLimitError:
    """Return the 429 for too many requests at the same time."""
    limit = desk.part.places or 0
    return OwnLimitError(
        f"This key has {limit:,} requests running, which is all it may have at the same "
        f"time{_shared(desk)}. Please try again when one of them has ended.",
        headers=retry_headers(_SOON),
        reason="concurrency",
    )


def tokens(desk: Desk, wanted: int) -> OwnLimitError:
    """Return the 429 for too many tokens a minute, or for more than there are in one."""
    limit = desk.part.tokens or 1
    if wanted > limit:
        return OwnLimitError(
            f"Request too large for this key: {limit:,} tokens a minute{_shared(desk)}, requested "
            f"{wanted:,}. The input or the output must be reduced.",
            headers=retry_headers(MINUTE),
            reason="tokens",
        )
    left = desk.tokens_left()
    wait = (wanted - left) * MINUTE / limit
    return OwnLimitError(
        f"Rate limit reached for this key: {limit:,} tokens a minute{_shared(desk)}, "
        f"{max(0, int(left)):,} left, requested {wanted:,}. Please try again in {duration(wait)}.",
        headers=retry_headers(wait),
        reason="tokens",
    )


def budget(desk: Desk) -> OwnLimitError:
    """Return the 429 for dollars that are spent."""
    dollars = (desk.limits.nanos or 0) / NANOS
    return OwnLimitError(
        f"This key has spent its budget of {dollars:g} US dollars a day{_shared(desk)}, or has too "
        "little left of it for this request. The next day begins at midnight UTC; what is cached "
        "is answered all the same.",
        code="insufficient_quota",
        headers=retry_headers(desk.until_tomorrow()),
        reason="budget",
    )


def headers(desk: Desk) -> dict[str, str]:
    """Return OpenAI's headers for what is left of a minute's requests and tokens."""
    part = desk.part
    told: dict[str, str] = {}
    if part.requests is not None:
        told |= _of("requests", part.requests, desk.requests_left())
    if part.tokens is not None:
        told |= _of("tokens", part.tokens, desk.tokens_left())
    return told


def _of(what: str, limit: int, left: float) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(limit),
        f"x-ratelimit-remaining-{what}": str(max(0, int(left))),
        f"x-ratelimit-reset-{what}": duration((limit - left) * MINUTE / limit),
    }


def duration(seconds: float) -> str:
    """Return a duration as OpenAI writes it: 0s, 17ms, 8.64s, 6m0s, 1h0m0.5s; rounded up."""
    milliseconds = max(0, -int(-seconds * 1000 // 1))
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    told = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{told}"
    return f"{minutes}m{told}" if minutes else told


def _shared(desk: Desk) -> str:
    if desk.ways == 1:
        return ""
    return f" (its limit shared out to {desk.ways} workers, which cannot count together now)"
