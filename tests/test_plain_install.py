"""What a plain install brings, by the metadata of the packages: few that we name, few in all."""

import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
NAMED = 12
INSTALLED = 20

ENVIRONMENTS = [
    {"python_version": python, "python_full_version": f"{python}.0", **system}
    for python in ("3.11", "3.12", "3.13", "3.14")
    for system in (
        {"sys_platform": "linux", "platform_system": "Linux"},
        {"sys_platform": "darwin", "platform_system": "Darwin"},
    )
]


def shown(environment):
    return f"{environment['platform_system']} {environment['python_version']}"


def named():
    """The requirements of our own package, extras apart."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


def needs(package, extra, environment):
    """What a package that is installed here asks for; one that is not is taken for a leaf."""
    try:
        lines = requires(package) or []
    except PackageNotFoundError:
        return
    for wanted in map(Requirement, lines):
        if wanted.marker is None or wanted.marker.evaluate({**environment, "extra": extra}):
            yield wanted


def installed(wanted, environment):
    """The names of all that pip would install for these requirements."""
    seen = set()
    left = list(wanted)
    while left:
        each = left.pop()
        name = canonicalize_name(each.name)
        for extra in {"", *each.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                left += needs(name, extra, environment)
    return {name for name, _ in seen}


def test_a_plain_install_names_few_packages():
    """At most twelve stand in pyproject.toml, each once and without extras of its own."""
    names = [canonicalize_name(each.name) for each in named()]
    assert len(names) <= NAMED
    assert len(set(names)) == len(names)
    assert [each for each in named() if each.extras] == []


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=shown)
def test_a_plain_install_brings_few_packages(environment):
    """At most twenty with all that they need, on every Python and system that is supported."""
    brought = installed(named(), environment)
    assert {canonicalize_name(each.name) for each in named()} < brought
    assert len(brought) <= INSTALLED, sorted(brought)


def test_what_an_extra_needs_is_counted_with_it():
    """Known from a package that has some: uvicorn's extra brings what uvicorn alone does not."""
    plain = installed([Requirement("uvicorn")], ENVIRONMENTS[0])
    more = installed([Requirement("uvicorn[standard]")], ENVIRONMENTS[0])
    assert "h11" in plain
    assert more - plain >= {"httptools", "websockets"}
