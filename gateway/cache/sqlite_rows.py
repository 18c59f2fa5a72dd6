"""The tables of a SQLite store, and every statement on them; called from the store's threads.

A batch is few steps of few statements, whatever its size: rows are read glued together, and
written 64 at once. Python lets go of its lock at each step and waits to have it back while the
event loop works: one row a step, 2,048 rows took seconds beside a busy loop.

What is read is cast to the type that it should have, as in a damaged file it may have another.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeVar

from gateway.cache.keys import Key
from gateway.cache.store import Namespace, Usage

T = TypeVar("T")

ROW_BYTES = 160
"""Counted for a row besides its value: its key twice, the indexes, the other columns."""

_KEY_BYTES = 32
_READ_TOGETHER = 128
_EVICTED_TOGETHER = 512
_WRITTEN_TOGETHER = (64, 32, 16, 8, 4, 2, 1)

_FIND = """
    WITH RECURSIVE places (place) AS (
        VALUES (1) UNION ALL
        SELECT place + 32 FROM places WHERE place + 32 < length(:keys)
    )
    SELECT group_concat(place), group_concat(length(CAST(value AS BLOB))),
        CAST(coalesce(group_concat(value, ''), '') AS BLOB), group_concat(CAST(created AS REAL)),
        group_concat(CASE WHEN used < :unused_since THEN id END)
    FROM places CROSS JOIN entries
    ON namespace = (SELECT id FROM namespaces WHERE name = :namespace)
        AND key = substr(:keys, place, 32)
"""
_PAGE = """
    SELECT CAST(max(key) AS BLOB), CAST(group_concat(key, '') AS BLOB),
        group_concat(length(CAST(value AS BLOB))),
        CAST(coalesce(group_concat(value, ''), '') AS BLOB), group_concat(CAST(created AS REAL))
    FROM (
        SELECT key, value, created FROM entries
        WHERE namespace = (SELECT id FROM namespaces WHERE name = :namespace) AND key > :after
        ORDER BY key LIMIT :limit
    )
"""
_REMOVE = """
    DELETE FROM entries
    WHERE namespace = (SELECT id FROM namespaces WHERE name = :namespace) AND key IN (
        WITH RECURSIVE places (place) AS (
            VALUES (1) UNION ALL
            SELECT place + 32 FROM places WHERE place + 32 < length(:keys)
        )
        SELECT substr(:keys, place, 32) FROM places
    )
"""
_INSERT = "INSERT INTO entries (namespace, key, created, used, size, value) VALUES "
_OLDEST = """
    SELECT group_concat(id), group_concat(CAST(coalesce(size, 0) AS INTEGER)) FROM (
        SELECT id, size FROM entries WHERE id <= :newest ORDER BY used, id LIMIT :limit
    )
"""
_EXPIRED = """
    DELETE FROM entries WHERE id IN (
        SELECT entries.id FROM namespaces CROSS JOIN entries
        ON entries.namespace = namespaces.id AND entries.created < :before
        LIMIT :limit
    )
"""
_PURGE = """
    DELETE FROM entries WHERE id IN (
        SELECT id FROM entries
        WHERE namespace = (SELECT id FROM namespaces WHERE name = :namespace)
            AND created < :before
        ORDER BY created LIMIT :limit
    )
"""
_FACTS = """
    SELECT CAST(name AS BLOB), value FROM facts
    WHERE typeof(name) = 'text' AND typeof(value) = 'blob'
"""
_FACT = "SELECT value FROM facts WHERE name = ?"
_SETTLE = """
    INSERT INTO facts VALUES (?, ?)
    ON CONFLICT DO UPDATE SET value = excluded.value WHERE typeof(facts.value) <> 'blob'
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A value with its key and the Unix time at which it was made."""

    key: Key
    value: bytes
    created: float


@dataclass(frozen=True, slots=True)
class Held:
    """What all namespaces hold together."""

    entries: int
    bytes: int
    newest: int
    """The highest id in use."""


def find(
    connection: sqlite3.Connection,
    namespace: Namespace,
    keys: Sequence[Key],
    unused_since: float = 0,
) -> tuple[list[Row], list[str]]:
    """Return the rows of these keys, and the ids of those not used since that Unix time."""
    rows: list[Row] = []
    idle: list[str] = []
    for start in range(0, len(keys), _READ_TOGETHER):
        part = keys[start : start + _READ_TOGETHER]
        asked = {
            "keys": b"".join(part), "namespace": namespace, "unused_since": unused_since
        }  # fmt: skip
        ((places, sizes, values, created, ids),) = connection.execute(_FIND, asked).fetchall()
        if places is None:
            continue
        found = [part[int(place) // _KEY_BYTES] for place in places.split(",")]
        rows += _unglued(found, sizes, values, created)
        if ids is not None:
            idle += ids.split(",")
    return rows, idle


def page(
    connection: sqlite3.Connection, namespace: Namespace, after: Key, limit: int
) -> tuple[list[Row], Key | None]:
    """Return the next rows by key, and the last key; None when there are no more."""
    asked = {"namespace": namespace, "after": after, "limit": limit}
    ((last, keys, sizes, values, created),) = connection.execute(_PAGE, asked).fetchall()
    if last is None or last <= after:  # a damaged index may lead in circles
        return [], None
    found = [keys[at : at + _KEY_BYTES] for at in range(0, len(keys), _KEY_BYTES)]
    return _unglued(found, sizes, values, created), last


def _unglued(keys: Sequence[Key], sizes: str, values: bytes, created: str) -> list[Row]:
    ends = accumulate(map(int, sizes.split(",")), initial=0)
    return [
        Row(key, values[start:end], float(made))
        for key, (start, end), made in zip(keys, pairwise(ends), created.split(","), strict=False)
    ]


def insert(
    connection: sqlite3.Connection, namespace: Namespace, rows: Sequence[Row], now: float
) -> None:
    """Add rows whose keys are not there."""
    connection.execute(
        "INSERT INTO namespaces (name) VALUES (?) ON CONFLICT DO NOTHING", (namespace,)
    )
    select = "SELECT id FROM namespaces WHERE name = ?"
    ((identity,),) = connection.execute(select, (namespace,)).fetchall()
    for part in _parts(rows):
        columns: list[object] = []
        for row in part:
            size = len(row.value) + ROW_BYTES
            columns += (identity, row.key, row.created, int(now), size, row.value)
        connection.execute(_INSERT + ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(part)), columns)


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut into lengths of which there are few, so that few statements are compiled."""
    start = 0
    for length in _WRITTEN_TOGETHER:
        while len(rows) - start >= length:
            yield rows[start : start + length]
            start += length


