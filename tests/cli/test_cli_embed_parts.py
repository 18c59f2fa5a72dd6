"""The parts of `gateway embed`: lines, batches, progress, work beside the loop."""

import asyncio
import io
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.aside import aside
from gateway.commands.files import replacing
from gateway.commands.progress import Progress
from gateway.commands.texts import Form, Item, in_batches, read_items


class Terminal(io.StringIO):
    """Somewhere that somebody watches."""

    def isatty(self) -> bool:
        return True


def test_progress_is_drawn_for_who_watches():
    """A bar, what is done, how fast, how long still; ten times a second at most."""
    now = 0.0
    out = Terminal()
    with Progress("texts", 4000, out, lambda: now) as progress:
        progress.note = "50% from the cache"
        now = 0.05
        progress.add(10)
        assert out.getvalue() == ""
        now = 2.0
        progress.add(990)
    drawn, gone = out.getvalue().split("\r")[1:]
    assert drawn.startswith("[#####---------------] 1,000 of 4,000 texts, 500/s, 0:06 left, 50%")
    assert gone == "\x1b[K"


def test_progress_is_told_now_and_then_to_who_does_not():
    """A line each half minute, without a bar."""
    now = 0.0
    out = io.StringIO()
    with Progress("texts", None, out, lambda: now) as progress:
        now = 1.0
        progress.add(10)
        now = 40.0
        progress.add(3990)
    assert out.getvalue() == "4,000 texts, 100/s\n"


ITEMS = st.lists(st.text(max_size=30)).map(
    lambda texts: [Item(number, text) for number, text in enumerate(texts, 1)]
)


@given(ITEMS, st.integers(1, 5), st.integers(1, 200))
def test_batches_keep_order_and_bounds(items, count, size):
    """None is empty, none is larger than it may be unless it is a single text."""
    batches = list(in_batches(iter(items), count, size))
    assert [item for batch in batches for item in batch] == items
    for batch in batches:
        assert 1 <= len(batch) <= count
        assert len(batch) == 1 or 4 * sum(len(item.text) for item in batch) <= size


LINES = st.text(st.characters(exclude_characters="\n\r\ufeff", exclude_categories=["Cs"]))


@given(st.lists(LINES))
def test_lines_are_the_texts(texts):
    """Whatever is in them; one of white space alone has none."""
    read = list(read_items([text.encode() + b"\n" for text in texts], Form()))
    assert [item.line for item in read] == list(range(1, len(texts) + 1))
    blank = b" \t\v\f"
    expected = ["" if not text.encode().strip(blank) else text for text in texts]
    assert [item.text for item in read] == expected


def test_work_aside_raises_where_it_is_waited_for():
    """And is forgotten by who no longer waits."""

    async def check() -> None:
        with pytest.raises(ZeroDivisionError):
            await aside(lambda: 1 // 0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await aside(lambda: os.read(reading, 1))
        assert await aside(lambda: os.write(writing, b"x")) == 1

    reading, writing = os.pipe()
    asyncio.run(check())
    os.close(writing)
    os.close(reading)


def test_whoever_writes_a_file_leaves_who_else_does_alone(tmp_path):
    """All of them remove leftovers; none takes another's file for one, and one is the last."""
    path = tmp_path / "out"

    def write(number: int) -> None:
        with replacing(path) as out:
            out.write(b"%d" % number)

    left = tmp_path / ".out.leftover.part"
    left.touch()
    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(write, range(400)))) == 400
    assert 0 <= int(path.read_bytes()) < 400
    assert list(tmp_path.iterdir()) == [path]
