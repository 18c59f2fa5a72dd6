"""Grammars in llama.cpp's notation (GBNF) as they are put together: rules, literals, characters.

Knows the notation, and JSON's rules for what stands inside a string; not JSON schemas.
"""

import json
from collections.abc import Iterable, Sequence

MAX_GRAMMAR = 256 << 10
"""Characters of one grammar: llama.cpp walks through it for every token."""

Range = tuple[int, int]
"""Code points, both ends included."""

_REPEAT = 1000
"""llama.cpp writes repetitions out, and refuses more than 2,000 of them."""
_SHORT = {0x08: "b", 0x09: "t", 0x0A: "n", 0x0C: "f", 0x0D: "r", 0x22: '"', 0x5C: "\\"}
"""What JSON escapes by one letter."""
_PLAIN = frozenset(" _:,.;/<>{}()|=*+?!@#$%&'~`")


class UnsupportedError(Exception):
    """The wish cannot be made a grammar; the message says what, in words for the client."""


class Rules:
    """The rules of one grammar; equal bodies are one rule."""

    def __init__(self) -> None:
        self._bodies: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._size = 0
        self._count = 0

    def add(self, body: str) -> str:
        """Return the name of a rule with this body."""
        name = self._names.get(body)
        if name is None:
            name = self._names[body] = self.reserve()
            self.define(name, body)
        return name

    def reserve(self) -> str:
        """Return a name whose rule comes later, so that it can be used before."""
        self._count += 1
        return f"r{self._count}"

    def define(self, name: str, body: str) -> None:
        """Give a reserved name its rule."""
        self._size += len(body)
        if self._size > MAX_GRAMMAR:
            raise UnsupportedError("it is too large to be followed")
        self._bodies[name] = body

    def text(self, root: str) -> str:
        """Return the grammar whose texts are what `root`, an expression, stands for."""
        rules = [f"root ::= {root}", *(f"{name} ::= {body}" for name, body in self._bodies.items())]
        return "\n".join(rules) + "\n"


def literal(text: str) -> str:
    """Return an expression for exactly this text."""
    return '"' + "".join(map(_escaped, text)) + '"'


def json_literal(value: object) -> str:
    """Return an expression for exactly this value, as JSON writes it."""
    return literal(json.dumps(value, ensure_ascii=False, allow_nan=False))


def either(options: Sequence[str]) -> str:
    """Return an expression for any of the options."""
    return options[0] if len(options) == 1 else "(" + " | ".join(options) + ")"


def repeat(item: str, least: int, most: int | None, rules: Rules) -> str:
    """Return an expression for `least` to `most` times the item; None is without end.

    Nothing at all, "", where the item may not come. Raises UnsupportedError for huge counts.
    """
    name = rules.add(item)
    if most is None:
        return {0: f"{name}*", 1: f"{name}+"}.get(least) or f"{_times(name, least, rules)} {name}*"
    return f"{_times(name, least, rules)} {_up_to(name, most - least, rules)}".strip()


def _times(name: str, count: int, rules: Rules) -> str:
    """Return an expression for exactly `count`; large counts are blocks of blocks."""
    if count <= _REPEAT:
        return f"{name}{{{count}}}" if count else ""
    block, blocks, rest = _blocks(name, count, rules)
    return f"{block}{{{blocks}}} {_times(name, rest, rules)}".rstrip()


def _up_to(name: str, count: int, rules: Rules) -> str:
    if count <= _REPEAT:
        return f"{name}{{0,{count}}}" if count else ""
    block, blocks, rest = _blocks(name, count, rules)
    # Fewer whole blocks and less than one more, or all the blocks and the rest.
    fewer = f"{block}{{0,{blocks - 1}}} {name}{{0,{_REPEAT - 1}}}"
    return either([fewer, f"{block}{{{blocks}}} {_up_to(name, rest, rules)}".rstrip()])


def _blocks(name: str, count: int, rules: Rules) -> tuple[str, int, int]:
    blocks, rest = divmod(count, _REPEAT)
    if blocks > _REPEAT:
        raise UnsupportedError(f"it counts to more than {_REPEAT * _REPEAT}")
    return rules.add(f"{name}{{{_REPEAT}}}"), blocks, rest


def characters(ranges: Iterable[Range]) -> str:
    """Return an expression for one of these characters as JSON writes it inside a string.

    A quote, a backslash and line ends are written escaped, everything else as itself. Control
    characters that JSON has no letter for are left out.
    """
    plain: list[str] = []
    letters = ""
    for first, last in _joined(ranges):
        start = first
        for code in sorted({*range(0x20), *_SHORT}):
            if start <= code <= last:
                letters += _SHORT.get(code, "")
                if start < code:
                    plain.append(_span(start, code - 1))
                start = code + 1
        if start <= last:
            plain.append(_span(start, last))
    options = [f"[{''.join(plain)}]"] if plain else []
    if letters:
        options.append(f"({literal(chr(0x5C))} [{''.join(map(_escaped, letters))}])")
    if not options:
        raise UnsupportedError("a set of characters in it is empty")
    return either(options)


def inverted(ranges: Iterable[Range]) -> list[Range]:
    """Return every other character; halves of UTF-16 pairs are none."""
    found, start = [], 0
    for first, last in _joined([*ranges, (0xD800, 0xDFFF)]):
        if start < first:
            found.append((start, first - 1))
        start = last + 1
    if start <= 0x10FFFF:
        found.append((start, 0x10FFFF))
    return found


def _joined(ranges: Iterable[Range]) -> list[Range]:
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _span(first: int, last: int) -> str:
    return _escaped(chr(first)) + ("" if first == last else "-" + _escaped(chr(last)))


def _escaped(character: str) -> str:
    """Return one character as it stands in a literal or a set; anything odd by its number."""
    if character.isascii() and (character.isalnum() or character in _PLAIN):
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
