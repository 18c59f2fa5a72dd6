"""The tier in a SQLite file: one commit for many, many processes on one file, and its bounds."""

import asyncio
import gc
import json
import os
import stat
import struct
import threading
import time
from contextlib import asynccontextmanager

import pytest

from gateway.cache.sqlite import SqliteStore
from gateway.logs import open_log
from tests.cache.sqlite_files import Said, excluded, locked, opened, query, reason, start
from tests.cache.store_contract import StoreContract, scanned
from tests.cache.values import NAMESPACE, OTHER, key


class TestContract(StoreContract):
    """What every store must keep, on files; two stores have a file in common."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path
        self.places = 0

    @asynccontextmanager
    async def open_store(self, *, ttl=None):
        self.places += 1
        async with self.reopen(ttl=ttl) as store:
            yield store

    @asynccontextmanager
    async def reopen(self, *, ttl=None):
        async with opened(self.directory / str(self.places) / "cache.db", ttl=ttl) as store:
            yield store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache.db"


def commits(path):
    """Return how many transactions the file beside the database holds."""
    log = path.with_name(path.name + "-wal").read_bytes()
    page_size, salt = struct.unpack_from(">I", log, 8)[0], log[16:24]
    frames = range(32, len(log), 24 + page_size)
    heads = [log[at : at + 24] for at in frames]
    return sum(head[8:16] == salt and head[4:8] != b"\0\0\0\0" for head in heads)


# Files


def test_nothing_is_opened_before_it_is_needed(tmp_path):
    """A store that nobody asks leaves no trace."""

    async def check():
        async with opened(tmp_path / "deep" / "cache.db"):
            assert list(tmp_path.iterdir()) == []
        assert list(tmp_path.iterdir()) == []

    asyncio.run(check())


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_only_their_owner_may_read_the_files(tmp_path, umask):
    """Whatever the umask is: the database, what lies beside it, and directories that were made."""
    path = tmp_path / "some" / "where" / "cache.db"

    async def check():
        async with opened(path) as store:
            await store.add(NAMESPACE, {key(1): b"one"})
            await store.get(NAMESPACE, [key(1)])
            return {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.rglob("*")}

    before = os.umask(umask)
    try:
        modes = asyncio.run(check())
    finally:
        os.umask(before)
    files = dict.fromkeys(["cache.db", "cache.db-wal", "cache.db-shm", "cache.db.lock"], 0o600)
    assert modes == {"some": 0o700, "where": 0o700, **files}


def test_a_store_that_is_closed_leaves_one_whole_file(path):
    """What waited is finished, nothing lies beside the database, and later verbs are refused."""

    async def check():
        async with opened(path) as store:
            adding = [
                asyncio.create_task(store.add(NAMESPACE, {key(n): b"%d" % n})) for n in range(50)
            ]
            await asyncio.sleep(0)
        assert [await each for each in adding] == [{}] * 50
        await store.aclose()
        for verb in (store.get(NAMESPACE, [key(1)]), store.add(NAMESPACE, {}), store.facts()):
            assert await reason(verb) == "refused"

    asyncio.run(check())
    assert {file.name for file in path.parent.iterdir()} == {"cache.db", "cache.db.lock"}
    assert query(path, "SELECT count(*) FROM entries") == [(50,)]


def test_the_path_may_be_a_link_and_have_any_name(tmp_path):
    """The database stays where the link points, and so does what lies beside it."""
    place = tmp_path / "50% of #1? ä"
    place.mkdir()
    link = tmp_path / "link.db"
    link.symlink_to(place / "real.db")

    async def check():
        async with opened(link) as store, opened(place / "real.db") as other:
            await store.add(NAMESPACE, {key(1): b"one"})
            assert await other.get(NAMESPACE, [key(1)]) == {key(1): b"one"}
            assert (place / "real.db-wal").exists()
            assert [file.name for file in tmp_path.iterdir() if file != place] == ["link.db"]

    asyncio.run(check())


def test_a_store_that_is_closed_leaves_nothing_to_others(path):
    """What it wrote is in the database itself, though another store has that open still."""
    value = os.urandom(100)

    async def check():
        async with opened(path) as other:
            await other.facts()
            async with opened(path) as store:
                await store.add(NAMESPACE, {key(1): value})
                assert value not in path.read_bytes()
            assert value in path.read_bytes()

    asyncio.run(check())


def test_nobody_closes_while_another_opens(path):
    """Who has the lock file goes first: the last to close removes files by their names."""

    async def check():
        async with opened(path) as store:
            await store.add(NAMESPACE, {key(1): b"one"})
            with excluded(path):
                closing = asyncio.create_task(store.aclose())
                await asyncio.sleep(0.1)
                assert not closing.done()
            await closing

    asyncio.run(check())


# Writing


def test_what_waits_is_written_in_one_transaction(path):
    """While the file is busy writes gather; then there are a few commits, and all are answered."""

    async def check():
        async with opened(path) as store:
            await store.add(OTHER, {key(0): b"first"})
            before = commits(path)
            with locked(path):
                adding = [
                    asyncio.create_task(store.add(NAMESPACE, {key(n): b"%d" % n}))
                    for n in range(50)
                ]
                await asyncio.sleep(0.05)
                assert not any(each.done() for each in adding)
            assert await asyncio.gather(*adding) == [{}] * 50
            assert commits(path) - before <= 3
            assert await scanned(store) == {key(n): b"%d" % n for n in range(50)}

    asyncio.run(check())


def test_what_cannot_be_written_fails_alone(path):
    """Those in the same transaction are kept, and theirs is the only failure."""

    async def check():
        async with opened(path) as store:
            await store.facts()
            with locked(path):
                names = [NAMESPACE, "\ud800", OTHER]
                adding = [store.add(name, {key(n): b"%d" % n}) for n, name in enumerate(names * 5)]
                gathered = asyncio.gather(*adding, return_exceptions=True)
                await asyncio.sleep(0.05)
            answers = await gathered
            assert [answer for answer in answers if isinstance(answer, dict)] == [{}] * 10
            assert all(isinstance(answer, UnicodeEncodeError) for answer in answers[1::3])
            assert (await store.usage()).entries == 10
            with pytest.raises(UnicodeEncodeError):
                await store.add("\ud800", {key(1): b"alone"})
            with locked(path):  # nothing is held on to
                pass

    asyncio.run(check())


def test_a_caller_that_leaves_harms_nobody(path):
    """What it wanted is not begun any more; what others want is done."""

    async def check():
        async with opened(path) as store:
            await store.facts()
            with locked(path):
                begun = [
                    asyncio.create_task(store.add(NAMESPACE, {key(n): b"begun"})) for n in (1, 2)
                ]
                await asyncio.sleep(0.05)
                waiting = [
                    asyncio.create_task(store.add(NAMESPACE, {key(n): b"waiting"}))
                    for n in range(3, 51)
                ]
                await asyncio.sleep(0)
                for each in (begun[0], *waiting[::2]):
                    each.cancel()
                await asyncio.sleep(0)
            assert await begun[1] == {}
            assert await asyncio.gather(*waiting[1::2]) == [{}] * 24
            held = await scanned(store)
            held.pop(key(1), None)  # it may have been kept: nobody knows
            assert held.keys() == {key(n) for n in range(2, 51, 2)}

    asyncio.run(check())


def test_a_file_that_stays_busy_is_not_waited_for(path):
    """Those who write are told so in time, those who read notice nothing, and then it works."""

    async def check():
        async with opened(path) as store:
            await store.add(NAMESPACE, {key(1): b"one"})
            with locked(path):
                adding = [store.add(NAMESPACE, {key(n): b"more"}) for n in range(2, 10)]
                tried = asyncio.gather(*adding, return_exceptions=True)
                await asyncio.sleep(0.05)
                waited = asyncio.create_task(store.add(NAMESPACE, {key(20): b"behind them"}))
                assert await store.get(NAMESPACE, [key(1)]) == {key(1): b"one"}
                async with asyncio.timeout(20):
                    failures = [*await tried, *await asyncio.gather(waited, return_exceptions=True)]
            assert {failure.reason for failure in failures} == {"timeout"}
            said = [str(failure) for failure in failures]
            assert said == ["database is locked"] * 8 + ["the file did not answer in time"]
            assert await store.add(NAMESPACE, {key(1): b"two"}) == {key(1): b"one"}

    asyncio.run(check())


def test_a_loop_that_is_gone_harms_nobody(path):
    """What it waited for ends somewhere; the next loop's callers are answered."""
    store = SqliteStore(path, log=open_log("info", "json", Said()))

    async def leave():
        await store.facts()
        begun = asyncio.create_task(store.add(NAMESPACE, {key(1): b"begun"}))
        await asyncio.sleep(0.05)
        assert not begun.done()

    async def come():
        assert await store.add(NAMESPACE, {key(2): b"two"}) == {}
        assert await store.get(NAMESPACE, [key(2)]) == {key(2): b"two"}
        await store.aclose()

    asyncio.run(store.facts())
    with locked(path):
        asyncio.run(leave())
    asyncio.run(come())


