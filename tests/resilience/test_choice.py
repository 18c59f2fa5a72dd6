"""Who of several is asked first: their shares, and that everybody has a turn."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.resilience.choice import in_turn

WEIGHTS = st.lists(st.integers(0, 1000), min_size=1, max_size=8)
DRAWS = 20_000


@given(weights=WEIGHTS, seed=st.integers())
def test_everybody_has_one_turn_and_those_without_weight_the_last_in_order(weights, seed):
    """Whatever chance says."""
    order = in_turn(weights, Random(seed).random)
    assert sorted(order) == list(range(len(weights)))
    last = [place for place, weight in enumerate(weights) if not weight]
    assert order[len(order) - len(last) :] == last


@given(
    weights=st.lists(st.integers(1, 1000), min_size=1, max_size=4),
    edge=st.sampled_from([0.0, 1.0 - 2**-53]),
)
def test_the_ends_of_chance_are_draws_like_others(weights, edge):
    """No division by zero, no endless logarithm."""
    assert sorted(in_turn(weights, lambda: edge)) == list(range(len(weights)))


def test_who_is_first_is_a_matter_of_weight():
    """Each weight's part of all draws; deviations of five sigma would be a defect."""
    weights = [5, 3, 2, 0]
    chance = Random(7).random
    firsts = Counter(in_turn(weights, chance)[0] for _ in range(DRAWS))
    for place, weight in enumerate(weights):
        part = weight / sum(weights)
        assert abs(firsts[place] - DRAWS * part) <= 5 * (DRAWS * part * (1 - part)) ** 0.5


def test_without_one_the_others_have_their_shares():
    """Where the first of [2, 1, 1] is out, the others come first equally often."""
    chance = Random(8).random
    draws = (in_turn([2, 1, 1], chance) for _ in range(DRAWS))
    firsts = Counter(next(place for place in order if place != 0) for order in draws)
    assert abs(firsts[1] - DRAWS / 2) <= 5 * (DRAWS / 4) ** 0.5
