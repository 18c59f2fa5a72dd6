"""`POST /v1/embeddings` end to end: real clients, real sockets, a fake OpenAI behind.

The promises one by one: each text its own vector, in its place, of unit length, the same bits in
every form and on every call, and asked for once.
"""

from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from langchain_openai import OpenAIEmbeddings

from gateway.backends.httpx_transport import HttpxTransport
from tests import upstream_behaviours as behave
from tests.running import one_model

ANY_WIDTH = 'dimensions = "any"'
HIT = 'gateway; hit; detail="memory=1"'


@pytest.fixture
def running(gateway, fake_openai):
    """A gateway with one model, `m`, that may be shortened."""
    return gateway(one_model(fake_openai.base_url, model=ANY_WIDTH))


def right(fake, *texts, model="m", width=None):
    """Return the vectors that these texts must get: float64 rows of the float32 unit vectors."""
    rows = []
    for text in texts:
        full = fake.vector(model, text).astype(np.float64)
        vector = (full / np.linalg.norm(full)).astype(np.float32)
        if width:
            short = vector[:width].astype(np.float64)
            vector = (short / np.linalg.norm(short)).astype(np.float32)
        rows.append(vector.astype(np.float64).tolist())
    return rows


def test_openais_client_in_its_default_settings(running, fake_openai):
    """P11: base64 under the hood, a unit vector for each text, in order."""
    answer = running.client.embeddings.create(model="m", input=["one", "two"])
    assert [item.embedding for item in answer.data] == right(fake_openai, "one", "two")
    assert [item.index for item in answer.data] == [0, 1]
    assert (answer.object, answer.model, answer.data[0].object) == ("list", "m", "embedding")
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 2


def test_openais_client_in_a_coroutine(running, fake_openai):
    """The asynchronous client sees the same."""
    import asyncio

    import openai

    async def ask():
        async with openai.AsyncOpenAI(base_url=running.base_url, api_key="x") as sdk:
            return await sdk.embeddings.create(model="m", input="one")

    assert [asyncio.run(ask()).data[0].embedding] == right(fake_openai, "one")


def test_langchain_in_its_default_settings(gateway, fake_openai, clients_vocabulary):
    """P11: it sends arrays of token ids, which are the texts they stand for."""
    running = gateway(named(fake_openai, "text-embedding-*"))
    embeddings = OpenAIEmbeddings(
        model="text-embedding-3-small", base_url=running.base_url, api_key="any"
    )
    texts = ["hello world", "Käse \U0001f9c0", "hello world"]
    model = "text-embedding-3-small"
    assert embeddings.embed_documents(texts) == right(fake_openai, *texts, model=model)
    assert [embeddings.embed_query("hello world")] == right(fake_openai, "hello world", model=model)
    assert fake_openai.texts == ["hello world", "Käse \U0001f9c0"]


@pytest.mark.parametrize("pattern", ["*", "text-*", "text-embedding-3-small"])
def test_a_name_is_what_it_is_under_any_pattern(gateway, fake_openai, pattern):
    """OpenAI's third generation can be shortened and reads cl100k ids, however it is served."""
    running, model = gateway(named(fake_openai, pattern)), "text-embedding-3-small"
    text = right(fake_openai, "hello world", model=model, width=8)
    assert running.vectors([15339, 1917], model, dimensions=8) == text
    assert running.vectors("hello world", model, dimensions=8) == text
    assert fake_openai.texts == ["hello world"]


def named(fake, name):
    return one_model(fake.base_url).replace("models.m", f'models."{name}"')


def test_plain_http_without_any_sdk(running, fake_openai):
    """Floats by default, OpenAI's keys, and nothing else in an item."""
    answer = running.embed("one").json()
    assert answer == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": right(fake_openai, "one")[0]}],
        "model": "m",
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("one", ["one"]),
        (["one"], ["one"]),
        (["one", "two", "one"], ["one", "two", "one"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2, 3]], [[1, 2, 3]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        ("  \t\n\0", ["  \t\n\0"]),
    ],
)
def test_the_four_forms_of_input(running, fake_openai, given, texts):
    """Text, texts, ids and lists of ids; ids of an unknown vocabulary go as they are."""
    assert running.vectors(given) == right(fake_openai, *texts)


