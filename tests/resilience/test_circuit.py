"""When an upstream is left alone, by whom, and how it comes back."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.resilience.circuit import USUAL, Circuit


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def circuit(clock):
    return Circuit(clock)


def tell(circuit, outcomes):
    """Make a call for each letter: `+` answered, `-` failed."""
    for outcome in outcomes:
        circuit.begun()
        if outcome == "+":
            circuit.succeeded()
        else:
            circuit.failed("5xx")


def lose(circuit, clock):
    """Fail until nobody is let through."""
    tell(circuit, "-----")
    clock.now += USUAL.patience
    tell(circuit, "-")
    assert not circuit.permits(stand_in=False)


def permitted(circuit):
    """Return whether a call may be begun: by who can go elsewhere, and by who cannot."""
    return circuit.permits(stand_in=True), circuit.permits(stand_in=False)


def test_it_is_closed_at_first(circuit):
    """Nothing is known, so anybody may call, and nobody is told to wait."""
    assert (circuit.state, circuit.reason, circuit.cooling) == ("closed", None, 0)
    assert circuit.wait(stand_in=True) == circuit.wait(stand_in=False) == 0
    assert permitted(circuit) == (True, True)


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("----", "closed"),
        ("-----", "open"),
        ("++++-", "closed"),
        ("+++--", "open"),
        ("+" * 15 + "-" * 5, "closed"),
        ("+" * 14 + "-" * 6, "open"),
        ("-" + "+" * 40 + "-" * 5, "closed"),
    ],
)
def test_who_can_go_elsewhere_gives_up_at_three_in_ten(circuit, outcomes, state):
    """Of the newest twenty calls, and never for fewer than five."""
    tell(circuit, outcomes)
    assert circuit.state == state
    assert permitted(circuit) == (state == "closed", True)


def test_who_cannot_goes_on_until_next_to_nothing_is_answered(circuit, clock):
    """Nine in ten, for a second."""
    tell(circuit, "-" * 20)
    assert circuit.permits(stand_in=False)
    clock.now += USUAL.patience - 0.001
    tell(circuit, "-")
    assert circuit.permits(stand_in=False)
    clock.now += 0.001
    tell(circuit, "-")
    assert permitted(circuit) == (False, False)


def test_a_moment_without_answers_is_no_loss(circuit, clock):
    """A proxy that restarts breaks many calls at once; then there are answers again."""
    tell(circuit, "-" * 20)
    clock.now += USUAL.patience / 2
    tell(circuit, "+++")
    clock.now += USUAL.patience
    tell(circuit, "-")
    assert circuit.permits(stand_in=False)


def test_calls_of_long_ago_do_not_count(circuit, clock):
    """Ten seconds, and they are forgotten."""
    tell(circuit, "----")
    clock.now += USUAL.window
    tell(circuit, "-")
    assert circuit.state == "closed"


def test_after_its_pause_one_call_goes_through(circuit, clock):
    """Its outcome decides: for all, or for twice the pause, up to a minute."""
    lose(circuit, clock)
    pauses = []
    for _ in range(6):
        pauses.append(circuit.wait(stand_in=False))
        clock.now += circuit.wait(stand_in=False) - 0.001
        assert (circuit.state, permitted(circuit)) == ("open", (False, False))
        clock.now += 0.001
        assert (circuit.state, permitted(circuit)) == ("half-open", (True, True))
        circuit.begun()
        assert permitted(circuit) == (False, False)
        circuit.failed("connect")
        assert circuit.reason == "connect"
    assert [round(pause, 6) for pause in pauses] == [5, 10, 20, 40, 60, 60]
    clock.now += circuit.wait(stand_in=True)
    tell(circuit, "+")
    assert (circuit.state, permitted(circuit)) == ("closed", (True, True))
    lose(circuit, clock)
    assert circuit.wait(stand_in=False) == USUAL.shortest


def test_a_probe_that_is_called_off_lets_another_one_through(circuit, clock):
    """Nothing was learned from it."""
    lose(circuit, clock)
    clock.now += circuit.wait(stand_in=True)
    circuit.begun()
    circuit.abandoned()
    assert (circuit.state, permitted(circuit)) == ("half-open", (True, True))


def test_a_probe_that_takes_long_is_not_waited_for(circuit, clock):
    """It may be a long chat, and the upstream be well since long."""
    lose(circuit, clock)
    clock.now += circuit.wait(stand_in=True)
    circuit.begun()
    clock.now += USUAL.shortest
    assert permitted(circuit) == (True, True)


def test_what_was_before_it_closed_is_forgotten(circuit, clock):
    """Else a single failure would open it again."""
    tell(circuit, "-" * 20)
    clock.now += circuit.wait(stand_in=True)
    tell(circuit, "+----")
    assert circuit.state == "closed"
    tell(circuit, "-")
    assert circuit.state == "open"


@pytest.mark.parametrize(("after", "seconds"), [(None, 1), (0.0, 0), (7.5, 7.5), (9e9, 60)])
def test_one_that_wants_fewer_calls_is_spared_by_who_can_go_elsewhere(
    circuit, clock, after, seconds
):
    """For as long as it says, within reason; others know their own way to wait."""
    for _ in range(30):
        circuit.throttled(after)
    assert circuit.cooling == clock.now + seconds
    assert (circuit.state, permitted(circuit)) == ("closed", (not seconds, True))
    assert (circuit.wait(stand_in=True), circuit.wait(stand_in=False)) == (seconds, 0)
    clock.now += seconds
    assert permitted(circuit) == (True, True)


def test_a_shorter_wait_does_not_end_a_longer_one(circuit, clock):
    """Limits are several, and the last answer need not be about the strictest."""
    circuit.throttled(9.0)
    circuit.throttled(1.0)
    assert circuit.cooling == clock.now + 9.0


def test_one_that_wants_fewer_calls_is_alive(circuit, clock):
    """It closes as after an answer."""
    lose(circuit, clock)
    clock.now += circuit.wait(stand_in=True)
    circuit.begun()
    circuit.throttled(0.0)
    assert (circuit.state, permitted(circuit)) == ("closed", (True, True))


class Life(RuleBasedStateMachine):
    """Any calls at any times, beside the rules written down as plainly as can be."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.circuit = Circuit(self.clock)
        self.ended = []
        self.opened = None
        self.pause = USUAL.shortest
        self.lost = False
        self.dire = None
        self.probe = None
        self.spared = 0.0

    @property
    def newest(self):
        young = [e for e in self.ended if e[0] > self.clock.now - USUAL.window]
        newest = [failed for _, failed in young[-USUAL.calls :]]
        return newest if len(newest) >= USUAL.least else [False]

    @property
    def half_open(self):
        return self.opened is not None and self.clock.now >= self.opened + self.pause

    def look(self):
        """Note since when next to nothing succeeds."""
        if sum(self.newest) < USUAL.lost * len(self.newest):
            self.dire = None
        elif self.dire is None:
            self.dire = self.clock.now

    def close(self):
        self.opened = self.dire = None
        self.pause = USUAL.shortest
        self.lost = False
        self.ended.clear()

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 5.0, 10.0, 61.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule()
    def begin(self):
        if self.half_open:
            self.probe = self.clock.now
        self.circuit.begun()

    @rule()
    def succeed(self):
        self.ended.append((self.clock.now, False))
        if self.dire is not None:
            self.look()
        if self.half_open:
            self.close()
        self.probe = None
        self.circuit.succeeded()

    @rule(times=st.integers(1, 8))
    def fail(self, times):
        for _ in range(times):
            was_half_open = self.half_open
            self.ended.append((self.clock.now, True))
            self.look()
            lost = self.dire is not None and self.clock.now >= self.dire + USUAL.patience
            ailing = sum(self.newest) >= USUAL.ailing * len(self.newest)
            if was_half_open:
                self.opened, self.pause = self.clock.now, min(2 * self.pause, USUAL.longest)
                self.probe = None
            elif (lost and not self.lost) or (ailing and self.opened is None):
                self.opened = self.clock.now
            self.lost = self.lost or lost
            self.circuit.failed("timeout")

    @rule(after=st.sampled_from([None, 0.0, 3.0, 600.0]))
    def throttle(self, after):
        spared = USUAL.cooling if after is None else min(after, USUAL.longest)
        self.spared = max(self.spared, self.clock.now + spared)
        if self.dire is not None:
            self.look()
        if self.half_open:
            self.close()
        self.probe = None
        self.circuit.throttled(after)

    @precondition(lambda self: self.probe is not None)
    @rule()
    def abandon(self):
        self.probe = None
        self.circuit.abandoned()

    @invariant()
    def it_permits_what_the_rules_say(self):
        now = self.clock.now
        state = "closed" if self.opened is None else "half-open" if self.half_open else "open"
        assert self.circuit.state == state
        probing = self.probe is not None and now < self.probe + USUAL.shortest
        free = state == "closed" or (state == "half-open" and not probing)
        assert self.circuit.permits(stand_in=True) == (free and now >= self.spared)
        assert self.circuit.permits(stand_in=False) == (free or not self.lost)

    @invariant()
    def nobody_is_left_alone_for_ever(self):
        for stand_in in (True, False):
            wait = self.circuit.wait(stand_in=stand_in)
            assert 0 <= wait <= USUAL.longest + 1e-6
            assert wait or self.circuit.permits(stand_in=stand_in)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
