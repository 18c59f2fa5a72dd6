"""Several JSON schemas as one: `allOf`, and keywords beside `$ref`.

Refuses (UnsupportedError) where the sum is not plainly the sum. Also what the other files need to
read a schema with care: what is in it, references, lists, counts.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from gateway.engine.chat.rules import UnsupportedError

KEYWORDS_OF = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "additionalItems"},
    "string": {"pattern", "minLength", "maxLength", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
}
"""Keywords that say something about values of one type, and nothing about others."""
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_KNOWN = {"$ref", "allOf", "anyOf", "oneOf", "enum", "const", "type"}.union(*KEYWORDS_OF.values())
_REFUSED = {
    "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies",
    "patternProperties", "propertyNames", "unevaluatedProperties", "unevaluatedItems",
    "minProperties", "maxProperties", "contains", "minContains", "maxContains", "uniqueItems",
    "multipleOf", "$dynamicRef", "$recursiveRef",
}  # fmt: skip
"""Keywords that JSON schema defines and no grammar of ours keeps."""
_SMALLEST = {"maximum", "exclusiveMaximum", "maxItems", "maxLength"}
_LARGEST = {"minimum", "exclusiveMinimum", "minItems", "minLength"}

Schema = Mapping[str, Any]


def contents(schema: Any) -> dict[str, Any]:
    """Return the keywords that say what a value must be; notes and unknown words are left out."""
    if schema is True:
        return {}
    if schema is False:
        raise UnsupportedError("a part of it allows nothing")
    if not isinstance(schema, dict):
        raise UnsupportedError("a part of it is no schema")
    for word in _REFUSED & schema.keys():
        if schema[word] is not False or word not in ("uniqueItems", "unevaluatedProperties"):
            raise UnsupportedError(f"the keyword '{word}' in it is not supported")
    return {word: value for word, value in schema.items() if word in _KNOWN}


def resolve(reference: Any, root: Schema) -> Any:
    """Return the part of `root` that a reference names."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise UnsupportedError("a '$ref' in it does not begin with '#/'")
    found: Any = root
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            raise UnsupportedError("a '$ref' in it leads nowhere")
    return found


def merged(schema: Any, root: Schema, spend: Callable[[int], None]) -> dict[str, Any]:
    """Return one schema for `$ref`, `allOf` and all that stands beside them.

    `spend` is told how much is looked at: references that fork make a small schema a large one.
    """
    kept = contents(schema)
    spend(1 + len(kept) + len(mapped(kept, "properties")))
    parts = [resolve(kept.pop("$ref"), root)] if "$ref" in kept else []
    if "allOf" in kept:
        parts += listed(kept, "allOf")
        del kept["allOf"]
    for part in parts:
        kept = _sum(kept, merged(part, root, spend))
    return kept


def listed(kept: Schema, word: str) -> list[Any]:
    """Return the list that stands at a keyword; it must hold something."""
    found = kept[word]
    if not isinstance(found, list) or not found:
        raise UnsupportedError(f"'{word}' in it is not a list with something in it")
    return found


def mapped(kept: Schema, word: str) -> dict[str, Any]:
    """Return the object that stands at a keyword, or an empty one."""
    found = kept.get(word, {})
    if not isinstance(found, dict):
        raise UnsupportedError(f"'{word}' in it is not an object")
    return found


def count(kept: Schema, word: str) -> int | None:
    """Return the whole number at a keyword."""
    found = kept.get(word)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise UnsupportedError(f"'{word}' in it is not a whole number from 0 on")
    return found


def types(kept: Schema) -> list[str]:
    """Return the types a value may have; without `type`, those that the keywords are about."""
    named = kept.get("type")
    if named is None:
        about = [name for name, words in KEYWORDS_OF.items() if words & kept.keys()]
        return about or [name for name in TYPES if name != "integer"]
    found = [named] if isinstance(named, str) else named
    if not isinstance(found, list) or not found or not all(name in TYPES for name in found):
        raise UnsupportedError("a 'type' in it is none of JSON schema's")
    return found


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return what holds where both hold."""
    _refuse_closed(one, other)
    _refuse_closed(other, one)
    total = dict(one)
    for word, value in other.items():
        total[word] = _both(word, total[word], value) if word in total else value
    return total


def _both(word: str, one: Any, other: Any) -> Any:
    if one == other and type(one) is type(other):
        return one
    if word == "properties":
        first, second = mapped({word: one}, word), mapped({word: other}, word)
        both = {name: {"allOf": [first[name], second[name]]} for name in first if name in second}
        return first | second | both
    if word == "required" and isinstance(one, list) and isinstance(other, list):
        return one + other
    if word == "type":
        common = [name for name in types({word: one}) if name in types({word: other})]
        if common:
            return common
    numbers = all(isinstance(bound, int | float) for bound in (one, other))
    if numbers and not isinstance(one, bool) and not isinstance(other, bool):
        if word in _LARGEST:
            return max(one, other)
        if word in _SMALLEST:
            return min(one, other)
    raise UnsupportedError(f"two different '{word}' in it must hold at once")


def _refuse_closed(one: Schema, other: Schema) -> None:
    """Refuse `other`'s properties where `one` has rules for those it does not name."""
    new = mapped(other, "properties").keys() - mapped(one, "properties").keys()
    if new and one.get("additionalProperties", True) is not True:
        raise UnsupportedError("an 'additionalProperties' in it forbids what stands beside it")
