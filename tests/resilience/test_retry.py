"""When to ask again: pure decisions about time, with the clock and the dice given."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.resilience.retry import RetryPolicy, retry_after

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
LONG = 1e9


def policy(chance=1.0, **options):
    return RetryPolicy(chance=lambda: chance, **options)


def test_waits_double_up_to_the_cap():
    """Without luck the waits are base, twice it, four times it, and at last the cap."""
    waits = [policy(attempts=None, base=0.25, cap=1.5).wait(n, LONG) for n in range(1, 6)]
    assert [0.25, 0.5, 1.0, 1.5, 1.5] == waits


def test_jitter_spreads_over_the_whole_wait():
    """Full jitter: anything between nothing and the whole."""
    assert [0.0, 0.125] == [policy(chance).wait(1, LONG) for chance in (0.0, 0.5)]


def test_attempts_are_counted_with_the_first():
    """Three attempts are two retries."""
    waits = [policy(attempts=3).wait(n, LONG) for n in (1, 2, 3, 4)]
    assert [False, False, True, True] == [wait is None for wait in waits]
    assert policy(attempts=1).wait(1, LONG) is None


def test_a_policy_without_attempts_is_bound_by_time_alone():
    """The thousandth attempt waits like the tenth, and overflows nothing."""
    assert policy(attempts=None).wait(10**6, LONG) == 8.0


def test_an_upstream_that_asks_for_longer_is_given_longer():
    """Retry-After is a floor, not a ceiling."""
    assert policy().wait(1, LONG, asked=3.0) == 3.0
    assert policy().wait(1, LONG, asked=0.1) == 0.25


def test_no_retry_is_begun_that_could_not_start_in_time():
    """A wait as long as what remains is no wait worth having."""
    assert policy().wait(1, 0.25) is None
    assert policy().wait(1, 0.251) == 0.25
    assert policy().wait(1, 10.0, asked=60.0) is None
    assert policy(0.0).wait(1, 0.0) is None


@given(
    attempt=st.integers(1, 50),
    chance=st.floats(0, 1, exclude_max=True),
    remaining=st.floats(-10, 1000),
    asked=st.none() | st.floats(0, 1000),
)
def test_a_wait_is_never_negative_too_long_or_too_early(attempt, chance, remaining, asked):
    """Whatever is asked for: within what remains, and not before the upstream wants us back."""
    wait = policy(chance, attempts=None).wait(attempt, remaining, asked)
    if wait is not None:
        assert 0 <= wait < remaining
        assert asked is None or wait >= asked


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "-1", "retry-after": "7"}, 7.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Sat, 99 Nov 2026 12:00:00 GMT"}, None),
        ({"retry-after": "Sat, 21 Nov 99999 12:00:00 GMT"}, None),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=9), usegmt=True)}, 9.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=9), usegmt=True)}, 0.0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers, seconds):
    """Seconds, milliseconds and dates are read; nonsense counts as not said."""
    assert retry_after(headers, NOW.timestamp()) == seconds


@given(value=st.text(max_size=40))
def test_no_retry_after_can_raise(value):
    """Whatever an upstream writes there, it is a number of seconds or nothing."""
    seconds = retry_after({"retry-after": value}, NOW.timestamp())
    assert seconds is None or seconds >= 0
