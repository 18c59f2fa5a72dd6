"""A few attackers beside good clients: see tests.heavy.slow for a thousand of them."""

from tests.heavy import slow
from tests.heavy.attackers import WAYS


def test_attackers_of_every_kind_are_sent_away_while_others_are_served():
    """A second is all that they get here; every request of the good ones is answered."""
    patience = 'header_timeout = "1s"\nbody_timeout = "1s"\nmax_body = "1MiB"'
    outcome = slow.run(2 * len(WAYS), 1.0, list(WAYS), patience)
    assert set(outcome.lasted) == set(WAYS)
    outcome.judge_attackers(slow.CLOSED_WITHIN)
    assert all(outcome.attacked.values())
