"""HTTP's words for a cache: `Cache-Control` on requests, `Cache-Status` and `Age` on answers."""

import re
from collections.abc import Iterable
from functools import lru_cache

from gateway.embedded import Embedded
from gateway.types import USUAL, CacheControl

# What was read once is not read again in another way (`+` after a quantifier): a header of many
# blanks or quotes would take seconds.
_DIRECTIVE = re.compile(
    r'\s*+([a-z-]++)\s*+(?:=\s*+"?(\d{1,18})"?)?\s*+(?:,|$)'
    # Anything else, up to the next comma that is not in quotes.
    r'|(?:"(?:\\.|[^"\\])*+"?|[^",])*+(?:,|$)'
)


def cache_control(headers: Iterable[tuple[bytes, bytes]]) -> CacheControl:
    """Return what the headers of a request say (RFC 9111, 5.2.1); USUAL if that is nothing.

    Directives that mean nothing here are ignored, as that RFC wants it.
    """
    said = [value for name, value in headers if name == b"cache-control"]
    return _read(b",".join(said)) if said else USUAL


@lru_cache(256)
def _read(said: bytes) -> CacheControl:
    directives = {
        match[1]: match[2] for match in _DIRECTIVE.finditer(said.decode("latin-1").lower())
    }
    max_age = directives.get("max-age")
    control = CacheControl(
        no_cache="no-cache" in directives,
        no_store="no-store" in directives,
        only_if_cached="only-if-cached" in directives,
        max_age=None if max_age is None else int(max_age),
    )
    return USUAL if control == USUAL else control


def cache_headers(embedded: Embedded) -> list[tuple[bytes, bytes]]:
    """Return `Cache-Status`, and `Age` where a vector was kept already."""
    status = _status(
        tuple(embedded.sources.items()), embedded.stored > 0, embedded.forced, embedded.unshared
    )
    if embedded.age is None:
        return [(b"cache-status", status)]
    return [(b"cache-status", status), (b"age", b"%d" % max(0, int(embedded.age)))]


@lru_cache(1024)
def _status(
    sources: tuple[tuple[str, int], ...],
    stored: bool,
    forced: bool,
    unshared: bool,
) -> bytes:
    """Return the value of RFC 9211: a hit only if nothing went out for this request."""
    counts = dict(sources)
    detail = ", ".join(f"{source}={count}" for source, count in sources if count)
    if unshared:
        detail += ", unshared"
    if not counts.get("upstream") and not counts.get("in-flight"):
        how = "hit"
    elif forced:
        how = "fwd=request"
    else:
        how = "fwd=partial" if counts.get("memory") or counts.get("store") else "fwd=miss"
    return f'gateway; {how}{"; stored" if stored else ""}; detail="{detail}"'.encode()
