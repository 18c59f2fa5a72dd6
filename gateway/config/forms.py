"""How values are written in the file where that differs from how they are kept.

A form reads what TOML gave (durations to seconds, sizes to bytes, names to paths), says which JSON
Schema that has, and writes a kept value back. It looks at one value alone and never at the disk.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.config.problems import MisfitError, echo, kind_of, quote

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a value's meaning may depend on outside the file."""

    base_dir: Path
    """Relative paths start here."""
    home: Path | None = None
    """What ``~/`` stands for."""


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a value; `read` raises MisfitError with what it should have been."""

    read: Callable[[Any, Surroundings], Any]
    schema: Schema
    write: Callable[[Any], Any] = lambda value: value


def about(description: str, *examples: Any, form: Form | None = None) -> msgspec.Meta:
    """Return what a field says of itself; `form` where the file writes it in a way of its own."""
    return msgspec.Meta(
        description=description,
        examples=list(examples) or None,
        extra={"form": form} if form is not None else None,
    )


def text(value: Any, what: str) -> str:
    """Return the value if it is text that can be used; raise MisfitError otherwise."""
    if not isinstance(value, str):
        raise MisfitError(f"must be {what} in quotes, not {kind_of(value)}")
    if not value:
        raise MisfitError(f"must be {what}, and is empty")
    return value


# Durations and sizes

_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) *(ms|s|m|h|d)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_LONGEST = 366 * 86400.0
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) *([kmgt]?i?b)?", re.IGNORECASE)
_BYTES = {"tib": 2**40, "gib": 2**30, "mib": 2**20, "kib": 2**10, "ib": 0, "b": 1, "": 1}
_BYTES |= {"tb": 10**12, "gb": 10**9, "mb": 10**6, "kb": 10**3}
_LARGEST = 2**63 - 1


def duration(value: Any, longest: float = _LONGEST, shortest: float | None = None) -> float:
    """Return the seconds that are meant; raise MisfitError for what is out of bounds.

    Without `shortest`, more than 0 is wanted. The default of `longest` is what an option may have:
    a year.
    """
    wrong = MisfitError(
        f'must be a duration such as "500ms", "10s", "5m" or "1h", not {echo(value)}'
    )
    if isinstance(value, bool):
        raise wrong
    if isinstance(value, int | float):
        if not math.isfinite(value) or abs(value) > 10**18:
            raise wrong
        seconds = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        seconds = float(match[1]) * _SECONDS[match[2]]
    else:
        raise wrong
    if seconds <= 0 and seconds != shortest:
        raise MisfitError("must be longer than 0")
    if seconds > longest:
        raise MisfitError("must be at most a year")
    return seconds


def write_duration(seconds: float) -> str | float:
    """Return seconds in the largest unit that says them exactly."""
    for unit, length in _SECONDS.items():
        count = seconds / length
        if count >= 1 and count == int(count) and int(count) * length == seconds:
            return f"{int(count)}{unit}"
    return seconds


def _read_size(value: Any, _: Surroundings) -> int:
    wrong = MisfitError(f'must be a size such as "256MiB", "1GB" or "0", not {echo(value)}')
    if isinstance(value, bool):
        raise wrong
    if isinstance(value, int):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        unit = _BYTES[(match[2] or "").lower()]
        if not unit:
            raise wrong
        size = int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit
    else:
        raise wrong
    if not 0 <= size <= _LARGEST:
        raise wrong
    return size


def write_size(size: int) -> str | int:
    """Return a number of bytes in the largest binary unit that says it exactly."""
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size and size % length == 0:
            return f"{size // length}{unit}"
    return size


def _text_or(pattern: str, number: Schema) -> Schema:
    return {"anyOf": [{"type": "string", "pattern": pattern}, number]}


DURATION = Form(
    lambda value, _: duration(value),
    _text_or(
        r"^\d+(\.\d+)? *(ms|s|m|h|d)$|\$\{",
        {"type": "number", "exclusiveMinimum": 0, "maximum": _LONGEST},
    ),
    write_duration,
)
PAUSE = Form(
    lambda value, _: duration(value, shortest=0.0),
    _text_or(
        r"^\d+(\.\d+)? *(ms|s|m|h|d)$|\$\{", {"type": "number", "minimum": 0, "maximum": _LONGEST}
    ),
    write_duration,
)
"""A duration that may be 0: not at all."""
SIZE = Form(
    _read_size,
    _text_or(
        r"^\d+(\.\d+)? *([kKmMgGtT]?[iI]?[bB])?$|\$\{",
        {"type": "integer", "minimum": 0, "maximum": _LARGEST},
    ),
    write_size,
)

# What only models have

_WIDEST = 65_536


def _read_dimensions(value: Any, _: Surroundings) -> str | tuple[int, ...]:
    if isinstance(value, str) and value in {"native", "any"}:
        return str(value)
    if not isinstance(value, list) or not value:
        raise MisfitError(
            f'must be "native", "any" or a list such as [256, 512], not {echo(value)}'
        )
    for place, width in enumerate(value):
        if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= _WIDEST:
            raise MisfitError(
                f"must be a whole number from 1 to {_WIDEST}, not {echo(width)}", place
            )
    return tuple(dict.fromkeys(value))


def _read_aliases(value: Any, _: Surroundings) -> dict[str, str | None]:
    if isinstance(value, list):
        for place, name in enumerate(value):
            if not isinstance(name, str):
                raise MisfitError(f"must be a name in quotes, not {echo(name)}", place)
            if name in value[:place]:
                raise MisfitError(f"{quote(name)} stands here twice", place)
        return dict.fromkeys(map(str, value))
    if not isinstance(value, dict):
        raise MisfitError(f'must be a list of names such as ["minilm"], not {echo(value)}')
    return {name: _alias_prefix(name, options) for name, options in value.items()}


def _alias_prefix(name: str, options: Any) -> str | None:
    if not isinstance(options, dict):
        raise MisfitError(
            f'must be a table such as {{ prefix = "query: " }}, not {echo(options)}', name
        )
    for option in options:
        if option != "prefix":
            raise MisfitError(
                f"unknown; an alias takes only prefix, not {quote(option)}", name, option
            )
    prefix = options.get("prefix")
    if prefix is not None and not isinstance(prefix, str):
        raise MisfitError(f"must be text in quotes, not {echo(prefix)}", name, "prefix")
    return prefix if prefix is None else str(prefix)


def _write_aliases(aliases: Mapping[str, str | None]) -> object:
    if all(prefix is None for prefix in aliases.values()):
        return list(aliases)
    return {name: {} if prefix is None else {"prefix": prefix} for name, prefix in aliases.items()}


DIMENSIONS = Form(
    _read_dimensions,
    {
        "anyOf": [
            {"enum": ["native", "any"]},
            {
                "type": "array",
                "minItems": 1,
                "items": {"type": "integer", "minimum": 1, "maximum": _WIDEST},
            },
        ]
    },
    lambda value: list(value) if isinstance(value, tuple) else value,
)
ALIASES = Form(
    _read_aliases,
    {
        "anyOf": [
            {"type": "array", "items": {"type": "string", "minLength": 1}},
            {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {"prefix": {"type": "string"}},
                    "additionalProperties": False,
                },
            },
        ]
    },
    _write_aliases,
)
