"""How the names of a gateway, and the web pages that may call it, are written."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from gateway.config.forms import Form, Surroundings, text
from gateway.config.problems import MisfitError, echo

_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")


def _read_hosts(value: Any, _: Surroundings) -> tuple[str, ...]:
    return _each(value, 'a host name such as "gateway.example.com"', _host)


def _host(name: str) -> str:
    if not _HOST.fullmatch(name.lower()):
        raise MisfitError(
            'must be a host name, or "*." and a domain, without a port: '
            f'"gateway.example.com", "*.example.com"; not {echo(name)}'
        )
    return name.lower()


def _read_origins(value: Any, _: Surroundings) -> tuple[str, ...]:
    return _each(value, 'an origin such as "https://app.example.com"', _origin)


def _origin(origin: str) -> str:
    if origin not in {"*", "null"} and not _ORIGIN.fullmatch(origin.lower()):
        raise MisfitError(
            'must be what browsers send as Origin, "https://app.example.com" (no path), "null" '
            f'for pages without one, or "*" for every page, not {echo(origin)}'
        )
    return origin.lower()


def _each(value: Any, what: str, read: Callable[[str], str]) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise MisfitError(f"must be a list, not {echo(value)}")
    return tuple(_at(place, item, what, read) for place, item in enumerate(value))


def _at(place: int, item: Any, what: str, read: Callable[[str], str]) -> str:
    try:
        text(item, what)
        return read(item)
    except MisfitError as error:
        raise MisfitError(str(error), place) from error


def _write(names: Sequence[str]) -> list[str]:
    return list(names)


_LIST = {"type": "array", "items": {"type": "string", "minLength": 1}}
HOSTS = Form(_read_hosts, _LIST, _write)
ORIGINS = Form(_read_origins, _LIST, _write)
