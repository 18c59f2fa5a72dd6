"""What holds for every command: what is typed, what is printed, what a start may lack."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.cli.commands import gateway, started, write_config
from tests.cli.lines import TEXTS, written
from tests.cli.stored import at
from tests.permissions import permissions_hold
from tests.processes import gateway_process

NOBODY = "http://127.0.0.1:9/v1"

PRINTING = [
    ["--help"],
    ["--version"],
    ["check"],
    ["check", "--show"],
    ["check", "--schema"],
    ["models"],
    ["cache", "stats"],
    ["cache", "stats", "--json"],
    ["cache", "purge", "--help"],
]


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_an_output_that_is_full_is_told_in_a_line(config, words, monkeypatch):
    """With exit code 1, and no traceback, also of Python's own that ends."""
    monkeypatch.setenv("GATEWAY_CONFIG", str(config))
    with Path("/dev/full").open("wb") as full:
        process = started(*words, stdout=full)
        _, said = process.communicate(timeout=30)
    lines = [line for line in said.decode().splitlines() if not line.startswith("warning: ")]
    assert (lines, process.returncode) == (["error: No space left on device"], 1)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_end_nothing(config, closed):
    """What is opened next has not their numbers: sockets of theirs would end the process."""
    asked = f'exec "$0" -m gateway embed -c "$1" -m m -i "$2" -o "$3" {closed}'
    out = config.parent / "out.jsonl"
    config.with_name("in.txt").write_text("a\nb\n")
    ran = subprocess.run(
        ["sh", "-c", asked, sys.executable, config, config.with_name("in.txt"), out],
        check=False,
        capture_output=True,
        timeout=60,
        text=True,
    )
    assert (ran.returncode, ran.stderr.count("Assertion")) == (0, 0), ran.stderr
    assert out.read_text().count("\n") == 2


NO_TEXT = os.fsdecode(b"\xff")
TYPED = [
    ["embed", "-m"],
    ["embed", "-m", "m", "--tenant"],
    ["embed", "-m", "m", "--field"],
    ["embed", "-m", "m", "--url"],
    ["cache", "purge", "--model"],
    ["cache", "purge", "--older-than"],
    ["cache", "export", "x", "--tenant"],
    ["serve", "--host"],
]


@pytest.mark.parametrize("words", TYPED, ids=" ".join)
def test_bytes_that_are_no_text_are_refused(config, words):
    """Nothing could be asked, stored or printed with them; a file's name may have them."""
    said = gateway(*words, NO_TEXT, GATEWAY_CONFIG=str(config), code=2).stderr
    assert f"Invalid value for '{words[-1]}'" in said.replace("'--model' / '-m'", "'-m'")
    assert "has bytes in it that are no text" in said


def test_a_file_may_have_any_name(config, fake_openai, tmp_path):
    """The bytes of its name are the system's affair."""
    file = tmp_path / f"{NO_TEXT}.txt"
    written(tmp_path, TEXTS).rename(file)
    out = tmp_path / f"{NO_TEXT}.jsonl"
    gateway("embed", "--url", fake_openai.base_url, "-m", "m", "-i", file, "-o", out)
    assert out.exists()


OFFLINE = """
    [cache]
    store = "sqlite://{store}"
    secret = "sixteen-or-more-characters"
    [upstreams.openai]
    kind = "openai"
    base_url = "https://127.0.0.1:9/v1"
    api_key = "${{env:NOBODY_SETS_THIS}}"
    ca_file = "nobody-has-this.pem"
    [models.m]
    upstreams = ["openai"]
    offline = true
"""


def test_whose_models_are_all_offline_needs_no_key(tmp_path):
    """So that CI runs without one: `check`, `models` and `serve` say what is left out."""
    text = OFFLINE.format(store=tmp_path / "cache.db")
    config = tmp_path / "gateway.toml"
    config.write_text(text)
    left_out = "NOBODY_SETS_THIS is not set; left out, for nothing is asked"
    assert left_out in gateway("check", "-c", config).stderr
    assert "m  -> openai" in gateway("models", "-c", config).stdout
    with gateway_process(text) as served:
        body = {"model": "m", "input": "a"}
        refused = httpx2.post(f"{served.base_url}/embeddings", json=body, trust_env=False)
        assert any(left_out in line for line in served.lines)
    assert (refused.status_code, refused.json()["error"]["code"]) == (504, "not_cached")


HEAVY = {"asyncio", "httpx2", "numpy", "starlette", "structlog", "uvicorn", "uvloop"}
RUN = """
import json, sys
from gateway.cli import main
try:
    main(["check", "--config", sys.argv[1]])
except SystemExit as end:
    print(json.dumps([end.code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_check_reads_no_library_that_it_does_not_need(config):
    """It runs after every change of a config; the others' libraries take half a second to read."""
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(config)], check=True, capture_output=True, timeout=30
    )
    code, imported = json.loads(ran.stdout.splitlines()[-1])
    assert code == 0
    assert set(imported) & HEAVY == set()
    assert {"click", "msgspec"} <= set(imported)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A directory that may not be entered."""
    directory = tmp_path / "locked"
    directory.mkdir()
    directory.chmod(0)
    with permissions_hold():
        yield directory
    directory.chmod(0o700)


@pytest.mark.parametrize("secret", [None, "sixteen-or-more-characters"])
def test_a_store_that_cannot_be_looked_at_is_told(locked, tmp_path, secret):
    """In a line, by who comes to it; the config is right, and another user may look."""
    config = write_config(tmp_path / "c", NOBODY, at(locked / "cache.db"), secret=secret)
    assert "is right" in gateway("check", "-c", config).stdout
    for words in (["stats"], ["purge", "--all", "--yes"], ["export", tmp_path / "x"]):
        said = gateway("cache", *words, "-c", config, code=1).output
        assert "Permission denied" in said
        assert str(locked / "cache.db") in said


def test_a_secret_that_cannot_be_looked_at_stops_the_start(locked, tmp_path):
    """A gateway with another one would fill the store with what nobody finds."""
    config = write_config(tmp_path / "c", NOBODY, at(locked / "cache.db"), secret=None)
    said = gateway("serve", "-c", config, "--port", "0", code=1).stderr
    file = locked / "cache.db.key"
    assert said == f"error: cache.store: {file} cannot be read: Permission denied\n"
