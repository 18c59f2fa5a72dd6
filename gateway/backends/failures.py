"""What an upstream's error answer means to the client, and whether asking again may help.

The client's mistakes stay the client's (4xx, in the upstream's words); the gateway's and the
upstream's become 502 to 504. Bodies differ between servers: OpenAI's `{"error": {…}}`, TEI's flat
`{"message": …}`, FastAPI's `{"detail": …}`, Ollama's `{"error": "…"}` and plain text are all read.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.backends.transport import Reply
from gateway.errors import (
    GatewayError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    RateLimitError,
    UnavailableError,
    UpstreamError,
    UpstreamTimeoutError,
    retry_headers,
)
from gateway.resilience.retry import retry_after
from gateway.types import Text

_MESSAGE_LIMIT = 1000
"""Characters of an upstream's message that go on to the client."""

_QUOTABLE = 4
"""A text shorter than this may be any word of the message itself."""

SEEN = 12
"""Characters in a row that are no coincidence."""

_SEARCHABLE = 100_000
"""Characters of text in which quotes are searched for one by one, in some 10 ms; in more of them
a message that quotes anything is dropped."""

_IDENTIFIER = re.compile(r"[A-Za-z][\w.\[\]-]{0,63}").fullmatch
"""What a `code` or `param` looks like; anything else might be a quote."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error to raise, unless asking again (not before `after` seconds) helps."""

    error: GatewayError
    retry: bool
    after: float | None = None

    def final(self, *, spent: bool) -> GatewayError:
        """Return the error for the client; with our retries `spent`, SDKs need not add theirs."""
        if spent and self.error.status >= 500 and self.error.status != 503:
            self.error.headers.setdefault("x-should-retry", "false")
        return self.error


@dataclass(frozen=True, slots=True)
class Said:
    """What an error answer says of itself, as far as it can be read."""

    message: str
    param: str | None = None
    code: str | None = None


def read_failure(reply: Reply, upstream: str, field: str = "input") -> Failure | None:
    """Return what went wrong, or None for a success (2xx).

    `field` is where the request has its texts, to be named where they are too long or too many.
    """
    status = reply.status
    if 200 <= status < 300:
        return None
    said = _said(reply.body)
    if status == 429:
        return _too_many(reply, said, upstream)
    if status in (401, 403):
        return Failure(_refused_key(upstream, status), retry=False)
    if status >= 500 or status == 408:
        return _broken(reply, said, upstream, field)
    if status < 400:
        error: GatewayError = UpstreamError(
            f"Upstream '{upstream}' answered with a redirect ({status}); "
            "set its final address as base_url.",
            code="upstream_redirect",
            headers={"x-should-retry": "false"},
        )
        return Failure(error, retry=False)
    return Failure(_clients_mistake(status, said, upstream, field), retry=False)


def said_of(reply: Reply) -> Said:
    """Return what an error answer says."""
    return _said(reply.body)


def without(message: str, texts: Sequence[Text], secrets: Iterable[str]) -> str:
    """Return an upstream's message with what it quotes of the texts and of our secrets taken out.

    Some servers quote what they refuse, whole or cut, plainly or escaped; promise P8 keeps texts
    and keys out of error bodies. A text is found again by any SEEN characters in a row.
    """
    for secret in secrets:
        if len(secret) >= _QUOTABLE:
            message = message.replace(secret, "[key]")
    said = [text for text in texts if isinstance(text, str)]
    if sum(map(len, said)) > _SEARCHABLE:
        return "" if _quotes(message, said) else message
    for text in said:
        for form in _forms(text):
            if len(form) < SEEN:
                message = message.replace(form, "[text]") if len(form) >= _QUOTABLE else message
            else:
                message = _cut(message, form)
    return message


def _quotes(message: str, texts: Sequence[str]) -> bool:
    """Whether the message quotes any text; coarser than `_cut`, and so quick enough for many.

    Some 10 ms for a million characters: one look-up for every SEEN of them.
    """
    pieces = {message[at : at + SEEN] for at in range(len(message) - SEEN + 1)}
    return any(
        text in message
        if len(text) < 2 * SEEN
        else not pieces.isdisjoint(text[at : at + SEEN] for at in range(0, len(text), SEEN))
        for text in texts
        if len(text) >= _QUOTABLE
    )


