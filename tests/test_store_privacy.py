"""P10 in stores, on good days and on bad ones: what they hold and say gives nothing away.

A canary text goes through a gateway with a file and a Redis while these fail in every way; then
every file, everything that Redis holds, every log line at debug level, the metrics and all error
bodies are looked through. So is a gateway that was killed in the middle of its work.
"""

import json
import os
import sqlite3
import stat
import time
from base64 import b64encode, urlsafe_b64encode
from contextlib import closing
from hashlib import blake2b, md5, sha1, sha256

import httpx2
import pytest

from gateway.stores import own_secret
from tests.heavy.crashes import doomed_gateway
from tests.processes import gateway_process
from tests.redis_server import serve_redis
from tests.running import one_model
from tests.test_privacy import BEARER, CANARY, SECRETS, TOML, UPSTREAM, UPSTREAM_KEY, forms

PASSWORD = "redis-password-c4n4ry"
CACHE_SECRET = "cache-secret-c4n4ry"
ENVIRON = SECRETS | {"PASSWORD": PASSWORD, "CACHE_SECRET": CACHE_SECRET}
SECRET = 'secret = "${env:CACHE_SECRET}"'
FACTS = b"embgw:1:facts"
PATIENCE = 10.0


@pytest.fixture(params=["given", "made"])
def secret(request):
    """The config's line on the secret: one that is given, or none, and one is made."""
    return SECRET if request.param == "given" else ""


@pytest.fixture
def server(tmp_path):
    """A Redis that wants a name and a password."""
    with serve_redis(tmp_path / "redis") as server:
        server.admin.acl_setuser(
            "gateway", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], commands=["+@all"]
        )
        yield server


@pytest.fixture
def toml(tmp_path, server, fake_openai, secret):
    """A config with a file, a Redis and everything that may not show."""
    fake_openai.key = UPSTREAM_KEY
    redis = f"redis://gateway:${{env:PASSWORD}}@127.0.0.1:{server.port}/0"
    file = f"sqlite://{tmp_path}/store/cache.db"
    cache = f'[cache]\nmemory = "0"\n{secret}\nstore = ["{file}", "{redis}"]\n'
    return one_model(fake_openai.base_url, upstream=UPSTREAM, rest=cache + TOML)


def never(secret_value):
    """Return the bytes that may stand nowhere: the text in all forms, its plain digests, keys."""
    digests = [kind(CANARY.encode()).digest() for kind in (sha256, sha1, md5, blake2b)]
    plain = blake2b(CANARY.encode(), digest_size=32).digest()
    secrets = [secret_value, *digests, plain]
    shown = [form(each) for each in secrets for form in (bytes.hex, _base64, _urlsafe)]
    words = [*forms(CANARY), "c4n4ry", "käfig", *shown]
    return [word.encode() for word in words] + secrets


def _base64(value):
    return b64encode(value).decode().rstrip("=")


def _urlsafe(value):
    return urlsafe_b64encode(value).decode().rstrip("=")


def files(folder):
    """Return name and content of every file of a store, but of the one that holds the secret."""
    found = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: held for path, held in found.items() if path.suffix != ".key"}


def dump(server):
    """Return everything that a Redis holds, but the secret that it was given to keep."""
    parts = []
    for name in server.admin.scan_iter():
        parts.append(name)
        if name == FACTS:
            facts = server.admin.hgetall(name)
            facts.pop(b"secret", None)
            parts += [*facts, *facts.values()]
        elif server.admin.type(name) == b"string":
            parts.append(server.admin.get(name))
    return parts


def clean(words, *places):
    for place in places:
        held = place.encode() if isinstance(place, str) else place
        for word in words:
            assert word not in held, held[max(0, held.find(word) - 200) : held.find(word) + 50]


def ask(running, text=CANARY, status=200, **fields):
    """Ask, and return what was said besides vectors."""
    answer = running.embed(text, headers=BEARER | fields.pop("headers", {}), **fields)
    assert answer.status_code == status, answer.text
    return str(answer.headers) + ("" if status == 200 else answer.text)


