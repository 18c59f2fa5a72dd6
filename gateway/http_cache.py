"""HTTP's words for a cache: `Cache-Control` on requests, `Cache-Status` and `Age` on answers."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal, Protocol

from gateway.types import USUAL, CacheControl

CacheResult = Literal["hit", "partial", "miss", "bypass"]
"""What the cache did for a request: all, some or none of it, or it was passed by: as the model or
the request wants it."""

# What was read once is not read again in another way (`+` after a quantifier): a header of many
# blanks or quotes would take seconds.
_REST = r'(?:"(?:\\.|[^"\\])*+"?|[^",])*+'
"""Anything, up to the next comma that is not in quotes."""
_DIRECTIVE = re.compile(rf"\s*+([a-z-]++)\s*+(?:=({_REST}))?(?:,|$)|{_REST}(?:,|$)")
_SECONDS = re.compile(r'\s*+"?(\d{1,18})"?\s*+')


def cache_control(headers: Iterable[tuple[bytes, bytes]]) -> CacheControl:
    """Return what the headers of a request say (RFC 9111, 5.2.1); USUAL if that is nothing.

    Directives that mean nothing here are ignored, as that RFC wants it, and so are arguments of
    those that have none. Of several ages the smallest counts.
    """
    said = [value for name, value in headers if name == b"cache-control"]
    return _read(b",".join(said)) if said else USUAL


@lru_cache(256)
def _read(said: bytes) -> CacheControl:
    names: set[str | None] = set()
    ages: list[int] = []
    for directive in _DIRECTIVE.finditer(said.decode("latin-1").lower()):
        name, argument = directive.groups()
        names.add(name)
        if name == "max-age" and (seconds := _SECONDS.fullmatch(argument or "")):
            ages.append(int(seconds[1]))
    control = CacheControl(
        no_cache="no-cache" in names,
        no_store="no-store" in names,
        only_if_cached="only-if-cached" in names,
        max_age=min(ages, default=None),
    )
    return USUAL if control == USUAL else control


class Answer(Protocol):
    """What is told of an answer: see embedded.Embedded and chatted.Chatted."""

    @property
    def sources(self) -> Mapping[str, int]:
        """Its parts, by where they came from."""
        ...

    @property
    def age(self) -> float | None:
        """Seconds since the oldest part that was kept was made."""
        ...

    @property
    def stored(self) -> int:
        """Parts that were made for this request and are kept."""
        ...

    @property
    def forced(self) -> bool:
        """Whether something kept was not taken because of the request."""
        ...

    @property
    def bypassed(self) -> bool:
        """Whether an answer to such a request is never kept."""
        ...

    @property
    def unshared(self) -> bool:
        """Whether a part is provisional."""
        ...


def cache_told(answer: Answer) -> tuple[CacheResult, list[tuple[bytes, bytes]]]:
    """Return what the cache did, and the headers that say so.

    These are `Cache-Status`, and `Age` where a part was kept already.
    """
    result, status = _status(
        tuple(answer.sources.items()),
        answer.stored > 0,
        "bypass" if answer.bypassed else "request" if answer.forced else None,
        answer.unshared,
    )
    if answer.age is None:
        return result, [(b"cache-status", status)]
    return result, [(b"cache-status", status), (b"age", b"%d" % max(0, int(answer.age)))]


@lru_cache(1024)
def _status(
    sources: tuple[tuple[str, int], ...],
    stored: bool,
    why: str | None,
    unshared: bool,
) -> tuple[CacheResult, bytes]:
    """Return the result and the value of RFC 9211: a hit only if nothing went out for this."""
    counts = dict(sources)
    detail = ", ".join(f"{source}={count}" for source, count in sources if count)
    if unshared:
        detail += ", unshared"
    result: CacheResult
    if not counts.get("upstream") and not counts.get("in-flight"):
        result = "hit"
    elif why is not None:
        result = "bypass"
    else:
        result = "partial" if counts.get("memory") or counts.get("store") else "miss"
    how = result if result == "hit" else f"fwd={why or result}"
    return result, f'gateway; {how}{"; stored" if stored else ""}; detail="{detail}"'.encode()
