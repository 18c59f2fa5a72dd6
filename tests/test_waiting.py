"""A clock for waiting: at the same time counts once."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.waiting import Waiting


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=8))
def test_time_in_which_anything_was_waited_for(spans):
    """Against the set of the seconds that are in any of the spans."""
    now = 0
    waiting = Waiting(lambda: float(now))
    events = sorted(
        event for begin, length in spans for event in ((begin, 0), (begin + length, 1))
    )  # what begins at a second begins before what ends then
    for at, ends in events:
        now = at
        if ends:
            waiting.__exit__()
        else:
            waiting.__enter__()
    now += 100
    covered = {second for begin, length in spans for second in range(begin, begin + length)}
    assert waiting.seconds == len(covered)


def test_what_is_still_waited_for_counts_so_far():
    """A stream begins while its recording goes on."""
    now = 10.0
    waiting = Waiting(lambda: now)
    with waiting:
        now = 12.5
        assert waiting.seconds == 2.5
    now = 100.0
    assert waiting.seconds == 2.5
