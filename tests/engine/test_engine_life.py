"""How the engine begins and ends: its socket, its parent, its crashes and whom they are laid to."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from gateway.engine.journal import Journal
from tests.engine.running_engine import (
    ROOT,
    EngineEndedError,
    RunningEngine,
    alive,
    in_background,
    until,
)

pytestmark = pytest.mark.engine

POISON = [1, *[270] * 4000]
OTHER = [1, *[271] * 4000]


def kill_while_decoding(engine, text):
    """Send `text`, and kill the engine when a context is at it."""
    with in_background(lambda: engine.vectors([text])):
        engine.wait_for(engine.at_work)
        engine.kill()


def test_socket_and_journal_are_private(start, models):
    """Nobody else on the machine may connect or read."""
    engine = start(models["encoder"])
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (engine.socket, engine.journal)]
    assert [0o600, 0o600] == modes


def test_the_parent_is_told_that_it_is_ready_at_any_level(start, models):
    """And nothing else, where people want to hear of errors only."""
    engine = start(models["encoder"], log_level="error")
    assert ["ready"] == [line["event"] for line in engine.log]


def test_sigterm_finishes_what_is_in_flight(start, models):
    """The answer still comes; the exit code is 0 and the socket is gone."""
    engine = start(models["slow"], contexts=1)
    with in_background(lambda: engine.ask([POISON])) as results:
        engine.wait_for(engine.at_work)
        engine.process.send_signal(signal.SIGINT)  # the parent's business: ignored
        engine.process.terminate()
    assert 0 == engine.ended()
    assert 1 == len(results[0]["data"])
    assert not engine.socket.exists()


def test_the_end_of_standard_input_ends_it_at_once(start, models):
    """A parent that is gone cannot use the answer."""
    engine = start(models["slow"], contexts=1)
    with in_background(lambda: engine.ask([POISON] * 20)):
        engine.wait_for(engine.at_work)
        engine.process.stdin.close()
        assert 0 == engine.ended()


def test_a_killed_parent_takes_the_engine_along(llama, models, tmp_path):
    """kill -9 of the parent, and the engine does not stay behind."""
    settings = RunningEngine(models["encoder"], tmp_path).settings
    script = """
import subprocess, sys, time
command = [sys.executable, "-m", "gateway.engine"]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
child.stdin.write(sys.argv[1].encode() + b"\\n")
child.stdin.flush()
while b"ready" not in child.stderr.readline():
    pass
print(child.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(settings)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        engine = int(parent.stdout.readline())
        assert alive(engine)
        parent.kill()
    until(lambda: not alive(engine))


def test_a_listening_socket_of_the_parent_is_taken_over(start, models, tmp_path):
    """Callers wait in its backlog while one engine follows the other."""
    path = tmp_path / "parents.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(str(path))
        listener.listen()
        caller.connect(str(path))
        caller.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        engine = start(models["encoder"], socket=None, fd=listener.fileno())
        assert caller.recv(12) == b"HTTP/1.1 200"
        facts = engine.events("ready")[0]
        assert (32, 128, "mean") == tuple(facts[name] for name in ("width", "context", "pooling"))
        engine.kill()
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(path))


def test_an_engine_that_nobody_uses_ends_itself(start, models):
    """After its idle time, with exit code 0; asking for its health is no use of it."""
    engine = start(models["encoder"], idle=0.5)
    assert 1 == len(engine.vectors(["dog"]))
    used = time.monotonic()
    engine.health()
    assert 0 == engine.ended()
    assert time.monotonic() - used >= 0.4


def test_a_stale_socket_is_replaced(start, models):
    """An engine that was killed leaves its socket; the next one takes the place."""
    engine = start(models["encoder"])
    engine.kill()
    assert engine.socket.exists()
    engine.start()
    assert 1 == len(engine.vectors(["dog"]))


