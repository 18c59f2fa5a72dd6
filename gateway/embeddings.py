"""The straight line: from a checked request to vectors in their final form.

    route -> texts -> keys -> memory -> who asks already -> stores -> upstream -> check, normalize
          -> keep: the vector that is stored first is the one that everybody gets

It knows models, keys, entries and flights; it knows nothing of HTTP, of which servers stand
behind a backend, or of metrics, which look at the result from outside.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from typing import Protocol, cast

from gateway.accept import accept
from gateway.cache.entry import Entry
from gateway.cache.flight import Brought, Call, Flight, Flights, land
from gateway.cache.keys import Key
from gateway.cache.tiered import TieredCache
from gateway.embedded import Counts, Embedded, Texts, Work, gathered, recalled
from gateway.errors import (
    InvalidInputError,
    InvalidRequestError,
    OwnLimitError,
    UpstreamTimeoutError,
    VectorsRefusedError,
    store_away,
    texts_not_cached,
)
from gateway.limits import count_tokens, must_count, split
from gateway.route import Route
from gateway.routing import RoutingTable
from gateway.spending import Bill, expected_tokens, pays
from gateway.types import USUAL, CacheControl, Caller, EmbeddingRequest, Text
from gateway.waiting import Waiting

_TURNS = 3
"""Times a request joins others' calls, before it asks for itself what they did not bring."""


class _TextRefusedError(Exception):
    """One text is at fault. `error` says why; the position in it means nothing to others."""

    def __init__(self, key: Key, error: InvalidInputError) -> None:
        super().__init__()
        self.key = key
        self.error = error


_THEIRS = (InvalidRequestError, UpstreamTimeoutError, OwnLimitError, _TextRefusedError)
"""Failures of a call that are about the request that began it, not about who joined it."""


class MayAsk(Protocol):
    """Raises where a model may not be asked for these texts now."""

    def __call__(
        self, route: Route, texts: Collection[Text], caller: Caller, *, shared: bool
    ) -> None:
        """`shared`: what it says is kept, for everybody of the caller's tenant."""
        ...


class CreatesEmbeddings(Protocol):
    """The straight line, or something that watches it."""

    async def create(
        self, request: EmbeddingRequest, caller: Caller, *, deadline: float
    ) -> Embedded:
        """See Embeddings.create."""
        ...


