"""Chat answers that are kept: named by the whole request, sealed, in the same cache as vectors.

An answer that can be told as one JSON is kept as that, and replayed in either form. A stream that
cannot is kept as it came, under a name of its own, for those who ask for a stream.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.cache.entry import Entry
from gateway.cache.keys import Key
from gateway.cache.scopes import Place
from gateway.cache.seal import seal, unseal
from gateway.cache.tiered import TieredCache
from gateway.chat.canonical import canonical
from gateway.types import ChatRequest

_STREAM = {"form": "stream"}


@dataclass(frozen=True, slots=True)
class Name:
    """What answers to a request are kept under."""

    place: Place
    request: bytes
    """In its canonical form: what the seal is made from."""
    whole: Key
    stream: Key
    """Of a stream that cannot be told as one JSON."""


class Kept(msgspec.Struct, frozen=True):
    """An answer that is kept, opened."""

    body: bytes
    streamed: bool
    """Whether `body` is a stream as it came, not one JSON."""
    source: str
    created: float
    shared: bool


class Answers:
    """What is kept of chats. A seal that cannot be opened counts as nothing kept."""

    def __init__(self, cache: TieredCache, *, sealed: bool) -> None:
        """Without `sealed` the cache must have no stores: answers lie open in memory."""
        self._cache = cache
        self._sealed = sealed

    @property
    def away(self) -> bool:
        """Whether a store that may hold more cannot be read now."""
        return self._cache.away

    def name(self, place: Place, request: ChatRequest) -> Name:
        """Return the names of a request's answers."""
        # The place says which model it is; the client may have called it by any of its names.
        asked = canonical({n: value for n, value in request.fields.items() if n != "model"})
        text = asked.decode()
        (whole,) = place.keyspace.keys([text], request.seed)
        (stream,) = place.keyspace.keys([text], request.seed, _STREAM)
        return Name(place, asked, whole, stream)

    def recall(self, name: Name, *, stream: bool) -> Kept | None:
        """Return what this process has in memory for somebody who wants a stream, or not."""
        keys = _keys(name, stream=stream)
        for key, entry in zip(keys, self._cache.recall(keys), strict=True):
            if entry is not None and (kept := self._opened(name, key, entry, "memory")):
                return kept
        return None

    async def look_up(self, name: Name, *, stream: bool) -> Kept | None:
        """Return what the stores have."""
        keys = _keys(name, stream=stream)
        found = await self._cache.look_up(name.place, keys)
        for key in keys:
            if key in found and (kept := self._opened(name, key, found[key], "store")):
                return kept
        return None

    async def keep(
        self, name: Name, body: bytes, *, streamed: bool, fingerprint: str, now: float
    ) -> tuple[Kept, bool]:
        """Keep an answer unless there is one; return what is kept then, and whether it is ours."""
        key = name.stream if streamed else name.whole
        entry = Entry(
            b"",
            0,
            # Who purged may have another clock: what is made once it is known of is newer.
            created=max(now, name.place.scope.fact.before),
            fingerprint=fingerprint,
            namespace=name.place.namespace,
            sealed=self._closed(name, key, body),
        )
        held = (await self._cache.keep(name.place, {key: entry}))[key]
        kept = None if held is entry else self._opened(name, key, held, "store")
        if kept is not None:
            return kept, False
        # What is kept and cannot be opened is a later version's: this one stays ours alone.
        shared = held is entry and entry.shared
        ours = held is entry and name.place.current
        return Kept(body, streamed, "upstream", entry.created, shared), ours

    def _closed(self, name: Name, key: Key, body: bytes) -> bytes:
        return seal(self._cache.scopes.secret, name.request, key, body) if self._sealed else body

    def _opened(self, name: Name, key: Key, entry: Entry, source: str) -> Kept | None:
        body: bytes | None = entry.sealed
        if self._sealed:
            body = unseal(self._cache.scopes.secret, name.request, key, entry.sealed)
        if body is None:
            return None
        return Kept(body, key == name.stream, source, entry.created, entry.shared)


def _keys(name: Name, *, stream: bool) -> list[Key]:
    return [name.whole, name.stream] if stream else [name.whole]


def may_be_kept(request: ChatRequest, policy: str) -> bool:
    """Whether an answer to this request may be kept; `policy` is the model's `cache`.

    Never one that is stored at the upstream, has looked at the web, or speaks.
    """
    if policy == "off" or any(refuses(_value(request, name)) for name, refuses in _NEVER.items()):
        return False
    if policy == "always" or request.seed is not None:
        return True
    temperature = _value(request, "temperature")
    return policy == "deterministic" and type(temperature) in (int, float) and temperature == 0


def _value(request: ChatRequest, name: str) -> object:
    """Return a field's value, None for none; what cannot be read stands for itself."""
    raw = request.fields.get(name)
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return raw


_NEVER: dict[str, Callable[[object], bool]] = {
    "store": bool,
    "web_search_options": lambda value: value is not None,
    "audio": lambda value: value is not None,
    "modalities": lambda value: isinstance(value, list) and "audio" in value,
    # Some upstreams have tools of their own, which look at the web among other things.
    "tools": lambda value: not all(map(_is_clients, value if isinstance(value, list) else ())),
    "plugins": lambda value: value is not None,
}


def _is_clients(tool: object) -> bool:
    """Whether a tool is run by the client, so that an answer depends on the request alone."""
    return isinstance(tool, dict) and tool.get("type") in ("function", "custom")
