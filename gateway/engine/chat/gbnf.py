"""The language of llama.cpp's grammars (GBNF), read into rules as llama.cpp reads them.

Without its tokens; a little stricter, and with bounds where its parser has none.
https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.engine.chat.faults import GrammarError

MAX_REPEATS = 1999
"""llama.cpp refuses more, repetitions of repetitions multiplied."""
MAX_DEPTH = 64
"""Groups inside each other."""
MAX_MARKS = 4
"""Repetitions behind one item, as in `a{2}?`: the check's time grows with their third power."""
_LEXEME = re.compile(
    r"""
    (?P<space>[ \t]+|\#[^\r\n]*)
    |(?P<line>[\r\n])
    |(?P<name>[A-Za-z0-9-]+)(?P<define>[ \t]*::=)?
    |(?P<literal>"(?:[^"\\]|\\.)*")
    |(?P<set>\[(?:[^\]\\]|\\.)*\])
    |(?P<repeat>[*+?]|\{[ \t]*\d{1,6}[ \t]*(?:,[ \t]*(?:\d{1,6})?[ \t]*)?\})
    |(?P<mark>[|().])
    """,
    re.VERBOSE | re.DOTALL,
)
_CHARACTER = re.compile(
    r"""[^\\]|\\(?:[trn\\"\[\]-]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})""", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Characters:
    """Characters one after the other; a set of them is one."""

    count: int


@dataclass(frozen=True, slots=True)
class Reference:
    """A rule in the place of its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Group:
    """One of several sequences."""

    ways: list[list["Node"]]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Something between `low` and `high` times; None is without end."""

    item: "Node"
    low: int
    high: int | None

    @property
    def optional(self) -> int:
        """How many rules llama.cpp makes for what may be left out."""
        return 1 if self.high is None else self.high - self.low


Node = Characters | Reference | Group | Repeat
Rules = dict[str, Group]


def read_rules(text: str) -> Rules:
    """Return the rules of a grammar by name; raises GrammarError."""
    return _Parser(text).rules()


class _Parser:
    """Reads rules by recursive descent. Line ends part rules, except inside groups."""

    def __init__(self, text: str) -> None:
        self._lexemes = _lexemes(text)
        self._next = next(self._lexemes)
        self._names: set[str] = set()
        self._made = 0

    def rules(self) -> Rules:
        rules: Rules = {}
        self._skip_lines()
        while self._next[0] != "end":
            kind, name = self._take()
            if kind != "define":
                raise GrammarError("has a line that does not begin a rule")
            if name in rules:
                raise GrammarError("defines a rule twice")
            self._names.add(name)
            self._skip_lines()
            rules[name] = self._group(0)
            if self._next[0] not in ("line", "end"):
                raise GrammarError("has a rule that does not end with its line")
            self._skip_lines()
        if self._names - rules.keys():
            raise GrammarError("names a rule that it does not define")
        return rules

    def _group(self, depth: int) -> Group:
        if depth > MAX_DEPTH:
            raise GrammarError(f"has more than {MAX_DEPTH} groups inside each other")
        ways = [self._sequence(depth)]
        while self._next == ("mark", "|"):
            self._take()
            self._skip_lines()
            ways.append(self._sequence(depth))
        return Group(ways)

    def _sequence(self, depth: int) -> list[Node]:
        items: list[Node] = []
        weight = 1
        marks = 0
        while True:
            if depth:
                self._skip_lines()
            kind, text = self._next
            if kind == "repeat":
                self._take()
                marks += 1
                if not items or _nothing(items[-1]):
                    raise GrammarError("repeats something that is not there")
                if marks > MAX_MARKS:
                    raise GrammarError(f"has more than {MAX_MARKS} repetitions in a row")
                items[-1] = repeat = _repeat(items[-1], text)
                weight *= repeat.high or repeat.low or 1
                if weight > MAX_REPEATS:
                    raise GrammarError(
                        f"repeats rules more than {MAX_REPEATS} times, nested ones multiplied"
                    )
                self._made += repeat.optional
            elif kind in ("literal", "set", "name") or text in ("(", "."):
                before = self._symbols()
                items.append(self._item(depth))
                marks = 0
                weight = self._symbols() - before if text == "(" else 1
            else:
                return items

    def _item(self, depth: int) -> Node:
        kind, text = self._take()
        if kind == "name":
            self._names.add(text)
            return Reference(text)
        if text == ".":
            return Characters(1)
        if kind in ("literal", "set"):
            return Characters(_count(text[1:-1]))
        self._made += 1
        group = self._group(depth + 1)
        if self._take() != ("mark", ")"):
            raise GrammarError("has a group that is not closed")
        return group

    def _symbols(self) -> int:
        """Return how many rules llama.cpp knows by now, named and made."""
        return len(self._names) + self._made

    def _skip_lines(self) -> None:
        while self._next[0] == "line":
            self._take()

    def _take(self) -> tuple[str, str]:
        taken = self._next
        if taken[0] != "end":
            self._next = next(self._lexemes)
        return taken


def _lexemes(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        found = _LEXEME.match(text, at)
        if found is None:
            raise GrammarError("holds something that is no part of a grammar")
        at = found.end()
        kind = found.lastgroup or ""
        if kind == "define":
            yield kind, found["name"]
        elif kind != "space":
            yield kind, found[kind]
    yield "end", ""


def _count(characters: str) -> int:
    """Return how many characters are written here; raises GrammarError for a wrong escape."""
    count = at = 0
    while at < len(characters):
        found = _CHARACTER.match(characters, at)
        if found is None:
            raise GrammarError("holds an escape that is none")
        count, at = count + 1, found.end()
    return count


def _repeat(item: Node, text: str) -> Repeat:
    if text in ("*", "+", "?"):
        return Repeat(item, int(text == "+"), 1 if text == "?" else None)
    low, comma, high = text.strip("{}").replace(" ", "").replace("\t", "").partition(",")
    most = int(high) if high else None if comma else int(low)
    if int(low) > MAX_REPEATS or (most is not None and not int(low) <= most <= MAX_REPEATS):
        raise GrammarError(
            f"repeats {text}: from 0 to {MAX_REPEATS} times, the smaller number first"
        )
    return Repeat(item, int(low), most)


def _nothing(item: Node) -> bool:
    if isinstance(item, Repeat):
        return item.high == 0
    return isinstance(item, Characters) and item.count == 0