def test_processes_agree_on_who_was_first(path):
    """Four of them add the same keys at the same time: everybody is told the same winners."""
    processes = [start("race", path, name) for name in "abcd"]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    views = [view for each in processes for view in json.loads(each.communicate(timeout=60)[0])]
    assert [process.returncode for process in processes] == [0] * 4

    async def check():
        async with opened(path) as store:
            return {each.hex(): value.decode() for each, value in (await scanned(store)).items()}

    held = asyncio.run(check())
    assert len(held) == 205
    assert all(held[each] == value for view in views for each, value in view.items())


def test_a_process_that_ends_without_closing_ends(path):
    """With writes under way: it does not hang, and what was answered is kept."""
    process = start("leave", path)
    _, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert query(path, "SELECT value FROM entries WHERE key = ?", key(1)) == [(b"kept",)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_store_that_is_forgotten_lets_go(path):
    """Its threads end and its file is closed, though its loop is gone and nobody closed it."""

    async def use():
        store = SqliteStore(path, log=open_log("info", "json", Said()))
        await store.add(NAMESPACE, {key(1): b"one"})
        await store.get(NAMESPACE, [key(1)])

    asyncio.run(use())
    gc.collect()
    deadline = time.monotonic() + 30
    while any(thread.name.startswith("sqlite-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not path.with_name("cache.db-wal").exists()