def remove(connection: sqlite3.Connection, namespace: Namespace, keys: Sequence[Key]) -> None:
    """Remove the rows of these keys."""
    connection.execute(_REMOVE, {"namespace": namespace, "keys": b"".join(keys)})


def discard(
    connection: sqlite3.Connection, namespace: Namespace, values: Mapping[Key, bytes]
) -> int:
    """Remove the rows that hold exactly this; return how many."""
    rows, _ = find(connection, namespace, list(values))
    same = [row.key for row in rows if values[row.key] == row.value]
    if same:
        remove(connection, namespace, same)
    return len(same)


def touch(connection: sqlite3.Connection, ids: Sequence[str], now: float) -> None:
    """Note that these rows were used."""
    update = "UPDATE entries SET used = ? WHERE id IN (SELECT value FROM json_each(?))"
    connection.execute(update, (int(now), _listed(ids)))


def held(connection: sqlite3.Connection) -> Held:
    """Return the sums, without looking through the rows."""
    select = """
        SELECT CAST(total(entries) AS INTEGER), CAST(total(bytes) AS INTEGER),
            coalesce((SELECT max(id) FROM entries), 0)
        FROM namespaces
    """
    ((entries, size, newest),) = connection.execute(select).fetchall()
    return Held(entries, size, newest)


def evict(connection: sqlite3.Connection, size: int, newest: int) -> tuple[int, int]:
    """Remove rows up to this id, least recently used first, until `size` bytes are gone.

    Returns how many were removed and how many bytes they had: fewer if there are no more.
    """
    removed = freed = 0
    asked = {"newest": newest, "limit": _EVICTED_TOGETHER}
    while freed < size:
        ((ids, sizes),) = connection.execute(_OLDEST, asked).fetchall()
        if ids is None:
            break
        going = []
        for identity, each in zip(ids.split(","), sizes.split(","), strict=True):
            if freed >= size:
                break
            going.append(identity)
            freed += int(each)
        delete = "DELETE FROM entries WHERE id IN (SELECT value FROM json_each(?))"
        connection.execute(delete, (_listed(going),))
        removed += len(going)
    return removed, freed


def _listed(ids: Sequence[str]) -> str:
    return f"[{','.join(ids)}]"


def remove_expired(connection: sqlite3.Connection, before: float, limit: int) -> None:
    """Remove at most `limit` rows that were made before this Unix time."""
    connection.execute(_EXPIRED, {"before": before, "limit": limit})


def purge(connection: sqlite3.Connection, namespace: Namespace, before: float, limit: int) -> int:
    """Remove at most `limit` rows of a namespace made before this Unix time; return how many.

    A namespace that is empty then is forgotten.
    """
    asked = {"namespace": namespace, "before": before, "limit": limit}
    removed = connection.execute(_PURGE, asked).rowcount
    if removed < limit:
        connection.execute("DELETE FROM namespaces WHERE name = ? AND entries = 0", (namespace,))
    return removed


def shrink(connection: sqlite3.Connection, pages: int) -> int:
    """Give back at most so many pages if a quarter of the file is free; return how many."""
    ((count,),) = connection.execute("PRAGMA page_count").fetchall()
    ((free,),) = connection.execute("PRAGMA freelist_count").fetchall()
    if free * 4 <= count:
        return 0
    for _ in range(min(pages, free)):
        connection.execute("PRAGMA incremental_vacuum(1)")  # Python makes one step, of one page
    ((left,),) = connection.execute("PRAGMA freelist_count").fetchall()
    return int(free - left)


def namespaces(connection: sqlite3.Connection) -> dict[Namespace, Usage]:
    """Return what each namespace holds."""
    select = "SELECT CAST(name AS BLOB), entries, bytes FROM namespaces WHERE entries > 0"
    rows = connection.execute(select).fetchall()
    return {name.decode(errors="replace"): Usage(entries, size) for name, entries, size in rows}


def facts(connection: sqlite3.Connection) -> dict[str, bytes]:
    """Return every fact; one that is damaged, and of another type by that, counts as not said."""
    rows = connection.execute(_FACTS).fetchall()
    return {name.decode(errors="replace"): value for name, value in rows}


def settle(connection: sqlite3.Connection, name: str, value: bytes) -> bytes:
    """Set a fact unless there is one; return the one that is there then."""
    connection.execute(_SETTLE, (name, value))
    ((held,),) = connection.execute(_FACT, (name,)).fetchall()
    return bytes(held)


def swap(connection: sqlite3.Connection, name: str, old: bytes, new: bytes) -> bool:
    """Change a fact if it still is `old`; return whether it was."""
    update = "UPDATE facts SET value = ? WHERE name = ? AND value = ?"
    return connection.execute(update, (new, name, old)).rowcount == 1
