"""Local chat models through the whole gateway: processes, sockets, llama.cpp, as people run it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.engine.running_engine import in_background, until
from tests.heavy import chat_seeds
from tests.heavy.kills import engines, kill_engines
from tests.local_chats import (
    BEGINNING,
    CHAT,
    asking,
    chat_toml,
    chat_upstream,
    client,
    figure,
    post,
    said,
    streaming,
)
from tests.processes import ROOT, GatewayProcess, gateway_process
from tests.tiny_chat import write_chat

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        find_spec("llama_cpp") is None, reason="the package llama-cpp-python is missing"
    ),
]

FOREVER = {"n": 128}
"""So many answers of the endless model take minutes: what ends sooner has been stopped."""


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers end."""
    return write_chat(tmp_path_factory.mktemp("m") / "short.gguf", context=1024)


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers end with its context."""
    return write_chat(tmp_path_factory.mktemp("m") / "endless.gguf", context=4096, ends=-40.0)


@pytest.fixture(scope="module")
def served(endless: Path) -> Iterator[GatewayProcess]:
    """A gateway that embeds and chats, one answer at a time."""
    embeds = chat_upstream("minilm", Path("builtin:all-minilm-l6-v2"))
    models = f'[models.minilm]\nupstreams = ["minilm"]\n{embeds}'
    with gateway_process(chat_toml(endless, model=models)) as served:
        yield served


@pytest.fixture
def http(served: GatewayProcess) -> Iterator[httpx2.Client]:
    """A client of that gateway, whose engine has nothing to do yet."""
    with client(served) as http:
        until(lambda: idle(http))
        yield http


def idle(http: httpx2.Client) -> bool:
    return figure(http, "contexts_busy") == 0


def busy(http: httpx2.Client) -> bool:
    return figure(http, "contexts_busy") == 1


def test_a_seed_means_one_text_among_others_and_over_a_restart(tmp_path: Path):
    """Two workers, streamed and whole, with a drawn seed asked for again; see the whole of it."""
    chat_seeds.run(tmp_path, seeded=24, unseeded=24, clients=16, again=4)


def test_the_fingerprint_names_what_decides_an_answer(short: Path, tmp_path: Path):
    """Other threads, another template and other weights give another each."""
    other = write_chat(tmp_path / "other.gguf", context=1024, seed=2)
    engines_ = {
        "threads": chat_upstream("threads", short, "threads = 2"),
        "template": chat_upstream("template", short, 'chat_template = "llama3"'),
        "weights": chat_upstream("weights", other),
    }
    toml = chat_toml(short) + "".join(
        f'{upstream}\n[models.{name}]\ntask = "chat"\nupstreams = ["{name}"]\n'
        for name, upstream in engines_.items()
    )
    with gateway_process(toml) as served, client(served) as http:

        def fingerprint(model: str) -> str:
            answer = post(http, asking(max_tokens=1) | {"model": model}).json()
            return str(answer["system_fingerprint"])

        found = [fingerprint(model) for model in (CHAT, *engines_)]
        assert all(name.startswith("fp_") for name in found)
        assert len(set(found)) == len(found)


def test_vectors_do_not_wait_for_chats(served: GatewayProcess, http: httpx2.Client):
    """While an answer is written, another model's embeddings are answered."""
    with streaming(http, asking(**FOREVER)) as stream, client(served) as other:
        pieces = stream.iter_bytes()
        next(pieces)
        for number in range(5):
            body = {"model": "minilm", "input": f"text {number}"}
            assert other.post("/v1/embeddings", json=body).status_code == 200
        until(lambda: busy(other))  # it still writes
        assert next(pieces)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_who_leaves_ends_what_is_written_for_them(
    served: GatewayProcess, http: httpx2.Client, stream: bool
):
    """The context is free again at once, though the answer had hardly begun."""
    with client(served) as leaving:
        if stream:
            with streaming(leaving, asking(**FOREVER)) as answer:
                next(answer.iter_bytes())
        else:
            leaving.timeout = httpx2.Timeout(60, read=1)
            with pytest.raises(httpx2.ReadTimeout):
                post(leaving, asking(**FOREVER))
    until(lambda: idle(http))
    assert post(http, asking(max_tokens=2)).status_code == 200


