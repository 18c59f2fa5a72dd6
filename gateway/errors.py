"""Everything that can go wrong, as one tree; each class knows its HTTP status.

    GatewayError                    500  server_error
    ├── InvalidRequestError         400  invalid_request_error
    │   ├── InvalidInputError       400  (one item of `input`; the core adds its index)
    │   ├── TooManyTokensError      400
    │   ├── AuthenticationError     401
    │   ├── PermissionDeniedError   403
    │   ├── NotFoundError           404
    │   ├── MethodNotAllowedError   405
    │   ├── SlowClientError         408
    │   ├── PayloadTooLargeError    413
    │   ├── UnsupportedMediaError   415
    │   ├── MisdirectedError        421
    │   └── HeadersTooLargeError    431
    ├── RateLimitError              429
    │   └── OwnLimitError           429  (of the caller's own key)
    ├── UpstreamError               502  the upstream failed, or its answer cannot be trusted
    │   ├── VectorsRefusedError     502
    │   ├── UpstreamTimeoutError    504
    │   └── UpstreamConnectError    502  no answer was had: safe to ask again
    ├── NotCachedError              504  only what is kept was wanted, and it is not
    ├── UnavailableError            503  overloaded, or the engine is not there (yet)
    └── ConfigError                 (never sent: start, check and reload report it)

Messages are for the client: they name the field and what to do, and hold no texts, keys or traces.
"""

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from gateway.reasons import Fault, Reason

OTHER_WIDTH = "upstream_other_width"
"""The code where vectors are sound, and wider or narrower than this model's have been so far."""


class GatewayError(Exception):
    """An error with a place in OpenAI's error body: ``{"error": {message, type, param, code}}``.

    `headers` go out with the answer (`retry-after`, `x-should-retry`, …).
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None
    default_reason: ClassVar[Reason | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        reason: Reason | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.headers: dict[str, str] = dict(headers or {})
        self.reason = reason if reason is not None else self.default_reason
        """Why the gateway turned the request away; None where it did not: it, or an upstream,
        failed."""

    def body(self) -> bytes:
        """Return the JSON body that OpenAI's SDKs understand; all four keys are always there."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return msgspec.json.encode({"error": error})


class InvalidRequestError(GatewayError):
    """The client's mistake: asking again unchanged cannot help."""

    status = 400
    type = "invalid_request_error"
    default_reason: ClassVar[Reason | None] = "schema"


class InvalidInputError(InvalidRequestError):
    """One item of `input` is at fault; `item` is its position in the list the raiser was given.

    The core, which knows where that text stood in the client's request, rewrites the position.
    """

    def __init__(self, message: str, *, item: int, code: str | None = None) -> None:
        super().__init__(message, param="input", code=code)
        self.item = item

    def at(self, index: int) -> InvalidRequestError:
        """Return the error as the client reads it, naming its own index."""
        return InvalidRequestError(
            f"'input[{index}]': {self.message}", param="input", code=self.code
        )


class TooManyTokensError(InvalidRequestError):
    """All inputs together hold more tokens than one request may."""

    type = "max_tokens_per_request"
    default_code = "max_tokens_per_request"

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(
            f"Requested {tokens} tokens, max {limit} tokens per request", param="input"
        )


class AuthenticationError(InvalidRequestError):
    """No key, or one that the config does not know."""

    status = 401
    default_code = "invalid_api_key"
    default_reason = "auth"


class PermissionDeniedError(InvalidRequestError):
    """The key is known, and may not do this."""

    status = 403
    default_code = "permission_denied"
    default_reason = "auth"


class NotFoundError(InvalidRequestError):
    """No such model or path."""

    status = 404
    default_reason = "unknown"


class MethodNotAllowedError(InvalidRequestError):
    """The path exists, with another method."""

    status = 405
    default_code = "method_not_allowed"
    default_reason = "unknown"


class SlowClientError(InvalidRequestError):
    """The request did not come in the time that it may take."""

    status = 408
    default_code = "request_timeout"
    default_reason = "slow_client"


class PayloadTooLargeError(InvalidRequestError):
    """The body is larger than the server reads."""

    status = 413
    default_code = "payload_too_large"
    default_reason = "body_size"


