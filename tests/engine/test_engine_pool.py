"""The pool: bounded, in order, and whole after failures. Its hands here are plain Python."""

import threading

import pytest

from gateway.engine.pool import JobError, Pool, QueueFullError


class Hand:
    """Doubles numbers; waits for a gate before each; fails on negative ones."""

    def __init__(self, gate):
        self.gate = gate
        self.threads = set()
        self.closed = False

    def __call__(self, job):
        self.gate.wait()
        self.threads.add(threading.get_ident())
        if job < 0:
            raise ValueError(job)
        return 2 * job

    def close(self):
        self.closed = True


class Ticks:
    """A clock on which every look takes a quarter of a second."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 0.25
        return self.now


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def opened(gate):
    """Return a function that opens a pool, and keeps its hands."""
    pools, hands = [], []

    def run(count=2, max_queue=8, **options):
        def make(_):
            hands.append(Hand(gate))
            return hands[-1]

        pools.append(Pool(make, count, max_queue=max_queue, clock=Ticks(), **options))
        return pools[-1], hands

    yield run
    gate.set()
    for pool in pools:
        pool.close()


def submit(pool, jobs):
    ticket = pool.reserve(len(jobs))
    pool.submit(ticket, jobs, [1] * len(jobs))
    return ticket


def test_results_come_in_the_order_of_the_jobs(opened, gate):
    """However the hands share them."""
    pool, _ = opened(count=3)
    tickets = [submit(pool, list(range(start, start + 4))) for start in (0, 10)]
    gate.set()
    expected = [[2 * job for job in range(start, start + 4)] for start in (0, 10)]
    assert expected == [ticket.done.result(10) for ticket in tickets]
    assert 0 == pool.waiting


def test_each_request_waits_once(opened, gate):
    """From when its jobs were handed in to when a hand takes the first of them."""
    waits = []
    pool, _ = opened(count=1, on_wait=waits.append)
    tickets = [submit(pool, [1, 2, 3]) for _ in range(2)]
    assert len(waits) <= 1
    gate.set()
    for ticket in tickets:
        ticket.done.result(10)
    assert len(waits) == 2
    assert 0.25 <= waits[0] < waits[1]


def test_a_hand_stays_in_its_thread(opened, gate):
    """Two threads on one llama.cpp context would be a segmentation fault."""
    pool, hands = opened(count=2, max_queue=100)
    gate.set()
    for _ in range(20):
        submit(pool, list(range(5))).done.result(10)
    threads = [hand.threads for hand in hands]
    assert all(len(ids) <= 1 for ids in threads)
    assert threads[0].isdisjoint(threads[1])


def test_more_than_may_wait_is_refused_at_the_door(opened, gate):
    """The bound counts what was reserved, before anything of it is done."""
    pool, _ = opened(count=1, max_queue=4)
    first = pool.reserve(3)
    with pytest.raises(QueueFullError):
        pool.reserve(2)
    pool.cancel(first)
    assert 4 == pool.reserve(4).places


def test_a_request_larger_than_the_queue_finds_an_empty_one(opened, gate):
    """It could never be served otherwise."""
    pool, _ = opened(max_queue=2)
    ticket = submit(pool, [1, 2, 3, 4, 5])
    gate.set()
    assert [2, 4, 6, 8, 10] == ticket.done.result(10)


def test_a_failure_is_the_requests_own(opened, gate):
    """It names the job; the rest of that request is dropped, others go on."""
    pool, _ = opened(count=1, max_queue=100)
    bad, good = submit(pool, [1, -1, 2, -3, 4]), submit(pool, [7, 8])
    gate.set()
    with pytest.raises(JobError) as failed:
        bad.done.result(10)
    assert (1, "-1") == (failed.value.position, str(failed.value.cause))
    assert [14, 16] == good.done.result(10)
    assert 0 == pool.waiting


def test_two_failures_of_one_request_are_one(opened, gate):
    """The second finds the request over, and the thread goes on."""
    pool, _ = opened(count=2)
    bad = submit(pool, [-1, -2])
    gate.set()
    assert isinstance(bad.done.exception(10), JobError)
    assert [2] == submit(pool, [1]).done.result(10)


def test_a_cancelled_request_leaves_the_queue_at_once(opened, gate):
    """What no hand has begun is not begun."""
    pool, _ = opened(count=1, max_queue=100)
    ticket = submit(pool, [1, 2, 3])
    while pool.busy == 0:
        threading.Event().wait(0.001)
    assert 2 == pool.waiting
    pool.cancel(ticket)
    pool.cancel(ticket)
    assert 0 == pool.waiting
    gate.set()
    assert [10] == submit(pool, [5]).done.result(10)
    assert not ticket.done.done()


def test_the_expected_wait_follows_what_was_measured(opened, gate):
    """Jobs that wait, times the mean time of one, over the hands."""
    pool, _ = opened(count=1, max_queue=100)
    assert 0.0 == pool.expected_wait()
    gate.set()
    submit(pool, [1]).done.result(10)
    pool.reserve(40)
    assert 40 * 0.25 == pytest.approx(pool.expected_wait())


def test_a_hand_that_cannot_be_made_is_the_starters_error(gate):
    """Nothing is served by half a pool."""

    def make(number):
        if number == 1:
            raise OSError("no room")
        return Hand(gate)

    with pytest.raises(OSError, match="no room"):
        Pool(make, 2, max_queue=1, clock=Ticks())


def test_closing_finishes_what_was_begun(opened, gate):
    """The job in hand is done, the hands are closed, the threads are gone."""
    pool, hands = opened(count=1)
    ticket = submit(pool, [1])
    while pool.busy == 0:
        threading.Event().wait(0.001)
    gate.set()
    pool.close()
    assert [2] == ticket.done.result(0)
    assert [True] == [hand.closed for hand in hands]
