"""The fake upstream is asked by OpenAI's own client: it must be what we say it is."""

import asyncio
import threading
from base64 import b64decode

import httpx2
import numpy as np
import openai
import pytest

from tests import upstream_behaviours as behave
from tests.upstream import FakeOpenAI, serve


@pytest.fixture(scope="module")
def served():
    fake = FakeOpenAI()
    with serve(fake):
        yield fake


@pytest.fixture
def fake(served):
    served.forget()
    served.noise, served.key, served.flavour, served.models = 0.0, None, "openai", ()
    return served


def client(fake, **options):
    options = {"api_key": "sk-test", "max_retries": 0} | options
    return openai.OpenAI(base_url=fake.base_url, **options)


def ask(fake, texts, **fields):
    body = {"model": "m", "input": texts} | fields
    return httpx2.post(f"{fake.base_url}/embeddings", json=body)


def test_openai_client_reads_the_true_vectors(fake):
    """OpenAI's client, which asks for base64, gets each text's own vector, in order."""
    with client(fake) as sdk:
        answer = sdk.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    expected = [fake.vector("text-embedding-3-small", text).tolist() for text in ("one", "two")]
    assert expected == [item.embedding for item in answer.data]
    assert [item.index for item in answer.data] == [0, 1]
    assert fake.requests[0].body["encoding_format"] == "base64"
    assert fake.requests[0].headers["authorization"] == "Bearer sk-test"


def test_floats_are_the_same_float32_as_base64(fake):
    """Both encodings carry the same bits."""
    numbers = ask(fake, "one").json()["data"][0]["embedding"]
    assert fake.vector("m", "one").tobytes() == np.array(numbers, np.float32).tobytes()


def test_vectors_are_not_unit_length(fake):
    """Nobody can pass these vectors on and have them taken for normalized ones."""
    norms = [np.linalg.norm(fake.vector("m", str(n))) for n in range(50)]
    assert not any(abs(norm - 1) < 1e-3 for norm in norms)


def test_models_and_texts_have_their_own_vectors(fake):
    """The vector depends on model and text, and on nothing else."""
    vectors = {fake.vector(model, text).tobytes() for model in "ab" for text in ("x", "y", (1, 2))}
    assert len(vectors) == 6
    assert fake.vector("a", "x").tobytes() == FakeOpenAI().vector("a", "x").tobytes()


def test_noise_differs_from_call_to_call(fake):
    """With noise the same text comes back a little different each time, as from OpenAI."""
    fake.noise = 3e-4
    first, second = (np.array(ask(fake, "x").json()["data"][0]["embedding"]) for _ in "12")
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert not np.array_equal(first, second)
    assert 0.9995 < cosine < 1.0


def test_usage_headers_and_dimensions(fake):
    """Tokens, request id and limits are there, and `dimensions` slices."""
    reply = ask(fake, ["12345678", "x"], dimensions=8)
    assert reply.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert len(reply.json()["data"][0]["embedding"]) == 8
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["x-ratelimit-limit-requests"] == "3000"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": ["a", ""]}, "'$.input' is invalid"),
        ({"input": []}, "'$.input' is invalid"),
        ({"input": ["a"] * 2049}, "'$.input' is invalid"),
        ({"input": "a", "seed": 1}, "Unrecognized request argument supplied: seed"),
        ({"input": "a", "dimensions": 1537}, "Must be less than or equal to 1536."),
    ],
)
def test_client_mistakes_are_400(fake, body, message):
    """What OpenAI refuses is refused, in OpenAI's words and shape."""
    reply = httpx2.post(f"{fake.base_url}/embeddings", json={"model": "m"} | body)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (400, "invalid_request_error")
    assert message in error["message"]
    assert {"message", "type", "param", "code"} == error.keys()


