"""The addresses in [cache] store: what each means, that redis-py agrees, and that none tells."""

import pickle
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from config_texts import MODEL, UPSTREAM
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from redis.asyncio.connection import SSLConnection, parse_url

from gateway import config as gateway_config
from gateway.config import RedisAddress, Secret, SqliteAddress
from gateway.config.show import toml_value
from gateway.errors import ConfigError

DATABASE = "sqlite:///var/lib/cache.db"


def parse(options, base_dir=Path("/etc/gateway"), **environ):
    """Return the config with these options of [cache]."""
    text = f"[cache]\n{options}\n{UPSTREAM}{MODEL}"
    return gateway_config.parse(text, source=None, environ=environ, base_dir=base_dir)


def stores(value, **environ):
    """Return what `store` is read as."""
    return parse(f"store = {toml_value(value)}", **environ).cache.store


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (DATABASE, "/var/lib/cache.db"),
        ("sqlite:////var/lib/cache.db", "/var/lib/cache.db"),
        ("sqlite:///My Vectors/100%25.db", "/My Vectors/100%25.db"),
        ("sqlite://${env:HOME}/cache.db", "/home/me/cache.db"),
    ],
)
def test_what_follows_sqlite_is_a_path(written, path):
    """It is taken as it stands, and is always absolute."""
    [address] = stores(written, HOME="/home/me")
    assert (SqliteAddress(Path(path)), f"sqlite://{path}") == (address, str(address))


SERVERS = {
    "redis://cache": ("redis://cache", False, "redis://cache"),
    "redis://cache:6380/": ("redis://cache:6380", False, "redis://cache:6380"),
    "redis://cache:6380/3": ("redis://cache:6380/3", False, "redis://cache:6380/3"),
    "valkey://[::1]:6379/0": ("redis://[::1]:6379/0", False, "redis://[::1]:6379/0"),
    "redis://:p%40ss@cache": ("redis://:p%40ss@cache", False, "redis://***@cache"),
    "redis://me@cache": ("redis://me@cache", False, "redis://***@cache"),
    "rediss://me:pass@cache/1": ("rediss://me:pass@cache/1", False, "rediss://***@cache/1"),
    "valkeys://cache": ("rediss://cache", False, "rediss://cache"),
    "redis+cluster://cache/0": ("redis://cache", True, "redis+cluster://cache"),
    "valkey+cluster://me:p@a:1": ("redis://me:p@a:1", True, "redis+cluster://***@a:1"),
    "rediss+cluster://cache": ("rediss://cache", True, "rediss+cluster://cache"),
    "valkeys+cluster://cache": ("rediss://cache", True, "rediss+cluster://cache"),
}


@pytest.mark.parametrize(("written", "read"), SERVERS.items())
def test_servers_and_clusters_are_read_for_redis_py(written, read):
    """TLS is in the URL, a cluster beside it; what is shown has no user and no password."""
    url, cluster, shown = read
    [address] = stores(written)
    assert address == RedisAddress(Secret(url), cluster)
    assert (shown, "redis://" in url) == (
        str(address),
        parse_url(url).get("connection_class") is None,
    )
    assert stores(shown)[0].cluster == cluster


def test_certificates_start_at_the_file(tmp_path):
    """Relative paths start at the config as everywhere, and redis-py gets absolute ones."""
    names = {"ssl_ca_certs": "ca @ 1+1.pem", "ssl_certfile": "me.pem", "ssl_keyfile": "me.key"}
    for name in names.values():
        (tmp_path / name).touch()
    query = "&".join(f"{option}={quote(name)}" for option, name in names.items())
    config = parse(f'store = "rediss+cluster://me:pass@cache?{query}"', base_dir=tmp_path)
    [address] = config.cache.store
    files = {option: tmp_path / name for option, name in names.items()}
    assert files == address.tls_files
    read = parse_url(address.url.reveal())
    assert {option: str(path) for option, path in files.items()} == {o: read[o] for o in names}
    assert read["connection_class"] is SSLConnection
    assert str(address).startswith("rediss+cluster://***@cache?ssl_ca_certs=/")


