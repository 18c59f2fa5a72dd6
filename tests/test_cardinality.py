"""Names that never were before, and a short life: see tests.heavy.cardinality and soak for more."""

import random

import pytest

from tests.heavy import cardinality, soak
from tests.heavy.census import Census
from tests.heavy.lives import GENERATIONS, Life, config


def test_random_names_make_no_series():
    """P10: models, paths and keys of clients are in no label, and none is kept for ever."""
    outcome = cardinality.run(3000, seed=1)
    assert outcome.statuses.total() == 3000
    assert outcome.statuses.keys() >= {200, 401, 404}


def test_a_short_life_leaves_nothing_behind():
    """Requests of all kinds, clients that leave, and reloads between them."""
    outcome = soak.run(2400, samples=8, rare=100)
    assert outcome.reloads == 8
    assert outcome.left > 0
    assert outcome.statuses[200] > 2000
    assert outcome.statuses[401] > 0


def aged(**grown):
    """Return an outcome in which something grows from sample to sample."""
    usual = {"resident": 80 << 20, "descriptors": 20, "threads": 7, "tasks": 7, "objects": 1000}
    outcome = soak.Outcome()
    outcome.statuses[200] = 1000
    for number in range(11):
        said = usual | {name: usual[name] + more * number for name, more in grown.items()}
        outcome.samples.append((100 * number, Census(**said, series=frozenset({"a"}))))
    return outcome


@pytest.mark.parametrize(
    "grown", [{"resident": 3 << 20}, {"descriptors": 2}, {"tasks": 2}, {"threads": 2}], ids=str
)
def test_what_grows_is_noticed(grown):
    """Or the soak would be no proof."""
    soak.judge(aged())
    with pytest.raises(AssertionError):
        soak.judge(aged(**grown))


def test_lives_repeat():
    """The same requests for the same chance; configs come around again."""
    one, other = Life(random.Random(1)), Life(random.Random(1))
    assert one.requests(500) == other.requests(500)
    assert config(1, 1, 0) == config(1, 1, GENERATIONS) != config(1, 1, 1)
