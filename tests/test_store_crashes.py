"""Gateways that are killed, and bits that flip in what they left: small runs of tests.heavy's."""

import pytest

from tests.draws import Draws
from tests.flipping import Tally
from tests.heavy import crashes
from tests.heavy.flipped_files import Files, destroy, flip_at_rest, make_killed, make_resting
from tests.heavy.flips import Shared, flip_facts, flip_values
from tests.redis_server import serve_redis
from tests.upstream import serve


@pytest.fixture(scope="module")
def noisy():
    """An upstream whose every draw differs, and who knows them all."""
    draws = Draws()
    fake = draws.upstream(32)
    with serve(fake):
        yield draws, fake


def test_what_was_answered_outlives_kill_9():
    """Of one worker, of two, and in the middle of a start."""
    outcome = crashes.run(3, shortest=0.1, longest=0.3)
    assert (outcome.rounds, len(outcome.starts)) == (3, 3)
    assert outcome.compared > outcome.answered > 0


@pytest.mark.parametrize("make", [make_resting, make_killed])
def test_a_bit_that_flips_in_a_file_brings_no_wrong_vector(tmp_path, noisy, make):
    """In a record it is found, once; elsewhere a vector is made again at most, and stays."""
    tally = Tally()
    files = Files(tmp_path / "files", *noisy)
    flip_at_rest(files, make(files), 9, tally, seed=5)
    assert tally.flips == 9
    assert tally.found >= 3 * (make is make_resting)


def test_a_file_that_is_destroyed_is_set_aside_and_begun_anew(tmp_path, noisy):
    """Cut, overwritten, emptied: one line each."""
    tally = Tally()
    destroy(Files(tmp_path / "files", *noisy), tally, seed=5)
    assert tally.set_aside == 3


def test_a_bit_that_flips_in_redis_brings_no_wrong_vector(tmp_path, noisy):
    """In values it is found, once; facts are set right by who knows them."""
    tally = Tally()
    with serve_redis(tmp_path / "redis") as server:
        shared = Shared(tmp_path, *noisy, server)
        flip_values(shared, 20, tally, seed=5)
        flip_facts(shared, 3, tally, seed=5)
    assert (tally.flips, tally.found, tally.replaced) == (23, 20, 20)
