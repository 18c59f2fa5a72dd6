"""Memory and the stores behind it, as one cache: the first vector that is stored wins.

The last store is the authority: an entry counts as stored when it holds it, and what it held
before wins. Stores before it keep copies of its entries, nearer by. While the authority is away,
new entries are provisional: answered, marked as unshared, and offered to it when it is back.

Longer than other files: what requests and the watcher do to the same memory is right only together.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import structlog

from gateway.cache.agreement import is_doubtful, is_ours, shared_secret
from gateway.cache.entry import Entry
from gateway.cache.keys import Key
from gateway.cache.memory import MemoryStore
from gateway.cache.record import CorruptRecordError, expires, pack, unpack
from gateway.cache.scopes import Place, Scope, Scopes
from gateway.cache.store import CacheStore, Namespace, StoreError
from gateway.cache.tier import Tier

PROVISIONAL_BYTES = 64 * 2**20
"""Bytes that are kept for the authority's return, however small the memory tier is."""

_BATCH = 16
"""Entries offered to the authority at once: requests wait for about two milliseconds."""
_BREATH = 0.002
"""Seconds after each of these offers, for the requests."""
_COPIES = 64
"""Copies to nearer stores that may be on their way; beyond it they are left out."""
_TRIES = 3
"""Times that a damaged entry is removed to be replaced, before the new one stays provisional."""


