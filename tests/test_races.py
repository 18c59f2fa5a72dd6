"""Small races: see tests.heavy.races for the long ones."""

from tests.heavy import races
from tests.redis_server import serve_redis


def test_equal_requests_at_once_are_one_call_and_one_vector(tmp_path):
    """P4: a flight is joined by all who ask for the text while it lasts."""
    assert races.at_once(tmp_path, 200) > 100


def test_only_what_is_missing_is_asked_for_in_order(tmp_path):
    """P1 and P4 for batches of which some is known, twice in them, or too much for one call."""
    races.in_order(tmp_path)


def test_workers_and_gateways_on_one_redis_have_one_vector_for_a_text(tmp_path):
    """P2: while they race for it, and after all of them were started again."""
    with serve_redis(tmp_path) as redis:
        outcome = races.race(redis.url, [2, 1], 60, seed=1)
    assert outcome.raced


def test_workers_on_one_sqlite_file_have_one_vector_for_a_text(tmp_path):
    """P2: the same through the file that they share."""
    outcome = races.race(f"sqlite://{tmp_path}/cache.db", [3], 60, seed=1)
    assert outcome.raced
