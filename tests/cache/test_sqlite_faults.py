"""What becomes of the SQLite store when its file does not keep still, or its disk."""

import asyncio
import os
import random
import sqlite3
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path

import pytest

from gateway.cache.record import CorruptRecordError, unpack
from gateway.cache.store import ForeignStoreError, StoreError
from tests.cache.sqlite_files import Said, aside, excluded, locked, opened, query, start
from tests.cache.store_contract import scanned
from tests.cache.values import NAMESPACE, key, record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache.db"


def fill(path, count=200):
    """Put values into a new file, and close it; return them."""
    values = {key(n): record(n, 1_800_000_000.0) for n in range(count)}

    async def check():
        async with opened(path) as store:
            await store.add(NAMESPACE, values)
            return values, (await store.facts())["epoch"]

    return asyncio.run(check())


# Damage, found when the file is opened


def garbage(path):
    path.write_bytes(random.Random(1).randbytes(100_000))


def short(path):
    path.write_bytes(path.read_bytes()[:5000])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_bytes(b"these are not the words you are looking for\n" * 1000)


def overwritten(path):
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))


def older(path):
    query(path, "PRAGMA user_version = 0")


def foreign(path):
    query(path, "CREATE TABLE precious (thing)")


def versioned(path):
    query(path, "CREATE TABLE precious (thing)")
    query(path, "PRAGMA user_version = 1")


def device(path):
    os.mkfifo(path)


def without_a_table(path):
    query(path, "DROP TABLE facts")


@pytest.mark.parametrize(
    "damage", [garbage, short, empty, text, overwritten, older, without_a_table]
)
def test_a_file_that_is_no_good_is_set_aside(path, damage):
    """It is kept as it was, the log says where, and the store begins anew, once for all."""
    _, epoch = fill(path)
    damage(path)
    content, said = path.read_bytes(), Said()

    async def check():
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opened(path, said)) for _ in range(3)]
            verbs = [store.get(NAMESPACE, [key(1)]) for store in stores]
            assert await asyncio.gather(*verbs) == [{}] * 3
            for number, store in enumerate(stores):
                assert await store.add(NAMESPACE, {key(number): b"new"}) == {}
            views = [await store.facts() for store in stores]
            assert views == [views[0]] * 3
            assert views[0]["epoch"] != epoch
            assert len(await scanned(stores[0])) == 3

    asyncio.run(check())
    (kept,) = aside(path)
    assert kept.read_bytes() == content
    ((event, level, file),) = [(e["event"], e["level"], e["file"]) for e in said.events]
    assert (event, level, file) == ("cache file set aside", "error", str(kept))


@pytest.mark.parametrize("what", [foreign, versioned, device])
def test_what_was_never_a_store_is_left_alone(path, what):
    """A slip in a path must not cost anybody a database, or a machine its devices."""
    what(path)
    before = path.stat()
    found = {file.name for file in path.parent.iterdir()}

    async def check():
        async with opened(path) as store:
            for verb in (store.get(NAMESPACE, [key(1)]), store.add(NAMESPACE, {key(1): b"new"})):
                with pytest.raises(ForeignStoreError, match="name another"):
                    await verb

    asyncio.run(check())
    after = path.stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert {file.name for file in path.parent.iterdir()} <= found | {"cache.db.lock"}


def test_a_file_of_a_later_version_is_left_to_that_version(path):
    """Both may run during an update, and would take turns at setting the other's aside."""
    values, _ = fill(path)
    query(path, "PRAGMA user_version = 2")

    async def check():
        async with opened(path) as store:
            for verb in (store.get(NAMESPACE, [key(1)]), store.add(NAMESPACE, {key(999): b"new"})):
                with pytest.raises(StoreError, match="later version") as refused:
                    await verb
                assert refused.value.reason == "refused"
            query(path, "PRAGMA user_version = 1")
            assert await store.get(NAMESPACE, [key(1)]) == {key(1): values[key(1)]}

    asyncio.run(check())
    assert aside(path) == []


def test_only_the_newest_that_were_set_aside_are_kept(path):
    """Three of them, and nothing beside those that are not."""

    async def check():
        async with opened(path) as store:
            await store.add(NAMESPACE, {key(1): b"new"})

    for number in range(5):
        path.write_bytes(b"%d" % number * 5000)
        path.with_name("cache.db-wal").write_bytes(b"left behind")
        asyncio.run(check())
    assert [file.read_bytes()[:1] for file in aside(path)] == [b"2", b"3", b"4"]
    beside = {file.name for file in path.parent.glob("cache.db.corrupt-*-*")}
    assert beside <= {f"{file.name}{suffix}" for file in aside(path) for suffix in ("-wal", "-shm")}


def test_what_a_dead_creator_left_is_no_hindrance(path):
    """A half made file, and what lies beside a database that is not there any more."""
    fill(path)
    for name in ("cache.db.new", "cache.db.new-wal", "cache.db-wal", "cache.db-shm"):
        path.with_name(name).write_bytes(b"half" * 5000)
    path.unlink()

    async def check():
        async with opened(path) as store:
            assert await store.add(NAMESPACE, {key(1): b"new"}) == {}

    asyncio.run(check())
    assert aside(path) == []
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def test_many_processes_set_a_damaged_file_aside_once(path):
    """They start at once, and all of them go on with the same new file."""
    garbage(path)
    processes = [start("race", path, name) for name in "abc"]
    for process in processes:
        process.communicate("go\n", timeout=60)
    assert [process.returncode for process in processes] == [0] * 3
    assert len(aside(path)) == 1
    assert query(path, "SELECT count(*) FROM entries") == [(205,)]