class TieredCache:
    """What the straight line asks: entries by key, in memory at once, in the stores by `look_up`.

    Nothing here raises for a store that fails. `watch` has to run beside it where there are stores.
    """

    def __init__(  # noqa: PLR0913 - what it works with, and whom it tells
        self,
        memory: MemoryStore,
        stores: Sequence[CacheStore],
        scopes: Scopes,
        *,
        log: structlog.stdlib.BoundLogger,
        ttl: float | None = None,
        shares_secret: bool = False,
        on_corrupt: Callable[[str], None] = lambda _: None,
        on_begun_anew: Callable[[bytes], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`shares_secret` says that the secret is what the authority says it is.

        `on_begun_anew` is told the secret when a store has lost all it had.
        """
        self.memory = memory
        self.tiers = [Tier(store, log) for store in stores]
        self.scopes = scopes
        self._provisional = MemoryStore(PROVISIONAL_BYTES)
        self._log = log
        self._ttl = ttl
        self._shares_secret = shares_secret
        self._on_corrupt = on_corrupt
        self._on_begun_anew = on_begun_anew
        self._now = now
        self._copies: set[asyncio.Task[Any]] = set()

    def without_stores(self) -> "TieredCache":
        """Return a cache with the same memory and scopes, for what may not go into the stores."""
        return TieredCache(
            self.memory, (), self.scopes, log=self._log, ttl=self._ttl, now=self._now
        )

    # The line's verbs

    def recall(self, keys: Sequence[Key]) -> list[Entry | None]:
        """Return for each key what this process has in memory, or None."""
        found = self.memory.get(keys)
        if self.waits:
            kept = self._provisional.get(keys)
            found = [p if p is not None else m for p, m in zip(kept, found, strict=True)]
        if self._ttl is not None:
            for place, entry in enumerate(found):
                if entry is not None and self._over(keys[place], entry):
                    self._drop(keys[place])
                    found[place] = None
        return found

    @property
    def waits(self) -> bool:
        """Whether anything in memory is provisional: made while the authority was away."""
        return len(self._provisional) > 0

    @property
    def away(self) -> bool:
        """Whether a store that may hold more cannot be read now."""
        return any(not tier.known or tier.reading.is_open for tier in self.tiers)

    async def look_up(self, at: Place, keys: Sequence[Key]) -> dict[Key, Entry]:
        """Return what the stores have, nearest first; what a slower one has is copied up."""
        found: dict[Key, Entry] = {}
        for place, tier in enumerate(self.tiers):
            missing = [key for key in keys if key not in found] if found else keys
            if not missing:
                break
            values = await tier.get(at.namespace, missing)
            read = await self._read(tier, at, values)
            if read:
                self._copy(self.tiers[:place], at.namespace, read)
                found |= read
        if found and at.current:
            at.scope.widen(next(iter(found.values())).width)
            self._remember(at, found)
        return found

    async def keep(self, at: Place, entries: Mapping[Key, Entry]) -> Mapping[Key, Entry]:
        """Store each entry unless its key has one, and return what is stored then."""
        if not at.current:
            # Purged while they were on their way: they are answered, and not kept.
            return entries
        at.scope.widen(next(iter(entries.values())).width)
        if self.tiers and not at.scope.told:
            at.scope.told = True
            self._begin(self._tell_of(at.scope))
        if not self.tiers:
            for entry in entries.values():
                entry.memory_only = True
            return {**entries, **self._keep_first(self.memory, _live(at, entries))}
        kept = await self._settle(at, entries)
        if kept is None:
            for entry in entries.values():
                entry.shared = False
            return {**entries, **self._keep_first(self._provisional, _live(at, entries))}
        if at.current:
            self._remember(at, kept)
            self._copy(self.tiers[:-1], at.namespace, kept)
        return kept

    def grown(self, key: Key, entry: Entry) -> None:
        """Count an entry's bytes again: it was given another form to leave in."""
        self.memory.resize(key, entry)
        self._provisional.resize(key, entry)

    def _remember(self, at: Place, entries: Mapping[Key, Entry]) -> None:
        for key, entry in _live(at, entries).items():
            self.memory.put(key, entry)

    def _keep_first(self, memory: MemoryStore, entries: Mapping[Key, Entry]) -> Mapping[Key, Entry]:
        """Put what this process does not have yet into `memory`; return what it has then."""
        kept = {}
        for (key, entry), held in zip(entries.items(), self.recall(list(entries)), strict=True):
            if held is None:
                memory.put(key, entry)
            kept[key] = held or entry
        return kept

    # The authority

    async def _settle(
        self, at: Place, entries: Mapping[Key, Entry], *, probing: bool = False
    ) -> dict[Key, Entry] | None:
        """Offer entries to the authority and return the winners; None where it took none."""
        authority = self.tiers[-1]
        winners = dict(entries)
        offered = {key: pack(key, entry) for key, entry in entries.items()}
        for _ in range(_TRIES):
            held = await authority.add(at.namespace, offered, probing=probing)
            if held is None:
                return None
            read = await self._read(authority, at, held)
            winners |= read
            # What was damaged or over is removed by now, and made room for ours.
            offered = {key: offered[key] for key in held if key not in read}
            if not offered:
                return winners
        return None

    async def _read(self, tier: Tier, at: Place, values: Mapping[Key, bytes]) -> dict[Key, Entry]:
        """Return the entries that are sound and live; remove the others from the tier."""
        entries = {}
        dead = {}
        for key, value in values.items():
            try:
                entry = unpack(key, value, at.namespace)
            except CorruptRecordError as error:
                self._on_corrupt(tier.name)
                self._log.warning("damaged cache entry", tier=tier.name, why=str(error))
                dead[key] = value
                continue
            if entry.created < at.scope.fact.before or self._over(key, entry):
                dead[key] = value
            else:
                entries[key] = entry
        if dead:
            await tier.discard(at.namespace, dead)
        return entries

    def _over(self, key: Key, entry: Entry) -> bool:
        return self._ttl is not None and expires(key, entry.created, self._ttl) <= self._now()

    def _copy(
        self, tiers: Sequence[Tier], namespace: Namespace, entries: Mapping[Key, Entry]
    ) -> None:
        """Have nearer stores keep copies; nobody waits for it."""
        for tier in tiers:
            if tier.writable and len(self._copies) < _COPIES:
                values = {key: pack(key, entry) for key, entry in entries.items()}
                self._begin(tier.add(namespace, values))

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    # What goes on beside the requests

    async def watch(self) -> None:
        """Keep up with the stores, until cancelled: twice a second, sooner while one is away."""
        while self.tiers:
            await asyncio.sleep(min(tier.pause for tier in self.tiers))
            try:
                await self.meet()
            except Exception as error:  # noqa: BLE001 - without it nothing would be noticed any more
                self._log.error("unforeseen error beside the cache", kind=type(error).__name__)

    async def meet(self) -> None:
        """Ask every store once how it is and what it knows; offer what is provisional."""
        for tier in self.tiers:
            try:
                await self._meet(tier)
            except StoreError as error:
                tier.failed(error)
        for tier in self.tiers[:-1]:
            tier.may_be_written()
        if self.tiers:
            await self._offer()

    async def _meet(self, tier: Tier) -> None:
        facts = await tier.store.facts()
        authority = tier is self.tiers[-1]
        secret = self.scopes.secret if authority and self._shares_secret else None
        if not tier.known or facts.get("epoch") != tier.epoch or is_doubtful(facts, secret):
            await self._get_to_know(tier, facts)
        tier.answered()
        if not tier.known:
            tier.may_be_written()
            return
        self.learn(facts)
        await self._tell(tier, facts)

    def learn(self, facts: Mapping[str, bytes]) -> None:
        """Take over what a store says of scopes, and forget what is purged."""
        for namespace, before in self.scopes.learn(facts):
            self._forget(namespace, before)

    async def _tell_of(self, scope: Scope) -> None:
        """Tell every store that there is this scope, without waiting for the next meeting.

        Of this one alone: names that fit a pattern are the clients' choice, and may be many.
        """
        fact = self.scopes.fact_of(scope)
        for tier in self.tiers:
            if fact is not None and tier.writable:
                try:
                    await tier.store.settle(*fact)
                except StoreError as error:
                    tier.failed(error, writing=True)

    async def _tell(self, tier: Tier, facts: Mapping[str, bytes]) -> None:
        """Tell a store what it does not know of scopes."""
        try:
            # All at once, as more may become known while a store is told.
            for name, fact in list(self.scopes.facts()):
                if name not in facts:
                    await tier.store.settle(name, fact)
                elif facts[name] != fact:
                    await tier.store.swap(name, facts[name], fact)
        except StoreError as error:
            tier.failed(error, writing=True)

    async def _get_to_know(self, tier: Tier, facts: Mapping[str, bytes]) -> None:
        """Compare secrets, and notice a store that forgot what it had."""
        authority = tier is self.tiers[-1]
        if authority and self._shares_secret:
            self._adopt(await shared_secret(tier.store, self.scopes.secret, facts))
        tier.refuse(foreign=not await is_ours(tier.store, self.scopes.secret, facts))
        begun_anew = tier.known and tier.epoch not in (None, facts.get("epoch"))
        tier.epoch = facts.get("epoch")
        if begun_anew and authority:
            self._log.warning("cache has begun anew", tier=tier.name, kept=len(self.memory))
            await self._give_back()
        if begun_anew:
            self._on_begun_anew(self.scopes.secret)

    async def _give_back(self) -> None:
        """Have the authority offered what is in memory, and was its own.

        What is too much for that is forgotten: others may soon have another vector of it.
        """
        for place, (key, entry) in enumerate(self.memory.items()):
            if not entry.memory_only:
                entry.shared = False
                self._provisional.put(key, entry)
                self.memory.drop(key)
            if place % _BATCH == 0:
                await asyncio.sleep(0)

    def _adopt(self, secret: bytes) -> None:
        """Go over to the secret that replicas share; what was named with another one is lost."""
        if secret != self.scopes.secret:
            self.scopes.rekey(secret)
            self.memory.clear()
            self._provisional.clear()

    async def _offer(self) -> None:
        """Offer provisional entries to the authority; its winners take their places."""
        authority = self.tiers[-1]
        if not authority.known or authority.reading.is_open:
            return
        places = {scope.namespace: scope.place for scope in self.scopes}
        while batch := dict(islice(self._provisional.items(), _BATCH)):
            namespace = next(iter(batch.values())).namespace
            entries = {key: entry for key, entry in batch.items() if entry.namespace == namespace}
            at = places.get(namespace)
            # One of a past generation is nobody's any more.
            kept = await self._settle(at, entries, probing=True) if at is not None else {}
            if kept is None:
                return
            for key in entries:
                self._provisional.drop(key)
                if key in kept:
                    kept[key].shared = True
                    self.memory.put(key, kept[key])
            await asyncio.sleep(_BREATH)
        authority.may_be_written()

    def _forget(self, namespace: Namespace, before: float) -> None:
        for memory in (self.memory, self._provisional):
            for key, entry in memory.items():
                if entry.namespace == namespace and entry.created < before:
                    memory.drop(key)

    def _drop(self, key: Key) -> None:
        self.memory.drop(key)
        self._provisional.drop(key)

    async def aclose(self) -> None:
        """Finish what goes on, offer what is left, and close the stores."""
        if self.tiers:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    await asyncio.gather(*self._copies, return_exceptions=True)
                    await self._offer()
        for tier in self.tiers:
            with suppress(StoreError):
                await tier.store.aclose()


def _live(at: Place, entries: Mapping[Key, Entry]) -> Mapping[Key, Entry]:
    """Return those that were not purged while they were on their way."""
    before = at.scope.fact.before
    return {k: e for k, e in entries.items() if e.created >= before} if at.current else {}


_LAST_WORDS = 5.0
"""Seconds that the end waits for stores."""
