"""The shell around the project: scripts, the image's recipe, pinned versions.

The set-up runs for real, with pip and a real environment, on a stand-in project that needs
nothing from an index. What the scripts install in earnest, CI shows by running them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
SHELL_FILES = [*sorted(p for p in (ROOT / "scripts").iterdir() if not p.suffix), ROOT / ".ci/run"]

# A build backend with nothing to download: it packs one module, and says in it what it was given.
BACKEND = """
import os, zipfile
NAME, METADATA, ENTRY_POINTS, CODE = {name!r}, {metadata!r}, {entry_points!r}, {code!r}
WHEEL = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"

def build_wheel(directory, config_settings=None, metadata_directory=None):
    if os.environ.get("BREAK_THE_BUILD") == NAME:
        raise SystemExit("stand-in: no such header")
    with zipfile.ZipFile(f"{{directory}}/{{NAME}}-1.0-py3-none-any.whl", "w") as wheel:
        info = f"{{NAME}}-1.0.dist-info"
        flags = repr(os.environ.get("CMAKE_ARGS"))
        wheel.writestr(f"{{NAME}}_stand_in.py", f"FLAGS = {{flags}}\\n" + CODE)
        wheel.writestr(f"{{info}}/METADATA", METADATA)
        wheel.writestr(f"{{info}}/WHEEL", WHEEL)
        wheel.writestr(f"{{info}}/entry_points.txt", ENTRY_POINTS)
        wheel.writestr(f"{{info}}/RECORD", "")
    return f"{{NAME}}-1.0-py3-none-any.whl"

build_editable = build_wheel
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "{name}"
version = "1.0"
"""
# Says who it is, then ends with a code that a shell would not make up.
GATEWAY = """
import json, os, sys
def main():
    print(json.dumps({"pid": os.getpid(), "arguments": sys.argv[1:], "directory": os.getcwd()}))
    return 7
"""


def write_project(folder: Path, name: str, extras: dict[str, str], code: str = "") -> None:
    """A project pip can build offline; `extras` maps each extra to its one requirement or ''."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    for extra, needs in extras.items():
        metadata += f"Provides-Extra: {extra}\n"
        metadata += f'Requires-Dist: {needs}; extra == "{extra}"\n' if needs else ""
    entry_points = f"[console_scripts]\ngateway = {name}_stand_in:main\n" if code else ""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(name=name))
    (folder / "backend.py").write_text(
        BACKEND.format(name=name, metadata=metadata, entry_points=entry_points, code=code)
    )


class Clone:
    """A fresh clone of the stand-in project, with our scripts in it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        self.folder = folder
        others = ("fast", "tokenizer", "redis", "seal", "dev")
        extras = {"local": "llama-cpp-python", **dict.fromkeys(others, "")}
        write_project(self.root, "stand_in_gateway", extras, GATEWAY)
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        (self.root / "constraints.txt").write_text("llama-cpp-python==1.0\n")
        write_project(folder / "llama_cpp_python-1.0", "llama_cpp_python", {})
        (folder / "llama_cpp_python-1.0/PKG-INFO").write_text(
            "Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 1.0\n"
        )
        (folder / "index").mkdir()
        with tarfile.open(folder / "index/llama_cpp_python-1.0.tar.gz", "w:gz") as sdist:
            sdist.add(folder / "llama_cpp_python-1.0", "llama_cpp_python-1.0")

    def environment(self, **more: str) -> dict[str, str]:
        """A machine with a compiler that is always content, and no index but our folder."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "PYTHON": sys.executable,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.folder / "index"),
            "PIP_CONFIG_FILE": os.devnull,
            "CC": "true",
            "CXX": "true",
            **more,
        }

    def run(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "scripts" / script, *arguments],
            env=self.environment(**env),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def llama_flags(self) -> str:
        """The CMake flags that the installed stand-in for llama.cpp was built with."""
        asked = "import llama_cpp_python_stand_in as it; print(it.FLAGS)"
        command = [self.root / ".venv/bin/python", "-c", asked]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = Clone(tmp_path_factory.mktemp("clone"))
    first = clone.run("setup", "fast", "dev")
    assert (first.returncode, first.stdout) == (0, ""), first.stderr
    assert "Making" in first.stderr
    return clone


def test_a_second_setup_has_nothing_to_do(clone: Clone) -> None:
    """An environment that is up to date is left alone, in silence, whichever part is asked for."""
    for extras in (["fast", "dev"], ["dev"]):
        again = clone.run("setup", *extras)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_changed_constraints_are_installed(clone: Clone) -> None:
    """A new pin is noticed once, and the environment itself is kept."""
    with (clone.root / "constraints.txt").open("a") as constraints:
        constraints.write("something-else==2.0\n")
    assert clone.run("setup", "dev").stderr == "Installing Python packages\n"
    assert clone.run("setup", "dev").stderr == ""


def test_two_setups_at_once_install_once(clone: Clone) -> None:
    """The second waits for the first, then finds its work done."""
    with (clone.root / "constraints.txt").open("a") as constraints:
        constraints.write("one-thing-more==3.0\n")
    with ThreadPoolExecutor(2) as shells:
        both = [shells.submit(clone.run, "setup", "dev") for _ in range(2)]
    results = [each.result() for each in both]
    assert [each.returncode for each in results] == [0, 0]
    assert "".join(each.stderr for each in results).count("Installing Python packages") == 1