def test_an_engine_that_dies_ends_what_was_begun_and_nothing_else(
    served: GatewayProcess, http: httpx2.Client
):
    """A begun stream ends with an error event; who had got nothing yet is answered all the same."""
    with client(served) as waiting, streaming(http, asking(**FOREVER)) as stream:
        pieces = stream.iter_bytes()
        next(pieces)
        with in_background(lambda: post(waiting, asking(max_tokens=5, seed=1))) as answered:
            with client(served) as other:
                until(lambda: figure(other, "queue_depth") == 1)
            assert kill_engines(served.pid) >= 1
            rest = b"".join(pieces)
    event, end = rest.split(b"\n\n")[-2:]
    error = json.loads(event.removeprefix(b"data: "))["error"]
    assert {"message", "type", "param", "code"} == error.keys()
    assert (b"", "upstream_error") == (end, error["type"])
    assert b"[DONE]" not in rest
    assert said(answered[0]) == said(post(http, asking(max_tokens=5, seed=1)))


def test_a_prompt_that_kills_the_engine_is_refused(served: GatewayProcess, http: httpx2.Client):
    """After three deaths over it, it gets a 500 that SDKs do not repeat; others are answered."""
    ended = threading.Event()

    def kill_while_writing() -> None:
        with client(served) as other:
            while not ended.is_set():
                if busy(other):
                    kill_engines(served.pid)

    killer = threading.Thread(target=kill_while_writing)
    killer.start()
    try:
        refused = post(http, asking("poison", **FOREVER))
    finally:
        ended.set()
        killer.join()
    streamed = post(http, asking("poison", stream=True))
    for answer in (refused, streamed):
        error = answer.json()["error"]
        assert (500, "text_crashes_engine") == (answer.status_code, error["code"])
        assert "false" == answer.headers["x-should-retry"]
    assert post(http, asking("innocent", max_tokens=1)).status_code == 200


def test_a_chat_model_can_load_at_its_first_use_and_leave_when_idle(short: Path):
    """No engine until somebody asks, one while it is used, none after its idle time."""
    lazy = chat_toml(short, upstream='load = "first-use"\nidle = "1s"')
    with gateway_process(lazy) as served, client(served) as http:
        assert [] == engines(served.pid)
        first = said(post(http, asking(seed=1)))
        (pid,) = engines(served.pid)
        psutil.Process(pid).wait(20)
        with streaming(http, asking(seed=1)) as answer:
            answer.read()
            assert first == said(answer)
        assert [pid] != engines(served.pid)


def test_the_start_says_what_a_chat_model_takes(served: GatewayProcess):
    """Its memory and sizes, in the log of the gateway."""
    (sized,) = [line for line in served.events("sized") if line["engine"] == "chat"][:1]
    assert (4096, 1, 1) == (sized["limit"], sized["contexts"], sized["threads"])
    assert 0 < sized["kv_bytes"] < sized["context_bytes"]
    assert sized["weights_bytes"] > 100_000


def test_a_chat_model_is_told_of(http: httpx2.Client, endless: Path, tmp_path: Path):
    """By GET /v1/models, by the command, and with its figures on /metrics."""
    model = http.get(f"/v1/models/{CHAT}").json()
    assert ("chat", 4096, "ready") == (model["task"], model["context_length"], model["state"])
    assert {"dimensions", "pooling"}.isdisjoint(k for k, v in model.items() if v is not None)
    assert CHAT in {listed["id"] for listed in http.get("/v1/models").json()["data"]}
    until(lambda: figure(http, "resident_bytes") > 10e6)
    config = tmp_path / "gateway.toml"
    config.write_text(chat_toml(endless))
    command = [sys.executable, "-m", "gateway", "models", "--config", str(config)]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    expected = [CHAT, "->", "chat:", endless.name, "chat,", "4096", "tokens"]
    assert expected == listed.stdout.split()


TENANTS = """
[[keys]]
name = "one"
secret = "key-of-one-0123456789"
[[keys]]
name = "same"
secret = "key-of-same-0123456789"
[[keys]]
name = "other"
secret = "key-of-other-0123456789"
tenant = "other"
"""


def test_nothing_tells_a_tenant_of_anothers_prompts(short: Path):
    """What was decoded of a prompt is reused for its own tenant alone, whatever a client says."""
    toml = chat_toml(short, server=TENANTS)
    with gateway_process(toml) as served, client(served) as http:

        def reused(key: str) -> int:
            body = asking(BEGINNING, max_tokens=1, prompt_cache_key="the same")
            answer = post(http, body, authorization=f"Bearer key-of-{key}-0123456789")
            return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])

        asked = ("one", "same", "other", "other", "one")
        assert [0, 256, 0, 256, 0] == [reused(key) for key in asked]