@pytest.mark.parametrize("store", ["redis://cache", "redis://me@cache", "redis://:${env:P}@cache"])
def test_only_a_password_in_the_file_is_warned_of(store):
    """An address without one, or with one from outside, may stand in the file."""
    assert parse(f'store = "{store}"', P="canary").warnings == ()


def test_a_list_has_the_nearest_first():
    """One address is a list of one; an empty list says that memory is all there is."""
    both = stores([DATABASE, "redis://cache"])
    assert both == (SqliteAddress(Path("/var/lib/cache.db")), RedisAddress(Secret("redis://cache")))
    assert stores([DATABASE]) == stores(DATABASE)
    assert stores([]) == ()


@pytest.mark.parametrize("store", [[], DATABASE, [DATABASE, "rediss+cluster://me:pass@cache"]])
def test_what_is_shown_can_be_read_again(store):
    """All but the secrets: the stores keep their kinds, places and order."""
    environ = {"SECRET": "canary-canary-canary"}
    options = f'store = {toml_value(store)}\nttl = "36h"\nsecret = "${{env:SECRET}}"'
    config = parse(options, **environ)
    shown = gateway_config.show(config)
    assert "canary" not in shown
    assert "pass" not in shown
    back = shown.replace('secret = "***"', 'secret = "${env:SECRET}"')
    again = gateway_config.parse(back, source=None, environ=environ, base_dir=Path())
    assert gateway_config.show(again) == shown
    assert list(map(type, again.cache.store)) == list(map(type, config.cache.store))
    assert (again.cache.ttl, again.cache.secret) == (129600.0, Secret("canary-canary-canary"))
    assert pickle.loads(pickle.dumps(config)) == config


def test_redis_needs_its_library(monkeypatch):
    """Where it is not installed, the start is refused with the extra's name; sqlite needs none."""
    # What Python itself puts there for a module that must not be found.
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r"cache\.store: needs the library redis.* \[redis\]$"):
        stores("redis://cache")
    with pytest.raises(ConfigError, match=r"cache\.store\[1\]: needs the library redis"):
        stores([DATABASE, "redis://cache"])
    assert stores(DATABASE)


anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
schemes = st.sampled_from(["redis", "rediss", "valkey", "redis+cluster", "valkeys+cluster"])


@settings(max_examples=200)
@given(scheme=schemes, user=anything, password=anything)
def test_any_password_reaches_redis_py(scheme, user, password):
    """Percent-encoded, whatever is in it: redis-py logs in with the very same text."""
    password = f"canary{password}"
    url = f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@cache:6380"
    config = parse(f"store = {toml_value(url)}")
    [address] = config.cache.store
    read = parse_url(address.url.reveal())
    assert (user, password) == (read.get("username", ""), read["password"])
    assert ("cache", 6380) == (read["host"], read["port"])
    assert "canary" not in f"{address}{address!r}{config!r}{config.warnings}"
    assert "canary" not in gateway_config.show(config)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scheme=schemes, raw=st.text("ab:/?#@[]%$=&+. \\\"'{}\n\0é1", max_size=12), outside=st.booleans()
)
@example(scheme="redis", raw="#", outside=True)
@example(scheme="rediss", raw="@h?x=", outside=False)
@example(scheme="redis", raw="[", outside=False)
@example(scheme="redis", raw="\u2100", outside=False)
@example(scheme="redis", raw="@h:1/", outside=True)
def test_no_password_is_told(scheme, raw, outside):
    """Encoded or not, from the file or from outside it, taken or refused: it is in no output."""
    password = f"canary{raw}canary"
    written = f"{scheme}://me:{'${env:PASSWORD}' if outside else password}@cache:6379/0"
    try:
        config = parse(f"store = {toml_value(written)}", PASSWORD=password)
    except ConfigError as error:
        event("refused")
        told = str(error)
    else:
        event("taken")
        told = f"{config.cache!r}{config.warnings}{gateway_config.show(config)}"
    assert "canary" not in told
