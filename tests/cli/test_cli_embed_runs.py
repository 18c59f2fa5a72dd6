"""`gateway embed` by a gateway of its own: stopped, gone on with, piped, watched."""

import json
import os
import pty
import re
import signal
import subprocess

import httpx2
import psutil
import pytest

from tests.cli.commands import gateway, started, write_config
from tests.cli.lines import TEXTS, rows, written
from tests.upstream import Exchange
from tests.upstream_behaviours import Hang, slow, status


def test_without_a_server_the_gateway_runs_inside(config, fake_openai, tmp_path):
    """Its store is the config's: what was done once is there for every gateway, and offline."""
    fake_openai.key = "sk-upstream"
    toml = config.read_text().replace(
        'kind = "openai"', 'kind = "openai"\napi_key = "${env:UPSTREAM_KEY}"'
    )
    config.write_text(f'{toml}\n[[keys]]\nname = "k"\nsecret = "a-client-key"\nadmin = true')
    file = written(tmp_path, TEXTS)
    words = ["embed", "-c", config, "-m", "m", "-i", file]
    first = gateway(*words, "-o", tmp_path / "1", UPSTREAM_KEY="sk-upstream").stderr
    assert first.startswith("50 texts, 32 wide, ")
    assert "0 from the cache" in first
    assert len(fake_openai.texts) == 50
    again = gateway(*words, "-o", tmp_path / "2", "--offline").stderr
    assert "50 from the cache" in again
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert len(fake_openai.texts) == 50
    more = written(tmp_path, [*TEXTS, "a new text"])
    words = ["embed", "-c", config, "-m", "m", "-i", more, "-o", tmp_path / "3", "--offline"]
    assert "line 51: is not in the cache" in gateway(*words, code=1).stderr
    assert not (tmp_path / "3").exists()


def test_a_start_that_fails_says_why(tmp_path, fake_openai):
    """As `serve` does."""
    place = tmp_path / "a"
    config = write_config(place, fake_openai.base_url, f"sqlite://{place}/cache.db", secret=None)
    (place / "cache.db.key").write_text("no key")
    words = ["embed", "-c", config, "-m", "m", "-i", written(tmp_path, TEXTS)]
    assert "does not hold the store's secret" in gateway(*words, code=1).stderr


def test_an_interrupted_run_goes_on_where_it_was(config, fake_openai, tmp_path):
    """Ctrl-C: no output, and what to do; then only what was not answered is asked for."""
    hang = Hang()
    file = written(tmp_path, TEXTS)
    out = tmp_path / "out" / "vectors.jsonl"
    out.parent.mkdir()
    words = ["embed", "-c", config, "-m", "m", "-i", file, "-o", out, "--batch", "10"]
    fake_openai.script(*[as_ever] * 3, hang)
    process = started(*words, "--concurrency", "1")
    try:
        hang.reached.result(30)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        hang.release()
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert said.decode() == "Run the same command again: 30 of 50 are in the cache.\n"
    assert list(out.parent.iterdir()) == []
    asked = len(fake_openai.texts)
    assert "30 from the cache" in gateway(*words).stderr
    assert fake_openai.texts[asked:] == TEXTS[30:]
    assert [row["index"] for row in rows(out)] == list(range(50))


async def as_ever(_: Exchange) -> None:
    """Answer as ever."""


def test_a_failing_upstream_keeps_what_was_done(config, fake_openai, tmp_path):
    """An error says what failed, and that the rest need not be asked for again."""
    file = written(tmp_path, TEXTS)
    fake_openai.script(as_ever, status(401))
    words = ["embed", "-c", config, "-m", "m", "-i", file, "-o", tmp_path / "out"]
    words += ["--batch", "25", "--concurrency", "1"]
    said = gateway(*words, code=1).stderr
    assert "Run the same command again: 25 of 50 are in the cache." in said
    gateway(*words)
    assert fake_openai.texts[50:] == TEXTS[25:]


def test_a_reader_who_has_seen_enough_ends_it(config, tmp_path):
    """`| head -1` is no error to tell of."""
    texts = [f"{'long ' * 20}{number}" for number in range(2000)]
    process = started("embed", "-c", config, "-m", "m", "-i", written(tmp_path, texts))
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as lines, process.stderr as errors:
        assert json.loads(lines.readline())["index"] == 0
        lines.close()
        assert process.wait(30) == 1
        said = errors.read().decode()
    assert "Traceback" not in said
    assert "error" not in said


