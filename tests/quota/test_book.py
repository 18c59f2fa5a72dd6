"""The arithmetic of limits: in any order of workers, losses and pauses never more than allowed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.quota.book import FORGOTTEN, HELD, LEASE, Ask, Book, Wish, exchange
from gateway.quota.limits import DAY, Limits, nanos_of

WORKERS = 4
NOW = 1_800_000_000.0

steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, WORKERS - 1), st.integers(0, 30), st.booleans()),
        st.tuples(st.just("use"), st.integers(0, WORKERS - 1), st.integers(1, 30)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.1, 7.0, 70.0, 130.0])),
        st.tuples(st.just("restart"), st.integers(0, WORKERS - 1)),
    ),
    max_size=60,
)


class Worker:
    """Uses requests as a Desk does: those it was leased, until the lease is over."""

    def __init__(self, name):
        self.name = name
        self.used = self.lease = 0
        self.until = 0.0


@settings(max_examples=300)
@given(steps=steps, limit=st.integers(1, 120))
def test_no_more_requests_are_used_than_the_limit_allows(steps, limit):
    """In any time t, by all workers together: at most a minute's worth, and t at its rate.

    Answers are lost, workers die with their leases and are late with their reports.
    """
    book, limits, now = Book(), Limits(requests=limit), NOW
    workers, uses = [Worker(str(number)) for number in range(WORKERS)], []
    for number, step in enumerate(steps):
        match step:
            case "ask", who, wanted, lost:
                worker = workers[who]
                worker.lease = min(worker.lease, wanted)
                ask = Ask(worker=worker.name, used=worker.used, lease=wanted)
                told = exchange(book, limits, ask, now)
                assert 0 <= told.lease <= wanted
                if not lost:
                    worker.lease, worker.until = told.lease, now + LEASE
            case "use", who, count:
                worker = workers[who]
                taken = min(count, worker.lease) if now <= worker.until else 0
                worker.lease -= taken
                worker.used += taken
                uses += [now] * taken
            case "wait", seconds:
                now += seconds
            case "restart", who:
                workers[who] = Worker(f"{who} after {number}")
    for first, begin in enumerate(uses):
        for last in range(first, len(uses)):
            assert last - first + 1 <= limit + (uses[last] - begin) * limit / 60 + 1e-6


@settings(max_examples=200)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, WORKERS - 1), st.integers(0, 9), st.sampled_from([0.0, 1.0, 9.0, 20.0])
        ),
        max_size=50,
    ),
    limit=st.integers(1, 12),
)
def test_no_more_places_are_held_than_there_are(steps, limit):
    """Whoever holds some has asked lately, and all of them together hold no more than the limit."""
    book, now, held = Book(), NOW, {}
    for who, wanted, pause in steps:
        told = exchange(book, Limits(places=limit), Ask(worker=str(who), places=wanted), now)
        held[who] = (told.places, now)
        assert sum(places for places, at in held.values() if now - at <= HELD) <= limit
        others = sum(p for w, (p, at) in held.items() if w != who and now - at <= HELD)
        assert told.places == min(wanted, limit - others), "a free place was refused"
        now += pause


def test_what_is_left_of_a_lease_comes_back():
    """At the next report, also when the lease was over; who has died takes his with him."""
    for late in (0.5, LEASE + 1):
        book, limits = Book(), Limits(requests=10)
        exchange(book, limits, Ask(worker="a", lease=10), NOW)
        assert exchange(book, limits, Ask(worker="b", lease=10), NOW).lease == 0
        exchange(book, limits, Ask(worker="a", used=1), NOW + late)
        assert exchange(book, limits, Ask(worker="b", lease=10), NOW + late).lease == 9


def test_what_is_out_on_lease_does_not_drain_away():
    """It may yet be used, all of it, and what came back meanwhile with it."""
    book, limits = Book(), Limits(requests=6000)
    exchange(book, limits, Ask(worker="a", lease=6000), NOW)
    assert exchange(book, limits, Ask(worker="b", lease=6000), NOW + 0.9).lease == 0
    exchange(book, limits, Ask(worker="a", used=6000), NOW + 0.9)
    assert exchange(book, limits, Ask(worker="b", lease=6000), NOW + 1.9).lease == 100


def test_places_that_requests_stand_on_are_not_taken_back():
    """A limit that was lowered, or a worker that was away for long, keeps what runs."""
    book = Book()
    exchange(book, Limits(places=5), Ask(worker="a", busy=4, places=5), NOW)
    assert exchange(book, Limits(places=2), Ask(worker="a", busy=4, places=5), NOW).places == 4
    assert exchange(book, Limits(places=5), Ask(worker="b", places=3), NOW).places == 1


@settings(max_examples=200)
@given(
    wishes=st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from([0.0, 0.5, 11.0])), min_size=1, max_size=40
    )
)
def test_tokens_are_granted_up_to_the_limit_and_as_they_come_back(wishes):
    """Of a minute's thousand at most that in no time, and no wish that fits is refused."""
    book, now, granted = Book(), NOW, []
    for tokens, pause in wishes:
        owed = exchange(book, Limits(tokens=1000), Ask(worker="w"), now).tokens
        told = exchange(book, Limits(tokens=1000), Ask(worker="w", wishes=[Wish(tokens, 0)]), now)
        assert bool(told.refused[0]) == (owed + tokens > 1000 + 1e-6)
        if not told.refused[0]:
            granted.append((now, tokens))
        now += pause
    for first, (begin, _) in enumerate(granted):
        for last in range(first, len(granted)):
            spent = sum(tokens for _, tokens in granted[first : last + 1])
            assert spent <= 1000 + (granted[last][0] - begin) * 1000 / 60 + 1e-3


