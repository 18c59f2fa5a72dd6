"""What became of a call, told to the upstream's circuit."""

from typing import Literal

from gateway.backends.failures import Failure
from gateway.errors import (
    GatewayError,
    OwnLimitError,
    RateLimitError,
    UnavailableError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
    retry_headers,
)
from gateway.resilience.circuit import Circuit, Reason

Again = Reason | Literal["throttled"]
"""Why a call is made again."""

_ENOUGH = 1.0
"""Seconds in which an upstream that is well answers: who has less may be late by his own fault."""


def left_alone(upstream: str, circuit: Circuit, *, stand_in: bool) -> UnavailableError:
    """Return the error for a call that is not made: the upstream fails too often, or asked so."""
    return UnavailableError(
        f"Upstream '{upstream}' is left alone for a while.",
        code="upstream_unavailable",
        headers=retry_headers(circuit.wait(stand_in=stand_in)),
    )


def answered(circuit: Circuit, status: int, failure: Failure | None) -> None:
    """Take note of an answer of this status, which meant this failure, if any.

    Whoever says what is wrong with a request, or with its key, is well.
    """
    error = None if failure is None else failure.error
    if isinstance(error, RateLimitError) and not isinstance(error, OwnLimitError):
        # A quota that is used up does not come back soon.
        circuit.throttled(failure.after if failure and failure.retry else float("inf"))
    elif error is not None and error.status >= 500 and (status >= 500 or status == 408):
        circuit.failed("timeout" if isinstance(error, UpstreamTimeoutError) else "5xx")
    else:
        circuit.succeeded()


def unanswered(circuit: Circuit, error: UpstreamError, seconds: float) -> Failure:
    """Take note of a call without a sound answer, which had so many seconds."""
    reason = broken(error)
    if reason == "timeout" and seconds < _ENOUGH:
        circuit.abandoned()
    else:
        circuit.failed(reason)
    # A slow answer would be slow again, and may be billed; a connection costs nothing.
    return Failure(error, retry=reason == "connect")


def broken(error: UpstreamError) -> Reason:
    """Return how an answer broke, or why there was none."""
    if isinstance(error, UpstreamConnectError) or error.code == "upstream_connect_timeout":
        return "connect"
    return "timeout" if isinstance(error, UpstreamTimeoutError) else "bad_answer"


def again(error: GatewayError) -> Again:
    """Return why a call that failed so may be made again."""
    if isinstance(error, RateLimitError):
        return "throttled"
    if isinstance(error, UpstreamConnectError | UpstreamTimeoutError):
        return broken(error)
    return "5xx"