def _forms(text: str) -> set[str]:
    """Return the ways in which a text is written into messages: plain, as JSON, by Python."""
    plain = msgspec.json.encode(text).decode()[1:-1]
    escaped = json.dumps(text)[1:-1]
    return {text, plain, escaped, repr(text)[1:-1]}


def _cut(message: str, text: str) -> str:
    """Return the message with every run of SEEN characters or more that stand in `text` cut."""
    kept: list[str] = []
    start = 0
    while start < len(message):
        end = start + SEEN
        if end > len(message) or message[start:end] not in text:
            kept.append(message[start])
            start += 1
            continue
        while end < len(message) and message[start : end + 1] in text:
            end += 1
        kept.append("[text]")
        start = end
    return "".join(kept)


def _too_many(reply: Reply, said: Said, upstream: str) -> Failure:
    after = retry_after(reply.headers, time.time())
    headers = retry_headers(1.0 if after is None else after)
    headers.update({k: v for k, v in reply.headers.items() if k.startswith("x-ratelimit-")})
    error = RateLimitError(
        said.message or f"Upstream '{upstream}' takes no more requests just now.",
        code=said.code,
        headers=headers,
    )
    # A quota that is used up does not come back by waiting a few seconds.
    return Failure(error, retry=said.code != "insufficient_quota", after=after)


def _broken(reply: Reply, said: Said, upstream: str, field: str) -> Failure:
    if _is_too_long(said):
        # llama.cpp's server answers a text longer than its physical batch with a 500.
        return Failure(
            InvalidRequestError(said.message, param=field, code="context_length_exceeded"),
            retry=False,
        )
    after = retry_after(reply.headers, time.time())
    status = reply.status
    message = f"Upstream '{upstream}' failed with status {status}."
    error: GatewayError
    if status == 503:
        wait = retry_headers(1.0 if after is None else after)
        error = UnavailableError(message, code="upstream_unavailable", headers=wait)
    elif status in (408, 504):
        error = UpstreamTimeoutError(message)
    else:
        error = UpstreamError(message)
    return Failure(error, retry=True, after=after)


def _is_too_long(said: Said) -> bool:
    message = said.message.lower()
    return "too large to process" in message or "physical batch size" in message


def _refused_key(upstream: str, status: int) -> GatewayError:
    return UpstreamError(
        f"Upstream '{upstream}' refused the gateway's own key ({status}); "
        "whoever runs the gateway must set another api_key.",
        code="upstream_authentication",
        headers={"x-should-retry": "false"},
    )


def _clients_mistake(status: int, said: Said, upstream: str, field: str) -> GatewayError:
    message = said.message or f"Upstream '{upstream}' refused the request ({status})."
    if status == 404:
        return NotFoundError(message, param=said.param, code=said.code or "model_not_found")
    if status == 413:
        return PayloadTooLargeError(message, param=said.param or field, code=said.code)
    return InvalidRequestError(message, param=said.param, code=said.code)


def _said(body: bytes) -> Said:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        # HTML of a proxy, or plain text: nothing a client could act on.
        return Said("")
    inner = answer.get("error", answer) if isinstance(answer, Mapping) else answer
    if isinstance(inner, str):
        return Said(inner[:_MESSAGE_LIMIT])
    if not isinstance(inner, Mapping):
        return Said("")
    return Said(_message(inner), _identifier(inner.get("param")), _identifier(inner.get("code")))


def _message(inner: Mapping[str, Any]) -> str:
    for name in ("message", "detail", "error"):
        value = inner.get(name)
        if isinstance(value, str):
            return value[:_MESSAGE_LIMIT]
    return ""


def _identifier(value: object) -> str | None:
    # Codes are strings in OpenAI's contract; some servers send the HTTP status as a number.
    return value if isinstance(value, str) and _IDENTIFIER(value) else None