def test_three_deaths_make_a_text_refused_and_only_that_text(start, models):
    """The fourth time it is a 500 that SDKs do not repeat; everything else is served."""
    engine = start(models["slow"], contexts=2)
    for _ in range(3):
        kill_while_decoding(engine, POISON)
        engine.start()
    response = engine.post({"input": ["hello", POISON]})
    error = response.json()["error"]
    assert (500, "text_crashes_engine", 1) == (response.status_code, error["code"], error["item"])
    assert "false" == response.headers["x-should-retry"]
    assert 2 == len(engine.vectors(["hello", OTHER]))
    assert 500 == engine.post({"input": [POISON]}).status_code


def test_a_success_between_deaths_clears_a_text(start, models):
    """Two deaths, a success, two deaths: it is still tried."""
    engine = start(models["slow"], contexts=1)
    for round_number in range(2):
        for _ in range(2):
            kill_while_decoding(engine, POISON)
            engine.start()
        assert 1 == len(engine.vectors([POISON])), round_number


def test_a_text_that_only_waited_is_not_blamed(start, models):
    """With one context, the text behind the culprit has died with nobody."""
    engine = start(models["slow"], contexts=1)
    for _ in range(3):
        with in_background(lambda: engine.vectors([POISON, OTHER])):
            engine.wait_for(engine.at_work)
            engine.kill()
        engine.start()
    assert 1 == len(engine.vectors([OTHER]))
    assert 500 == engine.post({"input": [POISON]}).status_code


def test_ending_in_good_order_accuses_nobody(start, models):
    """The parent's end in the middle of a decode is not the text's fault."""
    engine = start(models["slow"], contexts=1)
    for _ in range(3):
        with in_background(lambda: engine.ask([POISON])):
            engine.wait_for(engine.at_work)
            engine.process.stdin.close()
            engine.ended()
        engine.start()
    assert 1 == len(engine.vectors([POISON]))


def test_an_engine_starts_over_a_journal_of_rubbish(start, models, tmp_path):
    """A journal is a help, never a reason not to serve."""
    directory = tmp_path / "d"
    directory.mkdir()
    engine = RunningEngine(models["encoder"], directory)
    engine.journal.write_bytes(os.urandom(5000))
    with engine:
        assert 1 == len(engine.vectors(["dog"]))


def test_a_journal_that_cannot_be_written_is_refused(start, models, tmp_path):
    """At start, not at the first crash."""
    with pytest.raises(EngineEndedError, match=r"journal cannot be written: No such file") as ended:
        start(models["encoder"], journal=str(tmp_path / "none" / "journal"))
    assert 3 == ended.value.code


def test_what_may_surprise_is_said_at_start(start, models):
    """More contexts than cores, and a last token that is not a closing one."""
    engine = start(models["slow"], contexts=9)
    said = {line["event"] for line in engine.log if line["level"] == "warning"}
    assert {"contexts", "pooling"} <= said
    (sized,) = engine.events("sized")
    assert (9, 4096, 512) == (sized["contexts"], sized["limit"], sized["batch"])


def test_the_journal_costs_little(tmp_path):
    """Two writes a text: some microseconds, against milliseconds of work."""
    journal = Journal(tmp_path / "j", b"k", 2, time.time)
    digest = journal.digest(b"text", b"a")
    begun = time.process_time()
    for _ in range(1000):
        journal.enter(1, digest)
        journal.leave(1)
    assert (time.process_time() - begun) / 1000 < 50e-6


def test_no_text_reaches_the_log(start, models):
    """At level debug, with good texts and bad ones, only numbers are logged."""
    canary = "xylophonecanary"
    engine = start(models["encoder"], log_level="debug")
    engine.post({"input": [canary, f"{canary} " * 200]})
    engine.post({"input": [canary, canary * 400], "truncate": True})
    engine.client.post("/v1/embeddings", content=b'{"input": ["' + canary.encode())
    engine.client.get(f"/{canary}")
    engine.stop()
    assert engine.raw
    assert canary.encode() not in b"".join(engine.raw)
    assert canary.encode() not in engine.journal.read_bytes()
