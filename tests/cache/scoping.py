"""The scopes of a process, and what a store says of one of them."""

from gateway.cache.facts import PREFIX, ScopeFact, write_fact
from gateway.cache.keys import scope_id
from gateway.cache.scopes import Scopes

SECRET, OTHER_SECRET = b"s" * 32, b"t" * 32
ID = scope_id(SECRET, "tenant", "identity")
NAME = PREFIX + ID


def scopes(**fact):
    """Return the scopes of a process that has learned this of one, and that one."""
    made = Scopes(SECRET)
    scope = made.of("tenant", "identity", "m")
    if fact:
        made.learn(said(**fact))
    return made, scope


def said(tenant="tenant", model="m", **fact):
    return {NAME: write_fact(ScopeFact(tenant, model, **fact))}
