"""How one input becomes another: by its bytes, by its words, and where it is JSON by its values.

Random bytes hardly ever are JSON, so most of what is thrown at a reader would stop at its first
line. Values of a JSON text that change places, kinds and sizes come much further.
"""

import json
import random
from collections.abc import Sequence
from typing import Any

LARGEST = 1 << 16
"""Bytes of an input."""

ODD: Sequence[Any] = (
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**53 + 1, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0,
    1e-320, 1e308, "", "\0", "\ud800", "\u2028", "é" * 300, "x" * 5000, [], {}, [[]], [None], [0],
    ["", 0], {"": {}}, float("inf"), float("nan"),
)  # fmt: skip
"""Values that some reader has stumbled over."""

_BYTES = (0, 9, 10, 13, 32, 34, 44, 45, 48, 58, 91, 92, 93, 123, 125, 127, 128, 191, 224, 255)
_DEPTHS = (10, 100, 1000, 20_000)


def mutate(data: bytes, words: Sequence[bytes], chance: random.Random) -> bytes:
    """Return another input, at most LARGEST bytes of it."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        by_value = chance.random() < 0.5
        data = _by_value(data, chance) if by_value else _by_bytes(data, words, chance)
    return data[:LARGEST]


def _by_value(data: bytes, chance: random.Random) -> bytes:
    """Change a value of the longest JSON text that stands in the input."""
    start, end = data.find(b"{"), data.rfind(b"}") + 1
    try:
        value = json.loads(data[start:end]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        value = None
    if not value:
        return _by_bytes(data, (), chance)
    places = list(_places(value))
    holder, at = chance.choice(places)
    _change(holder, at, places, chance)
    return data[:start] + _written(value, chance) + data[end:]


def _places(value: Any) -> Any:
    """Yield (holder, key or index) of every value inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for at, inner in items:
        yield value, at
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


def _change(holder: Any, at: Any, places: Sequence[Any], chance: random.Random) -> None:
    match chance.randrange(6):
        case 0:
            holder[at] = chance.choice(ODD)
        case 1:
            del holder[at]
        case 2:
            other, place = chance.choice(places)
            # A copy of what stands elsewhere: never the thing itself, which might hold this place.
            holder[at] = json.loads(json.dumps(other[place]))
        case 3:
            holder[at] = [holder[at]] * chance.choice((1, 2, 50))
        case 4 if isinstance(holder, dict):
            holder[str(chance.choice(ODD))[:20]] = holder.pop(at)
        case _:
            holder[at] = _deep(chance.choice(_DEPTHS[:2]), holder[at])


def _deep(depth: int, value: Any) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def _written(value: Any, chance: random.Random) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=chance.random() < 0.7)
        return text.encode("utf-8", "surrogatepass")
    except RecursionError:
        return b"{}"


def _by_bytes(data: bytes, words: Sequence[bytes], chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    match chance.randrange(7):
        case 0:
            return data[:at] + bytes([chance.choice(_BYTES)]) + data[at + 1 :]
        case 1:
            return data[:at] + bytes([chance.choice(_BYTES)]) + data[at:]
        case 2:
            return data[:at]
        case 3:
            return data[:at] + data[at + chance.randrange(1, 9) :]
        case 4 if words:
            return data[:at] + chance.choice(words) + data[at:]
        case 5:
            piece = data[at : at + chance.randrange(1, 64)]
            return data[:at] + piece * chance.choice((1, 2, 20, 400)) + data[at:]
    opening = chance.choice((b"[", b"{", b'{"a":', b'"', b"("))
    return data[:at] + opening * chance.choice(_DEPTHS) + data[at:]
