"""At which line of a TOML text each key stands. tomllib reads the values and says no lines.

It expects text that tomllib has accepted; of anything else it returns what it understood so far.
"""

import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress

from gateway.config.problems import KeyPath

_TOKEN = re.compile(
    r'"""(?:\\[\s\S]|[^\\])*?""""{0,2}'
    r"|'''[\s\S]*?''''{0,2}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|\n"
    r"|[\[\]{}=,.]"
    r"|[^\s\[\]{}=,.\#\"']+"
)
_ENDS = frozenset({",", "]", "}", "\n"})
_DEEPEST = 8
"""No key of ours lies deeper; a hostile file's thousand-fold dotted key is not followed."""


def locate(text: str) -> dict[KeyPath, int]:
    """Return the line (from 1) of each table, key and list item. Never raises."""
    scan = _Scan(_tokens(text))
    # The tokens' end is the usual way out; the others are for text that is no TOML.
    with suppress(StopIteration, ValueError, RecursionError):
        scan.document()
    return scan.lines


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Yield each token that is no comment, with its line; the end is one more line end."""
    line, counted = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        if not match[0].startswith("#"):
            yield match[0], line
    yield "\n", line


class _Scan:
    """One walk over the tokens; `lines` grows as it goes."""

    def __init__(self, tokens: Iterator[tuple[str, int]]) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._rest = tokens
        self._lexeme, self._line = next(tokens)
        self._lists: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        while True:
            if self._lexeme == "\n":
                self._next()
            elif self._lexeme == "[":
                table = self._header()
            else:
                self._pair(table)

    def _next(self) -> None:
        self._lexeme, self._line = next(self._rest)

    def _header(self) -> KeyPath:
        line = self._line
        self._next()
        is_list = self._lexeme == "["
        if is_list:
            self._next()
        path = self._inside(self._key())
        if is_list:
            count = self._lists.get(path, 0)
            self._lists[path] = count + 1
            path = (*path, count)
        self._note(path, line)
        while self._lexeme != "\n":
            self._next()
        return path

    def _inside(self, path: KeyPath) -> KeyPath:
        """Return the path with the number of the list item that the last `[[…]]` opened."""
        inside: KeyPath = ()
        for depth, part in enumerate(path, 1):
            inside = (*inside, part)
            if depth < len(path) and inside in self._lists:
                inside = (*inside, self._lists[inside] - 1)
        return inside

    def _pair(self, table: KeyPath) -> None:
        line = self._line
        path = (*table, *self._key())
        self._note(path, line)
        if self._lexeme != "=":
            raise ValueError(self._lexeme)
        self._next()
        self._value(path)

    def _key(self) -> KeyPath:
        """Read a dotted key."""
        path: KeyPath = (self._key_part(),)
        while self._lexeme == ".":
            self._next()
            part = self._key_part()
            if len(path) < _DEEPEST:
                path = (*path, part)
        return path

    def _key_part(self) -> str:
        token = self._lexeme
        self._next()
        if token[0] in "\"'":
            return str(tomllib.loads(f"key = {token}")["key"])
        return token

    def _value(self, path: KeyPath) -> None:
        if self._lexeme == "[":
            self._list(path)
        elif self._lexeme == "{":
            self._inline_table(path)
        elif self._lexeme in _ENDS:
            raise ValueError(self._lexeme)
        else:
            while self._lexeme not in _ENDS:
                self._next()

    def _list(self, path: KeyPath) -> None:
        self._next()
        count = 0
        while self._lexeme != "]":
            if self._lexeme in {",", "\n"}:
                self._next()
                continue
            self._note((*path, count), self._line)
            self._value((*path, count))
            count += 1
        self._next()

    def _inline_table(self, path: KeyPath) -> None:
        self._next()
        while self._lexeme != "}":
            if self._lexeme in {",", "\n"}:
                self._next()
            else:
                self._pair(path)
        self._next()

    def _note(self, path: KeyPath, line: int) -> None:
        """Keep the first line at which this path, and each table around it, is seen."""
        for depth in range(1, min(len(path), _DEEPEST) + 1):
            self.lines.setdefault(path[:depth], line)
