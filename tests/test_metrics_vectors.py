"""What upstreams send in place of vectors is counted by what is wrong with it, and norms are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.vectors import norms
from tests import upstream_behaviours as behave
from tests.running import one_model
from tests.upstream import FakeOpenAI, serve

TEXTS = ["a", "b", "c"]
REASONS = {"count", "index", "width", "not_finite", "zero", "space", "unreadable"}


@pytest.fixture
def running(gateway, fake_openai):
    return gateway(one_model(fake_openai.base_url))


@pytest.fixture
def other():
    """Another upstream of the same vectors."""
    fake = FakeOpenAI(width=32)
    with serve(fake):
        yield fake


def refusals(running):
    """Return how many answers were refused, by reason; those that there are none of left out."""
    counted = {
        sample.labels["reason"]: sample.value
        for sample in running.samples()
        if sample.name == "gateway_vectors_refused_total" and sample.labels["upstream"] == "fake"
    }
    assert counted.keys() == REASONS
    return {reason: count for reason, count in counted.items() if count}


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (behave.short, "count"),
        (behave.long, "count"),
        (behave.empty_data, "count"),
        (behave.duplicate_index, "index"),
        (behave.negative_index, "index"),
        (behave.missing_index(every=True), "index"),
        (behave.wrong_width, "width"),
        (behave.nan, "not_finite"),
        (behave.inf, "not_finite"),
        (behave.zero, "zero"),
        (behave.null_embedding, "unreadable"),
        (behave.broken_json, "unreadable"),
    ],
)
def test_a_refused_answer_has_a_reason(running, fake_openai, behaviour, reason):
    """Once for each answer, and nothing else is counted for it."""
    assert refusals(running) == {}
    fake_openai.script(behaviour)
    assert running.embed(TEXTS).status_code == 502
    assert refusals(running) == {reason: 1}
    assert running.metric("gateway_vector_norm_count", upstream="fake") == 0
    assert running.embed(TEXTS).status_code == 200
    assert refusals(running) == {reason: 1}
    assert running.metric("gateway_vector_norm_count", upstream="fake") == len(TEXTS)


def test_another_width_than_the_models_is_counted_though_the_answer_is_sound(running, fake_openai):
    """Another model stands behind its name now."""
    running.embed("a")
    fake_openai.width = 16
    assert running.embed("b").status_code == 502
    assert refusals(running) == {"width": 1}


def test_other_errors_of_an_upstream_are_no_vectors(running, fake_openai):
    """They have outcomes of their own."""
    fake_openai.always(behave.status(500))
    assert running.embed("a").status_code == 502
    fake_openai.always(behave.close_before_answer)
    assert running.embed("a").status_code == 502
    assert refusals(running) == {}


def test_a_refused_answer_is_counted_where_another_upstream_serves(gateway, fake_openai, other):
    """The client is told nothing of it."""
    running = gateway(
        one_model(fake_openai.base_url, model='space = "s"').replace('["fake"]', '["fake", "two"]')
        + f'[upstreams.two]\nkind = "openai"\nbase_url = "{other.base_url}"'
    )
    assert running.embed("first").status_code == 200
    fake_openai.script(behave.nan)
    assert running.embed("second").status_code == 200
    assert refusals(running) == {"not_finite": 1}
    assert running.metric("gateway_vectors_refused_total", upstream="two") == 0


def test_norms_are_counted_as_they_came(running, fake_openai):
    """Before they are scaled to 1: a change of them tells of another model or pooling."""
    running.embed(TEXTS)
    lengths = [float(np.linalg.norm(fake_openai.vector("m", text))) for text in TEXTS]
    told = running.metric("gateway_vector_norm_sum", upstream="fake")
    assert told == pytest.approx(sum(lengths), rel=1e-5)
    for bound in (0.01, 1.001, 5.0, 100.0):
        below = sum(length <= bound for length in lengths)
        assert running.metric("gateway_vector_norm_bucket", le=str(bound)) == below
    running.embed(TEXTS)
    assert running.metric("gateway_vector_norm_count", upstream="fake") == len(TEXTS)


ROWS = st.lists(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8),
    max_size=4,
)


@given(ROWS)
def test_norms_are_numpys(rows):
    """Also where squares overflow or vanish in float32."""
    vectors = [np.array(row, np.float32) for row in rows]
    exact = [float(np.linalg.norm(vector.astype(np.float64))) for vector in vectors]
    assert norms(vectors) == pytest.approx(exact, rel=1e-5, abs=1e-30)
