"""No block of the manual is left to itself: each is run, loaded, or known to be a picture."""

import pytest

from tests.docs import programs
from tests.docs.pages import Block, Page, manual

TRIED = {
    "toml": "test_docs_config",
    "python": "test_docs_programs",
    "js": "test_docs_programs",
    "sh": "test_docs_programs",
    "promql": "test_docs_operations",
    "yaml": "test_docs_operations",
}
"""Languages, and the module that tries their blocks."""

SHOWN: set[tuple[str, str]] = set()
"""Blocks of plain text that no program of the page prints: page and heading, each looked at."""


@pytest.mark.parametrize("one", manual(), ids=lambda one: one.name)
def test_every_block_is_tried(one: Page) -> None:
    """By one of the modules beside this one, or it is what the program above it prints."""
    assert [str(block) for block in one.blocks if not is_tried(block)] == []


def is_tried(block: Block) -> bool:
    """Return whether some test looks at a block."""
    if block.language == "text":
        above = block.shown_by
        return above is not None or (block.page.name, block.heading) in SHOWN
    if block.language == "sh":
        return programs.kinds(block) in ({"run"}, {"serve"}, {"not run"})
    return block.language in TRIED


def test_nothing_is_shown_that_is_not_there() -> None:
    """What was looked at once and has gone is struck off the list."""
    there = {(b.page.name, b.heading) for one in manual() for b in one.blocks}
    assert SHOWN - there == set()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("curl -s x | head -c 10", "run"),
        ("scripts/serve --offline   # words", "serve"),
        ("A=1 docker compose up -d", "not run"),
        ("cat <<'END' > file\nwhatever stands here\nEND\ngateway check", "run"),
    ],
)
def test_commands_are_known_by_their_program(typed: str, expected: str) -> None:
    """With pipes, assignments before them, comments behind them, and texts within them."""
    assert programs.kinds(block(typed)) == {expected}


@pytest.mark.parametrize("typed", ["rm -rf /", "gateway check\ndocker ps", "curl x | strange"])
def test_what_is_not_known_is_refused(typed: str) -> None:
    """A program that nobody has thought about, and blocks of two kinds."""
    assert not is_tried(block(typed))


def block(typed: str) -> Block:
    """Return a block of commands that is on no page."""
    return Block(manual()[0], 1, 1, "sh", typed, "")


def test_what_is_printed_is_compared() -> None:
    """Words exactly, numbers nearly, in their order; "…" is anything."""
    printed = "one 0.5161 two\n\nthree   4 items\nfive\n"
    assert programs.unlike("one 0.516 two\nthree 4 items", printed) == []
    assert programs.unlike("one … two\n…\nfive", printed) == []
    assert programs.unlike("one 0.7 two", printed) == ["one 0.7 two"]
    assert programs.unlike("five\none 0.516 two", printed) == ["one 0.516 two"]
    assert programs.unlike("three 4 item", printed) == ["three 4 item"]
