"""From a file to a store: `gateway cache import`.

What a store has stays; the file adds to it. A scope is looked through before any of it is stored,
so that of a broken one nothing is.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.cache.agreement import is_ours
from gateway.cache.entry import Entry
from gateway.cache.facts import ScopeFact, read_facts
from gateway.cache.keys import Key, check_value
from gateway.cache.record import MAX_TOKENS, expires, pack
from gateway.cache.scopes import namespace
from gateway.commands.exports import (
    COLUMNS,
    ESTIMATED,
    TRUNCATED,
    Contents,
    Exported,
    read_metadata,
)
from gateway.commands.facts import grow
from gateway.commands.opened import CommandError, Opened, check_of, held, known_secret, opened
from gateway.commands.progress import Progress
from gateway.config import Cache
from gateway.safetensors import SafetensorsError, SafetensorsFile
from gateway.stores import common_secret, secret_file

_ROWS, _BYTES = 256, 2**22
"""Rows, and bytes of vectors, that are read and stored at once; a row at least."""
_WRONG_CLOCK = 86_400.0
"""Seconds that the clock of another machine may be ahead."""
_OFF_UNIT = 1e-6
"""How far the norm of a vector may be from 1."""

Rows = Mapping[str, npt.NDArray[Any]]
"""Some rows of every column of a scope."""


@dataclass(slots=True)
class Importing:
    """What became of the entries in a file."""

    imported: int = 0
    there: int = 0
    """The store had an entry already."""
    over: int = 0
    """Expired or purged here."""
    refused: list[str] = field(default_factory=list)
    """Why a scope was left out; one line for each."""


async def import_(cache: Cache, path: Path, progress: Progress, now: float) -> Importing:
    """Add what a file holds to the store that decides.

    Raises CommandError for a file that is no sound export, or was made with another secret.
    """
    with _export(path) as (file, contents):
        async with opened(cache) as stores:
            await _agree(cache, stores, contents, path)
            return await _Import(stores[-1], file, contents, progress).run(cache.ttl, now)


@contextmanager
def _export(path: Path) -> Iterator[tuple[SafetensorsFile, Contents]]:
    """Open an export, and name the file in whatever is wrong with it."""
    try:
        with path.open("rb") as raw:
            file = SafetensorsFile(raw)
            yield file, read_metadata(file)
    except SafetensorsError as error:
        raise CommandError(f"{path}: {error}") from error
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from error


async def _agree(cache: Cache, stores: list[Opened], contents: Contents, path: Path) -> None:
    """Have everybody use the secret that the file was made with, or raise CommandError."""
    authority = stores[-1]
    facts = {} if authority.missing else await authority.ask(authority.store.facts)
    secret = known_secret(cache, facts)
    if check_of(facts) not in {None, contents.check}:
        raise CommandError(
            f"{path}: was made with another secret than {authority.address}, so nothing of it "
            f"could be found there; name an empty store, and {_how_to_agree(cache)}"
        )
    if secret is None or check_value(secret) != contents.check:
        raise CommandError(
            f"{path}: was made with another secret than this config's, so nothing of it could be "
            f"found; {_how_to_agree(cache)}"
        )
    await common_secret(cache, [opened.store for opened in stores])
    await authority.ask(partial(is_ours, authority.store, secret, facts))


def _how_to_agree(cache: Cache) -> str:
    hint = (
        "set [cache] secret to that of the gateway whose export it is (if it has none, and a "
        "Redis: to the hexadecimal digits of the field `secret` of embgw:1:facts there)"
    )
    file = secret_file(cache)
    if cache.secret is not None or file is None:
        return hint
    return f"{hint}, or, if it has none, copy the .key file beside its store to {file}"


class _Import:
    """One import, of one file into one store."""

    def __init__(
        self, store: Opened, file: SafetensorsFile, contents: Contents, progress: Progress
    ) -> None:
        self._store = store
        self._file = file
        self._contents = contents
        self._progress = progress
        self._counts = Importing()

    async def run(self, ttl: float | None, now: float) -> Importing:
        """Import every scope that may be."""
        self._progress.total = sum(map(self._rows, self._contents.scopes))
        facts = await self._store.ask(self._store.store.facts)
        known = dict(read_facts(facts))
        used = {found.scope for found in await held(self._store, facts) if found.current}
        for scope, about in sorted(self._contents.scopes.items()):
            if not self._rows(scope):
                continue
            fact = known.get(scope)
            reason = _unwelcome(about, fact, scope in used) or self._broken(scope, now)
            if reason is None:
                before = fact.before if fact is not None else 0.0
                await self._import(scope, about, _Time(now, ttl, before))
            else:
                self._counts.refused.append(f"{about.tenant}, {about.model}: {reason}")
        return self._counts

    def _rows(self, scope: str) -> int:
        return self._file.tensors[f"{scope}.keys"].shape[0]

    def _batches(self, scope: str) -> Iterator[tuple[int, Rows]]:
        """Yield the scope's rows, a batch at a time, with the number of the first one."""
        count = self._rows(scope)
        step = max(1, min(_ROWS, _BYTES // self._file.tensors[f"{scope}.vectors"].row_bytes))
        for start in range(0, count, step):
            stop = min(count, start + step)
            yield (
                start,
                {column: self._file.rows(f"{scope}.{column}", start, stop) for column in COLUMNS},
            )

    def _broken(self, scope: str, now: float) -> str | None:
        """Return what is wrong with the first row that cannot be an entry."""
        for start, rows in self._batches(scope):
            for what, sound in _soundness(rows, len(self._contents.fingerprints), now):
                if not sound.all():
                    return f"row {start + int(sound.argmin())}: {what}"
        return None

    async def _import(self, scope: str, about: Exported, time: "_Time") -> None:
        """Store the entries, and only then tell gateways of their generation."""
        place = namespace(scope, about.generation)
        for _, rows in self._batches(scope):
            entries = dict(_entries(rows, self._contents.fingerprints))
            values = {key: pack(key, e) for key, e in entries.items() if not time.is_over(key, e)}
            there = await self._store.ask(partial(self._store.store.add, place, values))
            self._counts.over += len(entries) - len(values)
            self._counts.there += len(there)
            self._counts.imported += len(values) - len(there)
            self._progress.add(len(rows["keys"]))
        fact = ScopeFact(about.tenant, about.model, about.generation, 0.0, about.width)
        await grow(self._store, scope, fact)


@dataclass(frozen=True, slots=True)
class _Time:
    """Until when entries live here."""

    now: float
    ttl: float | None
    before: float
    """What was made earlier is purged."""

    def is_over(self, key: Key, entry: Entry) -> bool:
        if self.ttl is not None and expires(key, entry.created, self.ttl) <= self.now:
            return True
        return entry.created < self.before


def _unwelcome(about: Exported, fact: ScopeFact | None, used: bool) -> str | None:
    """Return why a store that knows this fact may not have the scope's entries."""
    if fact is None:
        return None
    if fact.width is not None and fact.width != about.width:
        return f"its vectors have {about.width} components, and those in the store {fact.width}"
    if about.generation < fact.generation:
        return (
            f"it was purged here since: it is of generation {about.generation}, and the store has "
            f"{fact.generation}"
        )
    if about.generation > fact.generation and used:
        return (
            f"it is of generation {about.generation}, and to take it would purge what the store "
            f"has of {fact.generation}; purge that first if you mean to"
        )
    return None


def _soundness(
    rows: Rows, fingerprints: int, now: float
) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Yield what may be wrong with rows, and for each of them whether it is not."""
    vectors = rows["vectors"].astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    yield "its vector is not finite and of unit length", np.abs(norms - 1.0) <= _OFF_UNIT
    yield (
        "the time at which it was made is none, or to come",
        (rows["created"] > 0) & (rows["created"] <= now + _WRONG_CLOCK),
    )
    yield "its tokens cannot be so many", (rows["tokens"] >= 0) & (rows["tokens"] <= MAX_TOKENS)
    yield "it has flags that are not known", rows["flags"] <= ESTIMATED | TRUNCATED
    index = rows["fingerprints"]
    yield "its fingerprint is not in the list", (index >= 0) & (index < fingerprints)


def _entries(rows: Rows, fingerprints: list[str]) -> Iterator[tuple[Key, Entry]]:
    columns = (rows[column].tolist() for column in ("created", "tokens", "flags", "fingerprints"))
    vectors = zip(rows["keys"], rows["vectors"], *columns, strict=True)
    for key, vector, created, tokens, flags, fingerprint in vectors:
        yield (
            key.tobytes(),
            Entry(
                vector.tobytes(),
                tokens,
                created=created,
                estimated=bool(flags & ESTIMATED),
                truncated=bool(flags & TRUNCATED),
                fingerprint=fingerprints[fingerprint],
            ),
        )
