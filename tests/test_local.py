"""The bundled model through the whole gateway: processes, sockets, llama.cpp, as people run it."""

import asyncio
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from unicodedata import normalize

import httpx2
import numpy as np
import openai
import psutil
import pytest

from gateway.tokens import TABLE
from tests.heavy import bits, kills
from tests.processes import LOCAL, GatewayProcess, gateway_process

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        find_spec("llama_cpp") is None, reason="the package llama-cpp-python is missing"
    ),
]

ASSETS = TABLE.parent.parent
SAMPLE = json.loads((Path(__file__).parent / "data" / "sts_sample.json").read_text())


@pytest.fixture(scope="module")
def local() -> Iterator[GatewayProcess]:
    with gateway_process(LOCAL) as served:
        yield served


@pytest.fixture(scope="module")
def uncached() -> Iterator[GatewayProcess]:
    with gateway_process(bits.UNCACHED) as served:
        yield served


OPENED: list[openai.OpenAI] = []


@pytest.fixture(autouse=True)
def close_clients() -> Iterator[None]:
    """Close what `client` opened: a socket left to the collector is a warning, later, elsewhere."""
    yield
    while OPENED:
        OPENED.pop().close()


def client(served: GatewayProcess) -> openai.OpenAI:
    OPENED.append(openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0))
    return OPENED[-1]


def engine(served: GatewayProcess) -> int:
    (pid,) = kills.engines(served.pid)
    return pid


def test_assets_are_the_published_ones():
    """Every bundled file has the SHA-256 that stands beside it."""
    for sums in ASSETS.glob("*/SHA256SUMS"):
        for line in sums.read_text().splitlines():
            digest, name = line.split()
            assert digest == hashlib.sha256((sums.parent / name).read_bytes()).hexdigest()


def test_vectors_agree_with_the_original_weights(local: GatewayProcess):
    """Cosines of sentence pairs are those of the float32 model, within what q8_0 costs."""
    pairs = SAMPLE["pairs"]
    texts = [text for pair in pairs for text in (pair["a"], pair["b"])]
    answer = client(local).embeddings.create(model="all-minilm-l6-v2", input=texts)
    vectors = np.array([item.embedding for item in answer.data])
    ours = np.sum(vectors[0::2] * vectors[1::2], axis=1)
    reference = np.array([pair["cosine"] for pair in pairs])
    assert np.abs(ours - reference).max() < 0.01
    ranks = [values.argsort().argsort() for values in (ours, reference)]
    assert np.corrcoef(*ranks)[0, 1] > 0.999


def test_every_vector_is_of_unit_length(local: GatewayProcess):
    """Norms are 1 within float32's rounding, for short, long and odd texts."""
    texts = ["a", " ", "\n", "word " * 500, "🦆", "ünïcödé", "[SEP] [CLS]", "\x00", "日本語"]
    answer = client(local).embeddings.create(model="minilm", input=texts)
    norms = [np.linalg.norm(np.array(item.embedding)) for item in answer.data]
    assert norms == pytest.approx([1.0] * len(texts), abs=1e-6)


def test_bits_do_not_depend_on_neighbours(uncached: GatewayProcess):
    """Vectors computed under load equal, bit for bit, the ones computed alone."""
    compared = asyncio.run(
        bits.run(uncached.base_url, requests=40, clients=8, texts=60, longest=24)
    )
    assert compared > 40


def test_no_request_fails_while_engines_are_killed(uncached: GatewayProcess):
    """The engine is killed every second under load; every request is answered."""
    outcome = asyncio.run(kills.run(uncached, seconds=4))
    assert outcome.kills >= 3
    assert outcome.answered > 0
    assert outcome.grown <= kills.GROWTH


