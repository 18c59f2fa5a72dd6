"""The stores of a config as commands use them: looked through, waited for, never made by looking.

A store is asked again for some seconds where it does not answer, because a command can wait longer
than a request. What is wrong then is raised as CommandError, with what to do next.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from gateway.cache.facts import ScopeFact, read_facts
from gateway.cache.keys import Key, check_value, is_check_value
from gateway.cache.scopes import namespace
from gateway.cache.store import Inspectable, Namespace, StoreError, Usage
from gateway.config import Cache, RedisAddress, SqliteAddress, StoreAddress
from gateway.logs import open_log
from gateway.stores import open_stores, own_secret, secret_file

T = TypeVar("T")

_PAUSES = (0.1, 0.3, 1.0)
"""Seconds before a store is asked again."""
_PASSING = frozenset({"timeout", "connect"})
_HINTS = {
    "connect": "is it running, and is its address right?",
    "timeout": "it may be busy; try again",
    "readonly": "run this as the user who may write there",
    "full": "make room first",
}


class CommandError(Exception):
    """A command could not do what it was asked; the message says why, and what to do next."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A store of the config, and where it lies."""

    store: Inspectable
    address: StoreAddress

    @property
    def missing(self) -> bool:
        """Whether there is no such store yet; asking it for anything would make one.

        Raises CommandError where that cannot be seen, or there can be none.
        """
        if not isinstance(self.address, SqliteAddress):
            return False
        try:
            self.address.path.stat()
        except FileNotFoundError:
            return True
        except OSError as error:
            hint = "; run this as the user who may" if isinstance(error, PermissionError) else ""
            message = f"{self.address}: cannot be looked at: {error.strerror}{hint}"
            raise CommandError(message) from error
        return False

    @property
    def unmakeable(self) -> str | None:
        """Why this user could not make a store that is missing, as far as that can be seen."""
        if not isinstance(self.address, SqliteAddress):
            return None
        there = next(parent for parent in self.address.path.parents if parent.exists())
        as_now = os.access in os.supports_effective_ids
        if os.access(there, os.W_OK | os.X_OK, effective_ids=as_now):
            return None
        return f"{there} cannot be written by who runs this"

    async def ask(self, verb: Callable[[], Awaitable[T]]) -> T:
        """Return what the verb returns in the end; raises CommandError."""
        for pause in _PAUSES:
            try:
                return await verb()
            except StoreError as error:
                if error.reason not in _PASSING:
                    raise self.failed(error) from error
            await asyncio.sleep(pause)
        try:
            return await verb()
        except StoreError as error:
            raise self.failed(error) from error

    async def scan(self, namespace: Namespace) -> AsyncIterator[Mapping[Key, bytes]]:
        """See Inspectable.scan; raises CommandError."""
        try:
            async for batch in self.store.scan(namespace):
                yield batch
        except StoreError as error:
            raise self.failed(error) from error

    def failed(self, error: StoreError) -> CommandError:
        """Return what to tell of a store that failed."""
        hint = _HINTS.get(error.reason)
        return CommandError(f"{self.address}: {error}" + (f"; {hint}" if hint else ""))


@asynccontextmanager
async def opened(cache: Cache) -> AsyncIterator[list[Opened]]:
    """Open the config's stores, nearest first, and close them; raises CommandError for none."""
    if not cache.store:
        raise CommandError(
            "this config keeps vectors in memory only, which ends with the gateway; name a store "
            'in its [cache] table, such as store = "sqlite:///var/lib/embedding-gateway/cache.db"'
        )
    stores = open_stores(cache, open_log("warning", "auto"))
    try:
        yield [Opened(*pair) for pair in zip(stores, cache.store, strict=True)]
    finally:
        for store in stores:
            await store.aclose()


def known_secret(cache: Cache, facts: Mapping[str, bytes]) -> bytes | None:
    """Return what vectors are named with, without making it up; None if nobody has, so far.

    `facts` are those of the store that decides. Raises ConfigError for a file that is broken.
    """
    if cache.secret is None:
        if isinstance(cache.store[-1], RedisAddress) and "secret" in facts:
            return facts["secret"]
        file = secret_file(cache)
        if file is None or not file.exists():
            return None
    return own_secret(cache).value


def check_of(facts: Mapping[str, bytes]) -> bytes | None:
    """Return what a store shows of its secret; None while it has not been used, or if damaged."""
    check = facts.get("check", b"")
    return check if is_check_value(check) else None


def fits(secret: bytes | None, facts: Mapping[str, bytes]) -> bool | None:
    """Return whether a store was made with this secret; None where it does not say."""
    check = check_of(facts)
    return None if check is None else secret is not None and check_value(secret) == check


@dataclass(frozen=True, slots=True)
class Held:
    """What a store holds of one scope, in one generation."""

    scope: str
    """Its id."""
    generation: int
    fact: ScopeFact | None
    """What the store says of the scope; None where it says nothing, or no more."""
    usage: Usage

    @property
    def namespace(self) -> Namespace:
        """Where it is."""
        return namespace(self.scope, self.generation)

    @property
    def current(self) -> bool:
        """Whether it is what gateways answer with; of a past generation it is purged."""
        return self.fact is not None and self.generation == self.fact.generation


async def held(opened: Opened, facts: Mapping[str, bytes]) -> list[Held]:
    """Return what the store holds, by tenant, model and generation; unknown scopes come last."""
    known = dict(read_facts(facts))
    found = list(_apart(await opened.ask(opened.store.namespaces), known))
    return sorted(found, key=_by_name)


def _apart(usages: Mapping[Namespace, Usage], known: Mapping[str, ScopeFact]) -> Iterator[Held]:
    for name, usage in usages.items():
        scope, _, generation = name.partition(".")
        # Others may have put something there whose name is none of ours.
        if generation.isascii() and generation.isdigit():
            yield Held(scope, int(generation), known.get(scope), usage)


def _by_name(held: Held) -> tuple[bool, str, str, str, int]:
    fact = held.fact or ScopeFact("", "")
    return held.fact is None, fact.tenant, fact.model, held.scope, held.generation
