"""Processes as an operator meets them: bad certificates, signals, files that change, secrets."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import openai
import psutil
import pytest

from tests.heavy import bits, kills
from tests.processes import LOCAL, ROOT, gateway_process
from tests.test_local import pytestmark  # noqa: F401 - these need the engine too
from tests.tiny_gguf import write_encoder

GGUF = ROOT / "gateway/assets/all-minilm-l6-v2/all-minilm-l6-v2-q8_0.gguf"


def test_a_bad_certificate_stops_the_start(tmp_path: Path):
    """Nothing is announced that is not there."""
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("junk")
    tls = f'[server]\ntls_cert = "{tmp_path}/cert.pem"\ntls_key = "{tmp_path}/key.pem"\n{LOCAL}'
    with (
        pytest.raises(AssertionError, match=r"(?s)ended with 1.*cannot be used together"),
        gateway_process(tls),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_every_way_to_stop_leaves_nothing(number: signal.Signals):
    """Ctrl-C as a supervisor: exit 0, no engine, no directory."""
    with gateway_process(LOCAL) as served:
        (engine,) = kills.engines(served.pid)
        os.kill(served.pid, number)
        assert served.process.wait(30) == 0
        psutil.Process(engine).wait(10) if psutil.pid_exists(engine) else None
        assert not list(served.temporary.iterdir())


def test_a_second_signal_ends_it_at_once():
    """A request that hangs is not waited for, and nothing is left behind."""

    def hang_and_stop_twice() -> None:
        with gateway_process(bits.UNCACHED) as served:
            (engine,) = kills.engines(served.pid)
            os.kill(engine, signal.SIGSTOP)
            asyncio.run(stop_twice(served.base_url, served.pid))
            assert served.process.wait(10) == 1
            assert not list(served.temporary.iterdir())

    with pytest.raises(AssertionError, match="did not end well"):
        hang_and_stop_twice()


async def stop_twice(base_url: str, pid: int) -> None:
    async with httpx2.AsyncClient(timeout=30) as client:
        body = {"model": bits.MODEL, "input": "hangs"}
        hanging = asyncio.create_task(client.post(f"{base_url}/embeddings", json=body))
        await asyncio.sleep(0.5)
        os.kill(pid, signal.SIGTERM)
        await asyncio.sleep(0.5)
        os.kill(pid, signal.SIGTERM)
        with pytest.raises(httpx2.TransportError):
            await hanging


def test_a_model_file_that_changed_is_not_used(tmp_path: Path):
    """P1: the vectors of another file are never kept under the name of the first one."""
    model = tmp_path / "model.gguf"
    shutil.copy(GGUF, model)
    toml = bits.UNCACHED.replace("builtin:all-minilm-l6-v2", str(model))
    with gateway_process(toml) as served:
        replacement = write_encoder(tmp_path / "other.gguf")
        replacement.replace(model)
        kills.kill_engines(served.pid)
        client = openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0)
        with client, pytest.raises(openai.InternalServerError) as caught:
            client.embeddings.create(model=bits.MODEL, input="hello")
        assert caught.value.code == "engine_failed"
        assert "was changed" in str(caught.value)


def test_a_worker_that_takes_a_place_names_vectors_as_the_first_did(tmp_path: Path):
    """Though the model file was replaced since: the engine still runs the one from the start."""
    model = tmp_path / "model.gguf"
    shutil.copy(GGUF, model)
    toml = LOCAL.replace("builtin:all-minilm-l6-v2", str(model))
    kept = {"model": bits.MODEL, "input": "kept"}
    with gateway_process(f"{toml}\n[server]\nworkers = 2\n") as served:
        url = f"{served.base_url}/embeddings"
        assert httpx2.post(url, json=kept, timeout=30).status_code == 200
        write_encoder(tmp_path / "other.gguf").replace(model)
        for number in (1, 2):
            os.kill(workers(served.pid)[0], signal.SIGKILL)
            served.wait_for(
                lambda number=number: len(served.events("worker died")) == number,
                timeout=20,
                what="no report",
            )
        for _ in range(6):
            # Each over a connection of its own, and so to either worker.
            only = {"cache-control": "only-if-cached"}
            assert httpx2.post(url, json=kept, headers=only, timeout=60).status_code == 200


def workers(gateway: int) -> list[int]:
    """Return the process ids of a gateway's workers, oldest first."""
    children = psutil.Process(gateway).children()
    found = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return [child.pid for child in sorted(found, key=psutil.Process.create_time)]


def test_an_engine_that_cannot_start_again_is_tried_until_it_can():
    """What was loaded once is not given up for good: here a journal that cannot be written."""
    with gateway_process(bits.UNCACHED) as served:
        (directory,) = served.temporary.iterdir()
        (journal,) = directory.glob("*.journal")
        obstacle = journal.with_name(f"{journal.name}.new")
        obstacle.mkdir()
        kills.kill_engines(served.pid)
        served.wait_for(
            lambda: served.events("refused"), timeout=20, what="it started all the same"
        )
        obstacle.rmdir()
        client = openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0)
        with client:
            assert client.embeddings.create(model=bits.MODEL, input="back again").data


