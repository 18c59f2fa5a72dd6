"""Bits that flip in the file of a SQLite store: at rest, as kill -9 left it, and under a gateway.

Whatever the bit was part of, a text is answered with the vector that was stored first, or with a
fresh one that is from then on the only one; nothing crashes, and what is found is counted. A bit of
the index sends searches astray: there it may take another turn until every text is found again.
"""

import os
import random
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.draws import Draws, Witness
from tests.flipping import Opened, Scene, Tally, flip
from tests.upstream import FakeOpenAI

_TEXTS = [f"text {number}" for number in range(200)]
_GIVEN_UP = [f"given up {number}" for number in range(60)]
_TURNS = 5
"""Times that everything is asked for, at most, until nothing is made anew."""
_AT_ONCE = 10
"""Bits that flip before a running gateway is asked."""

Spot = tuple[int, int]
"""Where something begins in a file, and how many bytes it has."""


class Files(Scene):
    """A folder with the file of a store, and gateways that use it."""

    def __init__(self, folder: Path, draws: Draws, fake: FakeOpenAI) -> None:
        self.folder = folder
        folder.mkdir()
        self.store = folder / "store"
        self.path = self.store / "cache.db"
        super().__init__(folder, draws, fake, f"sqlite://{self.path}")


@dataclass(frozen=True)
class Pristine:
    """A sound store that holds all texts, put by: a copy is damaged for each flip."""

    place: Path
    witness: Witness
    """Who knows what is in it."""
    records: Sequence[Spot] = ()
    facts: Sequence[Spot] = ()
    """Where they are in the main file; nothing is said if the log holds some of it."""


def make_resting(files: Files) -> Pristine:
    """Return a store as a gateway leaves it that was stopped, with some pages that are free."""
    with files.gateway() as gateway:
        gateway.ask(_TEXTS + _GIVEN_UP)
        gateway.running.wait_until(lambda: _query(files.path, "SELECT count(*) FROM facts") == 3)
    _query(files.path, f"DELETE FROM entries WHERE id > {len(_TEXTS)} RETURNING 1")
    assert _query(files.path, "PRAGMA freelist_count")
    place = _put_by(files, "resting")
    content = (place / files.path.name).read_bytes()
    with closing(sqlite3.connect(files.path)) as connection:
        values = [value for (value,) in connection.execute("SELECT value FROM entries")]
        facts = [n.encode() + v for n, v in connection.execute("SELECT name, value FROM facts")]
    return Pristine(place, files.witness.copy(), _find(values, content), _find(facts, content))


def make_killed(files: Files) -> Pristine:
    """Return a store as kill -9 leaves it: half of it in the write-ahead log."""
    for half in (_TEXTS[::2], _TEXTS[1::2]):
        with files.gateway() as gateway:
            gateway.ask(half)
            place = _put_by(files, "killed")
    assert _log(place).stat().st_size
    return Pristine(place, files.witness.copy())


def _query(path: Path, statement: str) -> int:
    with closing(sqlite3.connect(path)) as connection, connection:
        return int(connection.execute(statement).fetchall()[0][0])


def _put_by(files: Files, name: str) -> Path:
    place = files.folder / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(files.store, place, ignore=shutil.ignore_patterns("*-shm"))
    return place


def _find(values: Sequence[bytes], content: bytes) -> list[Spot]:
    spots = [(content.find(value), len(value)) for value in values]
    assert min(spots)[0] > 0
    return spots


def _log(place: Path) -> Path:
    return place / "cache.db-wal"


def flip_at_rest(files: Files, pristine: Pristine, flips: int, tally: Tally, *, seed: int) -> None:
    """Flip so many bits, each in a copy of its own, and start gateways on it."""
    chance = random.Random(seed)
    for number in range(flips):
        shutil.rmtree(files.store)
        shutil.copytree(pristine.place, files.store)
        file, spot = _aim(files, pristine, number, chance)
        at, bit = flip(file, chance, spot)
        in_record = any(begin <= at < begin + length for begin, length in pristine.records)
        try:
            _use(files, pristine, tally, in_record=in_record)
        except BaseException as failure:
            failure.add_note(f"bit {bit} of byte {at} was flipped in a copy of {file.name}")
            raise
        tally.flips += 1