def test_what_was_billed_counts_in_the_place_of_what_was_expected():
    """Less makes room at once; more is owed, and waited for."""
    book, limits = Book(), Limits(tokens=100, nanos=1000)
    wish = [Wish(80, 900)]
    assert exchange(book, limits, Ask(worker="w", wishes=wish), NOW).refused == [""]
    assert exchange(book, limits, Ask(worker="w", wishes=wish), NOW).refused == ["budget"]
    told = exchange(book, limits, Ask(worker="w", tokens=-60, nanos=-800, wishes=wish), NOW)
    assert (told.refused, told.tokens, told.nanos) == ([""], 100, 1000)
    told = exchange(book, limits, Ask(worker="w", tokens=140, nanos=0), NOW)
    assert (told.tokens, told.nanos) == (300, 1800)
    told = exchange(book, limits, Ask(worker="w", tokens=140, nanos=0, wishes=[Wish(1, 0)]), NOW)
    assert told.refused == ["tokens"]


def test_a_report_that_comes_twice_counts_once():
    """All are sums: whether an answer came or was lost makes no difference."""
    book, limits = Book(), Limits(tokens=1000, nanos=10**9)
    for _ in range(3):
        told = exchange(book, limits, Ask(worker="w", tokens=300, nanos=500), NOW)
    assert (told.tokens, told.nanos) == (300, 500)


def test_a_worker_that_was_forgotten_says_what_had_been_confirmed():
    """Its sums go on; only what is new in them counts."""
    book, limits = Book(), Limits(nanos=10**9)
    exchange(book, limits, Ask(worker="w", nanos=500), NOW)
    later = Ask(worker="w", nanos=700, known_nanos=500)
    assert exchange(book, limits, later, NOW + FORGOTTEN + 1).nanos == 700


def test_a_new_day_of_utc_begins_with_all_the_dollars():
    """At midnight; what is billed after it counts on the new day."""
    book, limits = Book(), Limits(nanos=1000)
    night = (NOW // DAY + 1) * DAY
    wish = [Wish(0, 1000)]
    assert exchange(book, limits, Ask(worker="w", wishes=wish), night - 1).refused == [""]
    assert exchange(book, limits, Ask(worker="w", wishes=[Wish(0, 1)]), night - 1).refused != [""]
    told = exchange(book, limits, Ask(worker="w", nanos=10, wishes=[Wish(0, 990)]), night)
    assert (told.refused, told.nanos) == ([""], 1000)


def test_a_ledger_that_lost_its_memory_is_reminded_of_what_was_spent():
    """By any worker that knows; a day later that means nothing any more."""
    limits = Limits(nanos=1000)
    told = exchange(Book(), limits, Ask(worker="w"), NOW)
    reminder = Ask(worker="w", day=told.day, spent=900, wishes=[Wish(0, 200)])
    assert exchange(Book(), limits, reminder, NOW).refused == ["budget"]
    assert exchange(Book(), limits, reminder, NOW + DAY).refused == [""]


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -3 * DAY])
def test_a_clock_that_jumps_stops_nobody_for_longer_than_a_minute(jump):
    """Forward is a good minute's worth, backward is no time at all; both go on from there."""
    book, limits = Book(), Limits(requests=60)
    exchange(book, limits, Ask(worker="a", lease=60), NOW)
    exchange(book, limits, Ask(worker="a", used=60), NOW + jump)
    told = exchange(book, limits, Ask(worker="a", used=60, lease=60), NOW + jump + 61)
    assert told.lease == 60


def test_lowered_and_raised_limits_apply_to_what_is_owed_already():
    """Nothing is forgotten, and nobody owes more than the seconds at the new rate."""
    book = Book()
    exchange(book, Limits(requests=100), Ask(worker="a", lease=100), NOW)
    exchange(book, Limits(requests=100), Ask(worker="a", used=100), NOW)
    assert exchange(book, Limits(requests=10), Ask(worker="a", used=100, lease=1), NOW).lease == 0
    raised = exchange(book, Limits(requests=150), Ask(worker="a", used=100, lease=99), NOW)
    assert raised.lease == 50


def test_keys_without_a_limit_are_not_counted_against_one():
    """None is no limit, of each kind by itself."""
    ask = Ask(worker="a", lease=5, places=5, wishes=[Wish(10**9, 10**15)])
    told = exchange(Book(), Limits(), ask, NOW)
    assert (told.refused, told.requests) == ([""], 0)


@pytest.mark.parametrize(
    ("dollars", "nanos"),
    [(0.0, 0), (1e-12, 0), (1e-11, 1), (1.0, 10**9), (0.02 / 1e6, 20), (5e-9, 5), (5.1e-9, 6)],
)
def test_dollars_are_counted_in_billionths_rounded_up(dollars, nanos):
    """What costs anything costs something, and what floating point adds costs nothing."""
    assert nanos_of(dollars) == nanos


@pytest.mark.parametrize(("ways", "requests", "nanos"), [(1, 10, 900), (4, 2, 225), (50, 1, 18)])
def test_a_share_is_a_part_and_at_least_one(ways, requests, nanos):
    """Of what is left of the dollars, where some are spent."""
    part = Limits(requests=10, nanos=1000).share(ways, spent=100)
    assert (part.requests, part.nanos, part.tokens) == (requests, nanos, None)
