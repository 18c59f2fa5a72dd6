"""A chat request as one text: requests that ask for the same are the same bytes.

What an answer's cache key and its seal are made of.
"""

import json
from collections.abc import Mapping
from math import isinf
from typing import Any

import msgspec

_HOW_IT_IS_SENT = frozenset({"stream", "stream_options", "user"})
"""Fields that change how an answer travels, or who is told of it, and not the answer."""

_AS_IT_CAME = "as it came: "


def canonical(fields: Mapping[str, msgspec.Raw]) -> bytes:
    """Return the canonical JSON of a request, given as its top level's fields.

    Keys are sorted at every depth, there is no whitespace, strings are their code points, and a
    whole number is an integer (1.0 is 1). Other numbers are the double that they are nearest to.
    Left out are `stream`, `stream_options` and `user`; all else that differs gives other bytes.

    Raises nothing: what has no such form (a name twice in an object, numbers beyond any reader,
    nesting beyond ours) stands for itself, byte for byte, in a form that no other request has.
    It is ASCII either way.
    """
    kept = {name: bytes(fields[name]) for name in sorted(fields.keys() - _HOW_IT_IS_SENT)}
    try:
        return _encode({name: _decode(value.decode()) for name, value in kept.items()}).encode()
    except (ValueError, RecursionError):
        return (_AS_IT_CAME + _encode({name: value.hex() for name, value in kept.items()})).encode()


def _number(text: str) -> int | float:
    value = float(text)
    if isinf(value):
        raise ValueError("no double is as large")
    return int(value) if value.is_integer() else value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands there twice: readers differ in which of the two they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


# The standard library's: it reads integers of any size and lone surrogates too.
_decode = json.JSONDecoder(object_pairs_hook=_without_twins, parse_float=_number).decode
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
