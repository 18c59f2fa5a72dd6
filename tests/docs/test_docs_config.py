"""Every piece of a config that the manual shows is right, as it stands there."""

import tomllib
from pathlib import Path

import pytest

from gateway import config as gateway_config
from gateway.errors import ConfigError
from tests.docs.completing import completed, environ
from tests.docs.pages import Block, blocks

PIECES = blocks("toml")


@pytest.mark.parametrize("block", PIECES, ids=str)
def test_every_config_is_right(block: Block, tmp_path: Path) -> None:
    """The real reader takes it, and has nothing to warn of; what it leaves out is made up."""
    toml = completed(block.text, tmp_path)
    config = gateway_config.parse(toml, source=None, environ=environ(block.text), base_dir=tmp_path)
    assert config.warnings == ()
    assert set(tomllib.loads(block.text).get("models", {})) <= config.models.keys()


def test_a_wrong_config_would_be_found(tmp_path: Path) -> None:
    """An option that there is not is told, in a piece as in a whole file."""
    for wrong in ("[server]\nprot = 8000\n", '[models.m]\nupstream = ["o"]\n'):
        with pytest.raises(ConfigError):
            gateway_config.parse(
                completed(wrong, tmp_path), source=None, environ={}, base_dir=tmp_path
            )
