"""The examples, run as their reader runs them: each a process, against one real gateway."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import LOCAL, ROOT, gateway_process
from tests.tiktoken_cache import write_tiktoken_cache

pytestmark = pytest.mark.engine

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
PICTURE = EXAMPLES / "out" / "word_map.png"
PNG_BEGINS = b"\x89PNG\r\n\x1a\n"
CLOSE = 0.005
"""How far another processor's arithmetic may move a similarity; it has moved the third digit."""

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Return a function that runs an example, once, and gives what it printed."""
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is missing (extra [local])")
    tiktoken_cache = write_tiktoken_cache(tmp_path_factory.mktemp("tiktoken"))
    PICTURE.unlink(missing_ok=True)
    with gateway_process(LOCAL) as served:

        @cache
        def example(name: str, *arguments: str) -> str:
            environ = {
                "GATEWAY_URL": served.base_url,
                "TIKTOKEN_CACHE_DIR": str(tiktoken_cache),
                "PYTHONIOENCODING": "utf-8",
            }
            ran = subprocess.run(
                [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
                env=os.environ | environ,
                capture_output=True,
                encoding="utf-8",
                timeout=90,
                check=False,
            )
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        yield example


def numbers(text: str) -> list[float]:
    """Return the numbers in a text, in their order."""
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?", text)]


def table(printed: str, heading: str) -> list[list[float]]:
    """Return the numbers of each line between the heading and the next empty line."""
    below = printed.partition(heading)[2].partition("\n\n")[0]
    return [row for row in map(numbers, below.splitlines()) if row]


def test_the_same_text_twice_is_equal(run: Run) -> None:
    """Both rounds have equal vectors of length 1, and each exclamation is most like itself."""
    printed = run("same_text_twice")
    differences = table(printed, "length, 2nd\n")
    assert [[0.0, 1.0, 1.0]] * 4 == differences
    matrix = table(printed, "Oh no!\n")
    assert [4] * 4 == [len(row) for row in matrix]
    for i, row in enumerate(matrix):
        assert row[i] == 1.0
        assert [matrix[j][i] for j in range(4)] == row
        assert all(0.1 < similarity < 0.9 for j, similarity in enumerate(row) if j != i)


def test_word_order_counts(run: Run) -> None:
    """Sentences of the same words are close to the first, and yet none of them is equal to it."""
    lines = run("word_order").splitlines()[2:]
    similarities = {line[10:40].strip(): numbers(line)[0] for line in lines}
    same_words = [line[10:40].strip() for line in lines if line.endswith("same words")]
    first, *permuted = same_words
    assert len(permuted) == 3
    assert similarities[first] == 1.0
    assert all(0.8 < similarities[sentence] < 0.99 for sentence in permuted)
    assert similarities["The weather is fine today"] < 0.1
    assert sorted(similarities.values(), reverse=True) == list(similarities.values())


def test_the_word_map_is_drawn(run: Run) -> None:
    """The picture is a PNG of the size it should have, and neighbours are of one kind."""
    printed = run("word_map")
    drawn = PICTURE.read_bytes()
    assert drawn.startswith(PNG_BEGINS)
    width, height = (int.from_bytes(drawn[at : at + 4]) for at in (16, 20))
    assert (1100, 800) == (width, height)
    assert len(drawn) > 20_000, "an empty frame has 8,000 bytes"
    alike, of = numbers(printed)[:2]
    assert of == 50
    assert alike >= 45
    assert printed.endswith(f"{PICTURE}\n")


def test_green_finds_melon_and_kiwi(run: Run) -> None:
    """The two green fruit come first, with the similarities that the README promises."""
    lines = run("fruit_search").splitlines()[2:]
    assert len(lines) == 10
    assert ["Melon", "Kiwi"] == [re.findall(r"\w+(?=:)", line)[0] for line in lines[:2]]
    assert pytest.approx([0.516, 0.485], abs=CLOSE) == [numbers(line)[0] for line in lines[:2]]
    assert numbers(lines[2])[0] < 0.45


def test_fruit_answer_other_questions(run: Run) -> None:
    """The question of the command line is the one that is asked."""
    lines = run("fruit_search", "what", "monkeys", "eat").splitlines()
    assert lines[0] == 'Closest to "what monkeys eat":'
    assert "Banana" in lines[2]


def test_langchain_defaults_give_the_text_vectors(run: Run) -> None:
    """The vectors of LangChain's token ids are those of the texts."""
    rows = table(run("langchain_defaults"), "length\n")
    assert [[0.0, 1.0]] * 3 == rows


def test_plain_http_needs_no_sdk(run: Run) -> None:
    """Floats and base64 are equal, and the second answer comes from the cache."""
    printed = run("plain_http")
    assert "384 numbers, 384 from base64: equal is True\n" in printed
    assert printed.endswith("length of the vector: 1.000000\n")
    assert 'Cache-Status: gateway; hit; detail="memory=1"\n' in printed.split("base64:")[1]


@pytest.mark.parametrize("name", NAMES)
def test_readme_shows_real_output(run: Run, name: str) -> None:
    """Each line that the README quotes of an example is printed, give or take the last digits."""
    readme = (EXAMPLES / "README.md").read_text()
    section = readme.split(f"({name}.py)")[1].split("\n**[")[0]
    quoted = section.split("```text\n")[1].split("```")[0].splitlines()
    printed = run(name).splitlines()
    # Bits, and what was cached before, are this machine's and this moment's.
    fixed = [line for line in quoted if line.strip() and not re.search("…|Cache-Status", line)]
    assert fixed
    missing = [line for line in fixed if not any(alike(line, other) for other in printed)]
    assert not missing


def alike(line: str, other: str) -> bool:
    """Return whether two lines have the same words, and nearly the same numbers."""
    words = [re.sub(r"[-\d.e+ ]+", " ", text) for text in (line, other)]
    return words[0] == words[1] and numbers(line) == pytest.approx(numbers(other), abs=CLOSE)


def test_every_example_says_how_to_run_it() -> None:
    """Each example opens with what it shows and its own command line, and is in the README."""
    readme = (EXAMPLES / "README.md").read_text()
    for name in NAMES:
        source = (EXAMPLES / f"{name}.py").read_text()
        docstring = source.split('"""')[1]
        assert f".venv/bin/python examples/{name}.py" in docstring
        assert f"[{name}.py]({name}.py)" in readme


def test_without_matplotlib_the_map_says_so(tmp_path: Path) -> None:
    """Where matplotlib is missing, the example ends with one line that says how to get it."""
    (tmp_path / "matplotlib.py").write_text("raise ImportError")
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / "word_map.py")],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr == "The picture is drawn by matplotlib: .venv/bin/pip install matplotlib\n"
