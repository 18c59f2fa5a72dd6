"""Reloads of the real command, by signal and by what happens to its files; one worker and two."""

import fcntl
import os
import pty
import shutil
import signal
import ssl
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.backends.sockets import make_authority
from tests.processes import ROOT, GatewayProcess, gateway_process
from tests.running import one_model
from tests.upstream import FakeOpenAI, serve

UNREAD = 60.0
"""Seconds after which what has to happen counts as never happening."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeOpenAI]:
    with serve(FakeOpenAI(width=32)) as served:
        yield served.app


def toml(upstream: FakeOpenAI, *, model: str = "m", server: str = "", more: str = "") -> str:
    """Return the config of one model of this name."""
    one = one_model(upstream.base_url, upstream=more, rest=f"[server]\n{server}\n")
    return one.replace("[models.m]", f"[models.{model}]")


def embed(served: GatewayProcess, model: str) -> int:
    """Ask over a connection of its own, and so any worker; return the status."""
    body = {"model": model, "input": "text"}
    with httpx2.Client(trust_env=False, timeout=30) as client:
        return client.post(f"{served.base_url}/embeddings", json=body).status_code


def told(served: GatewayProcess) -> dict[str, object]:
    """Return what its readiness says of its config."""
    return dict(httpx2.get(f"{served.address}/health/ready", trust_env=False).json()["config"])


def metrics(served: GatewayProcess) -> dict[str, float]:
    """Return its figures about configs, each with its labels' values."""
    page = httpx2.get(f"{served.address}/metrics", trust_env=False).text
    return {
        " ".join([sample.name.removeprefix("gateway_"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if "config" in sample.name or "draining" in sample.name
    }


def until(true: Callable[[], object]) -> None:
    """Return as soon as something is true."""
    give_up = time.monotonic() + UNREAD
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_a_signal_takes_over_what_the_file_says_now(upstream: FakeOpenAI):
    """The log says so, health checks, and the metrics; `watch = false` leaves it at that."""
    with gateway_process(toml(upstream, server="watch = false")) as served:
        before = told(served)
        assert before["last_reload"] is None
        line = served.reload(toml(upstream, model="n", server="watch = false"))
        assert [404, 200] == [embed(served, "m"), embed(served, "n")]
        after = told(served)
        assert line["changed"] == ["models"]
        assert after["hash"] == line["hash"] != before["hash"]
        assert after["last_reload"] == "ok"
        assert after["since"] > before["since"]
        figures = metrics(served)
        assert figures["config_reloads_total ok"] == 1
        assert figures["config_reloads_total failed"] == 0
        assert figures["config_last_reload_success"] == 1
        assert figures[f"config_info {after['hash']}"] == 1
        assert figures["draining"] == 0
        assert figures["config_last_reload_success_timestamp_seconds"] == pytest.approx(
            after["since"], abs=0.01
        )


BROKEN = {
    "no TOML": ("[models.m\n", "is not TOML"),
    "no such option": ("[cache]\nttll = 1\n", "cache.ttll"),
    "no such variable": ("", "NO_SUCH_VARIABLE is not set"),
    "no such model file": (
        '[upstreams.l]\nkind = "llama"\nmodel = "none.gguf"\n[models.l]\nupstreams = ["l"]\n',
        "none.gguf",
    ),
    "authorities that are none": (
        '[upstreams.x]\nkind = "openai"\nbase_url = "http://h"\nca_file = "gateway.toml"\n',
        "holds no certificates in PEM",
    ),
    "an option for starts": ('[cache]\nmemory = "1MiB"\n', "cache.memory: cannot be changed"),
}


def test_a_bad_file_changes_nothing(upstream: FakeOpenAI):
    """All that is wrong is one line; what runs goes on, and the next good one is taken."""
    good = toml(upstream, server="watch = false")
    with gateway_process(good) as served:
        before = told(served)
        for name, (broken, problem) in BROKEN.items():
            secret = 'api_key = "${env:NO_SUCH_VARIABLE}"' if "variable" in name else ""
            text = toml(upstream, model="n", server="watch = false", more=secret) + broken
            line = served.reload(text, "config not reloaded, the old one stays")
            assert problem in line["problems"], name
            assert [200, 404] == [embed(served, "m"), embed(served, "n")], name
        after = told(served)
        assert after == {**before, "last_reload": "failed"}
        figures = metrics(served)
        assert figures["config_reloads_total failed"] == len(BROKEN)
        assert figures["config_last_reload_success"] == 0
        served.reload(toml(upstream, model="n", server="watch = false"))
        assert embed(served, "n") == 200
        assert metrics(served)["config_last_reload_success"] == 1
        assert not served.events("unforeseen error")


def test_a_pipe_in_a_files_place_holds_nothing_up(upstream: FakeOpenAI, tmp_path: Path):
    """What would be read without end is refused; the next reload and the end come as usual."""
    secret = tmp_path / "secret"
    secret.write_text("sk-first")
    more = f'api_key = "${{file:{secret}}}"'
    with gateway_process(toml(upstream, server="watch = false", more=more)) as served:
        secret.unlink()
        os.mkfifo(secret)
        text = toml(upstream, model="n", server="watch = false", more=more)
        line = served.reload(text, "config not reloaded, the old one stays")
        assert "cannot be read: it is a pipe" in line["problems"]
        secret.unlink()
        secret.write_text("sk-second")
        served.reload(text)
        assert embed(served, "n") == 200


def test_no_secret_is_in_what_is_said_of_a_bad_file(upstream: FakeOpenAI):
    """P10: not in the line, whatever is wrong beside it."""
    with gateway_process(toml(upstream, server="watch = false")) as served:
        secret = "sk-canary 0123456789"
        bad = toml(upstream, more=f'api_key = "{secret}"\nheaders = {{ x-key = "{secret}" }}')
        line = served.reload(bad, "config not reloaded, the old one stays")
        assert "api_key" in line["problems"]
        assert "canary" not in "\n".join(served.lines)


def test_files_are_watched(upstream: FakeOpenAI, tmp_path: Path):
    """The config behind swapped links, a secret in a file, and one that is missing for a while."""
    key = tmp_path / "key"
    for number, model in (("1", "m"), ("2", "n")):
        (tmp_path / number).mkdir()
        text = toml(upstream, model=model, more=f'api_key = "${{file:{key}}}"')
        (tmp_path / number / "gateway.toml").write_text(text)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "gateway.toml").symlink_to("..data/gateway.toml")
    key.write_text("first-secret")
    with gateway_process("", config=tmp_path / "gateway.toml") as served:
        assert [200, 404] == [embed(served, "m"), embed(served, "n")]
        (tmp_path / "new").symlink_to("2")
        (tmp_path / "new").replace(tmp_path / "..data")
        served.next_event("config reloaded", 0)
        assert [404, 200] == [embed(served, "m"), embed(served, "n")]
        key.unlink()
        served.next_event("config not reloaded, the old one stays", 0)
        assert embed(served, "n") == 200
        key.write_text("second-secret\n")
        served.next_event("config reloaded", 1)
        asked = upstream.requests[-1]
        assert asked.headers["authorization"] == "Bearer first-secret"
        httpx2.post(f"{served.base_url}/embeddings", json={"model": "n", "input": "other"})
        assert upstream.requests[-1].headers["authorization"] == "Bearer second-secret"
        # Nothing has changed since, and so nothing happens.
        time.sleep(2.5)
        assert metrics(served)["config_reloads_total ok"] == 2


def test_a_certificate_is_renewed(upstream: FakeOpenAI, tmp_path: Path):
    """Who connects then is shown the new one; a pair that does not fit is not taken."""
    made = {}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        made[name] = make_authority(tmp_path / name)
    shutil.copytree(tmp_path / "first", tmp_path / "current")
    current = [tmp_path / "current" / path.name for path in made["first"]]
    tls = f'tls_cert = "{current[1]}"\ntls_key = "{current[2]}"\nwatch = false'
    with gateway_process(toml(upstream, server=tls), authority=current[0]) as served:
        port = int(served.address.rpartition(":")[2])

        def shown() -> str:
            return ssl.get_server_certificate(("127.0.0.1", port))

        first = shown()
        shutil.copy(made["second"][1], current[1])
        served.reload(toml(upstream, server=tls), "config not reloaded, the old one stays")
        assert shown() == first
        shutil.copy(made["second"][2], current[2])
        served.reload(toml(upstream, server=tls))
        assert shown() == made["second"][1].read_text().strip() + "\n" != first


def test_all_workers_go_over_together(upstream: FakeOpenAI, tmp_path: Path):
    """Or none; one that takes a place begins with the current config; a storm of signals is one."""
    server = f'workers = 2\nwatch = false\n[cache]\nstore = "sqlite://{tmp_path}/cache.db"'
    with gateway_process(toml(upstream, server=server)) as served:
        line = served.reload(toml(upstream, model="n", server=server))
        assert {404} == {embed(served, "m") for _ in range(10)}
        assert {200} == {embed(served, "n") for _ in range(10)}
        bad = "config not reloaded, the old one stays"
        served.reload(toml(upstream, server=server) + "[models.x]", bad)
        assert {line["hash"]} == {told(served)["hash"] for _ in range(10)}
        assert {"failed"} == {told(served)["last_reload"] for _ in range(10)}
        kill_a_worker(served)
        until(lambda: {200} == {embed(served, "n") for _ in range(10)})
        served.write(toml(upstream, model="o", server=server))
        for _ in range(50):
            os.kill(served.pid, signal.SIGHUP)
        until(lambda: {200} == {embed(served, "o") for _ in range(10)})
        assert {404} == {embed(served, "n") for _ in range(10)}
        figures = metrics(served)
        assert figures["config_reloads_total failed"] == 1
        assert figures["config_reloads_total ok"] < 10
        assert sum("config_info" in name for name in figures) == 1


def kill_a_worker(served: GatewayProcess) -> None:
    children = psutil.Process(served.pid).children()
    worker = next(child for child in children if "spawn_main" in " ".join(child.cmdline()))
    worker.kill()
    served.wait_for(lambda: served.events("worker died"), timeout=UNREAD, what="no report")


def test_a_worker_that_dies_in_the_middle_is_no_obstacle(upstream: FakeOpenAI, tmp_path: Path):
    """All that answer afterwards are on the new config."""
    server = f'workers = 2\nwatch = false\n[cache]\nstore = "sqlite://{tmp_path}/cache.db"'
    with gateway_process(toml(upstream, server=server)) as served:
        for number in range(3):
            told_before = len(served.events("config reloaded"))
            served.write(toml(upstream, model=f"m{number}", server=server))
            children = psutil.Process(served.pid).children()
            workers = [c for c in children if "spawn_main" in " ".join(c.cmdline())]
            # It cannot answer any more, but is there when it is asked.
            workers[0].suspend()
            os.kill(served.pid, signal.SIGHUP)
            time.sleep(0.3)
            workers[0].kill()
            served.next_event("config reloaded", told_before)
            until(lambda number=number: {200} == {embed(served, f"m{number}") for _ in range(10)})


def test_without_a_file_there_is_nothing_to_read_again(tmp_path: Path):
    """SIGHUP then ends it, as it ends most programs."""
    environ = {"OPENAI_API_KEY": "sk-0123456789", "HOME": str(tmp_path)}
    with gateway_process(None, **environ) as served:
        os.kill(served.pid, signal.SIGHUP)
        served.ends_well()


def test_a_terminal_that_goes_away_ends_it(upstream: FakeOpenAI, tmp_path: Path):
    """With a file too; while it is there SIGHUP is a reload."""
    config = tmp_path / "gateway.toml"
    config.write_text(toml(upstream))
    leader, follower = pty.openpty()
    errors = tmp_path / "errors"
    with errors.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--config", str(config), "--port", "0"],
            cwd=ROOT,
            stdin=follower,
            stdout=follower,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(follower, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
    os.close(follower)
    try:
        until(lambda: "base_url" in errors.read_text())
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: "config reloaded" in errors.read_text())
        os.close(leader)
        assert process.wait(UNREAD) == 0
    finally:
        process.kill()
        process.wait()