class Embeddings:
    """Makes vectors: each text once, each vector the one stored first."""

    def __init__(
        self,
        routes: RoutingTable,
        cache: TieredCache,
        flights: Flights,
        *,
        on_computed: Callable[[Route, int, Caller], None] = lambda _, __, ___: None,
        on_refused: Callable[[VectorsRefusedError], None] = lambda _: None,
        may_ask: MayAsk = lambda _, __, ___, shared: None,  # noqa: ARG005 - a keyword's name
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_computed` is told of the tokens of every call that was answered, and who began it.

        `on_refused`: see `accept`. `may_ask` raises where a model may not be asked for these texts.
        `now` gives Unix times, `clock` seconds that never go back.
        """
        self._routes = routes
        self._cache = cache
        self._flights = flights
        self._on_computed = on_computed
        self._on_refused = on_refused
        self._may_ask = may_ask
        self._now = now
        self._clock = clock

    async def create(
        self, request: EmbeddingRequest, caller: Caller, *, deadline: float
    ) -> Embedded:
        """Embed every input of a request; `deadline` is a time of the event loop's clock.

        Raises gateway.errors: 4xx for what the client can mend, NotCachedError where only what is
        kept was wanted, UpstreamError and its kin else.
        """
        route = self._routes.embedding(request.model, caller)
        fields = route.forwarded(request.extra)
        try:
            texts = route.texts(request)
        except InvalidInputError as error:
            raise error.at(error.item) from None
        place, keys = route.keys(texts, request.seed, caller, fields)
        if request.dimensions is not None:
            route.check_dimensions(request.dimensions, route.width(place.scope))
        if request.cache is USUAL and route.model.cached:
            found = self._cache.recall(keys)
            if all(found):
                return recalled(
                    request, route, keys, cast("list[Entry]", found), self._cache, self._now()
                )
        # Who asks does not change a vector: it goes upstream, and not into the key.
        sent = fields if request.user is None else {**fields, "user": request.user}
        unique = dict(zip(keys, texts, strict=True))
        work = Work(route, place, keys, unique, sent, caller, deadline, Waiting(self._clock))
        if route.model.cached and not request.cache.no_store:
            await self._gather(work, request.cache)
        elif _only_kept(work, request.cache):
            raise texts_not_cached(0, len(unique))
        else:
            work.forced = request.cache.no_store
            await self._fetch(work, unique, shared=False)
        if request.dimensions is not None:
            route.check_dimensions(request.dimensions, route.width(place.scope))
        return gathered(request, work, self._cache, self._now())

    async def _gather(self, work: Work, control: CacheControl) -> None:
        """Bring every entry: what is kept where that will do, fresh ones for the others."""
        only_kept = _only_kept(work, control)
        work.take(self._in_memory(work.texts), "memory")
        if only_kept or control.dated:
            work.take(await self._cache.look_up(work.place, list(work.missing)), "store")
        stale = self._stale(work, control)
        for key in stale:
            del work.entries[key]
        missing = work.missing
        if missing and only_kept:
            if self._cache.away:
                raise store_away()
            raise texts_not_cached(work.keys.index(next(iter(missing))), len(missing))
        if stale:
            work.forced = True
            # Something is kept for these, and stays: not even while the authority is away may
            # what this request is told take its place.
            await self._fetch(work, stale, shared=False)
        await self._fetch(work, missing, shared=True)

    def _in_memory(self, texts: Texts) -> dict[Key, Entry]:
        keys = list(texts)
        found = zip(keys, self._cache.recall(keys), strict=True)
        return {key: entry for key, entry in found if entry is not None}

    def _stale(self, work: Work, control: CacheControl) -> Texts:
        """Return the texts whose kept vectors are older than the request wants them."""
        if not control.dated:
            return {}
        oldest = self._now() - (control.max_age or 0)
        entries = work.entries.items()
        return {k: work.texts[k] for k, e in entries if control.no_cache or e.created < oldest}

    async def _fetch(self, work: Work, texts: Texts, *, shared: bool) -> None:
        """Bring these texts into `work.entries`: the vectors that everybody gets, or others.

        Those that everybody gets are looked up first, and kept. Texts that are on their way to
        somebody else are waited for. Where that call failed by a fault of its own request, or ran
        out of that request's time, they are asked for again.
        """
        # Nobody joins a call whose vectors are not those that are kept.
        flights = self._flights if shared else Flights()
        turns = 0
        while missing := {key: text for key, text in texts.items() if key not in work.entries}:
            turns += 1
            others: dict[Flight, list[Key]] = {}
            unasked: dict[Key, Text] = {}
            for key, text in missing.items():
                flight = flights.get(key) if turns <= _TURNS else None
                if flight is None:
                    unasked[key] = text
                else:
                    others.setdefault(flight, []).append(key)
            own = self._begin(work, unasked, flights, shared=shared) if unasked else None
            try:
                # Of one's own flight the calls count, of others' all: they are asking already.
                with work.waiting if others else nullcontext():
                    brought = await land(own, others, _THEIRS)
            except _TextRefusedError as refused:
                raise refused.error.at(work.keys.index(refused.key)) from None
            work.entries.update((key, brought[key]) for key in missing if key in brought)
            for flight, keys in others.items():
                found = [key for key in keys if key in brought and key not in flight.parts]
                work.sources.update(dict.fromkeys(found, "store"))
            if shared and len(work.entries) < len(work.texts):
                work.entries.update(self._in_memory(work.missing))

    def _begin(self, work: Work, texts: Texts, flights: Flights, *, shared: bool) -> Flight:
        """Start a flight for texts that nobody asks for: stores, limits, then upstream calls."""

        async def find() -> Brought:
            if not shared:
                return {}
            found = await self._cache.look_up(work.place, list(texts))
            work.sources.update(dict.fromkeys(found, "store"))
            return found

        async def plan(found: Brought) -> Iterator[tuple[Collection[Key], Call]]:
            rest = {key: text for key, text in texts.items() if key not in found}
            return self._calls(work, rest, await _counts(work, rest, found), shared=shared)

        if (shared and self._cache.tiers) or must_count(work.route, work.inputs):
            return flights.look_up(texts, find, plan)
        return flights.ask(self._calls(work, texts, None, shared=shared))

    def _calls(
        self, work: Work, texts: Texts, counts: Counts | None, *, shared: bool
    ) -> Iterator[tuple[Collection[Key], Call]]:
        """Yield the upstream calls for these texts, as many as the limits want."""
        backend = work.route.backend
        places = asyncio.Semaphore(backend.parallel)
        for part in split(texts, backend.max_batch, backend.max_batch_bytes):
            yield part, self._ask(work, part, counts, places, shared=shared)

    async def _ask(
        self,
        work: Work,
        texts: Texts,
        counts: Counts | None,
        places: asyncio.Semaphore,
        *,
        shared: bool,
    ) -> Brought:
        """Ask the upstream for these texts, and keep what it says if all of it is sound."""
        route = work.route
        self._may_ask(route, texts.values(), work.caller, shared=shared)
        try:
            async with places, _bill(work, texts, counts) as bill:
                with work.waiting:
                    raw = await route.backend.embed(
                        route.upstream_model,
                        list(texts.values()),
                        fields=work.fields,
                        truncate=route.model.truncate,
                        deadline=work.deadline,
                        caller=work.caller,
                    )
                tokens = sum(raw.tokens)
                bill.settle(tokens, tokens * (route.price or 0.0) / 1e6)
        except InvalidInputError as error:
            raise _TextRefusedError(list(texts)[error.item], error) from None
        self._on_computed(route, tokens, work.caller)
        entries = accept(raw, route, work.place, self._now(), self._on_refused)
        made = dict(zip(texts, entries, strict=True))
        if counts is not None:
            for key, entry in made.items():
                entry.tokens, entry.estimated = counts[key], False
        kept = await self._cache.keep(work.place, made) if shared else {}
        work.sources.update(dict.fromkeys(texts, "upstream"))
        work.billed += tokens
        work.stored += sum(kept.get(key) is entry for key, entry in made.items())
        work.headers, work.request_id = raw.headers, raw.request_id
        return kept if shared else made


def _bill(work: Work, texts: Texts, counts: Counts | None) -> Bill:
    """Return what the call for these texts is expected to cost who makes it."""
    if not pays(work.caller):
        return Bill(work.caller, 0, 0.0)
    tokens = sum(counts[k] for k in texts) if counts else expected_tokens(texts.values())
    price = work.route.price
    return Bill(work.caller, tokens, None if price is None else tokens * price / 1e6)


def _only_kept(work: Work, control: CacheControl) -> bool:
    """Whether nobody may be asked, whatever else the request says."""
    return control.only_if_cached or work.route.model.offline


async def _counts(work: Work, texts: Texts, found: Brought) -> Counts | None:
    """Return the tokens of each text where they can be known; refuse what is too much."""
    if not texts or not must_count(work.route, work.inputs):
        return None
    # A text that stands in the request several times counts as often.
    keys = [key for key in work.keys if key in texts]
    known = {**work.entries, **found}
    others = sum(known[key].tokens for key in work.keys if key in known)
    try:
        # Where the config names a tokenizer, they are counted here.
        with nullcontext() if work.route.model.count else work.waiting:
            counts = await count_tokens(
                work.route, [texts[k] for k in keys], others, work.deadline, work.caller
            )
    except InvalidInputError as error:
        raise _TextRefusedError(keys[error.item], error) from None
    return None if counts is None else dict(zip(keys, counts, strict=True))
