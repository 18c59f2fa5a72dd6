"""The model of hit rates: what must hold of it, and the gateway's own memory tier beside it."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import zipf
from benchmarks.kept import measured_rate

SEED = 3
TRAFFIC = st.builds(zipf.shares, st.integers(1, 400), st.floats(0, 2))


@given(TRAFFIC)
def test_shares_are_parts_of_all_requests(shares):
    """They sum to one, and the first ranks have most."""
    assert shares.sum() == pytest.approx(1)
    assert (np.diff(shares) <= 0).all()


@given(TRAFFIC, st.integers(1, 400), st.integers(1, 400))
def test_a_larger_cache_answers_no_less(shares, one, other):
    """Nothing with no room; everything where all texts find theirs."""
    small, large = sorted((one, other))
    assert zipf.hit_rate(shares, 0) == pytest.approx(0)
    assert -1e-9 <= zipf.hit_rate(shares, small) <= zipf.hit_rate(shares, large) + 1e-9
    assert zipf.hit_rate(shares, len(shares)) == pytest.approx(1)


@given(st.integers(2, 400), st.data())
def test_of_texts_that_are_wanted_alike_a_part_is_a_part(texts, data):
    """A tenth of the texts answers a tenth of the requests: there is nothing to choose."""
    capacity = data.draw(st.integers(1, texts - 1))
    shares = zipf.shares(texts, 0.0)
    assert zipf.hit_rate(shares, capacity) == pytest.approx(capacity / texts, abs=1e-6)


@given(TRAFFIC, st.integers(1, 400), st.floats(0, 1e4))
def test_a_cache_that_fills_answers_what_it_can(shares, capacity, requests):
    """Never more than one that forgets nothing, nor than there were requests."""
    hits = zipf.hits(shares, capacity, requests)
    unbounded = requests - zipf.different(shares, requests)
    assert -1e-6 <= hits <= unbounded + 1e-6
    assert zipf.hits(shares, len(shares), requests) == pytest.approx(unbounded)


def test_the_horizon_is_where_a_cache_is_full():
    """So many requests ask for as many different texts as it holds; all of them, never."""
    shares = zipf.shares(1_000, 0.9)
    reach = zipf.horizon(shares, 250)
    assert zipf.different(shares, reach) == pytest.approx(250)
    assert zipf.horizon(shares, 1_000) == inf


@pytest.mark.parametrize("exponent", [0.0, 0.9, 1.3])
def test_draws_follow_the_shares(exponent):
    """Each rank is drawn about as often as its share says; as many different ones as expected."""
    shares = zipf.shares(2_000, exponent)
    ranks = zipf.draws(shares, 50_000, np.random.default_rng(SEED))
    counted = np.bincount(ranks, minlength=2_000)
    spread = np.sqrt(shares * 50_000)
    assert (abs(counted - shares * 50_000) < 6 * spread + 3).all()
    different = zipf.different(shares, 50_000)
    assert len(np.unique(ranks)) == pytest.approx(different, abs=4 * different**0.5)


@pytest.mark.parametrize("exponent", [0.6, 1.0, 1.2])
@pytest.mark.parametrize("capacity", [50, 500, 2_000])
def test_the_memory_tier_is_as_good_as_the_model_says(exponent, capacity):
    """The real MemoryStore, once it is full: within a hundredth of all requests."""
    shares = zipf.shares(5_000, exponent)
    measured = measured_rate(shares, capacity, 40_000, np.random.default_rng(SEED))
    assert measured == pytest.approx(zipf.hit_rate(shares, capacity), abs=0.01)
