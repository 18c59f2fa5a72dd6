"""The tier that replicas share: Redis 7.0 or newer, Valkey, or a cluster of either.

    embgw:1:{namespace}:{key, URL-safe base64}    a value, as it was given
    embgw:1:facts                                 a hash

It needs a user that may do no more than this:

    user gateway on >… resetchannels ~embgw:* -@all +mget +get +set +unlink +getrange +strlen
        +scan +type +hgetall +hget +hset +hsetnx +eval +dbsize +info +select +client|setname
        +cluster|slots +asking

The server should evict on its own (`maxmemory-policy allkeys-lfu`); one that refuses new values
when it is full (`noeviction`) still answers what it has.
"""

import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from secrets import token_bytes

from gateway.cache.keys import Key
from gateway.cache.record import HEADER_BYTES, created, expires
from gateway.cache.redis_cluster import Cluster, key_of
from gateway.cache.redis_line import Access, Address
from gateway.cache.redis_server import Command, Kind, Reply, Server, checked, is_wrong_type
from gateway.cache.store import Namespace, Usage

EPOCH = "epoch"
"""The fact that tells a server from one that was flushed."""

_PREFIX = b"embgw:1:"
_FACTS = _PREFIX + b"facts"
_PIECE = 128
_PIECE_BYTES = 2**20
_PAGE = 500
_PATIENCE = 10.0
"""Seconds for a round trip of a verb that looks through everything."""

# EVAL rather than EVALSHA: a server knows a script that it has seen by its text, so nothing is
# saved but a hundred bytes beside a value of thousands, and nothing can be missing.
_CLEAR = """
if redis.call('TYPE', KEYS[1]).ok == ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
"""
_DISCARD = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
"""
_SETTLE = """
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
return redis.call('HGET', KEYS[1], ARGV[1])
"""
_SWAP = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


class RedisStore:
    """Keeps values in Redis.

    Time. A batch goes in pieces of 128 keys or a mebibyte of values, one round trip each. A round
    trip has `budget`, waiting for one of 32 connections included; connecting, where it has to,
    has `connect_budget` of its own, which is over as soon as a round trip beside it took too
    long. So a server that has just been frozen costs one budget, one that is dead or was frozen
    before both, however large the batch. Looking through everything (`namespaces`, `scan`,
    `purge`) has ten seconds a round trip. In a cluster it is so for each server and each redirect.

    Values. Where something that is no string stands under one of our names, there is no value
    for `get`, and `add` removes it. Eviction by the server is loss of an entry, no more; losing
    the facts shows as a new `epoch`.
    """

    name = "redis"

    def __init__(
        self,
        url: str,
        *,
        cluster: bool = False,
        ttl: float | None = None,
        budget: float = 0.05,
        connect_budget: float = 0.1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`url` is redis:// or rediss://, perhaps with `?ssl_ca_certs=…`; times are in seconds.

        Raises ConfigError for certificates that cannot be used. Connects when first asked.
        """
        access = Access(url)

        def open_server(address: Address) -> Server:
            return Server(address, partial(access.line, address), connect_budget)

        self._redis: Server | Cluster = (
            Cluster(access.address, open_server) if cluster else open_server(access.address)
        )
        self._ttl = ttl
        self._budget = budget
        self._clock = clock

    async def get(self, namespace: Namespace, keys: Sequence[Key]) -> Mapping[Key, bytes]:
        """See CacheStore.get."""
        found: dict[Key, bytes] = {}
        for start in range(0, len(keys), _PIECE):
            piece = keys[start : start + _PIECE]
            names = [_name(namespace, key) for key in piece]
            values = await self._redis.values(names, self._budget)
            found |= _found(piece, values)
        return found

    async def add(self, namespace: Namespace, values: Mapping[Key, bytes]) -> Mapping[Key, bytes]:
        """See CacheStore.add."""
        held: dict[Key, bytes] = {}
        for piece in _pieces(values):
            commands = [self._set(namespace, key, value) for key, value in piece.items()]
            held |= _found(piece, await self._write(commands, "string", bytes | None))
        return held

    async def discard(self, namespace: Namespace, values: Mapping[Key, bytes]) -> int:
        """See CacheStore.discard."""
        removed = 0
        for piece in _pieces(values):
            pairs = piece.items()
            commands = [_eval(_DISCARD, _name(namespace, key), value) for key, value in pairs]
            counts = await self._look(commands, int | None, self._budget)
            removed += sum(count or 0 for count in counts)
        return removed

    async def facts(self) -> Mapping[str, bytes]:
        """See CacheStore.facts. One is always there: `epoch`, random, another after a flush."""
        facts = await self._facts()
        if EPOCH not in facts:
            await self.settle(EPOCH, token_bytes(16))
            facts = await self._facts()
        return facts

    async def settle(self, name: str, value: bytes) -> bytes:
        """See CacheStore.settle."""
        (settled,) = await self._write([_eval(_SETTLE, _FACTS, name, value)], "hash", bytes)
        return bytes(settled)

    async def swap(self, name: str, old: bytes, new: bytes) -> bool:
        """See CacheStore.swap; if the connection broke, False may be said of what was done."""
        (swapped,) = await self._write([_eval(_SWAP, _FACTS, name, old, new)], "hash", int)
        return bool(swapped)

    async def usage(self) -> Usage:
        """Return the server's own figures: its keys, memory and evictions, whoever's they are."""
        entries = size = evicted = 0
        for server in await self._redis.servers(self._budget):
            commands: list[Command] = [("DBSIZE",), ("INFO", "memory", "stats")]
            replies = await server.run(commands, self._budget)
            entries += checked(replies[:1], int)[0]
            (info,) = checked(replies[1:], bytes)
            size += _figure(info, b"used_memory")
            evicted += _figure(info, b"evicted_keys")
        return Usage(entries, size, evicted, by_server=True)

    async def namespaces(self) -> Mapping[Namespace, Usage]:
        """See CacheStore.namespaces. While the server resizes its table, some may count twice."""
        entries: Counter[bytes] = Counter()
        sizes: Counter[bytes] = Counter()
        async for names in self._names(_PREFIX):
            lengths = await self._look([("STRLEN", name) for name in names], int | None, _PATIENCE)
            for name, length in zip(names, lengths, strict=True):
                whose, colon, _ = name.removeprefix(_PREFIX).partition(b":")
                if length is not None and colon:
                    entries[whose] += 1
                    sizes[whose] += length
        return {
            whose.decode(errors="replace"): Usage(count, sizes[whose])
            for whose, count in entries.items()
        }

    async def scan(self, namespace: Namespace) -> AsyncIterator[Mapping[Key, bytes]]:
        """See CacheStore.scan."""
        async for names in self._names(_name(namespace)):
            keys = {key: name for name in names if (key := _key(name)) is not None}
            if keys:
                yield _found(keys, await self._redis.values(list(keys.values()), _PATIENCE))

    async def purge(self, namespace: Namespace, before: float | None) -> int:
        """See CacheStore.purge."""
        removed = 0
        async for names in self._names(_name(namespace)):
            doomed = names if before is None else await self._older(names, before)
            unlinked = await self._redis.run([("UNLINK", name) for name in doomed], _PATIENCE)
            removed += sum(checked(unlinked, int))
        return removed

    async def aclose(self) -> None:
        """See CacheStore.aclose."""
        await self._redis.aclose()

    def _set(self, namespace: Namespace, key: Key, value: bytes) -> Command:
        command: Command = ("SET", _name(namespace, key), value, "NX", "GET")
        if self._ttl is None:
            return command
        end = expires(key, created(value) or self._clock(), self._ttl)
        return (*command, "PXAT", int(end * 1000))

    async def _write(self, commands: list[Command], kind: str, answer: Kind) -> list[Reply]:
        """Run commands on keys of one kind; where another kind is in the way, remove it."""
        replies = await self._redis.run(commands, self._budget)
        wrong = [index for index, reply in enumerate(replies) if is_wrong_type(reply)]
        if wrong:
            cleared = [_eval(_CLEAR, key_of(commands[index]), kind) for index in wrong]
            checked(await self._redis.run(cleared, self._budget), int)
            again = await self._redis.run([commands[index] for index in wrong], self._budget)
            for index, reply in zip(wrong, again, strict=True):
                replies[index] = reply
        return checked(replies, answer)

    async def _facts(self) -> dict[str, bytes]:
        (answer,) = await self._write([("HGETALL", _FACTS)], "hash", list)
        pairs = checked(answer, bytes)
        names = (name.decode(errors="replace") for name in pairs[::2])
        return dict(zip(names, pairs[1::2], strict=False))

    async def _names(self, prefix: bytes) -> AsyncIterator[list[bytes]]:
        """Yield the names that begin so, in pages; some perhaps twice."""
        for server in await self._redis.servers(self._budget):
            cursor = b"0"
            while True:
                command = ("SCAN", cursor, "MATCH", prefix + b"*", "COUNT", _PAGE)
                (page,) = checked(await server.run([command], _PATIENCE), list)
                cursor = page[0]
                names = [name for name in page[1] if name.startswith(prefix)]
                if names:
                    yield names
                if cursor == b"0":
                    break

    async def _older(self, names: Sequence[bytes], before: float) -> list[bytes]:
        """Return those that were made before; what is no record of ours counts as older."""
        commands: list[Command] = [("GETRANGE", name, 0, HEADER_BYTES - 1) for name in names]
        heads = await self._look(commands, bytes | None, _PATIENCE)
        return [
            name
            for name, head in zip(names, heads, strict=True)
            if head is None or created(head) < before
        ]

    async def _look(self, commands: Sequence[Command], kind: Kind, budget: float) -> list[Reply]:
        """Run commands about strings that are there; None for what is no string."""
        replies = await self._redis.run(commands, budget)
        return checked([None if is_wrong_type(reply) else reply for reply in replies], kind)


