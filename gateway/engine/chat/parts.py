"""What single keywords of a JSON schema come to: bounds, formats, properties, items.

Raises UnsupportedError where a keyword's value is none that JSON schema allows.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gateway.engine.chat.merging import listed, mapped
from gateway.engine.chat.ranges import Bound
from gateway.engine.chat.rules import UnsupportedError

Schema = Mapping[str, Any]

_LONG = r"(0[13578]|1[02])-(0[1-9]|[12]\d|3[01])"
_SHORT = r"(0[469]|11)-(0[1-9]|[12]\d|30)"
_FEBRUARY = r"02-(0[1-9]|1\d|2[0-8])"
_DATE = rf"\d{{4}}-({_LONG}|{_SHORT}|{_FEBRUARY})"
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
FORMATS: Mapping[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": rf"({_BYTE}\.){{3}}{_BYTE}",
    "email": r"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@([A-Za-z0-9]+(-[A-Za-z0-9]+)*\.)+[A-Za-z]{2,}",
}
"""Formats that are kept, as patterns; to JSON schema a format is a note, so others are no fault."""

_KINDS: Mapping[str, type] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


def bounds(kept: Schema) -> tuple[Bound | None, Bound | None]:
    """Return the lower and the upper bound of a number."""
    low = _bound(kept, "minimum", "exclusiveMinimum", 1)
    return low, _bound(kept, "maximum", "exclusiveMaximum", -1)


def _bound(kept: Schema, word: str, strict_word: str, sign: int) -> Bound | None:
    """Return the closer one of two bounds; the older drafts say true for a strict one."""
    inner, outer = kept.get(word), kept.get(strict_word)
    if isinstance(outer, bool):
        return None if inner is None else Bound(_decimal(inner, word), strict=outer)
    found = [] if inner is None else [Bound(_decimal(inner, word))]
    found += [] if outer is None else [Bound(_decimal(outer, strict_word), strict=True)]
    return max(found, key=lambda bound: (sign * bound.value, bound.strict), default=None)


def _decimal(value: Any, word: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnsupportedError(f"'{word}' in it is not a number")
    # What the client wrote, not what a double makes of it.
    return Decimal(repr(value))


def properties(kept: Schema) -> tuple[dict[str, Any], set[str]]:
    """Return an object's properties, also those that are only required, and the required names."""
    required = kept.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise UnsupportedError("a 'required' in it is not a list of names")
    named = mapped(kept, "properties")
    additional = kept.get("additionalProperties", True)
    unnamed = [name for name in required if name not in named]
    if unnamed and additional is False:
        raise UnsupportedError("a 'required' in it names a property that is not allowed")
    return named | dict.fromkeys(unnamed, additional), set(required)


def items(kept: Schema) -> tuple[list[Any], Any]:
    """Return the schemas of an array's first items, and that of all others."""
    rest = kept.get("items", True)
    if isinstance(rest, list):  # how the older drafts write a tuple
        return rest, kept.get("additionalItems", True)
    return (listed(kept, "prefixItems") if "prefixItems" in kept else []), rest


def is_of(value: Any, name: str) -> bool:
    """Return whether a value is of one of JSON schema's types."""
    if name not in ("number", "integer"):
        return isinstance(value, _KINDS[name])
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and (name == "number" or value == int(value))