def test_floats_and_base64_are_the_same_bits(running, fake_openai):
    """P2: one vector, whatever form it leaves in and whichever was asked for first."""
    texts = [f"text {n}" for n in range(20)]
    floats = running.vectors(texts)
    again = running.embed(texts, encoding_format="base64").json()["data"]
    assert [np.frombuffer(b64decode(i["embedding"]), "<f4").tolist() for i in again] == floats
    assert [np.array(row, np.float32).astype(float).tolist() for row in floats] == floats
    assert fake_openai.calls == 1


def test_every_vector_has_unit_length(running):
    """P3: within 1e-6, after `dimensions` too."""
    texts = [f"text {n}" for n in range(50)]
    for width in (None, 1, 2, 7, 31, 32):
        fields = {} if width is None else {"dimensions": width}
        norms = np.linalg.norm(np.array(running.vectors(texts, **fields)), axis=1)
        assert np.abs(norms - 1).max() < 1e-6


def test_dimensions_are_cut_from_the_full_width(running, fake_openai):
    """Slice, then renormalize; the upstream is asked for everything, and only once."""
    for width in (8, 3, 32):
        assert running.vectors("one", dimensions=width) == right(fake_openai, "one", width=width)
    assert running.vectors("one") == right(fake_openai, "one")
    (request,) = fake_openai.requests
    assert "dimensions" not in request.body


def test_dimensions_that_cannot_be_had_are_a_400(gateway, fake_openai):
    """Too many; or any but its own of a model that was not trained to be shortened."""
    running = gateway(one_model(fake_openai.base_url))
    assert running.vectors("x", dimensions=32) == right(fake_openai, "x")
    for width in (8, 33):
        refused = running.embed("x", dimensions=width)
        assert (400, "dimensions") == (refused.status_code, refused.json()["error"]["param"])


def test_a_width_that_cannot_be_had_is_refused_before_it_is_known_as_well(gateway, fake_openai):
    """The first request may be the one that asks for it."""
    running = gateway(one_model(fake_openai.base_url))
    assert running.embed("x", dimensions=8).status_code == 400
    assert running.embed("x", dimensions=32).status_code == 200


def test_what_lies_in_no_direction_after_shortening_is_an_honest_error(running, fake_openai):
    """The kept components are all zero: there is no such unit vector, and that is said."""

    async def late(exchange):
        for item in exchange.items:
            item.vector[:16] = 0

    fake_openai.script(late)
    refused = running.embed("x", dimensions=8)
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "dimensions")
    assert len(running.vectors("x")[0]) == 32
    assert len(running.vectors("x", dimensions=24)[0]) == 24


# asked for once


def test_a_text_is_asked_for_once(running, fake_openai):
    """P4: duplicates, and what is known already, never reach an upstream."""
    running.vectors("a")
    running.vectors(["b", "a", "c", "b", "c"])
    assert [request.body["input"] for request in fake_openai.requests] == [["a"], ["b", "c"]]


def test_user_encoding_dimensions_and_shape_share_one_entry(running, fake_openai):
    """None of them changes what the vector is."""
    running.vectors(["a"])
    for fields in (
        {"user": "somebody"},
        {"encoding_format": "base64"},
        {"dimensions": 4},
        {"seed": None},
        {"unknown": 1},
        {"headers": {"authorization": "Bearer other"}},
    ):
        assert running.embed("a", **fields).headers["cache-status"] == HIT
    assert fake_openai.calls == 1


def test_the_user_goes_upstream(running, fake_openai):
    """Whoever pays may want to know; it is OpenAI's own field."""
    running.embed("a", user="somebody")
    assert fake_openai.requests[0].body["user"] == "somebody"


def test_a_seed_is_another_draw_and_is_never_sent(running, fake_openai):
    """P2: (text, seed) has one vector; seeds are kept apart, and no upstream sees them."""
    fake_openai.noise = 3e-4
    draws = [running.vectors("a", seed=seed) for seed in (None, 1, 2, 1, None, 2)]
    assert [draws[3], draws[4], draws[5]] == [draws[1], draws[0], draws[2]]
    assert 3 == len({str(draw) for draw in draws})
    assert 3 == fake_openai.calls
    assert not [request for request in fake_openai.requests if "seed" in request.body]


def test_a_noisy_upstream_has_one_vector_here(running, fake_openai):
    """P2: what differs from call to call at OpenAI is the same for ever here."""
    fake_openai.noise = 3e-4
    first = running.vectors("a")
    shapes = [
        running.vectors(["z", "a"])[1:],
        running.vectors("a"),
        running.vectors(["a", "a"])[:1],
    ]
    assert shapes == [first] * 3


