"""What the head of a request must be before anybody acts on it, where the parser takes more.

Two servers in a row that read one head in two ways can be made to take a body for a request, or one
host's request for another's. So whatever RFC 9112 leaves no meaning is refused. Pure: bytes in.
"""

import re
from collections.abc import Sequence

from gateway.errors import HeadersTooLargeError, InvalidRequestError
from gateway.reasons import Reason

Field = tuple[bytes, bytes]

TELLING = frozenset({b"host", b"expect", b"transfer-encoding"})
"""The fields, in lower case, that `check` wants to see."""

MOST_FIELDS = 100
"""Header fields of one request; SDKs send about 20, browsers 30. Apache takes as many."""

_VERSIONS = ("1.1", "1.0")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_LINE_ENDS = 4
"""A colon, a blank and the end of the line of each field."""


def check(told: Sequence[Field], version: str, target: bytes) -> bool:
    """Return whether the client waits for "100 Continue" before it sends its body.

    `told` are the head's fields of TELLING. Raises InvalidRequestError for what could be read in
    more than one way.
    """
    if version not in _VERSIONS:
        raise unreadable("HTTP/1.1 and HTTP/1.0 are spoken here.")
    said: dict[bytes, list[bytes]] = {name: [] for name in TELLING}
    for name, value in told:
        said[name].append(value)
    _check_host(said[b"host"], version, target)
    _check_coding(said[b"transfer-encoding"], version)
    # A client of HTTP/1.0 would take the 100 for its answer (RFC 9110, 10.1.1).
    return version == "1.1" and any(v.lower() == b"100-continue" for v in said[b"expect"])


def check_size(target: bytes, fields: Sequence[Field], limit: int) -> None:
    """Raise HeadersTooLargeError for a head of more than `limit` bytes."""
    size = len(target) + sum(len(name) + len(value) + _LINE_ENDS for name, value in fields)
    if size > limit:
        raise too_large(limit)


def too_many() -> HeadersTooLargeError:
    """Return the error for a head of more than MOST_FIELDS."""
    return HeadersTooLargeError(f"The request has more than {MOST_FIELDS} header fields.")


def too_large(limit: int) -> HeadersTooLargeError:
    """Return the error for a head of more than `limit` bytes."""
    return HeadersTooLargeError(f"The headers of the request are larger than {limit} bytes.")


def _check_host(hosts: Sequence[bytes], version: str, target: bytes) -> None:
    """RFC 9112, 3.2: one Host field, and the same host where the target names one as well."""
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise unreadable("It must have exactly one Host header.", "host")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise unreadable("Its Host header is no host.", "host")
    if target.startswith(b"/"):
        return
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise unreadable("Its target is no path.")
    if not hosts or absolute[1].lower() != hosts[0].lower():
        raise unreadable("Its target and its Host header name two hosts.", "host")


def _check_coding(codings: Sequence[bytes], version: str) -> None:
    """RFC 9112, 6.1: nothing but "chunked", once, and not before HTTP/1.1."""
    if codings and (version != "1.1" or [coding.lower() for coding in codings] != [b"chunked"]):
        raise unreadable("Its Transfer-Encoding must be chunked, or not be there.")


def unreadable(why: str, reason: Reason = "http") -> InvalidRequestError:
    """Return the error for what is no request."""
    text = f"Your request could not be read. {why}"
    return InvalidRequestError(text, code="bad_http", reason=reason)