def _aim(
    files: Files, pristine: Pristine, number: int, chance: random.Random
) -> tuple[Path, Spot | None]:
    """Return where to flip: a third in records, some in facts, the others anywhere."""
    if not pristine.records:
        return chance.choice([files.path, _log(files.store)]), None
    if number % 3 == 0:
        return files.path, chance.choice(pristine.records)
    if number % 9 == 1:
        return files.path, chance.choice(pristine.facts)
    return files.path, None


def _use(files: Files, pristine: Pristine, tally: Tally, *, in_record: bool) -> None:
    """Ask for everything, twice, and after a restart."""
    witness = pristine.witness.copy()
    with files.gateway(witness) as gateway:
        changed = gateway.ask(_TEXTS)
        again = _until_settled(gateway)
        assert gateway.set_aside <= 1
        if in_record:
            assert not again
            assert (1, 1, 0) == (gateway.found, len(changed), gateway.set_aside)
        changed += again
        tally.note(gateway, changed)
    if changed:
        with files.gateway(witness) as gateway:
            later = _until_settled(gateway)
            assert not (later and in_record)
            tally.note(gateway, later)


def _until_settled(gateway: Opened) -> list[str]:
    """Ask until all is as it was the time before; return what was made anew until then."""
    changed: list[str] = []
    for _ in range(_TURNS):
        made = gateway.ask(_TEXTS)
        if not made:
            return changed
        changed += made
    raise AssertionError(f"texts are made anew again and again: {changed}")


def flip_records_in_use(
    files: Files, texts: Sequence[str], flips: int, tally: Tally, *, seed: int
) -> None:
    """Flip bits of records while a gateway reads them.

    SQLite goes on to use what it has read before: such a flip is found later, or never, or found
    by who reads and not by who writes, and then the old vector is the one that was stored first.
    """
    chance = random.Random(seed)
    with files.gateway() as gateway:
        gateway.ask(texts)
        spots = _tails(files.path)
        chance.shuffle(spots)
        ever: set[str] = set()
        for start in range(0, flips, _AT_ONCE):
            for spot in spots[start : min(flips, start + _AT_ONCE)]:
                flip(files.path, chance, spot)
            found, drawn = gateway.found, files.witness.draws.count
            changed = gateway.ask(texts)
            found, drawn = gateway.found - found, files.witness.draws.count - drawn
            assert found == drawn, "what is damaged is asked for again, once"
            assert len(changed) <= found <= min(flips, start + _AT_ONCE) - len(ever)
            assert not ever & set(changed), "what was replaced is sound"
            ever.update(changed)
        assert flips / 2 < gateway.found
        tally.note(gateway, list(ever))
    tally.flips += flips


def flip_anything_in_use(
    files: Files, texts: Sequence[str], flips: int, tally: Tally, *, seed: int
) -> None:
    """Flip bits of the file and its log, wherever, while a gateway uses them."""
    chance = random.Random(seed)
    with files.gateway() as gateway:
        changed = gateway.ask(texts)
        for _ in range(0, flips, _AT_ONCE):
            for _ in range(_AT_ONCE):
                log = _log(files.store)
                flip(chance.choice([files.path, log]) if log.exists() else files.path, chance)
                tally.flips += 1
            changed += gateway.ask(texts)
        tally.note(gateway, changed)


def _tails(path: Path) -> list[Spot]:
    """Return where the end of each record is that does not fit its page."""
    content = path.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        tails = [value[-1000:] for (value,) in connection.execute("SELECT value FROM entries")]
    return [(content.find(tail), len(tail)) for tail in tails if tail in content]


def destroy(files: Files, tally: Tally, *, seed: int) -> None:
    """Destroy the file in all ways there are: it is set aside, in one line, and begun anew."""
    chance = random.Random(seed)
    for ruin in (_cut, _overwrite, _empty):
        with files.gateway() as gateway:
            gateway.ask(_TEXTS)
        ruin(files.path, chance)
        with files.gateway() as gateway:
            changed = gateway.ask(_TEXTS)
            assert sorted(_TEXTS) == sorted(changed)
            assert gateway.set_aside == 1
            tally.note(gateway, changed)
        with files.gateway() as gateway:
            assert gateway.ask(_TEXTS) == []
            assert gateway.set_aside == 0


def _cut(path: Path, _: random.Random) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _overwrite(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(path.stat().st_size))


def _empty(path: Path, _: random.Random) -> None:
    os.truncate(path, 0)
