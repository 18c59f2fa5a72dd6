"""Places at an upstream: never too many, none lost, shared fairly, and honest about the wait."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.places import Places
from gateway.errors import OwnLimitError, UnavailableError, UpstreamTimeoutError
from gateway.types import ANYONE, Caller

ANNA, BEN, CAROL = (Caller(name) for name in ("anna", "ben", "carol"))
LONG = 1e6
REFUSED = OwnLimitError, UnavailableError, asyncio.CancelledError


class Quick(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer as soon as nothing else is to be done."""

    now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]
        if timers and not self._ready:
            self.now = max(self.now, min(timers))
        super()._run_once()


def run(scene):
    """Run a scene, in no time."""
    with asyncio.Runner(loop_factory=Quick) as runner:
        return runner.run(scene())


def opened(count, max_queue=100, max_queue_per_key=100):
    return Places(
        "up",
        count,
        max_queue=max_queue,
        max_queue_per_key=max_queue_per_key,
        clock=asyncio.get_running_loop().time,
    )


async def stay(places, caller=ANYONE, seconds=1.0, patience=LONG):
    """Take a place, keep it for so long, give it back; return when it was taken."""
    taken = await places.take(caller, asyncio.get_running_loop().time() + patience)
    try:
        await asyncio.sleep(seconds)
    finally:
        places.leave(taken)
    return taken


async def begin(*stays):
    """Begin these one after the other, and let all come to where they wait."""
    tasks = [asyncio.ensure_future(one) for one in stays]
    await asyncio.sleep(0)
    return tasks


def test_so_many_at_a_time_and_the_others_in_order():
    """Each stays for a second: two come at once, two a second later."""

    async def scene():
        places = opened(2)
        tasks = await begin(*(stay(places) for _ in range(5)))
        assert (places.in_flight, places.waiting) == (2, 3)
        assert await asyncio.gather(*tasks) == [0.0, 0.0, 1.0, 1.0, 2.0]
        assert (places.in_flight, places.waiting) == (0, 0)

    run(scene)


def test_callers_take_turns():
    """However many requests one of them has waiting."""

    async def scene():
        places = opened(1)
        order = []

        async def one(caller):
            await stay(places, caller)
            order.append(caller.name[0])

        await asyncio.gather(*map(one, [ANNA] * 6 + [BEN] * 2 + [CAROL]))
        assert "".join(order) == "aabcabaaa"

    run(scene)


def test_the_queue_is_bounded():
    """Who finds it full is told at once when to come back: when what waits has been served."""

    async def scene():
        places = opened(2, max_queue=4)
        await stay(places, seconds=3.0)
        tasks = await begin(*(stay(places, seconds=3.0) for _ in range(6)))
        with pytest.raises(UnavailableError, match="upstream 'up'") as caught:
            await places.take(ANNA, LONG)
        error = caught.value
        assert (error.status, error.code, error.reason) == (503, "overloaded", "overload")
        assert error.headers == {"retry-after": "6", "retry-after-ms": "6000"}
        await asyncio.gather(*tasks)
        await stay(places)

    run(scene)


def test_one_key_cannot_fill_the_queue():
    """Beyond its bound it is told so, and others still find room."""

    async def scene():
        places = opened(1, max_queue=4, max_queue_per_key=2)
        tasks = await begin(*(stay(places, ANNA) for _ in range(3)))
        with pytest.raises(OwnLimitError, match="your requests") as caught:
            await places.take(ANNA, LONG)
        assert (caught.value.status, caught.value.reason) == (429, "concurrency")
        assert caught.value.headers.keys() == {"retry-after", "retry-after-ms"}
        tasks += await begin(stay(places, BEN))
        await asyncio.gather(*tasks)

    run(scene)


def test_where_there_are_no_keys_all_of_the_queue_is_everybodys():
    """The bound of a key keeps keys apart, and there are none."""

    async def scene():
        places = opened(1, max_queue=4, max_queue_per_key=2)
        await asyncio.gather(*(stay(places) for _ in range(5)))

    run(scene)


def test_who_cannot_be_served_in_time_is_not_kept():
    """By the pace so far: stays of two seconds, three of which come before."""

    async def scene():
        places = opened(1)
        await stay(places, seconds=2.0)
        tasks = await begin(*(stay(places, seconds=2.0) for _ in range(4)))
        with pytest.raises(UnavailableError) as caught:
            await places.take(ANYONE, asyncio.get_running_loop().time() + 5.9)
        assert caught.value.code == "overloaded"
        tasks += await begin(stay(places, patience=8.1))
        assert (await asyncio.gather(*tasks))[-1] == 10.0

    run(scene)


def test_others_lines_are_in_the_way_only_as_far_as_ones_own():
    """Ten of Anna's wait; Ben's first is next but one."""

    async def scene():
        places = opened(1)
        await stay(places, seconds=2.0)
        tasks = await begin(*(stay(places, ANNA, 2.0) for _ in range(11)))
        assert [places.expected(name) for name in ("anna", "ben")] == [20.0, 2.0]
        tasks += await begin(stay(places, BEN, 2.0, patience=4.1))
        await asyncio.gather(*tasks)

    run(scene)


