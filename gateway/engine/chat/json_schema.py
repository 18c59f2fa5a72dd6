r"""A JSON schema as a grammar: every text the grammar allows is valid under the schema.

Narrower than the schema where a grammar cannot well be as wide: properties come in the schema's
order, and where some are named, no others. A keyword that would leave the grammar wider than the
schema is refused (UnsupportedError). llama-cpp-python has such a function too, but it passes over
the bounds of numbers and an enum beside a list of types, writes `\n` of a constant as a line end,
lets `.` of a pattern leave the string, and gives up on other things with an assertion.
"""

from collections.abc import Mapping
from typing import Any

from gateway.engine.chat.merging import contents, count, listed, merged, resolve, types
from gateway.engine.chat.parts import FORMATS, bounds, is_of, items, properties
from gateway.engine.chat.patterns import pattern
from gateway.engine.chat.ranges import integers, numbers
from gateway.engine.chat.rules import Rules, UnsupportedError, either, json_literal, repeat

_SPACE = '" "? | "\\n" [ \\t]{0,20}'
"""What may stand between JSON's signs: bounded, so that no model writes spaces for ever."""
_CHARACTER = (
    r'[^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | '
    r'"u" ([0-9a-cA-CefEF] [0-9a-fA-F] | [dD] [0-7]) [0-9a-fA-F] [0-9a-fA-F])'
)
"""One character of a string; halves of UTF-16 pairs cannot be written by their numbers."""

Schema = Mapping[str, Any]
Path = tuple[str, ...]
"""References that were followed since the last brace or bracket."""


def schema_rule(schema: Schema, rules: Rules) -> str:
    """Add the rules of a schema and return the name of the one for its values.

    Raises UnsupportedError, for what is no JSON schema too.
    """
    try:
        return _Converter(schema, rules).value(schema, ())
    except RecursionError:
        raise UnsupportedError("it is nested too deeply") from None


_MOST_STEPS = 50_000
"""Parts of a schema that are looked at, in well under a second: one thread prepares all prompts."""


