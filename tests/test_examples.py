"""The examples, run as their reader runs them: each a process, against one real gateway.

Its chat models are a tiny one of random weights, and those of an upstream that jitters.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.chat_served import HAS_LLAMA, TINY, Served, chat_gateway
from tests.processes import LOCAL, ROOT, gateway_process
from tests.tiktoken_cache import write_tiktoken_cache
from tests.tiny_chat import write_chat

pytestmark = pytest.mark.engine

EXAMPLES = ROOT / "examples"
FILES = {path.stem: path for path in sorted(EXAMPLES.glob("*.*")) if path.suffix in {".py", ".mjs"}}
NODE = ROOT / "tests" / "node" / "node_modules"
PICTURE = EXAMPLES / "out" / "word_map.png"
PNG_BEGINS = b"\x89PNG\r\n\x1a\n"
CLOSE = 0.005
"""How far another processor's arithmetic may move a similarity; it has moved the third digit."""

Run = Callable[..., str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if not HAS_LLAMA:
        pytest.skip("llama-cpp-python is missing (extra [local])")
    with chat_gateway(tmp_path_factory.mktemp("chat"), rest=LOCAL) as served:
        yield served


@pytest.fixture(scope="module")
def run(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs an example and gives what it printed; once, unless `again`."""
    tiktoken_cache = write_tiktoken_cache(tmp_path_factory.mktemp("tiktoken"))
    PICTURE.unlink(missing_ok=True)
    elsewhere = tmp_path_factory.mktemp("node")

    @cache
    def example(name: str, *arguments: str, again: bool = False) -> str:
        environ = {
            "GATEWAY_URL": served.base_url,
            "TIKTOKEN_CACHE_DIR": str(tiktoken_cache),
            "PYTHONIOENCODING": "utf-8",
        }
        ran = subprocess.run(
            [*program(FILES[name], elsewhere), *arguments],
            env=os.environ | environ,
            capture_output=True,
            encoding="utf-8",
            timeout=90,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return example


def program(path: Path, elsewhere: Path) -> list[str]:
    """Return the command that runs an example; one for Node from where its SDK is."""
    if path.suffix == ".py":
        return [sys.executable, str(path)]
    node = shutil.which("node") or pytest.skip("Node.js is not installed")
    if not (NODE / "openai").is_dir():
        pytest.skip("OpenAI's SDK for Node is not installed: npm ci --prefix tests/node")
    if not (elsewhere / "node_modules").exists():
        (elsewhere / "node_modules").symlink_to(NODE)
    return [node, str(shutil.copy(path, elsewhere))]


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


@pytest.mark.parametrize("options", [(), ("--chat", TINY, "--max-tokens", "60")])
def test_a_seed_brings_a_journey_back(run: Run, options: tuple[str, ...]) -> None:
    """Five answers with the seed are one, at distance 0.0; without it they lie apart."""
    printed = run("journey_to_mars", *options)
    without, _, seeded = printed.partition("With seed=123 and temperature=0")
    apart, together = rows(without), rows(seeded)
    assert [5, 5] == [len(apart), len(together)]
    assert len(set(apart)) == 5
    assert len(set(together)) == 1
    assert 1 == len({fingerprint for _, fingerprint, _ in apart + together})
    assert all(int(tokens) > 0 for tokens, _, _ in apart)
    assert "average distance between the answers: 0.0\n" in seeded
    assert 0.01 < numbers(without.strip().splitlines()[-1])[0] < 2


def rows(printed: str) -> list[tuple[str, str, str]]:
    """Return tokens, fingerprint and first words of each answer."""
    return re.findall(r"^ +(\d+)  (fp_\w+) +(.+)…$", printed, re.MULTILINE)


@pytest.mark.parametrize("options", [(), (TINY,)])
def test_a_conversation_is_remembered(run: Run, served: Served, options: tuple[str, ...]) -> None:
    """Each prompt has all that was said before it, and is longer than the one before."""
    served.fake.chat.forget()
    printed = run("langchain_chat", *options)
    told = re.findall(r"^  (\d+) tokens of prompt$", printed, re.MULTILINE)
    sizes = [int(size) for size in told]
    assert sorted(set(sizes)) == sizes
    assert len(sizes) == 3
    sent = [len(call.request.body["messages"]) for call in served.fake.chat.calls]
    assert sent == ([] if options else [2, 4, 6])
    assert printed.endswith("7 messages remembered\n")


@pytest.mark.parametrize("options", [(), (TINY,)])
def test_node_reads_a_stream(run: Run, options: tuple[str, ...]) -> None:
    """The story comes in pieces, and the second time from the cache: the same one."""
    first = run("node_stream", *options)
    second = run("node_stream", *options, again=True)
    stories = [printed.rpartition("\n\n")[0] for printed in (first, second)]
    assert stories[0]
    assert stories[0] == stories[1]
    pieces, tokens = numbers(first.rpartition("\n\n")[2])[:2]
    assert pieces > 5
    assert tokens > 5
    assert 'Cache-Status: gateway; fwd=miss; detail="upstream=1"\n' in first
    assert 'Cache-Status: gateway; hit; detail="memory=1"\n' in second


@pytest.mark.parametrize("name", FILES)
def test_readme_shows_real_output(run: Run, name: str) -> None:
    """Each line that the README quotes of an example is printed, give or take the last digits."""
    readme = (EXAMPLES / "README.md").read_text()
    section = readme.split(f"({FILES[name].name})")[1].split("\n**[")[0]
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
    for path in FILES.values():
        python = path.suffix == ".py"
        opening = path.read_text().split('"""' if python else "\nimport")[1 if python else 0]
        assert f"{'.venv/bin/python' if python else 'node'} examples/{path.name}" in opening
        assert f"[{path.name}]({path.name})" in readme


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


@pytest.mark.skipif(not HAS_LLAMA, reason="llama-cpp-python is missing (extra [local])")
def test_the_readme_chats(tmp_path: Path) -> None:
    """Its config and its lines, run as they stand but for the port and the weights."""
    readme = (ROOT / "README.md").read_text()
    (config,) = [part.split("```")[0] for part in readme.split("```toml\n") if "qwen]" in part]
    first, second, *_ = [part.split("```")[0] for part in readme.split("```python\n")[1:]]
    weights = "models/qwen2.5-7b-instruct-q4_k_m.gguf"
    assert weights in config
    tiny = write_chat(tmp_path / "tiny.gguf", context=256, ends=-20.0)
    toml = LOCAL + config.replace(weights, str(tiny))
    with gateway_process(toml) as process:
        program = (first + second).replace("http://127.0.0.1:8000/v1", process.base_url)
        ran = subprocess.run(
            [sys.executable, "-"],
            input=program,
            capture_output=True,
            encoding="utf-8",
            timeout=90,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"384\n.+ fp_\w+\n", ran.stdout, re.DOTALL)