def _name(namespace: Namespace, key: Key = b"") -> bytes:
    return b"%b%b:%b" % (_PREFIX, namespace.encode(), _encoded(key))


def _key(name: bytes) -> Key | None:
    """Return the key in a name; None for a name that we would not give."""
    encoded = name.rpartition(b":")[2]
    with suppress(ValueError):
        key = urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
        if _encoded(key) == encoded:
            return key
    return None


def _encoded(key: Key) -> bytes:
    return urlsafe_b64encode(key).rstrip(b"=")


def _eval(script: str, name: bytes, *arguments: bytes | str) -> Command:
    return ("EVAL", script, 1, name, *arguments)


def _figure(info: bytes, name: bytes) -> int:
    found = re.search(rb"^%b:(\d+)" % name, info, re.MULTILINE)
    return int(found[1]) if found else 0


def _found(keys: Iterable[Key], values: Iterable[bytes | None]) -> dict[Key, bytes]:
    pairs = zip(keys, values, strict=True)
    return {key: value for key, value in pairs if value is not None}


def _pieces(values: Mapping[Key, bytes]) -> Iterator[dict[Key, bytes]]:
    """Yield the values in parts that one budget is enough for."""
    piece: dict[Key, bytes] = {}
    size = 0
    for key, value in values.items():
        if len(piece) == _PIECE or (piece and size + len(value) > _PIECE_BYTES):
            yield piece
            piece, size = {}, 0
        piece[key] = value
        size += len(value)
    if piece:
        yield piece
