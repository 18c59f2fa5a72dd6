"""The SQLite store where nothing can be written, on a full disk, and in a killed process."""

import asyncio
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from gateway.cache.sqlite_errors import reason_of
from gateway.cache.store import StoreError
from tests.cache.sqlite_files import aside, locked, opened, query, reason, start
from tests.cache.store_contract import scanned
from tests.cache.values import NAMESPACE, key

NOBODY = 65534
MIB = 2**20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache.db"


# Nothing can be written


@contextmanager
def as_nobody(path):
    """Be somebody to whom permissions mean something, and who owns the directory."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(path.parent, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def reachable():
    """A path in a directory that anybody can get to."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "cache.db"
        with as_nobody(path):
            yield path
            path.parent.chmod(0o700)


async def reads_on(store, path, unlock):
    """What was there is read, nothing is written, and after `unlock` it is."""
    assert await store.get(NAMESPACE, [key(1), key(2)]) == {key(1): b"one"}
    assert await scanned(store) == {key(1): b"one"}
    assert (await store.usage()).entries == 1
    assert await store.settle("fact", b"another") == b"settled"
    for verb in (store.add(NAMESPACE, {key(2): b"two"}), store.settle("new", b"fact")):
        assert await reason(verb) == "readonly"
    unlock()
    assert await store.add(NAMESPACE, {key(2): b"two"}) == {}
    assert await store.get(NAMESPACE, [key(1), key(2)]) == {key(1): b"one", key(2): b"two"}


@pytest.mark.parametrize("what", ["file", "directory", "both", "directory of a dead process"])
def test_what_may_not_be_written_is_read(reachable, what):
    """And written again as soon as it may be, without a restart."""
    path, directory = reachable, reachable.parent

    def unlock():
        directory.chmod(0o700)
        path.chmod(0o600)

    async def check():
        async with opened(path) as store:
            await store.add(NAMESPACE, {key(1): b"one"})
            await store.settle("fact", b"settled")
        if what in {"file", "both"}:
            path.chmod(0o400)
        if what.endswith("process"):
            path.with_name("cache.db-wal").touch()
        if what != "file":
            directory.chmod(0o500)
        async with opened(path) as store:
            await reads_on(store, path, unlock)

    asyncio.run(check())
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def test_what_a_dead_process_left_unmerged_is_not_ignored(reachable):
    """Without what lies beside it the database is not whole, and reading that needs a file."""
    path, directory = reachable, reachable.parent

    async def check():
        async with opened(directory / "its.db") as its:
            await its.add(NAMESPACE, {key(1): b"one"})
            for suffix in ("", "-wal"):
                shutil.copy(directory / f"its.db{suffix}", f"{path}{suffix}")
        directory.chmod(0o500)
        async with opened(path) as store:
            assert await reason(store.get(NAMESPACE, [key(1)])) == "readonly"
            directory.chmod(0o700)
            assert await store.get(NAMESPACE, [key(1)]) == {key(1): b"one"}

    asyncio.run(check())


def test_where_nothing_can_be_made(reachable):
    """Neither reading nor writing works, until it can."""
    directory = reachable.parent

    async def check():
        directory.chmod(0o500)
        for path in (reachable, directory / "deeper" / "cache.db"):
            async with opened(path) as store:
                assert await reason(store.get(NAMESPACE, [key(1)])) == "readonly"
                assert await reason(store.add(NAMESPACE, {key(1): b"one"})) == "readonly"
        async with opened(reachable) as store:
            assert await reason(store.facts()) == "readonly"
            directory.chmod(0o700)
            assert await store.add(NAMESPACE, {key(1): b"one"}) == {}

    asyncio.run(check())


def test_damage_that_cannot_be_set_aside_is_told(reachable):
    """Until it can be."""
    reachable.write_bytes(b"no database" * 1000)
    reachable.parent.chmod(0o500)

    async def check():
        async with opened(reachable) as store:
            assert await reason(store.get(NAMESPACE, [key(1)])) == "corrupt"
            assert await reason(store.add(NAMESPACE, {key(1): b"one"})) == "corrupt"
            reachable.parent.chmod(0o700)
            assert await store.get(NAMESPACE, [key(1)]) == {}

    asyncio.run(check())
    assert len(aside(reachable)) == 1


# No room


