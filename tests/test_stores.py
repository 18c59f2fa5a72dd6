"""The stores of a config, and the secret that names vectors in them: one for all who share them."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from gateway.cache.keys import check_value
from gateway.config import parse
from gateway.errors import ConfigError
from gateway.stores import (
    CacheSecret,
    common_secret,
    keep_secret,
    open_stores,
    own_secret,
    secret_file,
)
from tests.cache.shelf import Shelf

REDIS = "redis://127.0.0.1:1/0"
GIVEN = "given-by-the-config"
MODEL = """
[upstreams.u]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
[models.m]
upstreams = ["u"]
"""


def cache(directory=None, *, store=None, secret=None):
    """Return the `[cache]` of a config: by default of one SQLite file in this directory."""
    if store is None and directory is not None:
        store = sqlite(directory)
    lines = ["[cache]"]
    if store is not None:
        lines.append(f"store = {list(store) if isinstance(store, tuple) else [store]!r}")
    if secret is not None:
        lines.append('secret = "${env:SECRET}"')
    environ = {} if secret is None else {"SECRET": secret}
    toml = "\n".join(lines) + MODEL
    return parse(toml, source=None, environ=environ, base_dir=Path("/")).cache


def sqlite(directory):
    return f"sqlite://{directory}/cache.db"


# one's own secret


def test_a_secret_of_the_config_is_the_secret(tmp_path):
    """The same wherever it is used; nothing is written, and no store is asked for another."""
    first = own_secret(cache(tmp_path, secret=GIVEN))
    again = own_secret(cache(store=REDIS, secret=GIVEN))
    other = own_secret(cache(tmp_path, secret="another-secret-of-others"))
    assert first == again != other
    assert not first.shared
    assert len(first.value) == 32
    assert list(tmp_path.iterdir()) == []


def test_the_content_of_a_secrets_file_may_be_moved_into_the_config(tmp_path):
    """It is the same secret there: what was stored with it is found."""
    made = own_secret(cache(tmp_path))
    written = (tmp_path / "cache.db.key").read_text().strip()
    assert own_secret(cache(store=REDIS, secret=written)).value == made.value
    assert own_secret(cache(tmp_path, secret=written.upper())).value != made.value


def test_without_stores_a_secret_lasts_as_long_as_the_process():
    """Nobody else could use it."""
    first, again = own_secret(cache()), own_secret(cache())
    assert first.value != again.value
    assert not first.shared
    assert secret_file(cache()) is None


def test_a_secret_is_made_once_and_kept_beside_the_sqlite_file(tmp_path):
    """Also in a directory that is not there yet; it outlives the process."""
    config = cache(tmp_path / "new" / "place")
    first = own_secret(config)
    assert own_secret(config) == first
    assert not first.shared
    file = tmp_path / "new" / "place" / "cache.db.key"
    assert secret_file(config) == file
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert bytes.fromhex(file.read_text()) == first.value
    assert own_secret(cache(tmp_path / "elsewhere")) != first


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_nobody_else_can_read_the_secret_whatever_the_umask(tmp_path, umask):
    """Nor ever could: the file has its mode from its first moment. We always can."""
    before = os.umask(umask)
    try:
        own_secret(cache(tmp_path))
    finally:
        os.umask(before)
    mode = (tmp_path / "cache.db.key").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


MAKE = """
import sys, time
from pathlib import Path
from tests.test_stores import cache
from gateway.stores import own_secret
place = Path(sys.argv[1])
configs = [cache(place / str(number)) for number in range(40)]
print("ready", flush=True)
sys.stdin.readline()
print("".join(own_secret(config).value.hex() for config in configs))
"""


def test_many_who_make_it_at_once_have_the_same(tmp_path):
    """Workers that are started together, on a machine that never ran a gateway."""
    command = [sys.executable, "-c", MAKE, str(tmp_path)]
    root = Path(__file__).parent.parent
    made = [subprocess.Popen(command, cwd=root, stdin=-1, stdout=-1, text=True) for _ in range(4)]
    for process in made:
        assert process.stdout.readline() == "ready\n"
    for process in made:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0] for process in made]
    assert {process.returncode for process in made} == {0}
    assert len(set(said)) == 1
    assert len(said[0].strip()) == 40 * 64
    for number in range(40):
        assert [file.name for file in (tmp_path / str(number)).iterdir()] == ["cache.db.key"]


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"not hexadecimal", b"ab" * 31, b"ab" * 33, b"\xff\xfe\0", b"a" * 63]
)
def test_a_damaged_secret_stops_the_start_and_says_where_it_is(tmp_path, content):
    """Another one in its place would make every vector in the store unknown."""
    file = tmp_path / "cache.db.key"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        own_secret(cache(tmp_path))
    (problem,) = caught.value.problems
    assert problem.startswith("cache.store: ")
    assert str(file) in problem
    assert "does not hold the store's secret any more" in problem
    assert file.read_bytes() == content


def test_a_secret_that_cannot_be_read_stops_the_start(tmp_path):
    """The reason is said, and which file it is."""
    file = tmp_path / "cache.db.key"
    file.mkdir()
    with pytest.raises(ConfigError) as caught:
        own_secret(cache(tmp_path))
    assert caught.value.problems == [f"cache.store: {file} cannot be read: Is a directory"]


def test_where_no_secret_can_be_kept_any_will_do(tmp_path):
    """There will be no store there either; the gateway starts and answers without it."""
    (tmp_path / "file").write_text("")
    assert len(own_secret(cache(tmp_path / "file")).value) == 32
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_secret_is_the_authoritys_only_where_that_is_a_redis(tmp_path):
    """Replicas share a Redis, and nothing else; a SQLite file before it is one's own."""
    near = sqlite(tmp_path)
    assert own_secret(cache(store=REDIS)).shared
    assert own_secret(cache(store=(near, REDIS))).shared
    assert not own_secret(cache(store=near)).shared
    assert not own_secret(cache(store=(near, REDIS), secret=GIVEN)).shared
    assert secret_file(cache(store=(near, REDIS))) == tmp_path / "cache.db.key"


