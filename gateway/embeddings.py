"""The straight line: from a checked request to vectors in their final form.

    route -> texts -> keys -> memory -> whoever asks already -> upstream -> check, normalize, keep

It knows models, keys, entries and flights; it knows nothing of HTTP, of which servers stand
behind a backend, or of metrics, which look at the result from outside.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.cache.entry import Entry
from gateway.cache.flight import Flight, Flights, land
from gateway.cache.keys import Key
from gateway.cache.memory import MemoryStore
from gateway.errors import (
    InvalidInputError,
    InvalidRequestError,
    UpstreamError,
    UpstreamTimeoutError,
)
from gateway.limits import count_tokens, split
from gateway.route import Route
from gateway.routing import RoutingTable
from gateway.types import Caller, EmbeddingRequest, RawEmbeddings, Text
from gateway.vectors import InvalidVectorError, unit

_THEIRS = (InvalidRequestError, UpstreamTimeoutError)
"""Failures of a call that are about the request that began it, not about who joined it."""
_TURNS = 3
"""Times a request joins others' calls, before it asks for itself what they did not bring."""


@dataclass(slots=True)
class Embedded:
    """The answer: a JSON fragment for each input, in order, and what it took to make them."""

    model: str
    fragments: Sequence[bytes]
    tokens: int
    """Of the whole input, as if all of it had been computed."""
    truncated: Sequence[int]
    """Inputs, by position, of which the model saw only the beginning."""
    billed: int
    """Tokens that an upstream computed for this request."""
    sources: Mapping[str, int]
    """Inputs by where their vector came from: memory, flight, duplicate, upstream."""
    headers: Mapping[str, str]
    """What the upstream said of its rate limits."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What one call brought."""

    entries: Mapping[Key, Entry]
    billed: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Call:
    """What the upstream calls for one request have in common."""

    route: Route
    fields: Mapping[str, Any]
    base64: bool
    deadline: float
    counts: Mapping[Key, int] | None


class CreatesEmbeddings(Protocol):
    """The straight line, or something that watches it."""

    async def create(
        self, request: EmbeddingRequest, caller: Caller, *, deadline: float
    ) -> Embedded:
        """See Embeddings.create."""
        ...


