"""How many calls may be made again, whatever fails."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.resilience.budget import RetryBudget


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def withdrawn(budget):
    """Take out what there is; return how many retries that were."""
    taken = 0
    while budget.withdraw():
        taken += 1
    return taken


def test_the_reserve_is_there_at_first():
    """The first calls after a start may be made again."""
    assert withdrawn(RetryBudget(Clock())) == 5


def test_ten_calls_pay_for_one_retry():
    """And not one more."""
    budget = RetryBudget(Clock(), share=0.125)
    withdrawn(budget)
    for _ in range(7):
        budget.deposit()
    assert not budget.withdraw()
    budget.deposit()
    assert withdrawn(budget) == 1


def test_time_pays_for_one_now_and_then():
    """Who is seldom asked may still be asked again."""
    clock = Clock()
    budget = RetryBudget(clock)
    withdrawn(budget)
    clock.now = 19.9
    assert not budget.withdraw()
    clock.now = 20.1
    assert withdrawn(budget) == 1


def test_no_more_is_saved_than_the_reserve():
    """A quiet day is no reason to ask an upstream that fails ten times more."""
    clock = Clock()
    budget = RetryBudget(clock)
    for _ in range(1000):
        budget.deposit()
    clock.now = 1e6
    assert withdrawn(budget) == 5


@given(st.lists(st.sampled_from(["call", "retry"]) | st.floats(0, 100), max_size=200))
def test_retries_never_exceed_what_was_paid_for_them(events):
    """The reserve, a tenth of the calls, and one for each 20 seconds."""
    clock = Clock()
    budget = RetryBudget(clock)
    calls = retries = 0
    for event in events:
        if event == "call":
            calls += 1
            budget.deposit()
        elif event == "retry":
            retries += budget.withdraw()
        else:
            clock.now += event
        assert retries <= 5 + calls / 10 + clock.now / 20 + 1e-6