def test_an_upstream_that_stands_still_is_expected_to_go_on_so():
    """No place was given back for a minute, so the next one is not expected in a second."""

    async def scene():
        places = opened(1)
        await stay(places, seconds=1.0)
        (stuck, waiting) = await begin(stay(places, seconds=LONG), stay(places, seconds=1.0))
        await asyncio.sleep(60.0)
        assert places.expected("anna") == 60.0
        for task in (stuck, waiting):
            task.cancel()
        await asyncio.gather(stuck, waiting, return_exceptions=True)

    run(scene)


def test_who_waited_until_the_deadline_is_told_so_then():
    """504, and the queue has forgotten them."""

    async def scene():
        places = opened(1)
        (holding,) = await begin(stay(places, seconds=9.0))
        with pytest.raises(UpstreamTimeoutError, match="No place at upstream 'up'") as caught:
            await stay(places, patience=3.0)
        assert caught.value.reason == "deadline"
        assert (asyncio.get_running_loop().time(), places.waiting) == (3.0, 0)
        await holding

    run(scene)


def test_a_place_is_not_lost_with_who_leaves_as_it_comes():
    """Called off in the very step in which the place was handed over, and just before it."""

    async def scene():
        places = opened(1)
        first = await places.take(ANYONE, LONG)
        early, late, last = await begin(*(stay(places) for _ in range(3)))
        early.cancel()  # it does not know yet when the place is given back
        places.leave(first)
        late.cancel()  # it has the place already, and does not know that either
        assert await last == 0.0
        assert (places.in_flight, places.waiting) == (0, 0)
        await asyncio.gather(early, late, return_exceptions=True)

    run(scene)


@dataclass
class Crowd:
    """Requests that come and go, held against the rules at every step."""

    places: Places
    count: int
    waiting: dict = field(default_factory=dict)
    """The requests that wait, by number, in the order of arrival: who, since and until when."""
    passed: dict = field(default_factory=dict)
    """For each caller who waits, who had a turn since its own last one."""
    running: int = 0

    async def request(self, number, caller, seconds, patience):
        """Wait for a place, have it for a while, and leave; false where it gave up too soon."""
        self.check()
        now = asyncio.get_running_loop().time
        deadline = now() + patience
        waits = self.places.in_flight == self.count
        if waits:
            if caller.name not in self.still(now()).values():
                self.passed.pop(caller.name, None)
            self.waiting[number] = caller.name, now(), deadline
        try:
            taken = await self.places.take(caller, deadline)
        except UpstreamTimeoutError:
            del self.waiting[number]
            return now() == deadline
        except BaseException:
            self.waiting.pop(number, None)
            raise
        assert now() <= deadline
        if waits:
            self.let_in(number, now())
        self.running += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.running -= 1
            self.places.leave(taken)
        return True

    def call_off(self, number, task):
        """Cancel a request; if it waits, it is nobody to be considered from now on."""
        if number in self.waiting:
            self.waiting[number] = *self.waiting[number][:2], -1.0
        task.cancel()

    def check(self):
        places = self.places  # which may have handed on a place to somebody who does not know yet
        assert self.running <= places.in_flight <= self.count
        assert places.waiting <= len(self.waiting)
        assert not places.waiting or places.in_flight == self.count, (
            "a place is free, and one waits"
        )

    def still(self, now):
        """Return who waits and has not given up, by number."""
        return {n: caller for n, (caller, _, until) in self.waiting.items() if until > now}

    def let_in(self, number, now):
        """Note a turn: the first of its caller's, and nobody else's for the second time."""
        caller, _, _ = self.waiting.pop(number)
        still = self.still(now)
        assert not [n for n, c in still.items() if c == caller and n < number]
        self.passed.pop(caller, None)
        # Who came at this very moment may have come when the turn was given already.
        before = {c for n, c in still.items() if self.waiting[n][1] < now}
        for other in before - {caller}:
            seen = self.passed.setdefault(other, set())
            assert caller not in seen, f"{caller} had two turns while {other} waited"
            seen.add(caller)
        for other in set(self.passed) - set(still.values()):
            del self.passed[other]


requests = st.tuples(
    st.sampled_from([0.0, 0.0, 0.0, 0.125, 0.5]),  # seconds after the one before
    st.sampled_from([ANNA, BEN, CAROL]),
    st.sampled_from([0.0, 0.25, 1.0, 2.0]),  # how long it stays
    st.sampled_from([0.25, 1.0, 3.0, LONG]),  # how long it would wait
    st.sampled_from([None, None, 0.0, 0.25, 1.0, 2.0]),  # when it is called off
)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.integers(0, 8), st.lists(requests, max_size=40))
def test_whatever_comes_and_goes(count, max_queue, plan):
    """Never too many, no place unused while somebody waits, everybody in turn, and nothing left."""

    async def scene():
        loop = asyncio.get_running_loop()
        places = opened(count, max_queue, max_queue_per_key=max(1, max_queue // 2))
        crowd = Crowd(places, count)
        tasks = []
        for number, (after, caller, seconds, patience, off) in enumerate(plan):
            await asyncio.sleep(after)
            task = asyncio.ensure_future(crowd.request(number, caller, seconds, patience))
            tasks.append(task)
            if off is not None:
                loop.call_later(off, crowd.call_off, number, task)
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            assert end is True or isinstance(end, REFUSED), end
        assert (places.in_flight, places.waiting, crowd.running) == (0, 0, 0)
        assert places.expected("anna") == places.expected("ben") == 0.0

    run(scene)