class Embeddings:
    """Makes vectors: each text once, each vector the one kept first."""

    def __init__(self, routes: RoutingTable, memory: MemoryStore, flights: Flights[_Part]) -> None:
        self._routes = routes
        self._memory = memory
        self._flights = flights

    async def create(
        self, request: EmbeddingRequest, caller: Caller, *, deadline: float
    ) -> Embedded:
        """Embed every input of a request; `deadline` is a time of the event loop's clock.

        Raises gateway.errors: 4xx for what the client can mend, UpstreamError and its kin else.
        """
        route = self._routes.embedding(request.model, caller)
        fields = route.forwarded(request.extra)
        if request.dimensions is not None:
            route.check_dimensions(request.dimensions, route.space.width)
        try:
            texts = route.texts(request)
        except InvalidInputError as error:
            raise error.at(error.item) from None
        keys = route.keys(texts, request.seed, caller.tenant, fields)
        entries: dict[Key, Entry] = {}
        missing = self._still_missing(dict(zip(keys, texts, strict=True)), entries)
        sources = {"memory": len(entries), "duplicate": len(keys) - len(entries) - len(missing)}
        parts: Sequence[_Part] = ()
        if missing:
            try:
                counts = await count_tokens(route, keys, texts, deadline)
            except InvalidInputError as error:
                raise error.at(error.item) from None
            # Who asks does not change a vector: it goes upstream, and not into the key.
            sent = fields if request.user is None else {**fields, "user": request.user}
            call = _Call(route, sent, request.base64, deadline, counts)
            parts = await self._fetch(call, keys, missing, entries)
            asked = sum(len(part.entries) for part in parts)
            sources |= {"upstream": asked, "flight": len(missing) - asked}
            if request.dimensions is not None:
                route.check_dimensions(request.dimensions, route.space.width)
        return Embedded(
            model=route.name,
            fragments=[self._render(key, entries[key], request) for key in keys],
            tokens=sum(entries[key].tokens for key in keys),
            truncated=[index for index, key in enumerate(keys) if entries[key].truncated],
            billed=sum(part.billed for part in parts),
            sources=sources,
            headers=parts[-1].headers if parts else {},
        )

    async def _fetch(
        self,
        call: _Call,
        keys: Sequence[Key],
        missing: Mapping[Key, Text],
        entries: dict[Key, Entry],
    ) -> list[_Part]:
        """Bring the missing texts into `entries`; return the parts that were asked for here.

        Texts that are on their way to somebody else are waited for. Where that call failed by a
        fault of its own request, or ran out of that request's time, they are asked for again.
        """
        parts: list[_Part] = []
        turns = 0
        while missing := self._still_missing(missing, entries):
            turns += 1
            joined = {key: self._flights.get(key) for key in missing} if turns <= _TURNS else {}
            others = {flight for flight in joined.values() if flight is not None}
            unasked = {key: text for key, text in missing.items() if joined.get(key) is None}
            own = self._begin(call, unasked)
            try:
                await land(list(own), others, _THEIRS)
            except InvalidInputError as error:
                raise error.at(keys.index(_culprit(error, own))) from None
            parts += [flight.task.result() for flight in own]
            for flight in (*own, *others):
                if flight.task.exception() is None:
                    brought = flight.task.result().entries
                    entries.update((key, brought[key]) for key in missing if key in brought)
        return parts

    def _still_missing(
        self, texts: Mapping[Key, Text], entries: dict[Key, Entry]
    ) -> Mapping[Key, Text]:
        """Return the texts that are neither in `entries` nor, since somebody asked, in memory."""
        missing = {}
        for key, text in texts.items():
            if key in entries:
                continue
            entry = self._memory.get(key)
            if entry is None:
                missing[key] = text
            else:
                entries[key] = entry
        return missing

    def _begin(
        self, call: _Call, texts: Mapping[Key, Text]
    ) -> Mapping[Flight[_Part], Mapping[Key, Text]]:
        """Start the upstream calls for texts that nobody asks for, as many as the limits want."""
        backend = call.route.backend
        parts = list(split(texts, backend.max_batch, backend.max_batch_bytes))
        if len(parts) == 1:
            return {self._flights.begin(texts, self._ask(call, texts)): texts}
        places = asyncio.Semaphore(backend.parallel)

        async def in_turn(part: Mapping[Key, Text]) -> _Part:
            async with places:
                return await self._ask(call, part)

        return {self._flights.begin(part, in_turn(part)): part for part in parts}

    async def _ask(self, call: _Call, texts: Mapping[Key, Text]) -> _Part:
        """Ask the upstream for these texts, and keep what it says if all of it is sound."""
        route = call.route
        raw = await route.backend.embed(
            route.upstream_model,
            list(texts.values()),
            fields=call.fields,
            truncate=route.model.truncate,
            deadline=call.deadline,
        )
        entries = dict(zip(texts, _entries(raw, route), strict=True))
        for key, entry in entries.items():
            if call.counts is not None:
                entry.tokens, entry.estimated = call.counts[key], False
            entry.render(base64=call.base64)
            entries[key] = self._memory.add(key, entry)
        return _Part(entries, sum(raw.tokens), raw.headers)

    def _render(self, key: Key, entry: Entry, request: EmbeddingRequest) -> bytes:
        if request.dimensions is not None and request.dimensions != entry.width:
            try:
                return entry.render_short(request.dimensions, base64=request.base64)
            except InvalidVectorError:
                raise InvalidRequestError(
                    f"A vector's first {request.dimensions} components are all zero, and so have "
                    "no direction; ask for more dimensions.",
                    param="dimensions",
                ) from None
        if entry.has(base64=request.base64):
            return entry.render(base64=request.base64)
        fragment = entry.render(base64=request.base64)
        self._memory.resize(key, entry)
        return fragment


def _culprit(error: InvalidInputError, own: Mapping[Flight[_Part], Mapping[Key, Text]]) -> Key:
    """Return the key of the text at fault, from its position in the part that it was sent in."""
    for flight, part in own.items():
        if flight.task.done() and flight.task.exception() is error:
            return list(part)[error.item]
    raise LookupError("the error is not of these flights")


def _entries(raw: RawEmbeddings, route: Route) -> list[Entry]:
    """Check and normalize a whole answer; raise UpstreamError if any vector cannot be kept."""
    truncated = raw.truncated or [False] * len(raw.rows)
    try:
        entries = [
            Entry(unit(row).tobytes(), tokens, estimated=raw.estimated, truncated=cut)
            for row, tokens, cut in zip(raw.rows, raw.tokens, truncated, strict=True)
        ]
    except InvalidVectorError as error:
        kind = "all zeros" if error.reason == "zero" else "not finite"
        raise UpstreamError(
            f"The answer of upstream '{route.backend.name}' was refused: a vector is {kind}.",
            code="upstream_invalid_response",
        ) from None
    route.space.admit(entries[0].width, route.backend.name)
    return entries
