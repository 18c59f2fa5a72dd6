"""What an engine of ours says, as its own files under `engine/` write it."""

import msgspec

from gateway.backends.exchange import Reply
from gateway.backends.failures import Failure
from gateway.errors import (
    GatewayError,
    InvalidInputError,
    InvalidRequestError,
    UnavailableError,
)
from gateway.reasons import Reason

_OVERLOAD: Reason = "overload"


class _Counted(msgspec.Struct):
    input_tokens: list[int]


def read_token_counts(reply: Reply) -> list[int]:
    """Return the tokens of each text that was counted."""
    return msgspec.json.decode(reply.body, type=_Counted).input_tokens


class _EngineError(msgspec.Struct):
    message: str
    type: str = "server_error"
    param: str | None = None
    code: str | None = None
    item: int | None = None


class _EngineErrorBody(msgspec.Struct):
    error: _EngineError


def read_engine_failure(reply: Reply, upstream: str, field: str) -> Failure | None:
    """Return what an engine's answer means; it speaks our own errors, with `item` beside them."""
    del field  # it names fields itself
    if reply.status == 200:
        return None
    try:
        said = msgspec.json.decode(reply.body, type=_EngineErrorBody).error
    except (msgspec.DecodeError, RecursionError):
        said = _EngineError(f"The engine of '{upstream}' answered with status {reply.status}.")
    headers = {
        name: reply.headers[name]
        for name in ("retry-after", "retry-after-ms", "x-should-retry")
        if name in reply.headers
    }
    error: GatewayError
    if reply.status == 400 and said.item is not None:
        error = InvalidInputError(said.message, item=said.item, code=said.code)
    elif 400 <= reply.status < 500:
        error = InvalidRequestError(said.message, param=said.param, code=said.code)
    elif reply.status == 503:
        reason = _OVERLOAD if said.code == "engine_overloaded" else None
        error = UnavailableError(said.message, code=said.code, headers=headers, reason=reason)
    else:
        error = GatewayError(said.message, param=said.param, code=said.code, headers=headers)
    return Failure(error, retry=False)