BAD_INPUTS = {
    "too long": (["fine", "word " * 600], "context_length_exceeded", "input[1]"),
    "far too long": (["x" * 2_000_000], "context_length_exceeded", "input[0]"),
    "empty among others": (["fine", ""], None, "input[1]"),
    "empty list": ([], None, "'input'"),
    "empty ids": ([[1, 2], []], None, "input[1]"),
    "ids out of range": ([[1], [100_256]], None, "input[1]"),
    "negative ids": ([[-1]], None, "input[0]"),
    "huge ids": ([[2**40]], None, "input[0]"),
    "mixed kinds": (["text", [1]], None, "input[1]"),
    "numbers that are no ids": ([[1.5]], None, "input[0]"),
    "booleans": ([True], None, "input[0]"),
    "null among others": (["fine", None], None, "input[1]"),
    "nested too deeply": ([[[1]]], None, "input[0]"),
    "an object": ({"text": "a"}, None, "input"),
    "too many": (["a"] * 2049, None, "2048"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_never_reaches_llama_cpp(local: GatewayProcess, name: str):
    """Each is a 400 that names the item, and the engine is the same process afterwards."""
    bad, code, where = BAD_INPUTS[name]
    before = engine(local)
    body = {"model": "minilm", "input": bad}
    answer = httpx2.post(f"{local.base_url}/embeddings", json=body, timeout=30)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == "input"
    assert error["code"] == code
    assert where in error["message"]
    assert engine(local) == before


def test_a_lone_empty_text_is_embedded(local: GatewayProcess):
    """LangChain sends one for a text without tokens, and reuses its vector."""
    answer = client(local).embeddings.create(model="minilm", input="")
    assert len(answer.data[0].embedding) == 384
    assert answer.usage.prompt_tokens == 2


def test_token_ids_of_cl100k_are_read_as_text(local: GatewayProcess):
    """An id array that spells a text is that text: the same vector, from the same entry."""
    by_ids = client(local).embeddings.create(model="minilm", input=[[15339, 1917]])
    by_text = client(local).embeddings.create(model="minilm", input="hello world")
    assert by_ids.data[0].embedding == by_text.data[0].embedding


def test_ids_that_cut_a_character_still_embed(local: GatewayProcess):
    """A long text split by tokens may begin inside a character; the rest of it is embedded."""
    halves = client(local).embeddings.create(model="minilm", input=[[9468], [9468, 248, 15339]])
    assert [384, 384] == [len(item.embedding) for item in halves.data]


def test_hangul_is_tokenized_as_published(local: GatewayProcess):
    """Every letter of a syllable counts, composed or not, as in the original tokenizer."""
    composed = client(local).embeddings.create(model="minilm", input="안녕하세요 세계")
    apart = client(local).embeddings.create(
        model="minilm", input=normalize("NFD", "안녕하세요 세계")
    )
    assert 15 == composed.usage.prompt_tokens == apart.usage.prompt_tokens
    assert composed.data[0].embedding == apart.data[0].embedding


def test_usage_is_exact_and_the_same_from_the_cache(local: GatewayProcess):
    """Tokens count the special ones, for the whole input, whether computed or kept."""
    texts = ["hello world", "hello world", "hello"]
    first = client(local).embeddings.create(model="minilm", input=texts)
    second = client(local).embeddings.create(model="minilm", input=texts)
    assert 4 + 4 + 3 == first.usage.prompt_tokens == second.usage.prompt_tokens


def test_model_tells_width_context_and_pooling(local: GatewayProcess):
    """`GET /v1/models/{id}` says what the engine loaded, under the alias too."""
    for name in ("all-minilm-l6-v2", "minilm"):
        model = httpx2.get(f"{local.base_url}/models/{name}").json()
        assert model["id"] == "all-minilm-l6-v2"
        assert (model["dimensions"], model["context_length"], model["pooling"]) == (
            384,
            512,
            "mean",
        )
        assert model["upstream"] == "minilm"


def test_only_the_native_width_can_be_asked_for(local: GatewayProcess):
    """MiniLM was not trained to be shortened; its own 384 is always right."""
    fine = client(local).embeddings.create(model="minilm", input="a", dimensions=384)
    assert len(fine.data[0].embedding) == 384
    for wrong in (128, 385):
        with pytest.raises(openai.BadRequestError) as caught:
            client(local).embeddings.create(model="minilm", input="a", dimensions=wrong)
        assert caught.value.param == "dimensions"


def test_metrics_tell_of_the_engine(local: GatewayProcess):
    """Queue, contexts, memory and texts of the engine are on /metrics."""
    client(local).embeddings.create(model="minilm", input="something to count")
    lines = httpx2.get(f"{local.address}/metrics").text.splitlines()
    figures = dict(line.rsplit(" ", 1) for line in lines if line.startswith("gateway_engine"))
    assert float(figures['gateway_engine_texts_total{engine="minilm"}']) > 0
    assert float(figures['gateway_engine_resident_bytes{engine="minilm"}']) > 20e6
    assert float(figures['gateway_engine_queue_depth{engine="minilm"}']) == 0


def test_a_long_batch_does_not_hold_up_a_short_text(uncached: GatewayProcess):
    """A single text is answered while somebody else's large batch is still being decoded."""
    ended: list[str] = []

    def embed(name: str, texts: list[str]) -> None:
        client(uncached).embeddings.create(model=bits.MODEL, input=texts)
        ended.append(name)

    long = threading.Thread(target=embed, args=("long", [f"number {i} " * 30 for i in range(200)]))
    long.start()
    while "gateway_engine_queue_depth" not in (page := metrics(uncached)) or not queued(page):
        assert long.is_alive()
    embed("short", ["a short text"])
    long.join()
    assert ["short", "long"] == ended


def metrics(served: GatewayProcess) -> str:
    return httpx2.get(f"{served.address}/metrics").text


def queued(page: str) -> bool:
    return any(
        line.startswith("gateway_engine_queue_depth{") and float(line.rsplit(" ", 1)[1]) > 0
        for line in page.splitlines()
    )


def test_a_text_that_kills_the_engine_is_refused(uncached: GatewayProcess):
    """After three deaths over one text it gets a 500 that SDKs do not repeat; others go on."""
    stop = threading.Event()
    culprit = "a text that is long enough to be caught in the act " * 35

    def kill_while_decoding() -> None:
        while not stop.is_set():
            page = metrics(uncached)
            if 'gateway_engine_contexts_busy{engine="minilm"} 1.0' in page:
                kills.kill_engines(uncached.pid)

    killer = threading.Thread(target=kill_while_decoding)
    killer.start()
    try:
        with pytest.raises(openai.InternalServerError) as caught:
            client(uncached).embeddings.create(model=bits.MODEL, input=[culprit])
    finally:
        stop.set()
        killer.join()
    assert caught.value.code == "text_crashes_engine"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert client(uncached).embeddings.create(model=bits.MODEL, input=["innocent"]).data


def test_the_engine_ends_with_a_killed_gateway():
    """SIGKILL of the gateway leaves no engine behind."""
    orphans: list[psutil.Process] = []

    def kill_gateway() -> None:
        with gateway_process(LOCAL) as served:
            orphans.append(psutil.Process(engine(served)))
            os.kill(served.pid, signal.SIGKILL)
            orphans[0].wait(10)

    with pytest.raises(AssertionError, match="did not end well"):
        kill_gateway()
    assert not orphans[0].is_running()


FIRST_USE = LOCAL.replace(
    'model = "builtin:all-minilm-l6-v2"',
    'model = "builtin:all-minilm-l6-v2"\nload = "first-use"\nidle = "1s"',
)


def test_a_model_can_load_at_its_first_use_and_leave_when_idle():
    """No engine until somebody asks, one while it is used, none after its idle time."""
    with gateway_process(FIRST_USE) as served:
        assert [] == kills.engines(served.pid)
        assert client(served).embeddings.create(model="minilm", input="wake up").data
        (first,) = kills.engines(served.pid)
        psutil.Process(first).wait(20)
        assert client(served).embeddings.create(model="minilm", input="once more").data
        (second,) = kills.engines(served.pid)
        assert first != second


VARIANTS = """
[upstreams.minilm]
kind = "llama"
model = "builtin:all-minilm-l6-v2"
[models.cut]
upstreams = ["minilm"]
truncate = true
[models.native]
upstreams = ["minilm"]
token_ids = "native"
[models.small]
upstreams = ["minilm"]
max_tokens = 8
[models.whole]
upstreams = ["minilm"]
token_ids = "reject"
aliases = { "whole:query" = { prefix = "query: " } }
"""


@pytest.fixture(scope="module")
def variants() -> Iterator[GatewayProcess]:
    with gateway_process(VARIANTS) as served:
        yield served


def embed_raw(served: GatewayProcess, model: str, texts: object) -> httpx2.Response:
    body = {"model": model, "input": texts}
    return httpx2.post(f"{served.base_url}/embeddings", json=body, timeout=60)


def test_a_cut_text_is_told_of_also_from_the_cache(variants: GatewayProcess):
    """`truncate` embeds the beginning, a header says which inputs, and a hit says it again."""
    texts = ["short", "word " * 700, "word " * 900]
    answers = [embed_raw(variants, "cut", texts) for _ in range(2)]
    assert ["1-2", "1-2"] == [answer.headers["x-gateway-truncated"] for answer in answers]
    assert 'gateway; hit; detail="memory=3"' == answers[1].headers["cache-status"]
    vectors = [item["embedding"] for item in answers[0].json()["data"]]
    assert vectors[1] == vectors[2]
    assert 3 + 512 + 512 == answers[0].json()["usage"]["prompt_tokens"]


def test_a_smaller_limit_of_the_config_is_held(variants: GatewayProcess):
    """`max_tokens` refuses what the model itself would still read, and names the item."""
    assert embed_raw(variants, "small", ["six words are not too many"]).status_code == 200
    refused = embed_raw(variants, "small", ["fine", "but these nine words are one too many here"])
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["message"].startswith("'input[1]'")
    assert "11 tokens" in error["message"]


def test_native_ids_are_the_models_own(variants: GatewayProcess):
    """[CLS] hello [SEP] in MiniLM's vocabulary is the text "hello"."""
    by_ids = embed_raw(variants, "native", [[101, 7592, 102]]).json()["data"][0]["embedding"]
    by_text = embed_raw(variants, "native", "hello").json()["data"][0]["embedding"]
    assert by_ids == by_text
    refused = embed_raw(variants, "native", [[101, 102], [30_522]])
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("'input[1]'")


def test_ids_can_be_refused(variants: GatewayProcess):
    """`token_ids = "reject"` is a 400 that says to send strings."""
    refused = embed_raw(variants, "whole", [[101]])
    assert refused.status_code == 400
    assert "send strings" in refused.json()["error"]["message"]


def test_an_alias_may_put_a_prefix_before_texts(variants: GatewayProcess):
    """The vector of "x" by that alias is the vector of the prefixed text, from one entry."""
    plain = embed_raw(variants, "whole", "query: where is it").json()["data"]
    prefixed = embed_raw(variants, "whole:query", "where is it")
    assert plain == prefixed.json()["data"]
    assert prefixed.headers["cache-status"] == 'gateway; hit; detail="memory=1"'


WORKERS = bits.UNCACHED.replace("port = 0", "port = 0\nworkers = 2")


def test_workers_share_one_engine_and_one_metrics_page():
    """Two workers answer; each knows the other's counts; one that dies is replaced."""
    with gateway_process(WORKERS) as served:
        for number in range(8):
            client(served).embeddings.create(model=bits.MODEL, input=f"text {number}")
        wait_for_inputs(served, 8)
        assert len(kills.engines(served.pid)) == 1
        workers = [
            child
            for child in psutil.Process(served.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        assert len(workers) == 2
        workers[0].kill()
        served.wait_for(lambda: served.events("worker died"), timeout=10, what="no report")
        with openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=5) as patient:
            assert patient.embeddings.create(model=bits.MODEL, input="still here").data
        wait_for_inputs(served, 9)


def wait_for_inputs(served: GatewayProcess, count: int) -> None:
    """Return when several scrapes in a row count so many texts; each may lag by a second."""
    wanted = f'gateway_inputs_total{{model="{bits.MODEL}",result="upstream"}} {float(count)}'
    end = time.monotonic() + 20
    seen = 0
    while seen < 4:
        seen = seen + 1 if wanted in metrics(served) else 0
        assert time.monotonic() < end, f"{count} texts are not counted"
        time.sleep(0.05)


REFUSED = {
    "another file": ('sha256 = "' + "0" * 64 + '"', "is another file"),
    "no memory": ("contexts = 1000", "are needed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_load_stops_the_start(name: str):
    """The reason is told, and the exit code is 1."""
    option, reason = REFUSED[name]
    toml = LOCAL.replace("[models", f"{option}\n[models", 1)
    with (
        pytest.raises(AssertionError, match=f"(?s)ended with 1.*{reason}"),
        gateway_process(toml),
    ):
        pass