def test_many_at_once_share_one_call(running, fake_openai):
    """P4: twenty equal requests at the same time, one call, one vector."""
    hang = behave.Hang()
    fake_openai.noise = 3e-4
    fake_openai.script(hang)
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(running.embed, ["a", "b"]) for _ in range(20)]
        hang.reached.result(10)
        running.wait_until(lambda: running.requests_running == 20)
        hang.release()
        answers = [future.result() for future in waiting]
    assert {200} == {answer.status_code for answer in answers}
    assert 1 == len({str(answer.json()["data"]) for answer in answers})
    assert fake_openai.texts == ["a", "b"]


def test_two_thousand_texts_go_in_parts_to_an_upstream_that_takes_96(gateway, fake_openai):
    """Split, sent in parallel, and put together again in order."""
    fake_openai.max_batch = 96
    meeting = behave.Hang()
    fake_openai.script(meeting, meeting, meeting, meeting)
    upstream = "max_batch = 96\nconcurrency = 4"
    running = gateway(one_model(fake_openai.base_url, upstream=upstream))
    texts = [f"text {n}" for n in range(2000)]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(running.vectors, texts)
        fake_openai.wait_for_calls(4)
        assert fake_openai.calls == 4, "more calls than `concurrency` allows"
        meeting.release()
        assert answer.result() == right(fake_openai, *texts)
    sizes = [len(request.body["input"]) for request in fake_openai.requests]
    assert sorted(sizes) == [80] + [96] * 20


def test_both_clients_bring_the_same(gateway, fake_openai):
    """httpx2, which is always there, under the same line as aiohttp."""
    running = gateway(one_model(fake_openai.base_url), open_transport=HttpxTransport)
    assert running.vectors(["a", "b"]) == right(fake_openai, "a", "b")
    fake_openai.script(behave.cut_body, behave.close_before_answer)
    assert running.vectors("c") == right(fake_openai, "c")
    assert fake_openai.calls == 4


def test_hits_say_so_and_misses_say_what_they_took(running):
    """RFC 9211: `hit` only if nothing went out; always the counts of texts; an age if kept."""
    answers = [running.embed(texts) for texts in ("a", "a", ["a", "b", "b"], ["a"])]
    assert [answer.headers["cache-status"] for answer in answers] == [
        'gateway; fwd=miss; stored; detail="upstream=1"',
        HIT,
        'gateway; fwd=partial; stored; detail="memory=1, duplicate=1, upstream=1"',
        HIT,
    ]
    ages = [answer.headers.get("age") for answer in answers]
    assert ages[0] is None
    assert all(0 <= int(age) < 60 for age in ages[1:])


def test_a_request_may_want_a_fresh_vector_a_kept_one_or_none_that_is_kept(running, fake_openai):
    """`Cache-Control`, as people send it with any client; a 504 is not to be asked for again."""
    fake_openai.noise = 3e-4
    asked = [
        running.embed("a", headers={"Cache-Control": control})
        for control in ("only-if-cached", "max-age=60", "No-Cache", "no-store", "only-if-cached")
    ]
    first, *answers = asked
    assert (first.status_code, first.headers["x-should-retry"]) == (504, "false")
    assert first.json()["error"]["code"] == "not_cached"
    assert [answer.headers["cache-status"] for answer in answers] == [
        'gateway; fwd=miss; stored; detail="upstream=1"',
        'gateway; fwd=request; detail="upstream=1"',
        'gateway; fwd=request; detail="upstream=1"',
        HIT,
    ]
    kept, fresh, apart, again = [answer.json()["data"] for answer in answers]
    assert kept == again
    assert len({str(kept), str(fresh), str(apart)}) == 3
    assert fake_openai.calls == 3


def test_usage_counts_as_if_all_had_been_computed(running):
    """Clients' accounting does not jump with the cache; what was billed is in a header."""
    texts = ["12345678", "1234567890123456"]
    first, again = running.embed(texts), running.embed(texts)
    assert first.json()["usage"] == again.json()["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert (first.headers["x-gateway-billed-tokens"], "6") == ("6", "6")
    assert "x-gateway-billed-tokens" not in again.headers


def test_rate_limits_of_the_upstream_are_passed_on(running):
    """On a miss, where they are fresh; a hit has nothing to say of them."""
    missed, hit = running.embed("a"), running.embed("a")
    assert missed.headers["x-ratelimit-limit-requests"] == "3000"
    assert not [name for name in hit.headers if name.startswith("x-ratelimit")]
