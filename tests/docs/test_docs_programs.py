"""Every program and command of the manual, run as its reader runs it, against one real gateway.

Its models are the bundled one, one of OpenAI's behind an upstream that answers something else each
time, and a tiny chat model under the name that the pages use.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs import programs
from tests.docs.pages import Block, Page, blocks, everything, manual
from tests.processes import LOCAL, ROOT, gateway_process
from tests.tiktoken_cache import write_tiktoken_cache
from tests.tiny_chat import HERMES, write_chat
from tests.upstream import FakeOpenAI, serve

pytestmark = pytest.mark.engine

AT = re.compile(r"http://(127\.0\.0\.1|localhost):8000")
BETWEEN = "\x1e"
"""Printed between the blocks of one page."""
NOT_INHERITED = {"OPENAI_API_KEY", "GATEWAY_CONFIG", "XDG_CACHE_HOME"}
NODE = ROOT / "tests" / "node" / "node_modules"
COMMANDS = blocks("sh")
MODELS = """
[upstreams.openai]
kind = "openai"
base_url = "{base_url}"
[models."text-embedding-3-*"]
task = "embedding"
upstreams = ["openai"]
[models."gpt-*"]
task = "chat"
upstreams = ["openai"]
[upstreams.qwen]
kind = "llama"
model = "{weights}"
[models."qwen2.5-7b"]
task = "chat"
upstreams = ["qwen"]
"""


class Reader:
    """Who has the gateway before him, and types what he reads."""

    def __init__(self, address: str, directory: Path, config: str) -> None:
        self.address = address
        self.directory = directory
        self.config = config
        # The command `gateway` of this tree, wherever another one is installed.
        program = directory / "bin" / "gateway"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gateway "$@"\n')
        program.chmod(0o755)
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        self.environ = inherited | {
            "HOME": str(directory.parent),
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "utf-8",
            "NO_COLOR": "1",
            "GATEWAY_HEALTH_URL": address,
            "TIKTOKEN_CACHE_DIR": str(write_tiktoken_cache(directory)),
        }

    def run(self, command: list[str], typed: str, beside: Path | None = None) -> tuple[int, str]:
        """Return the exit code and what was printed; `typed` comes in at the standard input.

        It runs in a directory of its own, unless `beside` others, which has the gateway's config.
        """
        where = beside or Path(tempfile.mkdtemp(dir=self.directory))
        (where / "gateway.toml").write_text(self.config)
        ran = subprocess.run(
            command,
            input=AT.sub(self.address, typed),
            cwd=where,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=90,
            check=False,
        )
        return ran.returncode, ran.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is missing (extra [local])")
    home = tmp_path_factory.mktemp("home")
    (home / "work").mkdir()
    weights = write_chat(home / "tiny.gguf", template=HERMES, context=4096, ends=-20.0)
    fake = FakeOpenAI(noise=1e-4)
    with serve(fake):
        toml = LOCAL + MODELS.format(base_url=fake.base_url, weights=weights)
        with gateway_process(toml, HOME=str(home)) as process:
            reader = Reader(process.address, home / "work", toml)
            # The tenant of the pages: something is kept for it, to be forgotten.
            kept = "gateway embed --config gateway.toml --tenant search --model minilm"
            code, printed = reader.run(shlex.split(kept), "a text")
            assert code == 0, printed
            yield reader


def pages_with(language: str) -> list[Page]:
    """Return the pages of the manual that have such blocks."""
    return [one for one in manual() if any(b.language == language for b in one.blocks)]


@pytest.mark.parametrize("one", pages_with("python"), ids=lambda one: one.name)
def test_the_programs_of_a_page_run(one: Page, reader: Reader) -> None:
    """One after the other, as one program; each prints what the page says that it prints."""
    parts = [block for block in one.blocks if block.language == "python"]
    program = "".join(f"{block.text}\nprint({BETWEEN!r})\n" for block in parts)
    code, printed = reader.run([sys.executable, "-W", "error::SyntaxWarning", "-"], program)
    assert code == 0, printed
    check(parts, printed.split(BETWEEN + "\n"))


@pytest.mark.parametrize("block", blocks("js"), ids=str)
def test_the_programs_for_node_run(block: Block, reader: Reader, tmp_path: Path) -> None:
    """Each of them, as a module beside OpenAI's SDK."""
    node = shutil.which("node") or pytest.skip("Node.js is not installed")
    if not (NODE / "openai").is_dir():
        pytest.skip("OpenAI's SDK for Node is not installed: npm ci --prefix tests/node")
    (tmp_path / "node_modules").symlink_to(NODE)
    (tmp_path / "program.mjs").write_text(AT.sub(reader.address, block.text))
    code, printed = reader.run([node, "program.mjs"], "", tmp_path)
    assert code == 0, printed
    check([block], [printed])


def check(parts: list[Block], printed: list[str]) -> None:
    """Assert that each block printed what the page says, if it says it."""
    for block, said in zip(parts, printed, strict=False):
        if block.printed is not None:
            assert programs.unlike(block.printed, said) == [], f"{block}\n{said}"


@pytest.mark.parametrize("block", programs.of_kind("run", COMMANDS), ids=str)
def test_the_commands_run(block: Block, reader: Reader) -> None:
    """Each block in a shell of its own; it fails only where the page says that it does."""
    for command in ("bash", "curl"):
        if shutil.which(command) is None:
            pytest.skip(f"no `{command}` command (Debian, Ubuntu: apt-get install {command})")
    code, printed = reader.run(["bash", "-eu", "-o", "pipefail"], block.text)
    fails = "error:" in (block.printed or "")
    assert (code == 0) is not fails, printed
    check([block], [printed])


def served() -> list[tuple[Block, str]]:
    """Return the commands that start a gateway, with their blocks."""
    chosen = programs.of_kind("serve", COMMANDS)
    return [(block, command) for block in chosen for command in programs.commands(block)]


@pytest.mark.parametrize(("block", "command"), served(), ids=str)
def test_the_gateway_starts(block: Block, command: str, reader: Reader, tmp_path: Path) -> None:
    """With the options of the page, on another port, and whatever its config wants set."""
    words = shlex.split(command.partition("  #")[0], comments=True)
    options = words[words.index("serve") + 1 :] if "serve" in words else words[1:]
    for i, word in enumerate(options):
        if word.endswith(".toml") and not (ROOT / word).exists():
            options[i] = str(tmp_path / "gateway.toml")
            (tmp_path / "gateway.toml").write_text(reader.config)
    named = [ROOT / word for word in options if word.endswith(".toml")]
    values = dict.fromkeys(variables(named), "made-up-value-of-some-length")
    with gateway_process(None, *options, **values, HOME=str(tmp_path)) as process:
        assert process.address


def variables(configs: list[Path]) -> list[str]:
    """Return the environment variables that configs name, but for HOME."""
    names = [name for path in configs for name in re.findall(r"\$\{env:(\w+)\}", path.read_text())]
    return [name for name in names if name != "HOME"]


ELSEWHERE = [
    block
    for one in everything()
    if one not in manual()
    for block in one.blocks
    if block.language == "sh"
]


@pytest.mark.parametrize("block", programs.of_kind("not run", COMMANDS) + ELSEWHERE, ids=str)
def test_what_is_not_run_names_what_is_there(block: Block) -> None:
    """The files of the repository that such commands work with, and those of other pages."""
    assert programs.missing_files(block) == []
