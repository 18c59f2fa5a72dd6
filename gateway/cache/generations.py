"""A new generation of a model for all its tenants at once, as another model stands behind its name.

It is one fact, changed by compare-and-set where all look twice a second: however many replicas
want it at the same time, one generation begins.
"""

from gateway.cache.facts import PREFIX, write_fact
from gateway.cache.scopes import Place
from gateway.cache.store import StoreError
from gateway.cache.tier import Tier
from gateway.cache.tiered import TieredCache

_TRIES = 3
"""A fact may be changed by others, who have news of something else, while we want to change it."""


async def begin_generation(cache: TieredCache, place: Place) -> bool:
    """Have all tenants of a model leave what they have; return whether this call has done so.

    `place` is where the gateway's own scope of the model was when that was found to be needed:
    nothing happens where another generation has begun since, nor while the authority is away.
    """
    if cache.tiers:
        return await _agreed(cache, cache.tiers[-1], place)
    if place.current:
        _begin(cache, place, *_successor(cache, place))
        return True
    return False


async def _agreed(cache: TieredCache, authority: Tier, place: Place) -> bool:
    if not authority.known or not authority.writable:
        return False
    try:
        for _ in range(_TRIES):
            facts = await authority.store.facts()
            cache.learn(facts)
            if not place.current:
                return False
            name, value = _successor(cache, place)
            # Of several who settle the same nobody would know who came first; of those who swap
            # one does.
            old = facts.get(name) or await authority.store.settle(
                name, write_fact(place.scope.fact)
            )
            if await authority.store.swap(name, old, value):
                _begin(cache, place, name, value)
                return True
    except StoreError as error:
        authority.failed(error, writing=True)
    return False


def _successor(cache: TieredCache, place: Place) -> tuple[str, bytes]:
    return PREFIX + place.scope.id, write_fact(cache.scopes.successor(place.scope))


def _begin(cache: TieredCache, place: Place, name: str, value: bytes) -> None:
    cache.learn({name: value})
    cache.scopes.lift(place.scope)
