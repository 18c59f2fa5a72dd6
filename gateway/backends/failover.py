"""What a failed call means where another upstream may serve: go on, or tell; and what to tell."""

from collections.abc import Sequence

from gateway.errors import (
    GatewayError,
    RateLimitError,
    UnavailableError,
    UpstreamConnectError,
    UpstreamTimeoutError,
)

_NOT_BEGUN = frozenset({"upstream_connect_timeout", "upstream_authentication"})
"""Codes of failures that certainly began no answer."""


def others_may_embed(error: GatewayError) -> bool:
    """Whether another upstream may do better: at all but the client's own mistakes."""
    return error.status >= 500 or isinstance(error, RateLimitError)


def others_may_chat(error: GatewayError) -> bool:
    """Whether another upstream may answer a chat: only where this one has not begun to.

    An answer that was begun may be billed, and may have had effects.
    """
    begun_none = (UpstreamConnectError, RateLimitError, UnavailableError)
    return isinstance(error, begun_none) or error.code in _NOT_BEGUN


def most_telling(errors: Sequence[GatewayError]) -> GatewayError:
    """Return the one of several upstreams' errors, in the order of asking, that helps most.

    First those that say when to come back, the soonest of them, because that is when any upstream
    can answer again; then what an upstream answered, then that it was late, then that nobody was
    there. All has been tried then: SDKs need not add their own tries to a 5xx other than 503.
    """
    error = min(errors, key=_rank)
    if error.status >= 500 and error.status != 503:
        error.headers.setdefault("x-should-retry", "false")
    return error


def _rank(error: GatewayError) -> tuple[int, float]:
    if isinstance(error, RateLimitError | UnavailableError) and error.code != "insufficient_quota":
        return 0, float(error.headers.get("retry-after-ms", "1000"))
    if isinstance(error, UpstreamTimeoutError):
        return 2, 0.0
    return (3 if isinstance(error, UpstreamConnectError) else 1), 0.0
