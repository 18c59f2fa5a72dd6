"""Two configs, and gateways for them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.cache.facts import ScopeFact
from tests.cli.commands import gateway, write_config
from tests.cli.stored import SCOPE, at, entries, fill
from tests.running import Running
from tests.upstream import FakeOpenAI

OpenGateway = Callable[..., Running]


@pytest.fixture(autouse=True)
def unlike(fake_openai: FakeOpenAI) -> None:
    """No two draws are alike, so that a vector says when it was made."""
    fake_openai.noise = 0.1


@pytest.fixture
def config(tmp_path: Path, fake_openai: FakeOpenAI) -> Path:
    """The config of a gateway with one SQLite store."""
    return write_config(tmp_path / "a", fake_openai.base_url, at(tmp_path / "a" / "cache.db"))


@pytest.fixture
def other(tmp_path: Path, fake_openai: FakeOpenAI) -> Path:
    """The config of another gateway, with the same secret and a store of its own."""
    return write_config(tmp_path / "b", fake_openai.base_url, at(tmp_path / "b" / "cache.db"))


@pytest.fixture
def gateway_for(gateway: OpenGateway) -> Callable[[Path], Running]:
    """Return a function that starts a gateway from the path of its config."""
    return lambda path: gateway(path.read_text())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An export of 200 entries of one scope, and 5 of another."""
    place = tmp_path_factory.mktemp("sound")
    config = write_config(place, "http://127.0.0.1:9/v1", at(place / "cache.db"))
    fill(config, SCOPE, ScopeFact("t", "m", generation=3, width=4), entries(200))
    fill(config, "f" * 24, ScopeFact("u", "o", width=3), entries(5, 3))
    gateway("cache", "export", place / "x", "-c", config)
    return (place / "x").read_bytes()


@pytest.fixture
def exported(sound: bytes, tmp_path: Path) -> Path:
    """A copy of that."""
    file = tmp_path / "x.safetensors"
    file.write_bytes(sound)
    return file