def test_serve_becomes_the_gateway(clone: Clone) -> None:
    """Through a link and from elsewhere, its process is the gateway's, and so are its arguments."""
    link = clone.folder / "start-it"
    link.symlink_to("a clone/scripts/serve")
    process = subprocess.Popen(
        [link, "--config", "my gateway.toml"],
        env=clone.environment(),
        cwd=clone.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, _ = process.communicate()
    assert {
        "pid": process.pid,
        "arguments": ["serve", "--config", "my gateway.toml"],
        "directory": str(clone.folder),
    } == json.loads(output)
    assert process.returncode == 7


def test_llama_is_built_with_our_flags_and_theirs(clone: Clone) -> None:
    """Our file says what is left out of llama.cpp; flags given once are kept until cleared."""
    ours = f"-DCMAKE_PROJECT_llama_cpp_INCLUDE='{clone.root}/scripts/llama-build.cmake'"
    given = clone.run("setup", "local", CMAKE_ARGS="-DGGML_CUDA=ON")
    assert "Building llama.cpp for this machine" in given.stderr
    assert clone.llama_flags() == f"{ours} -DGGML_CUDA=ON"
    assert clone.run("setup", "local").stderr == ""
    clone.run("setup", "local", CMAKE_ARGS="")
    assert clone.llama_flags().strip() == ours


def test_a_built_llama_is_not_built_twice(clone: Clone) -> None:
    """Flags used before find their build again, also where no compiler is."""
    clone.run("setup", "local", CMAKE_ARGS="-DGGML_CUDA=ON")
    clone.run("setup", "local", CMAKE_ARGS="")
    again = clone.run("setup", "local", CMAKE_ARGS="-DGGML_CUDA=ON", CXX="/no/compiler")
    assert (again.returncode, again.stderr) == (0, "Installing Python packages\n")
    assert clone.llama_flags().endswith("-DGGML_CUDA=ON")


def test_without_a_compiler_serve_goes_on_with_upstreams(clone: Clone) -> None:
    """What is missing is named, and the gateway starts all the same."""
    served = clone.run("serve", CXX="/no/compiler", CMAKE_ARGS="-DWITHOUT=1")
    assert served.returncode == 7
    assert json.loads(served.stdout)["arguments"] == ["serve"]
    assert "llama.cpp needs a C and a C++ compiler (true, /no/compiler)" in served.stderr
    assert "only upstreams are served" in served.stderr


def test_a_failed_build_shows_the_end_of_its_log(clone: Clone) -> None:
    """The reason is on the screen, the rest in a file, and the next call tries again."""
    env = {"CMAKE_ARGS": "-DBROKEN=1", "BREAK_THE_BUILD": "llama_cpp_python"}
    failed = clone.run("setup", "local", **env)
    assert failed.returncode == 3
    assert "stand-in: no such header" in failed.stderr
    assert "stand-in: no such header" in (clone.root / ".venv/llama-build.log").read_text()
    assert clone.run("setup", "local", CMAKE_ARGS="-DBROKEN=1").returncode == 0


def test_in_ci_a_missing_engine_is_fatal(clone: Clone) -> None:
    """CI never goes green by leaving the engine's tests out."""
    tested = clone.run("test", CI="true", CXX="/no/compiler", CMAKE_ARGS="-DFATAL=1")
    assert tested.returncode == 1
    assert "Going on" not in tested.stderr


def test_an_environment_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """A .venv we did not make is not ours to change."""
    clone = Clone(tmp_path)
    (clone.root / ".venv").mkdir()
    (clone.root / ".venv/pyvenv.cfg").write_text("home = somewhere\n")
    refused = clone.run("setup", "dev")
    assert refused.returncode == 1
    assert "is not one of ours" in refused.stderr
    assert [p.name for p in (clone.root / ".venv").iterdir()] == ["pyvenv.cfg"]


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    """The message says what is needed and how to name another interpreter."""
    refused = Clone(tmp_path).run("setup", "dev", PYTHON="/no/python3")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Python 3.11 or newer is needed")
    assert "/no/python3" in refused.stderr


@pytest.mark.parametrize("path", SHELL_FILES, ids=lambda path: path.name)
def test_shell_files_parse_and_stop_at_errors(path: Path) -> None:
    """Each is executable, is valid for the shell it names, and does not run on after a failure."""
    shell = path.read_text().splitlines()[0].split("/")[-1].removeprefix("env ")
    parsed = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=False)
    assert (parsed.returncode, parsed.stderr) == (0, "")
    assert os.access(path, os.X_OK)
    assert re.search(r"^set -eu", path.read_text(), re.MULTILINE)


def test_every_dependency_is_pinned() -> None:
    """constraints.txt holds names and versions only, and one for each requirement by name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [need for extra in project["optional-dependencies"].values() for need in extra]
    needs = [Requirement(text) for text in project["dependencies"] + extras]
    assert [str(need) for need in needs if pins.get(need.name, "") not in need.specifier] == []
    assert [
        pin for pin in pins.items() if not re.fullmatch(r"[\w.-]+ [\w.!]+", " ".join(pin))
    ] == []


def test_node_packages_are_pinned_without_an_address() -> None:
    """The lock file names versions and hashes; where they come from is the machine's business."""
    lock = json.loads((ROOT / "tests/node/package-lock.json").read_text())
    packages = [package for path, package in lock["packages"].items() if path]
    assert packages
    assert [package for package in packages if "resolved" in package] == []
    assert [package for package in packages if "integrity" not in package] == []
