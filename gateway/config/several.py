"""How a model's several upstreams are written: names there, weights, how alike vectors must be."""

from collections.abc import Mapping
from typing import Any

from gateway.config.forms import Form, Surroundings
from gateway.config.problems import MisfitError, Reference, echo

ALIKE = 0.99
"""Within one model: OpenAI's answers to a text differ by 0.0005, quantizations by about 0.005."""
_HEAVIEST = 1000
_NAME = {"type": "string", "minLength": 1}
_WEIGHT = {"type": "integer", "minimum": 0, "maximum": _HEAVIEST}


def _read_upstream_model(value: Any, _: Surroundings) -> str | dict[str, str]:
    if not isinstance(value, dict):
        return _name(value, 'a name in quotes, or a table such as { azure = "small" }')
    return {upstream: _name(name, "a name in quotes", upstream) for upstream, name in value.items()}


def _name(value: Any, what: str, *at: str) -> str:
    if not isinstance(value, str):
        raise MisfitError(f"must be {what}, not {echo(value)}", *at)
    if not value:
        raise MisfitError("must not be empty", *at)
    return str(value)


def _read_weights(value: Any, _: Surroundings) -> dict[str, int]:
    if not isinstance(value, dict):
        raise MisfitError(f"must be a table such as {{ east = 3, west = 1 }}, not {echo(value)}")
    return {upstream: _weight(weight, upstream) for upstream, weight in value.items()}


def _weight(value: Any, upstream: str) -> int:
    if isinstance(value, Reference) and value.isdecimal() and len(value) < 5:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _HEAVIEST:
        raise MisfitError(
            f"must be a whole number from 0 to {_HEAVIEST}, not {echo(value)}", upstream
        )
    return value


def _read_similarity(value: Any, _: Surroundings) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise MisfitError(f"must be a number above 0 and at most 1, not {echo(value)}")
    return float(value)


def _table(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": item}


UPSTREAM_MODEL = Form(_read_upstream_model, {"anyOf": [_NAME, _table(_NAME)]})
WEIGHTS = Form(_read_weights, _table(_WEIGHT))
SIMILARITY = Form(_read_similarity, {"type": "number", "exclusiveMinimum": 0, "maximum": 1})