def test_an_engine_that_dies_while_it_counts_is_asked_again():
    """A request large enough to be counted first survives a death as a small one does."""
    with gateway_process(bits.UNCACHED) as served:
        (engine,) = kills.engines(served.pid)
        os.kill(engine, signal.SIGSTOP)
        asyncio.run(kill_under(served.base_url, served.pid))


async def kill_under(base_url: str, pid: int) -> None:
    texts = [f"{number} " * 250 for number in range(100, 260)]
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
        asked = asyncio.create_task(client.embeddings.create(model=bits.MODEL, input=texts))
        await asyncio.sleep(0.5)
        assert kills.kill_engines(pid) == 1
        assert len((await asked).data) == len(texts)


def test_an_engine_gets_no_secrets_of_the_environment():
    """The process that works on strangers' texts does not hold the upstreams' keys."""
    with gateway_process(LOCAL, SOME_UPSTREAM_KEY="sk-canary-0123456789") as served:
        (engine,) = kills.engines(served.pid)
        environ = Path(f"/proc/{engine}/environ")
        if not environ.exists():
            pytest.skip("this system has no /proc")
        assert b"sk-canary" not in environ.read_bytes()


def gateway(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        n: v for n, v in os.environ.items() if n not in ("OPENAI_API_KEY", "GATEWAY_CONFIG")
    }
    return subprocess.run(
        [sys.executable, "-m", "gateway", *words],
        cwd=ROOT,
        env=inherited | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_check_tells_all_errors_at_once(tmp_path: Path):
    """Each with its line, and exit code 1; a right file is said to be right."""
    file = tmp_path / "gateway.toml"
    file.write_text('[server]\nprot = 1\n[models.m]\nupstreams = ["nobody"]\n')
    wrong = gateway("check", "--config", str(file))
    assert wrong.returncode == 1
    assert f"{file}:2: server.prot" in wrong.stderr
    assert f"{file}:4: models.m.upstreams" in wrong.stderr
    right = gateway("check", "--config", "config/local.toml")
    assert (right.returncode, right.stdout) == (0, "config/local.toml is right: 1 model(s).\n")


def test_check_shows_what_is_in_effect_without_secrets():
    """`--show` prints TOML that could be used again, but for the keys."""
    key = "sk-canary-0123456789"
    shown = gateway("check", "--show", OPENAI_API_KEY=key)
    assert shown.returncode == 0
    assert "[upstreams.openai]" in shown.stdout
    assert key not in shown.stdout + shown.stderr


def test_check_prints_the_schema():
    """It is the committed one."""
    assert gateway("check", "--schema").stdout == (ROOT / "config/schema.json").read_text()


def test_models_says_where_each_goes():
    """Name, upstream, width, context and pooling, without starting anything."""
    listed = gateway("models", OPENAI_API_KEY="sk-0123456789")
    assert listed.returncode == 0
    first, *others = listed.stdout.splitlines()
    assert first.split()[:4] == ["all-minilm-l6-v2", "->", "minilm:", GGUF.name]
    assert "also minilm, 384 wide, 512 tokens, mean pooling" in first
    assert all("openai: https://api.openai.com/v1" in line for line in others)
    assert [line.endswith("  embeddings and chat") for line in others] == [False, False, True]


def test_models_says_what_chats(tmp_path: Path):
    """A local chat model by its longest chat; one of a server by its address."""
    config = tmp_path / "gateway.toml"
    config.write_text(
        '[upstreams.l]\nkind = "llama"\nmodel = "builtin:all-minilm-l6-v2"\n'
        '[upstreams.o]\nkind = "openai"\nbase_url = "http://o/v1"\n'
        '[models.local]\ntask = "chat"\nupstreams = ["l"]\n'
        '[models."gpt-*"]\ntask = "chat"\nupstreams = ["o"]\n'
    )
    listed = gateway("models", "--config", str(config))
    assert [line.split() for line in listed.stdout.splitlines()] == [
        ["local", "->", "l:", GGUF.name, "chat,", "512", "tokens"],
        ["gpt-*", "->", "o:", "http://o/v1", "chat"],
    ]


def test_serve_says_what_is_wrong_with_the_command_line(tmp_path: Path):
    """A port that is no port, and workers without a store, are refused before anything starts."""
    config = tmp_path / "gateway.toml"
    config.write_text(LOCAL[LOCAL.index("[upstreams") :])
    refused = gateway("serve", "--config", str(config), "--port", "70000", "--workers", "2")
    assert refused.returncode == 1
    assert "command line: server.port" in refused.stderr
    assert "command line: server.workers" in refused.stderr