@contextmanager
def small_disk(directory):
    """Mount a disk of 2 MiB; without the right to, let no file grow beyond 1 MiB.

    Yields the reason that a store on it gives, and what enlarges it.
    """
    options = ["-o", "size=2m,mode=0700", str(directory)]
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "none", *options], check=False).returncode
    ):
        with small_files(directory) as small:
            yield small
        return
    try:
        larger = ["mount", "-o", "remount,size=8m", str(directory)]
        yield "full", lambda: subprocess.run(larger, check=True)
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@contextmanager
def small_files(_):
    """Let no file of this process grow beyond a mebibyte; Python ignores the signal for that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, before[1]))
    try:
        yield "error", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def numbered(numbers):
    return {key(number): os.urandom(2000) for number in numbers}


async def add_until_it_fails(store):
    """Return what was kept, and why there is no more."""
    kept = {}
    for first in range(0, 10_000, 10):
        values = numbered(range(first, first + 10))
        try:
            await store.add(NAMESPACE, values)
        except StoreError as error:
            return kept, error.reason
        kept |= values
    raise AssertionError("there is too much room")


@pytest.mark.parametrize("disk", [small_disk, small_files])
def test_a_full_disk_is_read_on(tmp_path, disk):
    """What was answered is kept, what was not says why, and with more room it goes on."""
    path = tmp_path / "place" / "cache.db"
    path.parent.mkdir()

    async def check(expected, enlarge):
        async with opened(path) as store:
            kept, failure = await add_until_it_fails(store)
            assert failure == expected
            assert len(kept) > 50
            with locked(path):  # nothing is held on to
                assert await store.get(NAMESPACE, list(kept)) == kept
            large = store.add(NAMESPACE, {key(1): b"", key(20_000): bytes(10**6)})
            assert await reason(large) == expected
        async with opened(path) as store:
            assert await store.get(NAMESPACE, list(kept)) == kept
            enlarge()
            more = numbered(range(10_000, 10_500))
            assert await store.add(NAMESPACE, more) == {}
        if expected == "full":
            await read_without_room(path, kept | more)
        assert aside(path) == []
        assert query(path, "PRAGMA integrity_check") == [("ok",)]

    with disk(path.parent) as (expected, enlarge):
        asyncio.run(check(expected, enlarge))


async def read_without_room(path, kept):
    """Not even the files that SQLite needs for reading can be made."""
    filler = path.with_name("filler")
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    async with opened(path) as store:
        assert await store.get(NAMESPACE, list(kept)) == kept
        assert await reason(store.add(NAMESPACE, {key(1): b"", key(20_000): b"new"})) == "full"
        filler.unlink()
        assert await store.add(NAMESPACE, {key(20_000): b"new"}) == {}
        assert await store.get(NAMESPACE, [key(20_000)]) == {key(20_000): b"new"}


def test_no_room_is_told_apart_from_other_failures(path):
    """As SQLite says it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (v)")
        connection.execute("PRAGMA max_page_count = 4")
        with pytest.raises(sqlite3.OperationalError) as full:
            connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
        with pytest.raises(sqlite3.OperationalError) as mistaken:
            connection.execute("SELECT nothing")
    assert reason_of(full.value, path) == "full"
    assert reason_of(mistaken.value, path) == "error"


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO t VALUES (1, 2)", "UPDATE t SET id = 'x'", "SELECT zeroblob(2000000000)"],
)
def test_what_only_a_damaged_file_can_bring_about_is_told_as_damage(path, statement):
    """No statement of the store's comes upon a row twice, a wrong type or a huge value."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)")
        connection.execute("INSERT INTO t VALUES (1, 2)")
        with pytest.raises(sqlite3.Error) as damage:
            connection.execute(statement)
    assert reason_of(damage.value, path) == "corrupt"


# The end of the process


def test_what_was_answered_survives_a_kill(path):
    """Ten times, in the middle of writing: no row is lost, and the file is sound."""
    said = path.with_name("said")
    dice = random.Random(9)
    answered = []
    for _ in range(10):
        with said.open("w") as stdout, start("write", path, stdout=stdout) as process:
            while b"\n" not in said.read_bytes():
                assert process.poll() is None
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        answered += said.read_text().rpartition("\n")[0].splitlines()
    keys = [bytes.fromhex(line[at : at + 64]) for line in answered for at in range(0, 256, 64)]

    async def check():
        async with opened(path) as store:
            assert await store.get(NAMESPACE, keys) == {each: each * 100 for each in keys}

    asyncio.run(check())
    assert len(keys) > 40
    assert aside(path) == []
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
