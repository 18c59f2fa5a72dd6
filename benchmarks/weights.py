"""What a vector weighs where it is kept: in a gateway's memory, in SQLite, in Redis."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import redis

from benchmarks.stores import redis_server
from gateway.cache.entry import Entry
from gateway.cache.keys import Key
from gateway.cache.record import pack
from gateway.cache.redis import RedisStore
from gateway.cache.sqlite import SqliteStore
from gateway.cache.store import CacheStore
from gateway.logs import open_log
from gateway.vectors import unit

WIDTHS = (384, 768, 1024, 1536, 3072)
VECTORS = 4_000
"""Enough for what a store takes besides to vanish among them."""
_BATCH = 100
_NAMESPACE = f"{'0' * 24}.1"


class Weight(msgspec.Struct, frozen=True):
    """Bytes that one vector takes."""

    width: int
    base64: float
    """In memory, asked for in base64, as the usual SDKs do."""
    floats: float
    """In memory, asked for as numbers."""
    sqlite: float
    redis: float


def weigh(directory: Path, command: str) -> Iterator[Weight]:
    """Yield what vectors of the usual widths weigh; `command` starts a Redis."""
    with redis_server(command, directory) as port, redis.Redis(port=port) as server:
        for width in WIDTHS:
            entries = {os.urandom(16): _entry(width) for _ in range(VECTORS)}
            records = {key: pack(key, entry) for key, entry in entries.items()}
            file = directory / f"{width}.db"
            asyncio.run(_fill(SqliteStore(file, log=open_log("warning", "auto")), records))
            server.flushall()
            empty = int(server.info("memory")["used_memory"])
            asyncio.run(_fill(RedisStore(f"redis://127.0.0.1:{port}/0"), records))
            full = int(server.info("memory")["used_memory"])
            yield Weight(
                width,
                base64=_in_memory(entries, base64=True),
                floats=_in_memory(entries, base64=False),
                sqlite=file.stat().st_size / VECTORS,
                redis=(full - empty) / VECTORS,
            )


def _entry(width: int) -> Entry:
    row = np.random.default_rng().standard_normal(width, dtype=np.float32)
    return Entry(unit(row).tobytes(), tokens=8, created=0.0, namespace=_NAMESPACE)


def _in_memory(entries: Mapping[Key, Entry], *, base64: bool) -> float:
    """Return what a MemoryStore counts for an entry that was sent in one form."""
    total = 0
    for entry in entries.values():
        sent = Entry(entry.vector, tokens=entry.tokens, created=entry.created)
        sent.render(base64=base64)
        total += sent.size
    return total / len(entries)


async def _fill(store: CacheStore, records: Mapping[Key, bytes]) -> None:
    keys = list(records)
    for first in range(0, len(keys), _BATCH):
        await store.add(_NAMESPACE, {key: records[key] for key in keys[first : first + _BATCH]})
    await store.aclose()
