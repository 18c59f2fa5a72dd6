"""deploy/Dockerfile: sound to those who lint such files, and made of the clone alone."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "deploy" / "Dockerfile"
LINES = [
    line
    for line in RECIPE.read_text().replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
STEPS = [line.split(None, 1) for line in LINES]


def values(word: str) -> list[str]:
    """Return what stands behind each instruction of a kind."""
    return [rest for instruction, rest in STEPS if instruction == word]


def hadolint(recipe: str) -> list[str]:
    """Return what hadolint has to say, with ShellCheck's view of each RUN."""
    beside = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    linter = beside or shutil.which("hadolint") or pytest.skip("hadolint is missing (extra [dev])")
    ran = subprocess.run(
        [linter, "--no-color", "--format", "json", "-"],
        input=recipe,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return [f"{found['line']}: {found['code']}" for found in json.loads(ran.stdout)]


def test_nothing_is_found_by_hadolint():
    """Nor by ShellCheck, which it asks; one rule is set aside, where the file says why."""
    assert hadolint(RECIPE.read_text()) == []
    assert RECIPE.read_text().count("hadolint ignore=") == 1
    assert hadolint("FROM python:3.13-slim\nRUN cd /x && echo $Y\n") != []


def test_it_is_built_from_the_clone_alone():
    """No downloads but packages, no secrets; all that is copied reaches the builder."""
    copied = [
        source
        for rest in values("COPY")
        if not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    let_in = (ROOT / ".dockerignore").read_text().splitlines()
    assert [source for source in copied if f"!{source}" not in let_in] == []
    assert sorted(let_in[1:]) == sorted(
        [*{f"!{source}" for source in copied}, "*", "**/__pycache__"]
    )
    assert values("ADD") == []
    assert not re.search(r"curl|wget|https:|(ENV|ARG).*(KEY|SECRET|TOKEN)", RECIPE.read_text())


def test_it_runs_as_nobody_and_without_a_shell():
    """So that signals reach the gateway itself, which is process 1."""
    assert values("USER") == ["65532:65532"]
    assert values("ENTRYPOINT") == ['["gateway"]']
    assert values("CMD") == ['["serve", "--host", "0.0.0.0"]']
    assert values("STOPSIGNAL") == ["SIGTERM"]
    (made,) = [run for run in values("RUN") if run.startswith("install -d")]
    (volume,) = values("VOLUME")
    assert made.split() == ["install", "-d", "-o", "65532", "-g", "65532", "-m", "0700", volume]


def test_its_health_is_asked_by_a_command_that_there_is():
    """At the address that the gateway has without a config, in less time than docker gives it."""
    (check,) = values("HEALTHCHECK")
    command = json.loads(check[check.index("CMD") + 3 :])
    assert command == ["gateway", "health"]
    said = CliRunner().invoke(main, [*command[1:], "--help"], prog_name="gateway").output
    assert "http://127.0.0.1:8000" in said
    assert "--timeout=3s" in check


def test_its_variants_differ_by_the_models_they_run():
    """Both have every extra that is no development's; only one has llama.cpp and a compiler."""
    stages = re.split(r"^FROM ", "\n".join(LINES), flags=re.MULTILINE)[1:]
    named = {stage.splitlines()[0].split(" AS ")[1]: stage for stage in stages}
    assert list(named)[-2:] == ["slim", "local"]  # the last one is what is built unless told
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = set(project["optional-dependencies"]) - {"dev", "fuzz"}
    found = {
        name: set(installed[1].split(","))
        for name, stage in named.items()
        if (installed := re.search(r'"\.\[([a-z,]+)\]"', stage))
    }
    assert found == {"build-slim": wanted - {"local"}, "build-local": wanted}
    assert "COPY --from=build-slim /opt/gateway" in named["slim"]
    assert "COPY --from=build-local /opt/gateway" in named["local"]
    for name in ("build", "build-slim", "runtime", "slim"):
        assert not re.search(r"gcc|llama", named[name]), name
