"""One option's value against its type: what TOML gave, as the Struct keeps it.

It knows types and forms, and neither options nor files.
"""

import re
from typing import Any

from msgspec import inspect

from gateway.config.forms import Form, Surroundings
from gateway.config.problems import MisfitError, Reference, did_you_mean, echo, nearest, quote


def read_value(node: inspect.Type, raw: Any, around: Surroundings) -> Any:
    """Return the value as the Struct keeps it; raise MisfitError where it does not fit its type."""
    form = form_of(node)
    if form is not None:
        return form.read(raw, around)
    match bare(node):
        case inspect.BoolType():
            return _boolean(raw)
        case inspect.IntType() as limits:
            return _whole(raw, limits)
        case inspect.LiteralType() as choice:
            return _one_of(raw, [str(value) for value in choice.values])
        case inspect.StrType() as limits:
            return _text(raw, limits)
        case inspect.VarTupleType() as items:
            return _list(raw, items)
    raise TypeError(f"no way to read {node}")


def form_of(node: inspect.Type) -> Form | None:
    """Return the form that a field names for its values."""
    if isinstance(node, inspect.Metadata):
        form = (node.extra or {}).get("form")
        return form if isinstance(form, Form) else form_of(node.type)
    return None


def bare(node: inspect.Type) -> inspect.Type:
    """Return the type without descriptions and without `| None`: TOML has no null."""
    while True:
        if isinstance(node, inspect.Metadata):
            node = node.type
        elif isinstance(node, inspect.UnionType):
            (node,) = (kind for kind in node.types if not isinstance(kind, inspect.NoneType))
        else:
            return node


def _boolean(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise MisfitError(f"must be true or false, without quotes, not {echo(raw)}")
    return raw


def _whole(raw: Any, limits: inspect.IntType) -> int:
    if isinstance(raw, Reference) and re.fullmatch(r" *-?\d{1,15} *", raw):
        raw = int(raw)
    low, high = int(limits.ge or 0), int(limits.le or 0)
    if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
        quoted = isinstance(raw, str) and not isinstance(raw, Reference) and raw.isdecimal()
        hint = "; leave the quotes off" if quoted else ""
        raise MisfitError(f"must be a whole number from {low} to {high}, not {echo(raw)}{hint}")
    return raw


def _one_of(raw: Any, names: list[str]) -> str:
    if isinstance(raw, str) and raw in names:
        return str(raw)
    close = did_you_mean(raw, names) if type(raw) is str and nearest(raw, names) else ""
    *others, last = map(quote, names)
    allowed = f"{', '.join(others)} or {last}" if others else last
    raise MisfitError(f"must be {allowed}, not {echo(raw)}{close}")


def _text(raw: Any, limits: inspect.StrType) -> str:
    if not isinstance(raw, str):
        raise MisfitError(f"must be text in quotes, not {echo(raw)}")
    if len(raw) < (limits.min_length or 0):
        raise MisfitError("must not be empty")
    if limits.pattern is not None and not re.search(limits.pattern, raw):
        raise MisfitError(f"must be 64 hexadecimal digits, not {len(raw)} characters")
    return str(raw)


def _list(raw: Any, items: inspect.VarTupleType) -> tuple[str, ...]:
    if not isinstance(raw, list):
        hint = f"; write [{quote(raw)}]" if type(raw) is str else ""
        raise MisfitError(f"must be a list, not {echo(raw)}{hint}")
    if len(raw) < (items.min_length or 0):
        raise MisfitError("must not be empty")
    texts = bare(items.item_type)
    assert isinstance(texts, inspect.StrType)  # noqa: S101 - the schema has no other lists
    read: list[str] = []
    for place, item in enumerate(raw):
        try:
            read.append(_text(item, texts))
        except MisfitError as misfit:
            raise MisfitError(str(misfit), place) from misfit
    return tuple(read)
