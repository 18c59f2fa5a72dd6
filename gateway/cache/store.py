"""What every slower tier can do: verbs on batches, bytes in and out.

A store knows nothing of vectors. It keeps values under keys, apart by namespace, and never
overwrites one: who comes second is told what was there first. Beside the values it keeps a few
facts: the secret's check value, and what is known of each vector space.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.cache.keys import Key

Namespace = str
"""Whose values: 24 hexadecimal digits for (tenant, model identity), a dot, the generation."""


class StoreError(Exception):
    """A store could not do what it was asked; nothing is known of what it holds.

    `reason` is one word for metrics and logs: timeout, connect, full, readonly, corrupt, refused
    or error. The message says more, for logs, and holds neither keys nor values.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ForeignStoreError(StoreError):
    """What is at the address is somebody else's, and stays as it is."""

    def __init__(self, message: str) -> None:
        super().__init__("refused", message)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a store, or a namespace of it, holds."""

    entries: int
    bytes: int
    evicted: int = 0
    """Entries that made room for others since this process began, where that is known."""
    by_server: bool = False
    """Whether `evicted` is what a server says of all who use it, since that began."""


class CacheStore(Protocol):
    """A tier that outlives the process. Every verb may raise StoreError, and is safe to repeat.

    A store connects when it is first asked and again whenever it has to. It bounds the time that a
    verb takes by itself. Verbs may be called concurrently, from one event loop.
    """

    name: str
    """The tier's name in metrics and logs: "sqlite" or "redis"."""

    async def get(self, namespace: Namespace, keys: Sequence[Key]) -> Mapping[Key, bytes]:
        """Return the values that are there, by key."""
        ...

    async def add(self, namespace: Namespace, values: Mapping[Key, bytes]) -> Mapping[Key, bytes]:
        """Keep each value unless its key has one; return those that were there first, by key.

        What is not in the answer is kept when this returns, and survives the end of the process.
        """
        ...

    async def discard(self, namespace: Namespace, values: Mapping[Key, bytes]) -> int:
        """Remove each key whose value still is this one; return how many were removed."""
        ...

    async def facts(self) -> Mapping[str, bytes]:
        """Return every fact by name: few and small, asked for twice a second by every worker."""
        ...

    async def settle(self, name: str, value: bytes) -> bytes:
        """Set a fact unless there is one, and return the one that is there then."""
        ...

    async def swap(self, name: str, old: bytes, new: bytes) -> bool:
        """Change a fact if it still is `old`; return whether it was."""
        ...

    async def usage(self) -> Usage:
        """Return what is held in all; quick enough for every scrape."""
        ...

    async def aclose(self) -> None:
        """Finish what was begun and let go of everything; the store is not used again."""
        ...


class Inspectable(CacheStore, Protocol):
    """A store that can also be looked through, for the commands that people use on it.

    Its verbs may take long, and block nobody else.
    """

    async def namespaces(self) -> Mapping[Namespace, Usage]:
        """Return what each namespace holds; may look through everything."""
        ...

    def scan(self, namespace: Namespace) -> AsyncIterator[Mapping[Key, bytes]]:
        """Yield all values of a namespace in batches, each at least once."""
        ...

    async def purge(self, namespace: Namespace, before: float | None) -> int:
        """Remove the values created before this Unix time, or all; return how many there were."""
        ...
