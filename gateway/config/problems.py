"""What is wrong with a config, and how a line about it reads.

Nothing here knows what a config may hold; it only knows key paths, lines and near names.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""Where a value stands: ("upstreams", "openai", "base_url"), ("keys", 0, "secret")."""

_BARE = re.compile(r"[A-Za-z0-9_]+")
_LONGEST_ECHO = 60


class Reference(str):
    """Text that holds what ${env:…} or ${file:…} named; no message repeats it."""

    __slots__ = ()


class MisfitError(ValueError):
    """A value that cannot be read; `at` leads to the part of it that is at fault."""

    def __init__(self, message: str, *at: str | int) -> None:
        super().__init__(message)
        self.at = at


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or (`warning`) that its owner should know of."""

    path: KeyPath
    message: str
    warning: bool = False
    because: tuple[KeyPath, ...] = ()
    """Other values this rests on: where one of those is broken, this one says nothing new."""
    meant: KeyPath = ()
    """What was probably meant where `path` is a name that nobody knows."""


def without_echoes(found: Iterable[Problem], first: Iterable[Problem]) -> list[Problem]:
    """Return the problems of `found` that do not rest on a value that `first` calls broken."""
    broken = [path for problem in first for path in (problem.path, problem.meant) if path]

    def sound(path: KeyPath) -> bool:
        return not any(path[: len(bad)] == bad for bad in broken)

    return [p for p in found if all(sound(path) for path in (p.path, *p.because))]


def render(problems: Iterable[Problem], label: str, lines: Mapping[KeyPath, int]) -> list[str]:
    """Return one line of text for each problem, in the order of the file."""
    placed = [(line_of(problem.path, lines), problem) for problem in problems]
    # What has no line is about the file as a whole; sorted() keeps the order of the rest.
    placed.sort(key=lambda pair: pair[0] or 0)
    return [
        ": ".join(
            part
            for part in (label if line is None else f"{label}:{line}", spell(problem.path))
            if part
        )
        + f": {problem.message}"
        for line, problem in placed
    ]


def line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int | None:
    """Return the line of this value or, where it has none, of the nearest table around it."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def spell(path: KeyPath) -> str:
    """Return the path as one would write it in TOML, list items as [0], [1], …."""
    spelled = ""
    for part in path:
        if isinstance(part, int):
            spelled += f"[{part}]"
        else:
            name = part if _BARE.fullmatch(part) else json.dumps(shorten(part), ensure_ascii=False)
            spelled += f".{name}" if spelled else name
    return spelled


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that was probably meant, or None."""
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return ``; did you mean "…"?`` for the nearest name, else the list of what there is."""
    names = list(names)
    near = nearest(word, names)
    if near is not None:
        return f"; did you mean {quote(near)}?"
    return f"; there is {', '.join(map(quote, names[:12]))}" if names else ""


def quote(text: str) -> str:
    """Return a text in quotes, cut where it is long."""
    return json.dumps(shorten(text), ensure_ascii=False)


def shorten(text: str) -> str:
    """Return at most 60 characters of a text."""
    return text if len(text) <= _LONGEST_ECHO else text[:_LONGEST_ECHO] + "…"


def echo(value: object) -> str:
    """Return how a message repeats a value; what came from outside the file is never repeated."""
    if isinstance(value, Reference):
        return "what it refers to"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and abs(value) < 10**18:
        return str(value)
    # Longer numbers say nothing more, and str() refuses those of more than 4,300 digits.
    return kind_of(value)


def kind_of(value: object) -> str:
    """Return what sort of value it is, for messages about what may be a secret."""
    match value:
        case str():
            return "text"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"