class UnsupportedMediaError(InvalidRequestError):
    """The body is not plain JSON."""

    status = 415
    default_code = "unsupported_media_type"
    default_reason = "media_type"


class MisdirectedError(InvalidRequestError):
    """The request is for a host that this gateway is not."""

    status = 421
    default_code = "misdirected_request"
    default_reason = "host"


class HeadersTooLargeError(InvalidRequestError):
    """The request has more headers, or larger ones, than the server reads."""

    status = 431
    default_code = "headers_too_large"
    default_reason = "header_size"


class RateLimitError(GatewayError):
    """Too much at once; `retry-after` says when to come back."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class OwnLimitError(RateLimitError):
    """A limit of the caller's own key: says nothing to others who wait for the same call."""


class UpstreamError(GatewayError):
    """An upstream answered, and the answer is an error or cannot be trusted."""

    status = 502
    type = "upstream_error"
    default_code = "upstream_error"


class VectorsRefusedError(UpstreamError):
    """An upstream's vectors are not accepted; `fault` says in a word what is wrong with them."""

    default_code = "upstream_invalid_response"

    def __init__(self, upstream: str, why: str, fault: Fault, code: str | None = None) -> None:
        super().__init__(f"The answer of upstream '{upstream}' was refused: {why}.", code=code)
        self.upstream = upstream
        self.fault = fault


class UpstreamTimeoutError(UpstreamError):
    """An upstream did not answer in time."""

    status = 504
    default_code = "upstream_timeout"


class UpstreamConnectError(UpstreamError):
    """The connection could not be made or broke before a whole answer was there."""

    default_code = "upstream_unreachable"


class NotCachedError(GatewayError):
    """What was asked for is not kept, and nobody may be asked for it; asking again cannot help."""

    status = 504
    type = "not_cached"
    default_code = "not_cached"

    def __init__(self, what: str, param: str) -> None:
        """`what` begins a sentence with what is missing."""
        super().__init__(
            f"{what}, and nothing else may be asked: the gateway or this model is offline, or the "
            "request said only-if-cached.",
            param=param,
            headers={"x-should-retry": "false"},
            reason="not_cached",
        )


class UnavailableError(GatewayError):
    """Nobody can take the work just now; `retry-after` says when to come back."""

    status = 503
    type = "overloaded_error"
    default_code = "unavailable"


class ConfigError(GatewayError):
    """The config cannot be used; `problems` holds one line for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def texts_not_cached(item: int, missing: int) -> NotCachedError:
    """Return the error where vectors are not kept; `item` is the first of the `missing` texts."""
    more = {1: "", 2: ", nor is one more text"}.get(missing, f", nor are {missing - 1} more")
    return NotCachedError(f"'input[{item}]' is not in the cache{more}", "input")


def answer_not_cached() -> NotCachedError:
    """Return the error for a chat whose answer is not kept."""
    return NotCachedError("No answer to this request is in the cache", "messages")


def store_away() -> UnavailableError:
    """Return the error where only what is kept was wanted, and a store cannot be looked into."""
    return UnavailableError(
        "What is asked for may be in a store that is away, and nothing else may be asked: the "
        "gateway or this model is offline, or the request said only-if-cached.",
        code="cache_unavailable",
        headers=retry_headers(1.0),
    )


def context_length_exceeded(tokens: int, limit: int, item: int) -> InvalidInputError:
    """Return OpenAI's error for a text of `tokens` tokens where the model reads `limit`."""
    return InvalidInputError(
        f"This model's maximum context length is {limit} tokens, however you requested {tokens} "
        f"tokens ({tokens} in your prompt; 0 for the completion). Please reduce your prompt; or "
        "completion length.",
        item=item,
        code="context_length_exceeded",
    )


def retry_headers(seconds: float) -> dict[str, str]:
    """Return `retry-after` (whole seconds, at least 1) and `retry-after-ms` for a wait.

    OpenAI's SDKs read the second first; a wait above 120 s makes them give up, so it is capped.
    """
    wait = min(max(seconds, 0.001), 120.0)
    return {"retry-after": str(max(1, -int(-wait // 1))), "retry-after-ms": str(int(wait * 1000))}
