"""The references of spaces among what stores hold: seen, moved and forgotten like the rest."""

from pathlib import Path

import pytest

from gateway.config import parse
from gateway.spaces.reference import TENANT, TEXTS
from tests.cli.commands import SECRET, gateway
from tests.cli.stored import stats, wait_for_facts
from tests.pair import probes, several, until
from tests.upstream import FakeOpenAI, serve

HERE = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def alike(unlike, fake_openai):
    """Here it is the other way round: upstreams of one space say the same."""
    fake_openai.noise = 0.0


@pytest.fixture
def stand_in():
    with serve(FakeOpenAI(width=32)) as served:
        yield served.app


@pytest.fixture
def written(tmp_path, fake_openai, stand_in):
    """Return a function that writes a config of both upstreams with a store; see `several`."""

    def write(name, *urls):
        file = tmp_path / f"{name}.toml"
        rest = f'[cache]\nstore = "sqlite:///{tmp_path}/{name}.db"\nsecret = "{SECRET}"'
        file.write_text(several(*(urls or (fake_openai.base_url, stand_in.base_url)), rest=rest))
        return file

    return write


def test_a_reference_is_shown_as_the_gateways_own(written, gateway_for):
    """Its tenant is nobody's; its model is the one that named the space."""
    config = written("a")
    running = gateway_for(config)
    until(running, a="ready", b="ready")
    wait_for_facts(running, config, 1)
    [scope] = stats(config)[0]["scopes"]
    assert (scope["tenant"], scope["model"]) == (TENANT, "m")
    assert (scope["entries"], scope["width"]) == (len(TEXTS), 32)


def test_a_purge_of_everything_has_the_reference_made_anew(written, gateway_for, fake_openai):
    """By the first upstream, and the others are compared with it again."""
    config = written("a")
    running = gateway_for(config)
    until(running, a="ready", b="ready")
    running.vectors("x")
    wait_for_facts(running, config, 2)
    done = gateway("cache", "purge", "--all", "--yes", "-c", config)
    assert done.stdout == "sqlite: 6 entries removed\n"
    running.vectors("x")
    until(running, a="ready", b="ready")
    assert probes(fake_openai) == 2


def test_a_purge_of_a_model_forgets_its_reference_and_one_of_a_tenant_does_not(
    written, gateway_for, fake_openai
):
    """Another model may stand behind the name; a tenant has nothing to do with that."""
    config = written("a")
    running = gateway_for(config)
    until(running, a="ready", b="ready")
    running.vectors("x")
    wait_for_facts(running, config, 2)
    done = gateway("cache", "purge", "--tenant", "default", "--yes", "-c", config)
    assert done.stdout == "sqlite: 1 entries removed\n"
    running.vectors("x")
    assert probes(fake_openai) == 1
    done = gateway("cache", "purge", "--model", "m", "--yes", "-c", config)
    assert done.stdout == "sqlite: 6 entries removed\n"
    running.vectors("x")
    assert probes(fake_openai) == 2


def test_an_export_takes_the_reference_along(written, gateway_for, stand_in, tmp_path):
    """Where the vectors go, others are compared with what made them, though that is away."""
    config, other = written("a"), written("b", HERE, stand_in.base_url)
    running = gateway_for(config)
    until(running, a="ready", b="ready")
    running.vectors("x")
    wait_for_facts(running, config, 2)
    gateway("cache", "export", tmp_path / "x", "-c", config)
    gateway("cache", "import", tmp_path / "x", "-c", other)
    moved = gateway_for(other)
    until(moved, a="unknown", b="ready")
    moved.vectors(["x", "y"])
    assert stand_in.texts[-1] == "y"


def test_a_reload_compares_nobody_again_who_is_the_same(written, gateway_for, stand_in):
    """What changed is compared; what another config knows of the others is taken over."""
    config = written("a")
    running = gateway_for(config)
    until(running, a="ready", b="ready")
    text = config.read_text()
    running.reload(parse(text, source=None, environ={}, base_dir=Path("/")))
    until(running, a="ready", b="ready")
    assert probes(stand_in) == 1
    changed = text.replace(stand_in.base_url, f'{stand_in.base_url}"\ntimeout = "59s')
    running.reload(parse(changed, source=None, environ={}, base_dir=Path("/")))
    until(running, a="ready", b="ready")
    assert probes(stand_in) == 2