def open_to_all(gateway, toml):
    """Start a gateway whose files everybody may read, but for what it does about that."""
    mask = os.umask(0)
    try:
        return gateway(toml, **ENVIRON)
    finally:
        os.umask(mask)


def test_stores_that_fail_in_every_way_give_nothing_away(gateway, toml, server, tmp_path, capfd):
    """Found, damaged, garbled, full, closed to us, dead; and the file cannot be used any more."""
    store = tmp_path / "store"
    running = open_to_all(gateway, toml)
    said = [ask(running), ask(running, [CANARY, "x"], seed=1, user=CANARY), ask(running)]
    said.append(ask(running, f"{CANARY} 2", 504, headers={"cache-control": "only-if-cached"}))
    for number, trouble in enumerate((damage, garble, fill, close)):
        said += dump(server)
        trouble(server, store)
        said += [ask(running), ask(running, f"{CANARY} {number}"), page(running)]
    running.stop()
    running.join()
    server.kill()
    behead(store)
    second = open_to_all(gateway, toml)
    said += [ask(second), page(second)]
    log = running.log + second.log
    assert {json.loads(line)["event"] for line in log.splitlines()} >= EVENTS
    left = files(store)
    assert {"cache.db", "cache.db-wal"} <= {path.name for path in left}
    assert any(b"EGW1" in held for path, held in left.items() if ".corrupt-" in path.name)
    words = never(own_secret(running.config.cache).value)
    clean(words, *said, log, *capfd.readouterr(), *map(str, left), *left.values())
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.iterdir()} == {0o600}
    assert stat.S_IMODE(store.stat().st_mode) == 0o700


EVENTS = {
    "request", "damaged cache entry", "cache takes no new entries", "cache is away",
    "cache file set aside",
}  # fmt: skip


def damage(server, store):
    """Change every value, in both stores."""
    for name in values(server):
        server.admin.append(name, b"!")
    with closing(sqlite3.connect(store / "cache.db")) as file, file:
        file.execute("UPDATE entries SET value = value || x'21'")


def garble(server, _):
    """Put a list in place of every value."""
    for name in values(server):
        server.admin.delete(name)
        server.admin.rpush(name, "x")


def fill(server, _):
    """Leave no room."""
    server.admin.config_set("maxmemory", 1)


def close(server, _):
    """Let the gateway in no more with this password."""
    server.admin.config_set("maxmemory", 0)
    server.admin.acl_setuser("gateway", reset_passwords=True)
    server.admin.client_kill_filter(_type="normal", skipme=True)


def behead(store):
    """Spoil the beginning of the file."""
    with (store / "cache.db").open("r+b") as file:
        file.write(b"x" * 100)


def values(server):
    """Return the names of all values."""
    return [name for name in server.admin.scan_iter() if name != FACTS]


def page(running):
    """Return the metrics."""
    return httpx2.get(f"{running.address}/metrics", headers=BEARER).text


def test_a_gateway_that_is_killed_leaves_nothing(gateway, toml, server, tmp_path):
    """Not in the log of the file, nor of the gateway, nor where another one may not start."""
    with doomed_gateway(toml, **ENVIRON) as served:
        body = {"model": "m", "input": [CANARY, "x"]}
        url = f"{served.base_url}/embeddings"
        assert httpx2.post(url, json=body, headers=BEARER).status_code == 200
        log = tmp_path / "store" / "cache.db-wal"
        # The file is the nearer store: it gets its copy behind the answer.
        deadline = time.monotonic() + PATIENCE
        while b"EGW1" not in log.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.01)
        served.kill()
    left = files(tmp_path / "store")
    assert b"EGW1" in left[log]
    other = toml.replace("[cache]", '[cache]\nsecret = "${env:OTHER}"').replace(SECRET, "")
    with (
        pytest.raises(AssertionError, match="another secret") as refused,
        gateway_process(other, OTHER="other-secret-c4n4ry", **ENVIRON),
    ):
        pass
    words = never(own_secret(gateway(toml, **ENVIRON).config.cache).value)
    clean(words, *dump(server), *served.lines, str(refused.value), *left.values())
