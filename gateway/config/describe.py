"""The JSON Schema of the config file, for editors: made from the Structs, as everything else.

It can say what an option may be, and not what options mean to each other.
"""

from typing import Any

from msgspec import NODEFAULT, Struct, inspect

from gateway.config.options import Cache, Key, Server
from gateway.config.schema import KINDS, SECTIONS, Model, fields
from gateway.config.typed import bare, form_of

_REFERENCE = {"type": "string", "pattern": r"\$\{(env|file):[^}]+\}"}


def json_schema() -> dict[str, Any]:
    """Return the schema, in draft 7: the one that editors of TOML understand."""
    upstreams = {f"upstream-{kind}": _struct(struct) for kind, struct in KINDS.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Embedding gateway",
        "description": "The config file of the embedding gateway.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "server": _section("server", {"$ref": "#/definitions/server"}),
            "cache": _section("cache", {"$ref": "#/definitions/cache"}),
            "keys": _section("keys", {"type": "array", "items": {"$ref": "#/definitions/key"}}),
            "upstreams": _section("upstreams", _named(_by_kind())),
            "models": _section("models", _named({"$ref": "#/definitions/model"})),
        },
        "required": ["upstreams", "models"],
        "definitions": {
            "server": _struct(Server),
            "cache": _struct(Cache),
            "key": _struct(Key),
            "model": _struct(Model),
            **upstreams,
        },
    }


def _section(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    # Draft 7 ignores what stands beside a $ref, so that one is wrapped.
    wrapped = {"allOf": [schema]} if "$ref" in schema else schema
    return {"description": SECTIONS[name], **wrapped}


def _named(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "minProperties": 1, "additionalProperties": schema}


def _by_kind() -> dict[str, Any]:
    return {"oneOf": [{"$ref": f"#/definitions/upstream-{kind}"} for kind in KINDS]}


def _struct(struct: type[Struct]) -> dict[str, Any]:
    known = fields(struct)
    required = [field.name for field in known if field.required]
    if struct in KINDS.values():
        # It has a default as a value; in the file it tells the kinds of upstream apart.
        required.insert(0, "kind")
    schema: dict[str, Any] = {
        "type": "object",
        "description": (struct.__doc__ or "").strip(),
        "additionalProperties": False,
        "properties": {field.name: _option(field) for field in known},
    }
    return schema | ({"required": required} if required else {})


def _option(field: inspect.Field) -> dict[str, Any]:
    node = field.type
    about = (node.extra_json_schema or {}) if isinstance(node, inspect.Metadata) else {}
    form = form_of(node)
    schema = {**about, **(_type(node) if form is None else form.schema)}
    default = field.default
    if default is not NODEFAULT and default is not None and field.name != "kind":
        written = default if form is None else form.write(default)
        schema["default"] = list(written) if isinstance(written, tuple) else written
    return schema


def _type(node: inspect.Type) -> dict[str, Any]:
    match bare(node):
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType() as limits:
            number = {"type": "integer", "minimum": limits.ge, "maximum": limits.le}
            return {"anyOf": [number, _REFERENCE]}
        case inspect.LiteralType() as choice if len(choice.values) == 1:
            return {"enum": list(choice.values)}
        case inspect.LiteralType() as choice:
            return {"anyOf": [{"enum": list(choice.values)}, _REFERENCE]}
        case inspect.StrType() as limits:
            length = {} if limits.min_length is None else {"minLength": limits.min_length}
            if limits.pattern is None:
                return {"type": "string", **length}
            return {"anyOf": [{"type": "string", "pattern": limits.pattern}, _REFERENCE]}
        case inspect.VarTupleType() as items:
            length = {} if items.min_length is None else {"minItems": items.min_length}
            return {"type": "array", "items": _type(items.item_type), **length}
    raise TypeError(f"no schema for {node}")
