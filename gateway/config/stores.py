"""The addresses in `[cache] store`: which kinds of store there are, and where each one is.

What an address means is worked out here; whether anything is there is asked in `cache_rules`.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from msgspec import Struct

from gateway.config.addresses import PATH
from gateway.config.forms import Form, Surroundings, text
from gateway.config.problems import MisfitError, Reference
from gateway.config.secret import MASK, Secret


class SqliteAddress(Struct, frozen=True, tag=True):
    """A SQLite file on this machine."""

    path: Path
    """Absolute."""

    def __str__(self) -> str:
        return f"sqlite://{self.path}"


class RedisAddress(Struct, frozen=True, tag=True):
    """A Redis or Valkey server, or one node of a cluster of them."""

    url: Secret
    """redis:// or, for TLS, rediss://, as redis-py's `from_url` takes it."""
    cluster: bool = False

    @property
    def has_password(self) -> bool:
        """Whether a password stands in the address."""
        return urlsplit(self.url.reveal()).password is not None

    @property
    def tls_files(self) -> Mapping[str, Path]:
        """The certificates and keys that TLS needs, by the option that names each."""
        query = urlsplit(self.url.reveal()).query
        return {option: Path(file) for option, file in parse_qsl(query)}

    def __str__(self) -> str:
        """Return the address as it may be shown: without the user and the password."""
        scheme, _, rest = self.url.reveal().partition("://")
        user, _, host = rest.rpartition("@")
        return f"{scheme}{'+cluster' * self.cluster}://{f'{MASK}@' if user else ''}{host}"


StoreAddress = SqliteAddress | RedisAddress

_SCHEMES = r"sqlite|(redis|valkey)s?(\+cluster)?"
_REDIS = re.compile(r"(?:redis|valkey)(s?)(\+cluster)?://(.*)", re.DOTALL)
_DATABASE = re.compile(r"/?|/[0-9]{1,5}")
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_ENCODED = 'in a user or password, "/", "?", "#", "@" and ":" are written %2F, %3F, %23, %40, %3A'


def _read_store(value: Any, around: Surroundings) -> tuple[StoreAddress, ...]:
    if not isinstance(value, list):
        return (_read_address(value, around),)
    if len(value) > 2:
        raise MisfitError("has at most one sqlite and one redis address")
    addresses: list[StoreAddress] = []
    for place, item in enumerate(value):
        try:
            addresses.append(_read_address(item, around))
        except MisfitError as misfit:
            raise MisfitError(str(misfit), place) from misfit
    if len(value) == 2 and list(map(type, addresses)) != [SqliteAddress, RedisAddress]:
        raise MisfitError("must be sqlite first, which is nearest, and then redis; one of each")
    return tuple(addresses)


def _read_address(value: Any, around: Surroundings) -> StoreAddress:
    address = text(value, 'an address such as "sqlite:///var/lib/embedding-gateway/cache.db"')
    if not address.isprintable():
        raise MisfitError("must be on one line, and has a character in it that cannot be printed")
    if address.startswith("sqlite://"):
        return _read_sqlite(address.removeprefix("sqlite://"))
    if match := _REDIS.fullmatch(address):
        url = _read_redis(match[3], bool(match[1]), bool(match[2]), around)
        return RedisAddress(Secret(url, in_file=not isinstance(value, Reference)), bool(match[2]))
    raise MisfitError(
        "must begin with sqlite:///, redis:// or rediss:// (with TLS), or for a cluster "
        "redis+cluster:// or rediss+cluster://"
    )


def _read_sqlite(path: str) -> SqliteAddress:
    if not path.startswith("/") or path.startswith("/~"):
        raise MisfitError(
            "must have an absolute path after sqlite://, which makes three slashes: "
            'sqlite:///var/lib/embedding-gateway/cache.db, or sqlite://${env:HOME}/… for "~"'
        )
    if set(path) & {"?", "#"}:
        raise MisfitError('must have nothing but a path after sqlite://, without "?" and "#"')
    if path.endswith("/"):
        raise MisfitError("must name a file, and ends as a directory")
    # Other programs write an absolute path with four slashes.
    return SqliteAddress(Path("/" + path.lstrip("/")))


def _read_redis(rest: str, tls: bool, cluster: bool, around: Surroundings) -> str:
    """Return the URL for redis-py; no message repeats a part of it, for any may be a password."""
    scheme = "rediss" if tls else "redis"
    parts = _split(f"{scheme}://{rest}")
    if not _DATABASE.fullmatch(parts.path):
        raise MisfitError(
            f"must have nothing but the number of a database after the host, as in /0; {_ENCODED}"
        )
    if cluster and parts.path not in {"", "/", "/0"}:
        raise MisfitError("must have no number of a database: a cluster has only one")
    files = _tls_files(parse_qsl(parts.query, keep_blank_values=True), tls, around)
    path = "" if cluster else parts.path.rstrip("/")
    query = urlencode(files, safe="/", quote_via=quote)
    return f"{scheme}://{parts.netloc}{path}{'?' * bool(query)}{query}"


def _split(url: str) -> SplitResult:
    if " " in url:
        raise MisfitError("must have no space in it; in a password it is written %20")
    try:
        parts = urlsplit(url)
        port_fits = parts.port is None or parts.port > 0
    except ValueError as error:
        raise MisfitError(f"has a host or port that cannot be read; {_ENCODED}") from error
    if not parts.hostname or not port_fits or "#" in url:
        raise MisfitError(f"must have a host and nothing unusual in it; {_ENCODED}")
    return parts


def _tls_files(
    options: Iterable[tuple[str, str]], tls: bool, around: Surroundings
) -> Mapping[str, Path]:
    files: dict[str, Path] = {}
    for option, file in options:
        if option not in _TLS_FILES or option in files:
            allowed = ", ".join(_TLS_FILES)
            raise MisfitError(f'takes only these after "?", each once: {allowed}; {_ENCODED}')
        files[option] = PATH.read(file, around)
    if files and not tls:
        raise MisfitError("has certificates and no TLS; write rediss:// instead of redis://")
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        raise MisfitError("has ssl_keyfile without ssl_certfile, whose key it is")
    return files


def _write_store(addresses: tuple[StoreAddress, ...]) -> str | list[str]:
    written = list(map(str, addresses))
    return written[0] if len(written) == 1 else written


_ADDRESS = {"type": "string", "pattern": rf"^({_SCHEMES})://|\$\{{"}
STORE = Form(
    _read_store,
    {"anyOf": [_ADDRESS, {"type": "array", "maxItems": 2, "items": _ADDRESS}]},
    _write_store,
)
