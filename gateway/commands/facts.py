"""What all stores together know of scopes, and how a command adds to it."""

from collections.abc import Mapping, Sequence
from functools import partial

from gateway.cache.facts import PREFIX, ScopeFact, read_fact, read_facts, write_fact
from gateway.commands.opened import Opened


async def known_scopes(stores: Sequence[Opened]) -> dict[str, ScopeFact]:
    """Return every scope that a store knows, by id, with all that they know together."""
    known: dict[str, ScopeFact] = {}
    for opened in reversed(stores):
        if not opened.missing:
            join(known, await opened.ask(opened.store.facts))
    return known


def join(known: dict[str, ScopeFact], facts: Mapping[str, bytes]) -> None:
    """Add what these facts say of scopes."""
    for scope, fact in read_facts(facts):
        known[scope] = known[scope].joined(fact) if scope in known else fact


async def grow(opened: Opened, scope: str, fact: ScopeFact) -> ScopeFact:
    """Have a store know this of a scope too; return what it knows then."""
    name = PREFIX + scope
    while True:
        there = (await opened.ask(opened.store.facts)).get(name)
        known = None if there is None else read_fact(there)
        joined = fact if known is None else known.joined(fact)
        if joined == known:
            return known
        value = write_fact(joined)
        if there is None:
            if await opened.ask(partial(opened.store.settle, name, value)) == value:
                return joined
        elif await opened.ask(partial(opened.store.swap, name, there, value)):
            return joined
