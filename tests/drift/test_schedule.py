"""When a model is due, whatever it says, whoever asks it and however time passes."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from gateway.drift.schedule import AGAIN, SOON, Due, Times

spans = st.floats(0.0, 30_000.0)
chances = st.floats(0.0, 1.0)
times = st.builds(Times, every=st.sampled_from([1.0, 300.0, 3600.0, 21600.0]), delay=spans)
happenings = st.lists(
    st.tuples(
        spans, st.booleans(), st.sampled_from(["steady", "drift", "failed", "told"]), chances
    ),
    max_size=30,
)


@given(times, happenings)
def test_a_remote_model_is_asked_as_often_as_is_said(schedule, story):
    """Not before its first delay, not while it is away, and never later than by the schedule."""
    chance = iter([c for *_, c in story] + [0.5] * 60)
    now, earliest, latest = 0.0, schedule.delay, schedule.delay
    due = Due(schedule, now, lambda: next(chance))
    failures, asked = 0, False
    for passed, there, what, _ in story:
        now += passed
        is_due = due(now, there=there, local=False)
        assert is_due <= (there and now >= earliest)
        assert is_due >= (there and now >= latest)
        pause = min(schedule.every, AGAIN) if what == "drift" else schedule.every
        if is_due and what == "failed":
            due.failed(now)
            pause, failures = min(SOON * 2**failures, AGAIN, schedule.every), failures + 1
        elif is_due and what != "told":
            due.answered(now, drifted=what == "drift", local=False)
            failures, asked = 0, True
        elif what == "told" and asked:
            due.told(now, 0.0, drifted=False)
        else:
            continue
        earliest, latest = now + 0.9 * pause - 1e-6, now + pause


@given(times, happenings)
def test_a_local_model_is_asked_once_each_time_it_comes_up(schedule, story):
    """Its vectors cannot change while it is loaded, and asking would keep it from its rest."""
    now, was_there, owed = 0.0, False, True
    due = Due(schedule, now, lambda: 0.0)
    first = True
    for passed, there, *_ in story:
        now += passed
        owed = owed or (there and not was_there)
        was_there = there
        is_due = due(now, there=there, local=True)
        assert is_due == (there and owed and (not first or now >= schedule.delay))
        if is_due:
            due.answered(now, drifted=False, local=True)
            owed = first = False


@given(spans, st.booleans())
def test_never_is_never(passed, local):
    """However long it is there."""
    due = Due(Times(0.0, 0.0), 0.0, lambda: 0.0)
    assert not due(passed, there=True, local=local)


def test_what_others_found_out_long_ago_spares_nothing():
    """Who has asked in the past third of the schedule has asked for us, but for two thirds."""
    due = Due(Times(3600.0, 0.0), 0.0, lambda: 0.0)
    due.answered(0.0, drifted=False, local=False)
    due.told(1800.0, 1200.0, drifted=False)
    assert not due(1800.0 + 2399.0, there=True, local=False)
    assert due(1800.0 + 2400.0, there=True, local=False)
    due.told(5000.0, inf, drifted=False)
    assert due(5000.0, there=True, local=False)


def test_a_check_in_the_future_is_one_of_now():
    """The clock of another machine may be fast; this one is asked all the same."""
    due = Due(Times(60.0, 0.0), 0.0, lambda: 0.0)
    due.answered(0.0, drifted=False, local=False)
    due.told(1.0, -1e9, drifted=False)
    assert due(61.0, there=True, local=False)


def test_nobody_is_spared_his_first_question():
    """A gateway asks after its start, whatever others have found out before."""
    due = Due(Times(3600.0, 30.0), 0.0, lambda: 0.0)
    due.told(1.0, 0.0, drifted=False)
    assert due(30.0, there=True, local=False)


def test_shorter_times_are_heeded_at_once():
    """After a reload nothing waits for what an earlier config said; longer ones come by and by."""
    due = Due(Times(3600.0, 30.0), 0.0, lambda: 0.0)
    due.answered(0.0, drifted=False, local=False)
    due = due.changed(Times(60.0, 30.0), 100.0)
    assert not due(159.0, there=True, local=False)
    assert due(160.0, there=True, local=False)
    due = due.changed(Times(3600.0, 30.0), 160.0)
    assert due(160.0, there=True, local=False)
    due = due.changed(Times(0.0, 30.0), 160.0)
    assert not due(1e9, there=True, local=False)
