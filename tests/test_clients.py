"""The clients people use, in their default settings, against a real gateway in its own process.

The cache is off: where two clients have equal vectors, each of them was computed for it.
"""

import asyncio
import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings

from tests.heavy import bits
from tests.processes import GatewayProcess, gateway_process
from tests.tiktoken_cache import write_tiktoken_cache

pytestmark = pytest.mark.engine

MODEL = "all-minilm-l6-v2"
WIDTH = 384
NODE = Path(__file__).parent / "node"
TEXTS = [
    "One text, one vector.",
    "Grüße aus Köln, 10 µm “weit”\n\tund zurück",
    "お元気ですか",
    "🏳️‍🌈 and 👩🏽‍🚀 are several code points each",
    "<|endoftext|> is plain text here",
    " ",
    "word " * 400,
]

Vectors = list[list[float]]


@pytest.fixture(scope="module")
def served() -> Iterator[GatewayProcess]:
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is missing (extra [local])")
    # Nothing is kept, so that equal answers were computed equal.
    with gateway_process(bits.UNCACHED + 'aliases = ["minilm"]\n') as process:
        yield process


@pytest.fixture(scope="module")
def client(served: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def vectors(client: openai.OpenAI) -> Vectors:
    """The vectors of TEXTS, each got alone by OpenAI's client in its default settings."""
    return [embed(client, text)[0] for text in TEXTS]


@pytest.fixture
def langchain(
    served: GatewayProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OpenAIEmbeddings]:
    """LangChain with nothing set but where the gateway is and what the model is called."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(write_tiktoken_cache(tmp_path)))
    embeddings = OpenAIEmbeddings(
        model=MODEL,
        base_url=served.base_url,
        api_key="any",  # type: ignore[arg-type]  # it takes str
    )
    with embeddings.client._client:  # LangChain closes none of its connections
        yield embeddings


def embed(client: openai.OpenAI, texts: Any, **options: Any) -> Vectors:
    answer = client.embeddings.create(model=MODEL, input=texts, **options)
    assert list(range(len(answer.data))) == [item.index for item in answer.data]
    return [item.embedding for item in answer.data]


def test_openai_defaults_give_unit_vectors(vectors: Vectors) -> None:
    """The newest SDK in its default settings gets a vector of width 384 and length 1."""
    assert [WIDTH] * len(TEXTS) == [len(vector) for vector in vectors]
    assert np.ones(len(TEXTS)) == pytest.approx(np.linalg.norm(vectors, axis=1), abs=1e-6)
    assert len(TEXTS) == len(set(map(tuple, vectors)))


def test_lists_equal_single_texts(client: openai.OpenAI, vectors: Vectors) -> None:
    """A text has the same vector as a string, in a list of one, among others, and twice."""
    assert vectors[:1] == embed(client, TEXTS[:1])
    assert vectors == embed(client, TEXTS)
    assert [*reversed(vectors), *vectors] == embed(client, [*reversed(TEXTS), *TEXTS])


def test_float_equals_base64(client: openai.OpenAI, vectors: Vectors) -> None:
    """Asked for floats, the SDK gets the same numbers as in its default, which is base64."""
    assert vectors == embed(client, TEXTS, encoding_format="float")
    packed = embed(client, TEXTS, encoding_format="base64")
    unpacked = [np.frombuffer(base64.b64decode(str(one)), "<f4").tolist() for one in packed]
    assert vectors == unpacked


def test_own_width_may_be_asked(client: openai.OpenAI, vectors: Vectors) -> None:
    """`dimensions` of the model's own width changes nothing; any other is refused by name."""
    assert vectors[:2] == embed(client, TEXTS[:2], dimensions=WIDTH)
    for wrong in (100, WIDTH + 1):
        with pytest.raises(openai.BadRequestError) as refused:
            embed(client, TEXTS[:2], dimensions=wrong)
        assert refused.value.param == "dimensions"


def test_token_ids_are_their_text(client: openai.OpenAI) -> None:
    """An array of cl100k ids, alone or in a list, has the vector of the text it stands for."""
    hello_world, great = [15339, 1917], [83, 1609, 5963, 374, 2294, 0]  # OpenAI's cookbook
    expected = embed(client, ["hello world", "tiktoken is great!"])
    assert expected == embed(client, [hello_world, great])
    assert expected[:1] == embed(client, hello_world)


def test_the_async_client_agrees(served: GatewayProcess, vectors: Vectors) -> None:
    """Many calls at once of the async client have the vectors of one call after another."""

    async def all_at_once() -> Vectors:
        async with openai.AsyncOpenAI(base_url=served.base_url, api_key="any") as client:
            calls = [client.embeddings.create(model=MODEL, input=text) for text in TEXTS * 4]
            return [answer.data[0].embedding for answer in await asyncio.gather(*calls)]

    assert vectors * 4 == asyncio.run(all_at_once())


def test_openai_errors_arrive_as_such(client: openai.OpenAI) -> None:
    """Mistakes are the SDK's own exceptions, with the field, and not retried as a 5xx would be."""
    with pytest.raises(openai.NotFoundError) as unknown:
        client.embeddings.create(model="text-embedding-9", input="a")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as too_long:
        embed(client, ["short", "word " * 600])
    assert too_long.value.code == "context_length_exceeded"
    assert "input[1]" in str(too_long.value)


def test_the_sdk_lists_models(client: openai.OpenAI) -> None:
    """The SDK's list of models has the model, and so has a look at one of them."""
    assert [MODEL] == [model.id for model in client.models.list()]
    assert client.models.retrieve("minilm").id == MODEL


def test_langchain_defaults_agree(langchain: OpenAIEmbeddings, vectors: Vectors) -> None:
    """LangChain sends ids of cl100k; its documents and queries have the vectors of the texts."""
    assert vectors == langchain.embed_documents(TEXTS)
    assert vectors[1] == langchain.embed_query(TEXTS[1])


def test_langchain_async_agrees(langchain: OpenAIEmbeddings, vectors: Vectors) -> None:
    """So have the documents of its async half."""

    async def documents() -> Vectors:
        async with langchain.async_client._client:
            return await langchain.aembed_documents(TEXTS)

    assert vectors == asyncio.run(documents())


def test_langchain_embeds_empty_documents(
    langchain: OpenAIEmbeddings, client: openai.OpenAI, vectors: Vectors
) -> None:
    """For an empty document LangChain asks for the empty text alone, and gets a unit vector."""
    first, empty, second = langchain.embed_documents([TEXTS[0], "", TEXTS[1]])
    assert vectors[:2] == [first, second]
    assert np.linalg.norm(empty) == pytest.approx(1.0, abs=1e-6)
    assert [empty] == embed(client, "")


def test_langchain_hears_of_long_documents(langchain: OpenAIEmbeddings) -> None:
    """A document that is longer than the model reads is refused, not cut, and by its place."""
    with pytest.raises(openai.BadRequestError) as refused:
        langchain.embed_documents(["short", "longer than the model can read, " * 100])
    assert refused.value.code == "context_length_exceeded"
    assert "input[1]" in str(refused.value)


def test_langchain_averages_long_documents(
    langchain: OpenAIEmbeddings, client: openai.OpenAI
) -> None:
    """Told the model's context, LangChain cuts long documents and joins the parts' vectors."""
    parts = ["hello" + " hello" * 399, " world" * 400]  # of 400 ids of cl100k each
    langchain.embedding_ctx_length = 400
    vector = langchain.embed_query("".join(parts))
    expected = np.mean(embed(client, parts), axis=0)
    assert vector == pytest.approx((expected / np.linalg.norm(expected)).tolist(), abs=1e-6)


def test_curl_gets_floats(served: GatewayProcess, vectors: Vectors) -> None:
    """curl, which asks for no encoding, gets the same vector in plain numbers."""
    curl = shutil.which("curl") or pytest.skip("curl is not installed")
    body = json.dumps({"model": MODEL, "input": TEXTS[1]})
    answer = command(
        [curl, "--silent", "--show-error", "--fail-with-body", f"{served.base_url}/embeddings",
         "--header", "Content-Type: application/json", "--data", "@-"],
        stdin=body,
    )  # fmt: skip
    assert answer["object"] == "list"
    assert answer["model"] == MODEL
    assert vectors[1] == answer["data"][0]["embedding"]


def test_the_node_sdk_agrees(served: GatewayProcess, vectors: Vectors) -> None:
    """OpenAI's SDK for Node has the Python SDK's vectors, bit for bit, as base64 and as floats."""
    node = shutil.which("node") or pytest.skip("Node.js is not installed")
    if not (NODE / "node_modules" / "openai").is_dir():
        pytest.skip("OpenAI's SDK for Node is not installed: npm ci --prefix tests/node")
    asked = json.dumps({"model": MODEL, "input": TEXTS})
    answer = command([node, str(NODE / "embeddings.mjs"), served.base_url], stdin=asked)
    assert vectors == answer["defaults"]
    assert vectors == answer["float"]
    assert [MODEL] == answer["models"]
    expected = {"name": "NotFoundError", "status": 404, "code": "model_not_found"}
    assert expected == answer["error"]


def test_the_python_sdk_needs_no_more_than_a_base_url(served: GatewayProcess) -> None:
    """The README's four lines, run as they stand but for the port, print the width."""
    readme = (NODE.parent.parent / "README.md").read_text()
    program = readme.split("```python\n")[1].split("```")[0]
    assert "http://127.0.0.1:8000/v1" in program
    program = program.replace("http://127.0.0.1:8000/v1", served.base_url)
    assert command([sys.executable, "-"], stdin=program) == WIDTH


def command(line: list[str], *, stdin: str) -> Any:
    """Run a command and return what it printed, read as JSON."""
    ran = subprocess.run(
        line, input=stdin, capture_output=True, encoding="utf-8", timeout=90, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout)