def test_wrong_key_is_401(fake):
    """A key is checked when one is set."""
    fake.key = "sk-right"
    with client(fake, api_key="sk-wrong-key") as sdk, pytest.raises(openai.AuthenticationError):
        sdk.models.list()
    with client(fake, api_key="sk-right") as sdk:
        assert "text-embedding-3-small" in [model.id for model in sdk.models.list()]


def test_unknown_model_is_404_where_models_are_named(fake):
    """With a list of models, others do not exist."""
    fake.models = ("only",)
    with client(fake) as sdk, pytest.raises(openai.NotFoundError) as caught:
        sdk.embeddings.create(model="m", input="x")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("behaviour", "indexes"),
    [
        (behave.shuffle, [2, 1, 0]),
        (behave.short, [0, 1]),
        (behave.long, [0, 1, 2, 3]),
        (behave.duplicate_index, [0, 1, 0]),
        (behave.negative_index, [0, 1, -1]),
        (behave.missing_index(), [0, 1, None]),
        (behave.missing_index(every=True), [None, None, None]),
        (behave.empty_data, []),
    ],
)
def test_items_misbehave_on_command(fake, behaviour, indexes):
    """Each behaviour about items does what its name says, for one call."""
    fake.script(behaviour)
    texts = ["a", "b", "c"]
    data = ask(fake, texts, encoding_format="float").json()["data"]
    assert indexes == [item.get("index") for item in data]
    placed = [item for item in data[:2] if item.get("index") is not None]
    for item in placed:
        expected = fake.vector("m", texts[item["index"]])
        assert np.array_equal(expected, np.array(item["embedding"], np.float32))
    assert [item["index"] for item in ask(fake, texts).json()["data"]] == [0, 1, 2]


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize(
    ("behaviour", "holds"),
    [
        (behave.nan, lambda v: np.isnan(v[-1])),
        (behave.inf, lambda v: np.isinf(v[-1])),
        (behave.zero, lambda v: not v.any()),
        (behave.wrong_width, lambda v: len(v) == 1535),
        (behave.null_embedding, lambda v: v is None),
        (behave.integers, lambda v: v.dtype.kind == "i"),
    ],
)
def test_vectors_misbehave_in_both_encodings(fake, behaviour, holds, encoding):
    """Bad components arrive as JSON words and in base64 alike."""
    fake.script(behaviour)
    sent = ask(fake, ["a", "b"], encoding_format=encoding).json()["data"][-1]["embedding"]
    if isinstance(sent, str):
        sent = np.frombuffer(b64decode(sent), "<f4")
    elif sent is not None:
        sent = np.array(sent)
    assert holds(sent)


@pytest.mark.parametrize(
    "behaviour", [behave.cut_body, behave.close_after_headers, behave.close_before_answer]
)
def test_connections_break_on_command(fake, behaviour):
    """A broken connection is seen as one by the client."""
    fake.script(behaviour)
    with pytest.raises(httpx2.RemoteProtocolError):
        ask(fake, "a")
    assert ask(fake, "a").status_code == 200


def test_answers_misbehave_on_command(fake):
    """Statuses, shapes and words of errors are as commanded, one for each call."""
    fake.script(
        behave.rate_limit("7"),
        behave.status(500),
        behave.html_error,
        behave.flat_error,
        behave.redirect,
        behave.broken_json,
        behave.together(behave.no_usage, behave.wrong_model_name),
        behave.huge(1000),
        behave.zipped,
    )
    replies = [ask(fake, "a") for _ in range(9)]
    assert [r.status_code for r in replies] == [429, 500, 502, 429, 307, 200, 200, 200, 200]
    limited, broken, html, flat, moved, cut, odd, padded, zipped = replies
    assert (
        limited.headers["retry-after"],
        limited.json()["error"]["code"],
    ) == ("7", "rate_limit_exceeded")
    assert broken.json()["error"]["type"] == "server_error"
    assert html.text.startswith("<html>")
    assert flat.json()["type"] == "overloaded"
    assert moved.headers["location"].startswith("http://127.0.0.1:9/")
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
        cut.json()
    assert (odd.json()["model"], "usage" in odd.json()) == ("another-model", False)
    assert len(padded.json()["padding"]) == 1000
    assert (zipped.headers["content-encoding"], len(zipped.json()["data"])) == ("gzip", 1)


