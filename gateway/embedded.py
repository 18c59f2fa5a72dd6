"""What the straight line makes of a request, before it is JSON: vectors and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from gateway.cache.entry import Entry
from gateway.cache.keys import Key
from gateway.cache.scopes import Place
from gateway.cache.tiered import TieredCache
from gateway.errors import InvalidRequestError
from gateway.route import Route
from gateway.types import Caller, EmbeddingRequest, Text
from gateway.vectors import InvalidVectorError
from gateway.waiting import Waiting

SOURCES = ("memory", "duplicate", "store", "in-flight", "upstream")
"""Where a vector may come from; a duplicate is one that stands in the same request already."""
_KEPT = frozenset({"memory", "store"})


class Embedded(Struct):
    """The answer: a JSON fragment for each input, in order, and what it took to make them."""

    model: str
    fragments: Sequence[bytes]
    tokens: int
    """Of the whole input, as if all of it had been computed."""
    sources: Mapping[str, int]
    """Inputs by where their vector came from."""
    age: float | None = None
    """Seconds since the oldest vector that was kept already was made."""
    truncated: Sequence[int] = ()
    """Inputs, by position, of which the model saw only the beginning."""
    billed: int = 0
    """Tokens that an upstream computed for this request."""
    price: float | None = None
    """US dollars for a million tokens, where that is known."""
    stored: int = 0
    """Vectors that were made for this request and are kept."""
    forced: bool = False
    """Whether something kept was not taken because of the request's Cache-Control."""
    bypassed: bool = False
    """Whether vectors of this model are never kept."""
    unshared: bool = False
    """Whether a vector is provisional, as the store that replicas share is away."""
    headers: Mapping[str, str] = {}
    """What the upstream said of its rate limits."""
    request_id: bytes = b""
    """The upstream's of the last call, where it gives one."""
    waited: float = 0.0
    """Seconds in which an upstream was waited for, its queue included."""


Texts = Mapping[Key, Text]
Counts = Mapping[Key, int]
"""Exact tokens of texts, where they were counted before the upstream was asked."""


@dataclass(slots=True)
class Work:
    """A request that memory could not answer: what it asks for, and what it has so far."""

    route: Route
    place: Place
    keys: Sequence[Key]
    texts: Texts
    """Each once, in the request's order."""
    fields: Mapping[str, Any]
    caller: Caller
    deadline: float
    waiting: Waiting
    """For upstreams: for calls of its own, and for others' that bring its texts."""
    entries: dict[Key, Entry] = field(default_factory=dict)
    sources: dict[Key, str] = field(default_factory=dict)
    """Where each came from; what others' calls brought is left out."""
    billed: int = 0
    stored: int = 0
    forced: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: bytes = b""

    def take(self, entries: Mapping[Key, Entry], source: str) -> None:
        """Note what came from where."""
        self.entries.update(entries)
        self.sources.update(dict.fromkeys(entries, source))

    @property
    def inputs(self) -> list[Text]:
        """The texts as often as they stand in the request."""
        return [self.texts[key] for key in self.keys]

    @property
    def missing(self) -> dict[Key, Text]:
        """The texts without an entry."""
        return {key: text for key, text in self.texts.items() if key not in self.entries}


def recalled(
    request: EmbeddingRequest,
    route: Route,
    keys: Sequence[Key],
    found: Sequence[Entry],
    cache: TieredCache,
    now: float,
) -> Embedded:
    """Return the answer to a request whose every text was in memory: the usual one."""
    unique = len(set(keys))
    return Embedded(
        model=route.name,
        fragments=_fragments(request, keys, found, cache),
        tokens=sum([entry.tokens for entry in found]),
        sources={"memory": unique, "duplicate": len(keys) - unique},
        age=now - min([entry.created for entry in found]),
        truncated=[index for index, entry in enumerate(found) if entry.truncated],
        price=route.price,
        unshared=cache.waits and not all(entry.shared for entry in found),
    )


def gathered(request: EmbeddingRequest, work: Work, cache: TieredCache, now: float) -> Embedded:
    """Return the answer to a request for which more had to be done."""
    entries = [work.entries[key] for key in work.keys]
    sources = dict.fromkeys(SOURCES, 0)
    for key in work.entries:
        sources[work.sources.get(key, "in-flight")] += 1
    sources["duplicate"] = len(entries) - len(work.entries)
    kept = [e.created for key, e in work.entries.items() if work.sources.get(key) in _KEPT]
    return Embedded(
        model=work.route.name,
        fragments=_fragments(request, work.keys, entries, cache),
        tokens=sum(entry.tokens for entry in entries),
        sources=sources,
        age=now - min(kept) if kept else None,
        truncated=[index for index, entry in enumerate(entries) if entry.truncated],
        billed=work.billed,
        price=work.route.price,
        stored=work.stored,
        forced=work.forced,
        bypassed=not work.route.model.cached,
        unshared=not all(entry.shared for entry in entries),
        headers=work.headers,
        request_id=work.request_id,
        waited=work.waiting.seconds,
    )


def _fragments(
    request: EmbeddingRequest, keys: Sequence[Key], entries: Sequence[Entry], cache: TieredCache
) -> Sequence[bytes]:
    """Return the JSON of each vector as the request wants it; what was made before is reused."""
    if request.dimensions is not None:
        return [_short(entry, request.dimensions, base64=request.base64) for entry in entries]
    if request.base64:
        made = [entry.base64 for entry in entries]
    else:
        made = [entry.floats for entry in entries]
    if not all(made):
        for key, entry in zip(keys, entries, strict=True):
            if not entry.has(base64=request.base64):
                entry.render(base64=request.base64)
                cache.grown(key, entry)
        made = [entry.render(base64=request.base64) for entry in entries]
    return made  # type: ignore[return-value]


def _short(entry: Entry, dimensions: int, *, base64: bool) -> bytes:
    try:
        return entry.render_short(dimensions, base64=base64)
    except InvalidVectorError:
        raise InvalidRequestError(
            f"A vector's first {dimensions} components are all zero, and so have no direction; "
            "ask for more dimensions.",
            param="dimensions",
        ) from None