class _Converter:
    """One schema, to which its references lead back."""

    def __init__(self, root: Schema, rules: Rules) -> None:
        self._root = root
        self._rules = rules
        self._names: dict[str, str] = {}
        self._space = rules.add(_SPACE)
        self._left = _MOST_STEPS

    def value(self, schema: Any, path: Path) -> str:
        """Return the rule for the values of a schema."""
        self._spend(1)
        kept = contents(schema)
        if not kept:
            return self._anything()
        if "$ref" in kept and len(kept) == 1:
            return self._reference(kept["$ref"], path)
        if "$ref" in kept or "allOf" in kept:
            return self.value(merged(kept, self._root, self._spend), path)
        for word in ("anyOf", "oneOf"):
            if word in kept:
                return self._union(kept, word, path)
        if "enum" in kept or "const" in kept:
            return self._constants(kept)
        return self._rules.add(either([self._typed(name, kept) for name in types(kept)]))

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise UnsupportedError("it is too large")

    def _anything(self) -> str:
        """Return the rule for any value; it holds itself, so it is made once and then named."""
        if "" not in self._names:
            self._names[""] = name = self._rules.reserve()
            self._rules.define(name, either([self._typed(kind, {}) for kind in types({})]))
        return self._names[""]

    def _reference(self, reference: Any, path: Path) -> str:
        if reference in path:
            raise UnsupportedError("a '$ref' in it leads back to itself")
        target = resolve(reference, self._root)
        if reference not in self._names:
            name = self._names[reference] = self._rules.reserve()
            self._rules.define(name, self.value(target, (*path, reference)))
        return self._names[reference]

    def _union(self, kept: Schema, word: str, path: Path) -> str:
        options = listed(kept, word)
        rest = {name: value for name, value in kept.items() if name != word}
        if rest:
            options = [{"allOf": [rest, option]} for option in options]
        return self._rules.add(either([self.value(option, path) for option in options]))

    def _constants(self, kept: Schema) -> str:
        if kept.keys() - {"enum", "const", "type"}:
            raise UnsupportedError("an 'enum' in it has other keywords than 'type' beside it")
        values = listed(kept, "enum") if "enum" in kept else [kept["const"]]
        names = types({"type": kept["type"]} if "type" in kept else {})
        fitting = [
            value
            for value in values
            if any(is_of(value, name) for name in names)
            and ("const" not in kept or value == kept["const"])
        ]
        if not fitting:
            raise UnsupportedError("an 'enum' in it has no value of its type")
        return self._rules.add(either([json_literal(value) for value in fitting]))

    def _typed(self, name: str, kept: Schema) -> str:
        if name == "object":
            return self._object(kept)
        if name == "array":
            return self._array(kept)
        if name == "string":
            return self._string(kept)
        if name == "number":
            return numbers(*bounds(kept), self._rules)
        if name == "integer":
            return integers(*bounds(kept), self._rules)
        return '"null"' if name == "null" else '("true" | "false")'

    def _object(self, kept: Schema) -> str:
        named, required = properties(kept)
        if not named:
            additional = kept.get("additionalProperties", True)
            if additional is False:
                return f'"{{" {self._space} "}}"'
            pair = self._pair(self._any_string(), additional)
            return self._braces(f'{pair} ("," {self._space} {pair})*', optional=True)
        heads: list[str] = []
        tail = ""
        for name, schema in reversed(named.items()):
            pair = self._pair(json_literal(name), schema)
            needed = name in required
            heads = [f"{pair} {tail}".rstrip(), *([] if needed else heads)]
            follow = f'"," {self._space} {pair}'
            tail = self._rules.add(f"{follow if needed else f'({follow})?'} {tail}".rstrip())
        return self._braces(either(heads), optional=not required)

    def _pair(self, name: str, schema: Any) -> str:
        return self._rules.add(f'{name} ":" {self._space} {self.value(schema, ())}')

    def _braces(self, body: str, *, optional: bool) -> str:
        inner = f"{body} {self._space}"
        return f'"{{" {self._space} {f"({inner})?" if optional else inner} "}}"'

    def _array(self, kept: Schema) -> str:
        least, most = self._counts(kept, "minItems", "maxItems")
        first, rest = items(kept)
        fixed = [self.value(schema, ()) for schema in first[:most]]
        missing = max(0, least - len(fixed)) if first else 0
        if rest is False and least > len(fixed):
            raise UnsupportedError("'minItems' in it is more than its items")
        if most == 0 or (rest is False and not fixed):
            return self._brackets("", optional=True)
        comma = f'"," {self._space}'
        if first:
            # As few as may be: what comes behind a tuple is rarely meant.
            another = f"{comma} {self.value(rest, ())}" if missing else ""
            more = repeat(another, missing, missing, self._rules) if missing else ""
            return self._brackets(f" {comma} ".join(fixed) + f" {more}", optional=False)
        # Looked at once, or depth would double the work.
        item = self.value(rest, ())
        limit = None if most is None else most - 1
        more = repeat(f"{comma} {item}", max(least - 1, 0), limit, self._rules)
        return self._brackets(f"{item} {more}", optional=not least)

    def _brackets(self, body: str, *, optional: bool) -> str:
        inner = f"{body} {self._space}" if body else ""
        if inner and optional:
            inner = f"({inner})?"
        return f'"[" {self._space} {inner} "]"'

    def _counts(self, kept: Schema, first: str, last: str) -> tuple[int, int | None]:
        least, most = count(kept, first) or 0, count(kept, last)
        if most is not None and most < least:
            raise UnsupportedError(f"'{last}' in it is below '{first}'")
        return least, most

    def _string(self, kept: Schema) -> str:
        form = FORMATS.get(str(kept.get("format")))
        lengths = kept.keys() & {"minLength", "maxLength"}
        if (form is not None) + ("pattern" in kept) + bool(lengths) > 1:
            raise UnsupportedError("'pattern', 'format' and a length stand together in it")
        if form is not None:
            return self._quoted(pattern(f"^({form})$", self._rules))
        if "pattern" in kept:
            if not isinstance(kept["pattern"], str):
                raise UnsupportedError("a 'pattern' in it is not a string")
            return self._quoted(pattern(kept["pattern"], self._rules))
        if not lengths:
            return self._any_string()
        least, most = self._counts(kept, "minLength", "maxLength")
        return self._quoted(repeat(_CHARACTER, least, most, self._rules))

    def _any_string(self) -> str:
        return self._quoted(f"{self._rules.add(_CHARACTER)}*")

    def _quoted(self, text: str) -> str:
        return self._rules.add(f'"\\"" {text} "\\""')
