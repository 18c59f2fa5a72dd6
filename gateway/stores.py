"""The stores that a config names, and the secret under which vectors are named in them."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import structlog

from gateway.cache.agreement import shared_secret
from gateway.cache.keys import check_value, is_check_value
from gateway.cache.store import CacheStore, ForeignStoreError, Inspectable, StoreError
from gateway.config import Cache, RedisAddress, SqliteAddress
from gateway.errors import ConfigError

_BYTES = 32
_IN_FULL = re.compile("[0-9a-f]{64}")
"""What the file beside a SQLite store holds; it may be moved into a config."""


@dataclass(frozen=True, slots=True)
class CacheSecret:
    """What the digests of a gateway are keyed with."""

    value: bytes
    shared: bool = False
    """Whether the authority has the last word about it: it has where it is Redis, and no config
    names a secret."""


def open_stores(cache: Cache, log: structlog.stdlib.BoundLogger) -> list[Inspectable]:
    """Return a store for each address, nearest first. They connect when they are first asked."""
    stores: list[Inspectable] = []
    for address in cache.store:
        if isinstance(address, SqliteAddress):
            from gateway.cache.sqlite import SqliteStore

            stores.append(
                SqliteStore(address.path, max_bytes=cache.store_size, ttl=cache.ttl, log=log)
            )
        else:
            from gateway.cache.redis import RedisStore

            url = address.url.reveal()
            stores.append(RedisStore(url, cluster=address.cluster, ttl=cache.ttl))
    return stores


def own_secret(cache: Cache) -> CacheSecret:
    """Return the config's secret, else the one in the file beside the SQLite store, else any.

    The file is made if it is missing. Raises ConfigError if it cannot be, or cannot be read.
    """
    if cache.secret is not None:
        given = cache.secret.reveal()
        if _IN_FULL.fullmatch(given):
            return CacheSecret(bytes.fromhex(given))
        return CacheSecret(blake2b(given.encode(), digest_size=_BYTES).digest())
    shared = bool(cache.store) and isinstance(cache.store[-1], RedisAddress)
    file = secret_file(cache)
    return CacheSecret(os.urandom(_BYTES) if file is None else _kept(file), shared)


async def common_secret(cache: Cache, stores: Sequence[CacheStore]) -> CacheSecret:
    """Return the secret that all who use these stores have.

    Raises ConfigError where a store was made with another one. A store that is away is asked again
    by every worker, when it is back.
    """
    own = secret = own_secret(cache)
    for place, store in enumerate(reversed(stores)):
        with suppress(StoreError), _ours():
            facts = await store.facts()
            if secret.shared and place == 0:
                value = await shared_secret(store, secret.value, facts)
                secret = CacheSecret(value, shared=True)
            check = facts.get("check", b"")
            if secret != own and check == check_value(own.value):
                # Begun while the authority was away: what it holds is of no use any more.
                await store.swap("check", check, check_value(secret.value))
            elif is_check_value(check) and check != check_value(secret.value):
                raise ConfigError([_mismatch(cache, store.name)])
    if secret != own:
        # For a start at which the authority is away.
        keep_secret(cache, secret.value)
    return secret


@contextmanager
def _ours() -> Iterator[None]:
    """Stop the start where a store's address is a slip."""
    try:
        yield
    except ForeignStoreError as error:
        raise ConfigError([f"cache.store: {error}"]) from error


def keep_secret(cache: Cache, secret: bytes) -> None:
    """Let the file that keeps the secret, where there is one, hold this one.

    Whoever removed the store's directory has removed it too. Raises ConfigError.
    """
    file = None if cache.secret is not None else secret_file(cache)
    if file is not None and _kept(file) != secret:
        file.unlink(missing_ok=True)
        _write(file, secret)


def secret_file(cache: Cache) -> Path | None:
    """Return where the secret is kept if no config names it: beside the SQLite store."""
    for address in cache.store:
        if isinstance(address, SqliteAddress):
            return address.path.with_name(address.path.name + ".key")
    return None


def _kept(file: Path) -> bytes:
    """Return what the file holds; make it, if it is missing.

    Where it cannot be made there will be no store either, and any secret does.
    """
    try:
        if not file.exists() and (made := _made(file)) is not None:
            return made
        value = bytes.fromhex(file.read_text().strip())
    except OSError as error:
        raise ConfigError([f"cache.store: {file} cannot be read: {error.strerror}"]) from error
    except ValueError:
        value = b""
    if len(value) != _BYTES:
        advice = "put a copy of it back, or move it and the store away to begin anew"
        raise ConfigError(
            [f"cache.store: {file} does not hold the store's secret any more; {advice}"]
        )
    return value


def _made(file: Path) -> bytes | None:
    """Write a new secret; return it only where nothing could be written."""
    value = os.urandom(_BYTES)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(file, value)
    except OSError:
        return value
    return None


def _write(file: Path, value: bytes) -> None:
    """Make the file, whole from the first moment, unless somebody else was quicker."""
    mine = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as writing:
        os.fchmod(descriptor, 0o600)
        writing.write(value.hex() + "\n")
    try:
        os.link(mine, file)
    except FileExistsError:
        pass
    finally:
        mine.unlink()


def _mismatch(cache: Cache, store: str) -> str:
    if cache.secret is not None:
        return (
            f"cache.secret: the {store} store was made with another secret; use that one, or "
            "another store"
        )
    file = secret_file(cache)
    if file is None:
        return (
            f"cache.store: the {store} store was made with another secret than it says; set "
            "[cache] secret to that one, or empty the store, or use another one"
        )
    return (
        f"cache.store: the {store} store was made with another secret than the one in {file}; put "
        "that one back or into [cache] secret, or use another store"
    )
