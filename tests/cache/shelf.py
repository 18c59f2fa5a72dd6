"""A store in memory that keeps the protocol, and has every trouble that a real one can have.

    shelf = Shelf()
    shelf.fail("full", "add")        # these verbs raise from now on
    shelf.fail("timeout", late=True) # every verb does its work, and its answer is lost
    shelf.hang("get")                # they wait
    shelf.recover()

One shelf is one place, however many caches use it: what workers or replicas share.
"""

import asyncio
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from gateway.cache.keys import Key
from gateway.cache.record import created, expires
from gateway.cache.store import Namespace, StoreError, Usage

VERBS = ("get", "add", "discard", "facts", "settle", "swap", "usage", "aclose")


async def one_step() -> None:
    """Let others go first, once: every verb of a real store does."""
    await asyncio.sleep(0)


class Shelf:
    """Keeps bytes under keys, set if absent, and facts. The protocol is `cache.store`'s."""

    def __init__(self, name: str = "shelf", *, ttl: float | None = None) -> None:
        self.name = name
        self.ttl = ttl
        self.pace: Callable[[], Awaitable[None]] = one_step
        """Awaited on the way to the store, and on the way back."""
        self.asked: Counter[str] = Counter()
        """How often each verb was asked for."""
        self.keys_asked: list[Key] = []
        """The keys of every `get`."""
        self.values: dict[Namespace, dict[Key, bytes]] = defaultdict(dict)
        self.said: dict[str, bytes] = {}
        """The facts."""
        self.closed = 0
        self._troubles: dict[str, tuple[str, bool]] = {}
        self._hanging: frozenset[str] = frozenset()
        self._moved = asyncio.Event()
        self.begin_anew()

    # Troubles

    def fail(self, reason: str, *verbs: str, late: bool = False) -> None:
        """Let these verbs, or all, raise StoreError; `late` when they have done their work."""
        self._troubles |= dict.fromkeys(verbs or VERBS, (reason, late))

    def hang(self, *verbs: str) -> None:
        """Let these verbs, or all, wait until `release`; then they fail or work as told by then."""
        self._moved = asyncio.Event()
        self._hanging = frozenset(verbs or VERBS)

    def release(self) -> None:
        """Let go on what hangs."""
        self._hanging = frozenset()
        self._moved.set()

    def recover(self) -> None:
        """Let everything go well again."""
        self._troubles = {}
        self.release()

    def begin_anew(self) -> None:
        """Forget everything, as a Redis without persistence does when it is restarted."""
        self.values.clear()
        self.said = {"epoch": os.urandom(16)}

    def damage(self, value: bytes = b"damaged") -> None:
        """Change every value into one that nobody wrote."""
        for held in self.values.values():
            held.update(dict.fromkeys(held, value))

    # The protocol

    async def get(self, namespace: Namespace, keys: Sequence[Key]) -> Mapping[Key, bytes]:
        self.keys_asked += keys
        return await self._do("get", lambda: self._live(namespace, keys))

    async def add(self, namespace: Namespace, values: Mapping[Key, bytes]) -> Mapping[Key, bytes]:
        def add() -> Mapping[Key, bytes]:
            first = self._live(namespace, values)
            self.values[namespace] |= {k: v for k, v in values.items() if k not in first}
            return first

        return await self._do("add", add)

    async def discard(self, namespace: Namespace, values: Mapping[Key, bytes]) -> int:
        def discard() -> int:
            same = [k for k, v in values.items() if self.values[namespace].get(k) == v]
            for key in same:
                del self.values[namespace][key]
            return len(same)

        return await self._do("discard", discard)

    async def facts(self) -> Mapping[str, bytes]:
        return await self._do("facts", lambda: dict(self.said))

    async def settle(self, name: str, value: bytes) -> bytes:
        return await self._do("settle", lambda: self.said.setdefault(name, value))

    async def swap(self, name: str, old: bytes, new: bytes) -> bool:
        def swap() -> bool:
            same = self.said.get(name) == old
            if same:
                self.said[name] = new
            return same

        return await self._do("swap", swap)

    async def usage(self) -> Usage:
        return await self._do("usage", lambda: _usage(*self.values.values()))

    async def aclose(self) -> None:
        self.closed += 1
        await self._do("aclose", lambda: None)

    # For looking through it

    async def namespaces(self) -> Mapping[Namespace, Usage]:
        return {name: _usage(values) for name, values in self.values.items() if values}

    async def scan(self, namespace: Namespace) -> AsyncIterator[Mapping[Key, bytes]]:
        for key in list(self.values[namespace]):
            if live := self._live(namespace, [key]):
                yield live

    async def purge(self, namespace: Namespace, before: float | None) -> int:
        held = self.values[namespace]
        old = [k for k, v in held.items() if before is None or created(v) < before]
        for key in old:
            del held[key]
        return len(old)

    def _live(self, namespace: Namespace, keys: Sequence[Key] | Mapping[Key, bytes]):
        held = self.values[namespace]
        return {key: held[key] for key in keys if key in held and not self._over(key, held[key])}

    def _over(self, key: Key, value: bytes) -> bool:
        return self.ttl is not None and expires(key, created(value), self.ttl) <= time.time()

    async def _do(self, verb: str, work: Callable):
        self.asked[verb] += 1
        await self.pace()
        if verb in self._hanging:
            await self._moved.wait()
        reason, late = self._troubles.get(verb, ("", False))
        if reason and not late:
            raise StoreError(reason, f"the shelf says {reason}")
        answer = work()
        await self.pace()
        if reason:
            raise StoreError(reason, f"the shelf says {reason}, too late")
        return answer


def _usage(*values: Mapping[Key, bytes]) -> Usage:
    return Usage(sum(map(len, values)), sum(32 + len(v) for held in values for v in held.values()))
