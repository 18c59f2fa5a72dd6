"""An upstream that misbehaves in every way some server has: the right answer or the right error.

After each, the same texts are asked for again of a healthy upstream: whatever had been kept of the
wrong answer would show there.
"""

import numpy as np
import pytest

from tests import upstream_behaviours as behave
from tests.running import one_model

TEXTS = ["a", "b", "c"]


@pytest.fixture
def running(gateway, fake_openai):
    return gateway(one_model(fake_openai.base_url))


def right(fake, *texts):
    rows = np.array([fake.vector("m", text) for text in texts], np.float64)
    units = (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32)
    return units.astype(np.float64).tolist()


def healthy(running, fake, texts=TEXTS):
    """Check that every text gets its own vector now, and that none came from before."""
    fake.forget()
    assert running.vectors(texts) == right(fake, *texts)
    assert fake.texts == texts, "something was kept of an answer that was refused"


INVALID = (502, "upstream_invalid_response")


async def swapped_without_index(exchange):
    exchange.items.reverse()
    for item in exchange.items:
        item.index = None


async def one_vector_for_all(exchange):
    exchange.items = exchange.items[:1] * len(exchange.items)


def edited(old, new):
    async def behave(exchange):
        exchange.edit = lambda body: body.replace(old, new)

    return behave


@pytest.mark.parametrize(
    "behaviour",
    [
        behave.well,
        behave.shuffle,
        behave.float_although_base64,
        behave.no_usage,
        behave.wrong_model_name,
        behave.missing_index(),
        behave.together(behave.shuffle, behave.missing_index()),
        behave.together(behave.shuffle, behave.float_although_base64, behave.no_usage),
        behave.zipped,
        behave.huge(1_000_000),
        behave.slow(0.05),
        edited(b'"index": 0', b'"index": 0, "encoding_format": "base64", "extra": [1, {}]'),
        edited(b'"object": "list", ', b""),
    ],
)
def test_what_is_only_odd_gives_the_right_vectors(running, fake_openai, behaviour):
    """Another order, floats for base64, no usage, another name, compressed: understood."""
    fake_openai.script(behaviour)
    assert running.vectors(TEXTS) == right(fake_openai, *TEXTS)
    assert running.vectors(TEXTS[::-1]) == right(fake_openai, *TEXTS[::-1])
    assert fake_openai.calls == 1


@pytest.mark.parametrize("form", [behave.well, behave.float_although_base64])
@pytest.mark.parametrize(
    "behaviour",
    [
        behave.short,
        behave.long,
        behave.duplicate_index,
        behave.negative_index,
        behave.missing_index(every=True),
        swapped_without_index,
        one_vector_for_all,
        behave.wrong_width,
        behave.nan,
        behave.inf,
        behave.zero,
        behave.null_embedding,
        behave.empty_data,
        behave.broken_json,
        edited(b'"index": 1', b'"index": 3'),
        edited(b'"index": 1', b'"index": "1"'),
        edited(b'"data"', b'"dada"'),
        edited(b'"embedding": ', b'"embeddin": '),
    ],
)
def test_an_answer_that_cannot_be_trusted_is_a_502(running, fake_openai, behaviour, form):
    """P1: accepted whole or not at all, as base64 and as numbers, and nothing is kept."""
    fake_openai.script(behave.together(form, behaviour))
    refused = running.embed(TEXTS)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == INVALID
    assert (error["type"], error["param"]) == ("upstream_error", None)
    assert "upstream 'fake' was refused" in error["message"]
    assert fake_openai.calls == 1
    healthy(running, fake_openai)


def test_a_single_bad_vector_is_refused_as_well(running, fake_openai):
    """One text alone: nothing else in the answer could have given it away."""
    for behaviour in (behave.zero, behave.nan, behave.inf, behave.duplicate_index, behave.long):
        fake_openai.script(behaviour)
        assert running.embed("a").status_code == 502
    healthy(running, fake_openai, ["a"])


def test_another_width_than_before_is_refused(running, fake_openai):
    """The model's width is known from its first vector on; a shorter one is another model's."""
    running.vectors("before")
    fake_openai.width = 31
    refused = running.embed(TEXTS)
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_other_width")
    fake_openai.width = 32
    healthy(running, fake_openai)


def test_of_several_parts_the_good_ones_are_kept(gateway, fake_openai):
    """A request whose second part fails is an error; its first part need not be asked again."""
    upstream = "max_batch = 2\nconcurrency = 1"
    running = gateway(one_model(fake_openai.base_url, upstream=upstream))
    fake_openai.script(behave.well, behave.zero)
    assert running.embed(["a", "b", "c", "d"]).status_code == 502
    fake_openai.forget()
    assert running.vectors(["a", "b", "c", "d"]) == right(fake_openai, "a", "b", "c", "d")
    assert sorted(fake_openai.texts) == ["c", "d"]


@pytest.mark.parametrize(
    "tokens", [-1, 10**30, 10**400, 1.5, "many", None, [1]], ids=lambda t: str(t)[:4]
)
def test_counts_nobody_can_mean_do_no_harm(running, fake_openai, tokens):
    """The vectors are good; a count that is none is estimated, or the answer is refused."""

    async def odd(exchange):
        exchange.answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}

    fake_openai.script(odd)
    answer = running.embed(TEXTS)
    assert answer.status_code in (200, 502)
    assert answer.status_code == 502 or answer.json()["usage"]["total_tokens"] < 10**12
    assert running.embed(TEXTS).status_code == 200


def test_an_answer_without_index_goes_by_position_where_the_config_says_so(gateway, fake_openai):
    """`order = "position"` is for servers that send no index, and are trusted to keep the order."""
    running = gateway(one_model(fake_openai.base_url, upstream='order = "position"'))
    fake_openai.always(behave.missing_index(every=True))
    assert running.vectors(TEXTS) == right(fake_openai, *TEXTS)


def test_a_text_of_any_length_is_for_the_upstream_to_judge(running, fake_openai):
    """Where nobody here can count tokens, nobody here refuses."""
    text = "word " * 80_000
    assert running.vectors([text, "a"]) == right(fake_openai, text, "a")
    assert sorted(len(request.body["input"]) for request in fake_openai.requests) == [1, 1]


def test_whole_numbers_are_numbers(running, fake_openai):
    """A quantized answer without decimal points is a vector as well."""
    fake_openai.script(behave.together(behave.integers, behave.float_although_base64))
    (vector,) = running.vectors("a")
    expected = np.rint(fake_openai.vector("m", "a") * 100).astype(np.float64)
    assert np.allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)