@pytest.mark.parametrize("seed", range(12))
def test_no_flipped_bit_brings_a_wrong_vector(path, seed):
    """Anywhere in the file: an entry is what it was, or known to be damaged, or gone."""
    values, _ = fill(path)
    dice = random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(20):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)

    async def check():
        wrong = 0
        async with opened(path) as store:
            found = {**await store.get(NAMESPACE, list(values)), **await scanned(store)}
            for each, value in found.items():
                try:
                    entry = unpack(each, value, NAMESPACE)
                except CorruptRecordError:
                    wrong += 1
                    assert await store.discard(NAMESPACE, {each: value}) in {0, 1}
                else:
                    assert entry == unpack(each, values[each], NAMESPACE)
            await store.add(NAMESPACE, values)
            assert await store.purge(NAMESPACE, None) >= 0
            assert await store.add(NAMESPACE, values) == {}
            assert await store.get(NAMESPACE, list(values)) == values

    asyncio.run(check())


# Damage under a running store


def cut(path):
    os.truncate(path, 6000)


def emptied(path):
    os.truncate(path, 0)


def scribbled(path):
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


def deleted(path):
    path.unlink()


def all_deleted(path):
    for file in path.parent.glob("cache.db*"):
        file.unlink()


def directory_deleted(path):
    all_deleted(path)
    path.parent.rmdir()


def replaced(path):
    garbage(path.with_name("other"))
    path.with_name("other").rename(path)


def restored(path):
    backup = path.with_name("backup")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    backup.rename(path)


@pytest.mark.parametrize("damage", [cut, emptied, scribbled, replaced, deleted, all_deleted])
def test_a_store_outlives_its_file(path, damage):
    """Whoever notices first sets it aside; the other goes on with the new one, as its facts say."""
    fill(path, 3000)

    async def check():
        async with opened(path) as store, opened(path) as other:
            for each in (store, other):
                await each.add(NAMESPACE, {key(5000): b"before"})
                await each.get(NAMESPACE, [key(n) for n in range(10)])
            epoch = (await store.facts())["epoch"]
            damage(path)
            values = {key(n): b"after" for n in range(6000, 6010)}
            # What a connection has in its memory it may go on with, until another one writes.
            for _ in range(3):
                await store.add(NAMESPACE, values)
                await other.get(NAMESPACE, [key(n) for n in range(3000)])
                await other.facts()
            assert await other.add(NAMESPACE, dict.fromkeys(values, b"late")) == values
            facts = await store.facts()
            assert facts["epoch"] != epoch
            assert await other.facts() == facts
            for each in (store, other):
                assert await scanned(each) == values
            assert (await store.usage()).entries == 10

    asyncio.run(check())
    assert len(aside(path)) == (damage not in {deleted, all_deleted})
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def test_two_that_find_the_damage_at_once(path):
    """One of them sets the file aside; the other does not do the same to the new one."""
    fill(path, 3000)

    async def check():
        async with opened(path) as store, opened(path) as other:
            for each in (store, other):
                await each.facts()
            scribbled(path)
            with excluded(path):
                found = [
                    asyncio.create_task(each.get(NAMESPACE, [key(1)])) for each in (store, other)
                ]
                await asyncio.sleep(0.2)  # both have read it, and wait for the lock file
                assert not any(each.done() for each in found)
            assert await asyncio.gather(*found) == [{}, {}]
            assert await store.facts() == await other.facts()

    asyncio.run(check())
    assert len(aside(path)) == 1


def test_a_deleted_file_that_stays_busy(path):
    """Whoever keeps it so is left alone with it."""

    async def check():
        async with opened(path) as store:
            await store.add(NAMESPACE, {key(1): b"one"})
            with locked(path):
                adding = asyncio.create_task(store.add(NAMESPACE, {key(2): b"two"}))
                await asyncio.sleep(0.05)
                path.unlink()
                assert await adding == {}
            assert await scanned(store) == {key(2): b"two"}

    asyncio.run(check())


def test_a_directory_that_is_deleted_is_made_again(tmp_path):
    """The store begins anew in it."""
    path = tmp_path / "place" / "cache.db"

    async def check():
        async with opened(path) as store:
            await store.add(NAMESPACE, {key(1): b"one"})
            directory_deleted(path)
            assert await store.get(NAMESPACE, [key(1)]) == {}
            assert await store.add(NAMESPACE, {key(1): b"two"}) == {}

    asyncio.run(check())


def test_a_backup_that_is_put_back_is_used(path):
    """It has the same epoch, as it has the same values; what was added since is not in it."""

    async def check():
        async with opened(path) as store:
            await store.add(NAMESPACE, {key(1): b"one"})
            epoch = (await store.facts())["epoch"]
            restored(path)
            await store.add(NAMESPACE, {key(2): b"two"})
            assert (await store.facts())["epoch"] == epoch
            assert await scanned(store) == {key(1): b"one", key(2): b"two"}

    asyncio.run(check())
    assert aside(path) == []


def test_the_old_file_is_let_go(path):
    """Facts are asked for twice a second; after that nobody holds what was deleted."""

    async def check():
        async with opened(path) as store:
            await store.add(NAMESPACE, {key(1): b"one"})
            await store.get(NAMESPACE, [key(1)])
            used = (path.stat().st_dev, path.stat().st_ino)
            assert used in open_files()
            path.unlink()
            await store.facts()
            async with asyncio.timeout(30):
                while used in open_files():
                    await asyncio.sleep(0.01)

    asyncio.run(check())


def open_files():
    """Return which files this process has open."""
    found = set()
    for each in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the one with which this directory is read
            found.add((each.stat().st_dev, each.stat().st_ino))
    return found
