"""Forgetting entries, in every store and in every gateway that runs: `gateway cache purge`.

Nobody is called: the fact of a scope is raised where all gateways look twice a second. What they
have in memory is gone for them then, and what the stores have is removed here.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import inf

import msgspec

from gateway.cache.facts import ScopeFact
from gateway.commands.facts import grow, known_scopes
from gateway.commands.opened import CommandError, Held, Opened, fits, held, known_secret, opened
from gateway.commands.selection import Selection
from gateway.config import Cache, Config

_NOTICED = 1.2
"""Seconds after which every gateway that runs has noticed."""
_STRAGGLERS = 0.5
"""Seconds until what a gateway was writing meanwhile is written."""


@dataclass(frozen=True, slots=True)
class Purge:
    """What is to be forgotten."""

    selection: Selection
    everything: bool = False
    """Whether what nobody knows the model of goes too."""
    before: float | None = None
    """Unix time: what was made later stays. None: nothing stays."""


Plan = Sequence[tuple[Opened, list[Held]]]
"""What each store holds of what is to be forgotten."""


async def plan(config: Config, asked: Purge) -> Plan:
    """Return what would be looked at; raises CommandError."""
    async with _own(config.cache) as stores:
        known = await known_scopes(stores)
        chosen = asked.selection.of(config, known)
        return [
            (store, [found for found in await _held(store) if _goes(found, chosen, known, asked)])
            for store in stores
        ]


async def purge(config: Config, asked: Purge) -> dict[str, int]:
    """Forget it, and return how many entries were removed from each store; raises CommandError."""
    async with _own(config.cache) as stores:
        grown = await _tell(config, asked, stores)
        removed = dict.fromkeys((store.store.name for store in stores), 0)
        for pause in (_STRAGGLERS, 0.0):
            for store in stores:
                removed[store.store.name] += await _remove(store, grown, asked)
            await asyncio.sleep(pause)
        return removed


@asynccontextmanager
async def _own(cache: Cache) -> AsyncIterator[Sequence[Opened]]:
    """Open the stores; raises CommandError for one that other gateways than this config's use."""
    async with opened(cache) as stores:
        facts = [{} if store.missing else await store.ask(store.store.facts) for store in stores]
        secret = known_secret(cache, facts[-1])
        for store, said in zip(stores, facts, strict=True):
            if fits(secret, said) is False:
                raise CommandError(
                    f"{store.address}: was not made with the secret of this config; name the "
                    "config of the gateways that use it with --config"
                )
        yield stores


async def _held(opened: Opened) -> list[Held]:
    return [] if opened.missing else await held(opened, await opened.ask(opened.store.facts))


def _goes(
    found: Held, chosen: Mapping[str, ScopeFact], known: Mapping[str, ScopeFact], asked: Purge
) -> bool:
    return found.scope in chosen or (asked.everything and found.scope not in known)


async def _tell(config: Config, asked: Purge, stores: Sequence[Opened]) -> dict[str, ScopeFact]:
    """Raise the facts of all scopes that are meant, and return them once gateways have noticed.

    A scope whose first entries were made just now may become known while we wait.
    """
    grown: dict[str, ScopeFact] = {}
    while True:
        chosen = asked.selection.of(config, await known_scopes(stores))
        new = {scope: fact for scope, fact in chosen.items() if scope not in grown}
        if not new:
            return grown
        for scope, fact in new.items():
            grown[scope] = await grow(stores[-1], scope, _after(fact, asked.before))
        await asyncio.sleep(_NOTICED)


def _after(fact: ScopeFact, before: float | None) -> ScopeFact:
    if before is None:
        return fact.at_least(fact.generation + 1)
    return msgspec.structs.replace(fact, before=max(fact.before, before))


async def _remove(opened: Opened, grown: Mapping[str, ScopeFact], asked: Purge) -> int:
    """Remove from a store what is purged by now; return how many entries."""
    removed = 0
    for found in await _held(opened):
        before = _purged_before(found, grown, asked)
        if before > 0:
            moment = None if before == inf else before
            purge = partial(opened.store.purge, found.namespace, moment)
            removed += await opened.ask(purge)
    return removed


def _purged_before(found: Held, grown: Mapping[str, ScopeFact], asked: Purge) -> float:
    """Return the Unix time before which entries are gone."""
    fact = grown.get(found.scope)
    if fact is not None:
        return inf if found.generation < fact.generation else fact.before
    if asked.everything and found.fact is None:
        return inf if asked.before is None else asked.before
    return 0.0
