"""What the options of the cache mean to each other, and what cannot do without a store.

Whether certificates are there and the library is installed is asked here; no store is opened.
"""

from collections.abc import Iterator
from importlib.util import find_spec

from gateway.config.files import no_database, unreadable
from gateway.config.options import Cache
from gateway.config.problems import KeyPath, Problem
from gateway.config.schema import Config
from gateway.config.secret import IN_PLAIN_TEXT
from gateway.config.stores import RedisAddress, SqliteAddress

STORE: tuple[KeyPath, ...] = (("cache", "store"), ("cache", "store", 0), ("cache", "store", 1))
"""Where a store may be named: a rule that asks for one says nothing if one of these is broken."""
_SMALLEST = 2**20


def cache_problems(config: Config) -> Iterator[Problem]:
    """Yield what is wrong with the cache, and with what needs it."""
    cache = config.cache
    for place, address in enumerate(cache.store):
        path: KeyPath = ("cache", "store") if len(cache.store) == 1 else ("cache", "store", place)
        match address:
            case SqliteAddress():
                yield from _sqlite(address, path)
            case RedisAddress():
                yield from _redis(address, path)
    yield from _secret(cache)
    yield from _size(cache)
    yield from _offline(config)


def _sqlite(address: SqliteAddress, path: KeyPath) -> Iterator[Problem]:
    if reason := no_database(address.path):
        yield Problem(path, reason)


def _redis(address: RedisAddress, path: KeyPath) -> Iterator[Problem]:
    if find_spec("redis") is None:
        yield Problem(
            path, "needs the library redis, which is not installed; it comes with the extra [redis]"
        )
    if address.url.in_file and address.has_password:
        yield Problem(path, f"has a password that {IN_PLAIN_TEXT}", warning=True)
    for option, file in address.tls_files.items():
        if reason := unreadable(file):
            yield Problem(path, f"{option}: {reason}")


def _secret(cache: Cache) -> Iterator[Problem]:
    path: KeyPath = ("cache", "secret")
    if cache.secret is None:
        return
    if cache.secret.in_file:
        yield Problem(path, IN_PLAIN_TEXT, warning=True)
    if not cache.store:
        yield Problem(
            path,
            "is of no use without a store: vectors are kept in memory only",
            warning=True,
            because=STORE,
        )


def _size(cache: Cache) -> Iterator[Problem]:
    path: KeyPath = ("cache", "store_size")
    if cache.store_size is None:
        return
    if cache.store_size < _SMALLEST:
        yield Problem(path, "must be at least 1MiB; without it a sqlite store grows as it needs")
    if not any(isinstance(address, SqliteAddress) for address in cache.store):
        bounded = "; Redis is bounded by its own maxmemory" if cache.store else ""
        yield Problem(path, f"bounds a sqlite store, and there is none{bounded}", because=STORE)


def _offline(config: Config) -> Iterator[Problem]:
    offline: dict[str, KeyPath] = {
        name: ("models", name, "offline") for name, model in config.models.items() if model.offline
    }
    if config.server.offline:
        offline = dict.fromkeys(config.models, ("server", "offline"))
    if not config.cache.store:
        for path in dict.fromkeys(offline.values()):
            yield Problem(
                path,
                "there is no store to answer from; name the one with the vectors in [cache] store",
                because=STORE,
            )
    for name in offline:
        if config.models[name].cache == "off":
            yield Problem(
                ("models", name, "cache"),
                "leaves nothing to answer with while the model is offline",
                warning=True,
            )
