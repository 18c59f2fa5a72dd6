"""What the options of the server and the keys mean to each other; `check` asks every rule.

A rule sees the whole config as values and yields what is wrong; it does not know the file's text.
Whether files are there is asked in `files`, nowhere else.
"""

from collections.abc import Iterator
from itertools import chain

from gateway.config.addresses import host_and_port, is_loopback
from gateway.config.cache_rules import STORE, cache_problems
from gateway.config.files import unreadable
from gateway.config.model_rules import model_problems
from gateway.config.options import Key
from gateway.config.patterns import is_pattern, overlap
from gateway.config.problems import KeyPath, Problem, did_you_mean, quote, spell
from gateway.config.schema import Config, Model
from gateway.config.secret import IN_PLAIN_TEXT
from gateway.config.upstream_rules import upstream_problems


def check(config: Config) -> list[Problem]:
    """Return everything that is wrong with the config as a whole, and every warning."""
    rules = (_server, _edge, _listeners, cache_problems, _keys, upstream_problems, model_problems)
    return list(chain.from_iterable(rule(config) for rule in rules))


def _server(config: Config) -> Iterator[Problem]:
    server = config.server
    pair = {"tls_cert": server.tls_cert, "tls_key": server.tls_key}
    for (name, path), (other, other_path) in zip(pair.items(), reversed(pair.items()), strict=True):
        if path is not None and other_path is None:
            yield _tls(f"{other} is missing: HTTPS needs both", name, other)
        elif path is not None and (reason := unreadable(path)):
            yield _tls(reason, name)
    if server.workers > 1 and config.cache.memory > 0 and not config.cache.store:
        yield Problem(
            ("server", "workers"),
            "every worker would keep vectors of its own, so that one text could have two; "
            'name a [cache] store that they share, or use workers = 1, or [cache] memory = "0"',
            because=(("cache", "memory"), *STORE),
        )


def _edge(config: Config) -> Iterator[Problem]:
    # SDKs send about 1 KiB; what is larger than 1 MiB is no header.
    if not 2**12 <= config.server.max_header <= 2**20:
        yield Problem(("server", "max_header"), "must be from 4KiB to 1MiB")


def _tls(message: str, *names: str) -> Problem:
    paths: list[KeyPath] = [("server", name) for name in names]
    return Problem(paths[0], message, because=tuple(paths[1:]))


def _listeners(config: Config) -> Iterator[Problem]:
    server = config.server
    if not config.keys and not is_loopback(server.host):
        yield Problem(
            ("server", "host"),
            f"anyone who can reach {server.host} may use it; add [[keys]], or listen on 127.0.0.1",
            warning=True,
        )
    if server.admin is None:
        if config.keys and not any(key.admin for key in config.keys):
            yield Problem(
                ("keys",),
                "no key has admin = true and server.admin is not set, so nobody can see the "
                "console page and the metrics",
                warning=True,
            )
        return
    host, port = host_and_port(server.admin)
    if port and port == server.port and host == server.host:
        yield Problem(
            ("server", "admin"),
            "must not be the address of the gateway itself",
            because=(("server", "host"), ("server", "port")),
        )
    elif not is_loopback(host):
        yield Problem(
            ("server", "admin"),
            f"asks for no key, so anyone who can reach {host} may see the console page and the "
            "metrics; listen on 127.0.0.1, or on an address that only your monitoring reaches",
            warning=True,
        )


def _keys(config: Config) -> Iterator[Problem]:
    names: dict[str, KeyPath] = {}
    secrets: dict[bytes, KeyPath] = {}
    for place, key in enumerate(config.keys):
        path: KeyPath = ("keys", place)
        first = names.setdefault(key.name, path)
        if first != path:
            yield _twice((*path, "name"), (*first, "name"))
        first = secrets.setdefault(key.secret.sha256, path)
        if first != path:
            yield _twice((*path, "secret"), (*first, "secret"))
        if key.secret.in_file:
            yield Problem((*path, "secret"), f"{IN_PLAIN_TEXT}, and so does sha256:…", warning=True)
        for option, named in (("name", key.name), ("tenant", key.tenant)):
            if named.startswith("("):
                # "(drift)" keeps what models are compared with, and is a label of its own.
                message = 'must not begin with "(": such names are the gateway\'s own'
                yield Problem((*path, option), message)
        yield from _key_models(config, path, key.models)
        yield from _unpriced(config, path, key)
    yield from _apart(config)


def _apart(config: Config) -> Iterator[Problem]:
    """Yield a warning where workers cannot count together what keys use."""
    limited = any(
        limit is not None
        for key in config.keys
        for limit in (
            key.requests_per_minute,
            key.tokens_per_minute,
            key.concurrent_requests,
            key.usd_per_day,
        )
    )
    if limited and config.server.workers > 1 and not config.cache.store:
        yield Problem(
            ("server", "workers"),
            "there is no [cache] store in which they could count together what keys use, so each "
            "enforces its part of the limits, and forgets the dollars when it ends",
            warning=True,
        )


def _unpriced(config: Config, path: KeyPath, key: Key) -> Iterator[Problem]:
    """Yield the models that a key with a budget may use, and whose price nobody knows."""
    if key.usd_per_day is None:
        return
    for name, model in config.models.items():
        names = [name, *model.aliases]
        used = any(overlap(pattern, each) for pattern in key.models for each in names)
        if is_pattern(name) or model.offline or not used or _priced(config, name, model):
            continue
        yield Problem(
            (*path, "usd_per_day"),
            f"what {quote(name)} costs is not known, and this key may use it: give the model a "
            "price, or leave it out of the key's models",
            because=(("models", name, "price"),),
        )


def _priced(config: Config, name: str, model: Model) -> bool:
    local = all(config.runs_here(model))
    if model.task == "chat":
        return model.chat_price(local=local) is not None
    return model.price_for(name, local=local) is not None


def _twice(path: KeyPath, first: KeyPath) -> Problem:
    return Problem(path, f"is the same as {spell(first)}", because=(first,))


def _key_models(config: Config, path: KeyPath, patterns: tuple[str, ...]) -> Iterator[Problem]:
    served = list(config.models)
    for model in config.models.values():
        served.extend(model.aliases)
    for place, pattern in enumerate(patterns):
        at = (*path, "models", place)
        if set(pattern) & set("?[]"):
            yield Problem(at, 'only "*" is special in a pattern; "?", "[" and "]" cannot be used')
        elif not any(overlap(pattern, name) for name in served):
            hint = did_you_mean(pattern, served)
            yield Problem(at, f"{quote(pattern)} fits no model of this file{hint}", warning=True)
