"""Which files are looked at, and when they count as changed."""

from pathlib import Path

import certifi
import pytest

from gateway.config import load
from gateway.running.watching import look

TOML = """
[server]
tls_cert = "cert.pem"
tls_key = "key.pem"
[upstreams.o]
kind = "openai"
base_url = "https://o/v1"
api_key = "${file:secrets/key}"
ca_file = "ca.pem"
[models.m]
upstreams = ["o"]
"""
SIMPLE = """
[upstreams.o]
kind = "openai"
base_url = "http://o/v1"
[models.m]
upstreams = ["o"]
"""
NAMES = {"gateway.toml", "cert.pem", "key.pem", "secrets/key", "ca.pem"}


@pytest.fixture
def config(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("some-content")
    (tmp_path / "ca.pem").write_text(Path(certifi.where()).read_text())
    (tmp_path / "gateway.toml").write_text(TOML)
    return load(tmp_path / "gateway.toml", {})


def test_all_files_of_a_config_are_looked_at(config, tmp_path):
    """The file itself, those that references name, and those that are read later."""
    assert {str(path.relative_to(tmp_path)) for path in look(config)} == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_any_change_is_seen(config, tmp_path, name):
    """Of the content, and of whether there is one."""
    before = look(config)
    assert look(config) == before
    (tmp_path / name).write_text("other-content")
    changed = look(config)
    assert changed[tmp_path / name] != before[tmp_path / name]
    (tmp_path / name).unlink()
    assert look(config)[tmp_path / name] is None


def test_a_file_that_is_named_now_is_looked_at_before_it_is_there(config, tmp_path):
    """Even where the text is no TOML; so that it is read when the file has come."""
    (tmp_path / "gateway.toml").write_text('api_key = "${file:new}\n[[[')
    seen = look(config)
    assert seen[tmp_path / "new"] is None
    (tmp_path / "new").write_text("there")
    assert look(config) != seen


def test_the_end_of_a_long_file_counts(config, tmp_path):
    """Thousands of keys are a megabyte, and what comes behind them is looked at too."""
    path = tmp_path / "gateway.toml"
    path.write_text("#" * 2**21 + "\n" + TOML)
    before = look(config)
    path.write_text("#" * 2**21 + "\n" + TOML.replace("https://o/v1", "https://p/v1"))
    assert look(config) != before


def test_a_link_that_is_swapped_is_a_change(tmp_path):
    """As Kubernetes does with the directory of a ConfigMap: no file's own name changes."""
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "gateway.toml").write_text(f"# {number}\n{SIMPLE}")
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "gateway.toml").symlink_to("..data/gateway.toml")
    config = load(tmp_path / "gateway.toml", {})
    before = look(config)
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").replace(tmp_path / "..data")
    assert look(config) != before
