"""What the manual's commands are: which a test runs, and which cannot be run in a test, and why."""

import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import Block
from tests.processes import ROOT

RUN = {"gateway", "curl", "printf", "cat", "export", "head", "grep", "wc"}
"""Programs that are run as they stand, against a real gateway."""

SERVE = ("gateway serve", "scripts/serve")
"""Commands that are started, and have begun well when they are ready."""

NOT_RUN = {
    "scripts/test": "it is what runs this test",
    "scripts/bench": "it takes many minutes; tests/test_benchmarks.py runs its parts",
    "docker": "there is no container engine where the tests run; tests/deploy checks its files",
    "kubectl": "there is no cluster; tests/deploy builds and checks the manifests",
    "systemctl": "there is no systemd; tests/deploy checks the unit",
    "systemd-analyze": "the same",
    "useradd": "it changes the machine",
    "install": "it changes the machine",
    "kill": "which process, says the operator; tests/test_reload_process.py sends signals",
    ".venv/bin/pip": "it changes the environment of the tests",
    ".venv/bin/python": "the examples have tests of their own: tests/test_examples.py",
    "promtool": "tests/deploy runs it on the rules",
    "openssl": "it makes a secret, another one each time",
    "sqlite3": "it is another project's command",
}
"""Programs that no test of the manual runs, and why; the files that they name must be there."""

OF_THE_REPOSITORY = ("deploy/", "config/", "scripts/", "examples/", "docs/")
_ASSIGNMENT = re.compile(r"^(\w+=\S*\s+)+(?=\S)")
_HERE = re.compile(r"<<-?\s*'?(\w+)'?")


def commands(block: Block) -> list[str]:
    """Return the commands of a block: one for each line that is not continued, or pipe in it."""
    return [part for line in _lines(block.text) for part in _parts(line)]


def _lines(text: str) -> Iterator[str]:
    lines = iter(text.replace("\\\n", " ").splitlines())
    for line in lines:
        if here := _HERE.search(line):
            for inner in lines:
                if inner.strip() == here[1]:
                    break
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


def _parts(line: str) -> Iterator[str]:
    without_quoted = re.sub(r"'[^']*'|\"[^\"]*\"", lambda quoted: "_" * len(quoted[0]), line)
    begin = 0
    for mark in [*re.finditer(r"\|\||&&|[|;]", without_quoted), None]:
        part = line[begin : mark.start() if mark else None].strip()
        begin = mark.end() if mark else begin
        yield _ASSIGNMENT.sub("", part)


def kinds(block: Block) -> set[str]:
    """Return what is done with the commands of a block: "run", "serve", "not run".

    A program that nobody has thought about is in it by its name. A block is of one kind.
    """
    return {_kind(command) for command in commands(block)}


def of_kind(kind: str, found: list[Block]) -> list[Block]:
    """Return those of the blocks that are of one kind."""
    return [block for block in found if kinds(block) == {kind}]


def _kind(command: str) -> str:
    program = command.split(maxsplit=1)[0]
    if command.startswith(SERVE):
        return "serve"
    if program in RUN:
        return "run"
    return "not run" if program in NOT_RUN else f"unknown: {program}"


def missing_files(block: Block) -> list[str]:
    """Return the files of the repository that a block's commands name and that are not there."""
    words = [word.partition("#")[0].strip("'\",;") for word in block.text.split()]
    named = [word for word in words if word.startswith(OF_THE_REPOSITORY)]
    return [word for word in named if not (ROOT / word).exists()]


def unlike(expected: str, printed: str) -> list[str]:
    """Return the lines of a page that a program did not print, in their order.

    "…" stands for anything; the last digits of a number, and how many blanks there are, may differ.
    """
    lines = [line for line in expected.splitlines() if line.strip(" …")]
    said = iter(printed.splitlines())
    return [line for line in lines if not any(_alike(line, other) for other in said)]


_NUMBER = r"[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?"


def _alike(line: str, other: str) -> bool:
    begin, *rest = re.split(f"({_NUMBER}|\\s+|…)", line.strip())
    pattern = re.escape(begin) + "".join(map(_pattern, rest))
    found = re.fullmatch(pattern, other.strip())
    if found is None:
        return False
    numbers = [_number(part) for part in rest if re.fullmatch(_NUMBER, part)]
    return numbers == pytest.approx([_number(group) for group in found.groups()], abs=0.005)


def _pattern(part: str) -> str:
    if part == "…":
        return ".*?"
    if part.isspace():
        return r"\s+"
    return f"({_NUMBER})" if re.fullmatch(_NUMBER, part) else re.escape(part)


def _number(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:  # a version
        return 0.0