# the secret of all who share stores


def common(config, *stores):
    """Return what a process that starts finds, and the facts of its stores then."""
    return asyncio.run(common_secret(config, stores))


def test_replicas_take_over_what_the_first_of_them_said(tmp_path):
    """And write it down, for a start at which the authority is away."""
    far = Shelf("redis")
    configs = [cache(store=(sqlite(tmp_path / name), REDIS)) for name in "ab"]
    first = common(configs[0], Shelf("sqlite"), far)
    assert common(configs[1], Shelf("sqlite"), far) == first == common(configs[0], far)
    far.fail("connect")
    assert common(configs[1], Shelf("sqlite"), far) == first
    assert far.said["secret"] == first.value


def test_a_secret_of_the_config_is_no_stores_business():
    """It is put into none of them."""
    far = Shelf("redis")
    common(cache(store=REDIS, secret=GIVEN), far)
    assert list(far.said) == ["epoch"]


def test_a_store_that_is_away_stops_no_start(tmp_path):
    """Every worker compares secrets when it is back."""
    shelves = [Shelf("sqlite"), Shelf("redis")]
    for shelf in shelves:
        shelf.fail("connect")
    config = cache(store=(sqlite(tmp_path), REDIS))
    assert common(config, *shelves) == own_secret(config)


@pytest.mark.parametrize("which", [0, 1])
def test_a_store_of_another_secret_stops_the_start(tmp_path, which):
    """The message says which store, and what to do; never a secret."""
    shelves = [Shelf("sqlite"), Shelf("redis")]
    shelves[which].said["check"] = check_value(b"o" * 32)
    stores = (sqlite(tmp_path), REDIS)
    for secret in (GIVEN, None):
        config = cache(store=stores, secret=secret)
        with pytest.raises(ConfigError) as caught:
            common(config, *shelves)
        (problem,) = caught.value.problems
        assert shelves[which].name in problem
        assert "another secret" in problem
        if secret is None:
            assert str(secret_file(config)) in problem
        assert GIVEN not in problem
        assert shelves[1].said.get("secret", b"?").hex() not in problem


def test_another_programs_database_stops_the_start(tmp_path):
    """One slip in a path; the message names the place, and the database stays as it is."""
    file = tmp_path / "cache.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE precious (thing)")
    content = file.read_bytes()
    config = cache(tmp_path)

    async def begin():
        (store,) = open_stores(config, structlog.get_logger())
        try:
            await common_secret(config, [store])
        finally:
            await store.aclose()

    with pytest.raises(ConfigError, match=r"cache\.store: it is the database of another program"):
        asyncio.run(begin())
    assert file.read_bytes() == content


def test_a_store_of_our_secret_is_ours(tmp_path):
    """The second start, and every one after it."""
    config = cache(tmp_path)
    shelf = Shelf("sqlite")
    first = common(config, shelf)
    shelf.said["check"] = check_value(first.value)
    assert common(config, shelf) == first == CacheSecret(own_secret(config).value)


def test_a_first_start_without_the_authority_does_not_spoil_the_next_one(tmp_path):
    """A replica that joined while Redis was away had a secret of its own until then."""
    near, far = Shelf("sqlite"), Shelf("redis")
    joint = common(cache(store=REDIS), far)
    config = cache(store=(sqlite(tmp_path), REDIS))
    far.fail("connect")
    own = common(config, near, far)
    near.said["check"] = check_value(own.value)
    far.recover()
    for _ in range(2):
        assert common(config, near, far) == joint
    far.fail("connect")
    assert common(config, near, far) == joint
    assert near.said["check"] == check_value(joint.value)


def test_a_secret_is_written_down_again_where_its_file_was_removed(tmp_path):
    """Together with the store: what is in memory is named with it, and goes into the new one."""
    config = cache(tmp_path)
    secret = own_secret(config).value
    file = tmp_path / "cache.db.key"
    os.utime(file, (1, 1))
    keep_secret(config, secret)
    assert file.stat().st_mtime == 1, "nothing had to be written"
    for spoil in (file.unlink, lambda: file.write_text("ab" * 32)):
        spoil()
        keep_secret(config, secret)
        assert bytes.fromhex(file.read_text()) == secret
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_secret_that_stands_elsewhere_is_not_written_down(tmp_path):
    """In the config, or in a Redis alone."""
    keep_secret(cache(tmp_path, secret=GIVEN), b"s" * 32)
    keep_secret(cache(store=REDIS), b"s" * 32)
    assert list(tmp_path.iterdir()) == []


# opening


def test_a_config_without_stores_opens_none():
    """Memory alone."""
    assert open_stores(cache(), structlog.get_logger()) == []


def test_stores_are_opened_nearest_first_and_connect_later(tmp_path):
    """To open them writes nothing and waits for nobody."""
    config = cache(store=(sqlite(tmp_path / "near"), REDIS))

    async def scene():
        stores = open_stores(config, structlog.get_logger())
        assert [store.name for store in stores] == ["sqlite", "redis"]
        assert list(tmp_path.iterdir()) == []
        for store in stores:
            await store.aclose()

    asyncio.run(scene())
