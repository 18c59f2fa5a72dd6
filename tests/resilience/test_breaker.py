"""When somebody who does not answer is left alone, and how long until the next try."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.resilience.breaker import Breaker


def test_one_failure_opens_it_and_one_success_closes_it():
    """Each change is told once: a log has a line for a change, not for a request."""
    breaker = Breaker()
    assert not breaker.is_open
    assert not breaker.worked()
    assert [breaker.failed() for _ in range(3)] == [True, False, False]
    assert breaker.is_open
    assert [breaker.worked() for _ in range(3)] == [True, False, False]
    assert not breaker.is_open
    assert breaker.failed()


def test_the_pause_doubles_with_each_failure_up_to_the_longest():
    """From the shortest, again after a success."""
    breaker = Breaker(shortest=0.25, longest=1.5)
    for _ in range(2):
        pauses = []
        for _ in range(5):
            breaker.failed()
            pauses.append(breaker.pause)
        assert pauses == [0.25, 0.5, 1.0, 1.5, 1.5]
        breaker.worked()


@pytest.mark.parametrize("failures", [0, 1, 9])
def test_while_all_is_well_somebody_looks_now_and_then(failures):
    """After the longest pause, whatever was before."""
    breaker = Breaker(shortest=0.25, longest=1.5)
    for _ in range(failures):
        breaker.failed()
    breaker.worked()
    assert breaker.pause == 1.5


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_it_is_open_exactly_while_the_last_try_failed(tries):
    """And the pause is always one that somebody can wait for."""
    breaker = Breaker(shortest=0.25, longest=1.5)
    for worked in tries:
        was_open = breaker.is_open
        changed = breaker.worked() if worked else breaker.failed()
        assert breaker.is_open is not worked
        assert changed is (was_open == worked)
        assert 0.25 <= breaker.pause <= 1.5
