"""The Markdown pages of the repository: their blocks of code, their links, their headings."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.processes import ROOT

_NOT_IN_A_SLUG = re.compile(r"[^\w\- ]")
_NEAR = 2
"""Lines between a program and what it prints."""


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: "Page"
    line: int
    """Of its first fence, counted from 1."""
    end: int
    language: str
    text: str
    heading: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def printed(self) -> str | None:
        """What the page says that it prints: the `text` block right below."""
        for other in self.page.blocks:
            if other.language == "text" and 0 < other.line - self.end <= _NEAR:
                return other.text
        return None

    @property
    def shown_by(self) -> "Block | None":
        """The program right above, which prints this."""
        for other in self.page.blocks:
            if other.language != "text" and 0 < self.line - other.end <= _NEAR:
                return other
        return None


@dataclass(frozen=True)
class Page:
    """A page, read once."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        """Its blocks, from top to bottom."""
        found, heading, in_heading = [], "", False
        for token in self._tokens:
            if in_heading:
                heading = token.content
            in_heading = token.type == "heading_open"
            if token.type == "fence" and token.map:
                first, end = token.map
                language = token.info.split(maxsplit=1)[0] if token.info else ""
                text = textwrap.dedent(token.content)
                found.append(Block(self, first + 1, end, language, text, heading))
        return found

    @cached_property
    def anchors(self) -> set[str]:
        """What may stand behind a `#`: the headings, as GitHub writes them there."""
        pairs = zip(self._tokens, self._tokens[1:], strict=False)
        headings = [inline.content for opening, inline in pairs if opening.type == "heading_open"]
        return {_NOT_IN_A_SLUG.sub("", h.lower()).replace(" ", "-") for h in headings}

    @cached_property
    def links(self) -> list[str]:
        """Where its links and pictures lead."""
        return [str(target) for token in self._inner for target in _targets(token)]

    @cached_property
    def pictures(self) -> dict[str, str]:
        """Its pictures, with what stands in their place for who does not see them."""
        return {str(t.attrs["src"]): t.content for t in self._inner if t.type == "image"}

    @cached_property
    def tables(self) -> list[list[list[str]]]:
        """Its tables: rows of cells, in Markdown, the heading's row first."""
        tables: list[list[list[str]]] = []
        for token, inline in zip(self._tokens, self._tokens[1:], strict=False):
            if token.type == "table_open":
                tables.append([])
            elif token.type == "tr_open":
                tables[-1].append([])
            elif token.type in ("th_open", "td_open"):
                tables[-1][-1].append(inline.content)
        return tables

    @cached_property
    def _tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.text)

    @property
    def _inner(self) -> Iterator[Token]:
        for token in self._tokens:
            yield from token.children or []


def _targets(token: Token) -> Iterator[str | int | float]:
    if token.type == "link_open":
        yield token.attrs["href"]
    elif token.type == "image":
        yield token.attrs["src"]


@cache
def page(name: str) -> Page:
    """Return a page by its path in the repository."""
    return Page(ROOT / name)


def manual() -> list[Page]:
    """Return what is written for those who use the gateway: every block of it is tried."""
    return [page("README.md"), *map(page, _names("docs/*.md"))]


def everything() -> list[Page]:
    """Return the pages of the repository, but for those that belong to what it has from others."""
    return [page(name) for name in _names("*.md", "docs/*.md", "*/README.md", "*/RESULTS.md")]


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of the manual in these languages."""
    return [block for one in manual() for block in one.blocks if block.language in languages]


def _names(*patterns: str) -> list[str]:
    found = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return sorted(path.relative_to(ROOT).as_posix() for path in found)
