"""What the tests of the SQLite store share: opening one, looking into its file, other processes.

    python -m tests.cache.sqlite_files COMMAND PATH

is such a process; it says on stdout, line by line, what it has done.
"""

import asyncio
import fcntl
import io
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

from gateway.cache.sqlite import SqliteStore
from gateway.cache.store import StoreError
from gateway.logs import open_log
from tests.cache.values import NAMESPACE, key

ROOT = Path(__file__).parent.parent.parent


class Said(io.StringIO):
    """What was logged."""

    @property
    def events(self):
        return [json.loads(line) for line in self.getvalue().splitlines()]


@asynccontextmanager
async def opened(path, said=None, **options):
    """A store on this file, closed when left."""
    log = open_log("info", "json", Said() if said is None else said)
    store = SqliteStore(path, log=log, **options)
    try:
        yield store
    finally:
        await store.aclose()


async def reason(verb):
    """Return why a verb failed; that it does is asked for."""
    try:
        answer = await verb
    except StoreError as error:
        return error.reason
    raise AssertionError(f"it did not fail, but answered {answer!r:.100}")


def query(path, statement, *values):
    """Return the rows of a statement, run beside the store."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()


def sums(path):
    """Return what the file says it holds, and what it holds: entries and bytes of each."""
    said = "SELECT coalesce(sum(entries), 0), coalesce(sum(bytes), 0) FROM namespaces"
    held = "SELECT count(*), coalesce(sum(length(value)), 0) FROM entries"
    return query(path, said), query(path, held)


def aside(path):
    """Return the files that were set aside."""
    return sorted(path.parent.glob("cache.db.corrupt-*Z"))


@contextmanager
def locked(path):
    """Hold the right to write, as another process may."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        if connection.in_transaction:
            connection.execute("COMMIT")


@contextmanager
def excluded(path):
    """Hold the lock file, as a process that opens or closes the database does."""
    with path.with_name(path.name + ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def start(command, path, *arguments, stdout=subprocess.PIPE):
    """Start another process that uses the file."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cache.sqlite_files", command, str(path), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=stdout,
        text=True,
    )


async def _write(path):
    """Add for ever, several at once, and say which keys were answered for."""
    async with opened(path) as store:

        async def add():
            while True:
                keys = [os.urandom(32) for _ in range(4)]
                await store.add(NAMESPACE, {each: each * 100 for each in keys})
                print("".join(each.hex() for each in keys), flush=True)

        await asyncio.gather(*(add() for _ in range(4)))


async def _race(path, own):
    """Add what others add too, when a line on stdin says so; say who was first."""
    async with opened(path) as store:
        print("ready", flush=True)
        sys.stdin.readline()

        async def add(start):
            values = {key(n): own.encode() for n in range(start, start + 10)}
            first = await store.add(NAMESPACE, values)
            return {each.hex(): value.decode() for each, value in (values | first).items()}

        views = await asyncio.gather(*(add(start) for start in range(0, 200, 5)))
        print(json.dumps(views))


async def _leave(path):
    """Add, and go without a word while more is being added."""
    store = SqliteStore(path, log=open_log("info", "json", Said()))
    await store.add(NAMESPACE, {key(1): b"kept"})
    _leave.going = [
        asyncio.create_task(store.add(NAMESPACE, {key(n): bytes(10_000)})) for n in range(2, 500)
    ]
    await asyncio.sleep(0)


if __name__ == "__main__":
    commands = {"write": _write, "race": _race, "leave": _leave}
    asyncio.run(commands[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:]))