def test_hang_holds_calls_until_released(fake):
    """A held call is answered after its release, and `reached` tells that it has arrived."""
    hang = behave.Hang()
    fake.always(hang)
    replies = []
    asking = threading.Thread(target=lambda: replies.append(ask(fake, "a").status_code))
    asking.start()
    hang.reached.result(5)
    assert replies == []
    hang.release()
    asking.join(5)
    assert replies == [200]


def test_hang_sees_the_client_leave(fake):
    """A client that gives up is noticed."""
    hang = behave.Hang()
    fake.script(hang)

    async def give_up():
        async with openai.AsyncOpenAI(base_url=fake.base_url, api_key="x") as sdk:
            call = asyncio.create_task(sdk.embeddings.create(model="m", input="x"))
            await asyncio.wrap_future(hang.reached)
            call.cancel()
            await asyncio.wait({call})

    asyncio.run(give_up())
    assert hang.abandoned.result(5) is None


def test_requests_are_counted(fake):
    """Calls, texts and requests are there to look at, and a test can wait for them."""
    ask(fake, ["a", "b"])
    ask(fake, [1, 2, 3])
    fake.wait_for_calls(2)
    assert (fake.calls, fake.texts) == (2, ["a", "b", [1, 2, 3]])
    with pytest.raises(TimeoutError, match="2 of 3"):
        fake.wait_for_calls(3, timeout=0.01)


@pytest.mark.parametrize(
    ("flavour", "base64", "unit", "keys"),
    [
        ("llama-server", True, True, {"object", "index", "embedding", "encoding_format"}),
        ("tei", True, True, {"object", "index", "embedding"}),
        ("ollama", True, True, {"object", "index", "embedding"}),
        ("vllm", True, True, {"object", "index", "embedding"}),
        ("lmstudio", False, False, {"object", "index", "embedding"}),
    ],
)
def test_flavours_have_their_own_encodings(fake, flavour, base64, unit, keys):
    """Each kind of server answers base64 or not, unit vectors or not, with its own stray keys."""
    fake.flavour = flavour
    item = ask(fake, "a", encoding_format="base64", seed=1).json()["data"][0]
    assert (base64, keys) == (isinstance(item["embedding"], str), item.keys())
    with client(fake) as sdk:
        vector = sdk.embeddings.create(model="m", input="a").data[0].embedding
    assert unit == (abs(np.linalg.norm(vector) - 1) < 1e-6)


def test_flavours_have_their_own_limits(fake):
    """Batches, ids, dimensions and error bodies are each server's own."""
    fake.flavour = "tei"
    refused = ask(fake, ["a"] * 33)
    assert refused.status_code == 422
    message = "batch size 33 > maximum allowed batch size 32"
    assert {"message": message, "code": 422, "type": "validation"} == refused.json()
    fake.flavour = "ollama"
    assert ask(fake, [1, 2]).json()["error"]["message"] == "invalid input type"
    assert len(ask(fake, "a", dimensions=9999).json()["data"][0]["embedding"]) == 1536
    fake.flavour = "vllm"
    assert ask(fake, "a", dimensions=1536).status_code == 400
    fake.flavour = "lmstudio"
    refused = ask(fake, [1, 2])
    assert refused.json()["error"] == "'input' field must be a string or an array of strings"
    assert ask(fake, "a").json()["usage"]["total_tokens"] == 0
    fake.flavour = "llama-server"
    assert len(ask(fake, "a", dimensions=8).json()["data"][0]["embedding"]) == 1536
    assert {"code", "message", "type"} == ask(fake, []).json()["error"].keys()