def test_a_pipe_that_brings_nothing_can_be_interrupted(config):
    """Neither a reader nor a writer that hangs keeps the command from ending."""
    process = started("embed", "-c", config, "-m", "m", "--batch", "1", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"".join(b"text %d\n" % number for number in range(8)))
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["index"] == 0
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert b"the same command with the same input goes on" in said


def test_a_terminal_has_a_bar(config, gateway_for, tmp_path, fake_openai):
    """With counts, rate and time left; it is gone in the end."""
    running = gateway_for(config)
    fake_openai.script(slow(0.3))
    file = written(tmp_path, TEXTS)
    words = ["embed", "--url", running.base_url, "-m", "m", "-i", file, "-o", tmp_path / "out"]
    ours, theirs = pty.openpty()
    process = started(*words, "--batch", "20", "--concurrency", "1", stderr=theirs)
    os.close(theirs)
    try:
        shown = read_all(ours)
        process.communicate(timeout=30)
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    assert process.returncode == 0
    drawn, _, summary = shown.rpartition("\r\x1b[K")
    assert drawn.startswith("\r[########------------] 20 of 50 texts, ")
    assert "0% from the cache" in drawn
    assert summary.startswith("50 texts, 32 wide, ")


def read_all(terminal: int) -> str:
    """Return what is written to a terminal until nobody has it open."""
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # how Linux says that it has ended
            return shown.decode()
        if not piece:
            return shown.decode()
        shown += piece


def test_the_gateway_inside_works_for_nobody_else(config, fake_openai, tmp_path):
    """While it runs, others on the machine can reach it, and it asks its upstream nothing."""
    hang = Hang()
    fake_openai.script(hang)
    process = started("embed", "-c", config, "-m", "m", "-i", written(tmp_path, TEXTS))
    try:
        hang.reached.result(30)
        (port,) = {
            listening.laddr.port
            for listening in psutil.Process(process.pid).net_connections("tcp")
            if listening.status == psutil.CONN_LISTEN
        }
        for headers in ({}, {"authorization": "Bearer any"}):
            body = {"model": "m", "input": "mine"}
            address = f"http://127.0.0.1:{port}/v1/embeddings"
            answer = httpx2.post(address, json=body, headers=headers, trust_env=False)
            assert answer.status_code == 401
    finally:
        hang.release()
        out, said = process.communicate(timeout=30)
    assert (process.returncode, len(out.splitlines())) == (0, 50), said
    assert "mine" not in fake_openai.texts


def test_what_was_killed_leaves_nothing_for_ever(config, fake_openai, tmp_path):
    """The next run for the same output removes its leftovers, and those of nobody who runs."""
    out = tmp_path / "out" / "vectors.safetensors"
    out.parent.mkdir()
    strangers = [
        ".vectors.safetensors.part",
        ".vectors.safetensors.0123456.part",
        ".vectors.safetensors.01234567.part.x",
        ".other.safetensors.01234567.part",
    ]
    for name in strangers:
        (out.parent / name).touch()
    words = ["embed", "-c", config, "-m", "m", "-i", written(tmp_path, TEXTS), "-o", out]
    left = []
    for ending in (signal.SIGKILL, signal.SIGTERM):
        hang = Hang()
        fake_openai.script(hang)
        process = started(*words)
        try:
            hang.reached.result(30)
            (mine,) = {path.name for path in out.parent.iterdir()} - {*strangers, *left}
            left.append(mine)
            if ending == signal.SIGTERM:
                gateway(*words)
                there = {path.name for path in out.parent.iterdir()}
                assert there == {*strangers, mine, out.name}
            process.send_signal(ending)
            process.communicate(timeout=30)
        finally:
            hang.release()
            process.kill()
            process.wait()
    assert {path.name for path in out.parent.iterdir()} == {*strangers, out.name}


@pytest.mark.parametrize("batch", [4, 100])
def test_the_end_says_where_all_vectors_came_from(config, tmp_path, batch):
    """The numbers add up: texts that stand there twice are neither kept nor made."""
    words = ["embed", "-c", config, "-m", "m", "--batch", batch, "-o", tmp_path / "out", "-i"]
    first = gateway(*words, written(tmp_path, TEXTS[:5])).stderr
    assert "5 texts, 32 wide, " in first
    assert ", 0 from the cache, 5 made -> " in first
    texts = [*TEXTS[:5], "new", "new", *TEXTS[5:9], "new"]
    said = gateway(*words, written(tmp_path, texts)).stderr
    kept, twice, made = map(int, re.findall(r"(\d+) (?:from the cache|twice|made)", said))
    assert (kept + twice, made) == (7, 5)
    if batch == 100:
        assert (kept, twice) == (5, 2)
