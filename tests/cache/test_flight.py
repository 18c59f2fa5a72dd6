"""One call per text: joining, leaving, failing, and every order in which these can happen."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.flight import Flights, land


class Call:
    """An upstream call, or a look into the stores, that ends when the test says so."""

    def __init__(self):
        self.answer = asyncio.get_running_loop().create_future()
        self.begun = self.cancelled = False

    async def __call__(self):
        self.begun = True
        try:
            return await self.answer
        except asyncio.CancelledError:
            self.cancelled = True
            raise


class FaultError(Exception):
    """A failure of an upstream."""


async def settle():
    """Let everything that can run, run."""
    for _ in range(8):
        await asyncio.sleep(0)


async def ask(flights, key, call):
    """Do what a request does: join who asks for the key already, or ask."""
    flight = flights.get(key)
    if flight is None:
        return (await land(flights.ask([([key], call())]), {}))[key]
    return (await land(None, {flight: [key]}))[key]


def test_whoever_comes_while_a_call_is_on_its_way_joins_it():
    """Two ask for one text: one call, the same answer, and nothing is left behind."""

    async def scene():
        flights, call, unused = Flights(), Call(), Call()
        both = [asyncio.create_task(ask(flights, b"k", c)) for c in (call, unused)]
        await settle()
        assert len(flights) == 1
        call.answer.set_result({b"k": "vector"})
        assert ["vector", "vector"] == await asyncio.gather(*both)
        assert not unused.begun
        await settle()
        assert len(flights) == 0

    asyncio.run(scene())


def test_the_one_who_began_may_leave():
    """The call goes on for those who joined."""

    async def scene():
        flights, call = Flights(), Call()
        first = asyncio.create_task(ask(flights, b"k", call))
        await settle()
        second = asyncio.create_task(ask(flights, b"k", call))
        await settle()
        first.cancel()
        await asyncio.wait({first})
        await settle()
        assert not call.cancelled
        call.answer.set_result({b"k": "vector"})
        assert await second == "vector"

    asyncio.run(scene())


def test_the_last_one_to_leave_calls_it_off():
    """A call that nobody waits for ends, and does not keep its place."""

    async def scene():
        flights, call = Flights(), Call()
        waiting = [asyncio.create_task(ask(flights, b"k", call)) for _ in range(3)]
        await settle()
        for task in waiting:
            assert not call.cancelled
            task.cancel()
            await asyncio.wait({task})
            await settle()
        assert call.cancelled
        assert len(flights) == 0

    asyncio.run(scene())


def test_who_comes_while_a_call_is_being_called_off_asks_anew():
    """Between the last one's leaving and the end of the call there is no joining it."""

    async def scene():
        flights, call, anew = Flights(), Call(), Call()
        first = asyncio.create_task(ask(flights, b"k", call))
        await settle()
        first.cancel()
        await asyncio.wait({first})
        assert flights.get(b"k") is None
        second = asyncio.create_task(ask(flights, b"k", anew))
        await settle()
        assert call.cancelled
        assert len(flights) == 1, "the end of the old call has taken the new one's place away"
        anew.answer.set_result({b"k": "vector"})
        assert await second == "vector"

    asyncio.run(scene())


@pytest.mark.parametrize("looking", [False, True])
def test_a_call_that_was_just_called_off_cannot_be_joined(looking):
    """Not even in the very step of the loop in which the last one leaves."""

    async def scene():
        flights, call = Flights(), Call()
        if looking:
            flight = flights.look_up([b"k"], call, nothing_else)
        else:
            flight = flights.ask([([b"k"], call())])
        await settle()
        flight.join()
        assert flights.get(b"k") is flight
        flight.leave()
        (task,) = flight.tasks()
        assert not task.done()
        assert flights.get(b"k") is None
        await settle()
        assert call.cancelled

    asyncio.run(scene())


async def nothing_else(_):
    return []


def test_a_failure_is_seen_by_those_who_waited_and_nobody_after():
    """Who waits gets the error itself; who comes then asks anew."""

    async def scene():
        flights, call, anew = Flights(), Call(), Call()
        waiting = [asyncio.create_task(ask(flights, b"k", call)) for _ in range(2)]
        await settle()
        error = FaultError()
        call.answer.set_exception(error)
        assert [error, error] == await asyncio.gather(*waiting, return_exceptions=True)
        anew.answer.set_result({b"k": "vector"})
        assert await ask(flights, b"k", anew) == "vector"

    asyncio.run(scene())


@pytest.mark.parametrize("looking", [False, True])
def test_a_failure_that_nobody_waits_for_is_silent(looking):
    """The loop is told of no exception that was never retrieved."""

    async def scene():
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
        flights, call = Flights(), Call()
        if looking:
            flight = flights.look_up([b"k"], call, nothing_else)
        else:
            flight = flights.ask([([b"k"], call())])
        waiting = asyncio.create_task(land(flight, {}))
        await settle()
        waiting.cancel()
        call.answer.set_exception(FaultError())
        await asyncio.wait({waiting})
        await settle()
        return complaints

    assert asyncio.run(scene()) == []


@pytest.mark.parametrize("begun_by", ["us", "others"])
@pytest.mark.parametrize("looking", [False, True])
def test_a_forgiven_failure_is_forgiven_to_others_alone(begun_by, looking):
    """What is about the request that began a call is no failure of those who joined it."""

    async def scene():
        flights, bad, good = Flights(), Call(), Call()
        if looking:
            failing = flights.look_up([b"a"], bad, nothing_else)
        else:
            failing = flights.ask([([b"a"], bad())])
        fine = flights.ask([([b"b"], good())])
        own, others = (failing, {fine: [b"b"]}) if begun_by == "us" else (fine, {failing: [b"a"]})
        waiting = asyncio.create_task(land(own, others, (FaultError,)))
        await settle()
        bad.answer.set_exception(FaultError())
        await settle()
        assert waiting.done() == (begun_by == "us")
        if begun_by == "us":
            with pytest.raises(FaultError):
                await waiting
            await settle()
            assert good.cancelled
            return
        good.answer.set_result({b"b": "vector"})
        assert await waiting == {b"b": "vector"}

    asyncio.run(scene())


def test_one_call_brings_many_keys():
    """A key in a batch is joined in that batch."""

    async def scene():
        flights, call = Flights(), Call()
        flight = flights.ask([([b"a", b"b"], call())])
        assert flights.get(b"a") is flights.get(b"b") is flight
        assert flights.get(b"c") is None
        call.answer.set_result({b"a": 1, b"b": 2})
        assert await land(flight, {}) == {b"a": 1, b"b": 2}

    asyncio.run(scene())


# a flight that looks things up first


class Journey:
    """A flight that looks for `a`, `b` and `c`, and then asks for each of those left by itself."""

    def __init__(self, flights):
        self.found = Call()
        self.calls = {}
        self.flight = flights.look_up([b"a", b"b", b"c"], self.found, self.plan)

    async def plan(self, found):
        self.calls = {key: Call() for key in (b"a", b"b", b"c") if key not in found}
        return [([key], call()) for key, call in self.calls.items()]


def test_what_was_found_and_what_was_asked_for_are_brought_together():
    """By the one who began, whichever call comes first."""

    async def scene():
        flights = Flights()
        journey = Journey(flights)
        waiting = asyncio.create_task(land(journey.flight, {}))
        await settle()
        assert not journey.calls
        journey.found.answer.set_result({b"a": 1})
        await settle()
        assert list(journey.calls) == [b"b", b"c"]
        journey.calls[b"c"].answer.set_result({b"c": 3})
        await settle()
        assert not waiting.done()
        journey.calls[b"b"].answer.set_result({b"b": 2})
        assert await waiting == {b"a": 1, b"b": 2, b"c": 3}
        await settle()
        assert len(flights) == 0

    asyncio.run(scene())


@pytest.mark.parametrize("joined", ["before", "after"])
def test_who_joined_waits_for_its_own_keys_alone(joined):
    """What another finds is there at once; of its calls the one that brings the key counts."""

    async def scene():
        flights = Flights()
        journey = Journey(flights)
        began = asyncio.create_task(land(journey.flight, {}))
        await settle()

        def join(*keys):
            (flight,) = {flights.get(key) for key in keys}
            return asyncio.create_task(land(None, {flight: keys}))

        if joined == "before":
            finder, asker = join(b"a"), join(b"b")
        await settle()
        journey.found.answer.set_result({b"a": 1})
        await settle()
        assert flights.get(b"a") is None
        if joined == "before":
            assert (await finder)[b"a"] == 1
        else:
            asker = join(b"b")
        await settle()
        journey.calls[b"b"].answer.set_result({b"b": 2})
        assert (await asker)[b"b"] == 2
        assert not began.done()
        journey.calls[b"c"].answer.set_result({b"c": 3})
        await began

    asyncio.run(scene())


def test_a_part_that_fails_is_the_failure_of_those_who_wait_for_it():
    """Who wants another part of the same flight is not concerned, and keeps it in the air."""

    async def scene():
        flights = Flights()
        journey = Journey(flights)
        began = asyncio.create_task(land(journey.flight, {}))
        await settle()
        other = asyncio.create_task(land(None, {journey.flight: [b"c"]}))
        journey.found.answer.set_result({})
        await settle()
        journey.calls[b"a"].answer.set_exception(FaultError())
        with pytest.raises(FaultError):
            await began
        await settle()
        assert flights.get(b"a") is None
        assert not other.done()
        journey.calls[b"c"].answer.set_result({b"c": 3})
        assert (await other)[b"c"] == 3
        await settle()
        assert journey.calls[b"b"].cancelled
        assert len(flights) == 0

    asyncio.run(scene())


@pytest.mark.parametrize("stage", ["looking", "planning", "asking"])
def test_the_last_one_to_leave_calls_off_whatever_is_being_done(stage):
    """The look, the plan, or every call of it; the keys are free again."""

    async def scene():
        flights, found, planned = Flights(), Call(), Call()
        calls = [Call(), Call()]

        async def plan(_):
            await planned()
            return [([b"a"], calls[0]()), ([b"b"], calls[1]())]

        flight = flights.look_up([b"a", b"b"], found, plan)
        waiting = asyncio.create_task(land(flight, {}))
        await settle()
        if stage != "looking":
            found.answer.set_result({})
            await settle()
        if stage == "asking":
            planned.answer.set_result(None)
            await settle()
        waiting.cancel()
        await asyncio.wait({waiting})
        assert flights.get(b"a") is flights.get(b"b") is None
        await settle()
        assert len(flights) == 0
        told = {"looking": [found], "planning": [planned], "asking": calls}
        assert all(call.cancelled for call in told[stage])
        assert [call.begun for call in calls] == [stage == "asking"] * 2

    asyncio.run(scene())


def test_a_flight_with_nothing_to_ask_for_lands_at_once():
    """All was found, or there was nothing to do."""

    async def scene():
        flights, found = Flights(), Call()
        found.answer.set_result({b"a": 1})
        assert await land(flights.look_up([b"a"], found, nothing_else), {}) == {b"a": 1}
        assert await land(flights.ask([]), {}) == {}
        assert await land(None, {}) == {}

    asyncio.run(scene())


# every order

steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "look", "leave", "answer", "answer", "fail", "run"]),
        st.integers(0, 5),
        st.sets(st.sampled_from([b"a", b"b", b"c"]), min_size=1),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(steps=steps)
def test_no_order_of_events_breaks_the_rules(steps):
    """One live call a key, none without a waiter, none called off while somebody waits."""
    asyncio.run(Story().play(steps))


class Work:
    """A look or a call of the story, and the keys that its whole flight carries."""

    def __init__(self, keys, flight, *, looks):
        self.keys = sorted(keys)
        self.flight = flight
        self.looks = looks
        self.call = Call()

    @property
    def live(self):
        """Whether somebody may still be brought something by it."""
        return self.call.begun and not self.call.answer.done()


class Story:
    """Requests that ask, look, leave, are answered and fail in a given order."""

    def __init__(self):
        self.flights = Flights()
        self.works = []
        self.requests = []  # (task, keys)

    async def request(self, keys, *, looks):
        others = {}
        for key in sorted(keys):
            flight = self.flights.get(key)
            if flight is not None:
                others.setdefault(flight, []).append(key)
        mine = keys.difference(*others.values())
        if not mine:
            return await land(None, others)
        if looks:
            find = self.begin(mine, mine, looks=True)
            own = self.flights.look_up(sorted(mine), find, self.planned(mine))
        else:
            own = self.flights.ask(self.parts(mine, mine))
        return await land(own, others)

    def planned(self, keys):
        async def plan(found):
            await asyncio.sleep(0)
            return self.parts(keys - found.keys(), keys)

        return plan

    def parts(self, keys, flight):
        """Ask for the first key by itself, for the others together."""
        parts = [part for part in (sorted(keys)[:1], sorted(keys)[1:]) if part]
        return [(part, self.begin(part, flight, looks=False)()) for part in parts]

    def begin(self, keys, flight, *, looks):
        self.works.append(Work(keys, flight, looks=looks))
        return self.works[-1].call

    async def play(self, steps):
        for action, which, keys in steps:
            self.act(action, which, keys)
            if action == "run":
                await settle()
                self.check()
        await settle()
        self.check()
        while live := [work for work in self.works if work.live]:
            live[0].call.answer.set_exception(FaultError())
            await settle()
            self.check()
        assert all(task.done() for task, _ in self.requests)
        assert len(self.flights) == 0
        for task, keys in self.requests:
            if not task.cancelled() and not task.exception():
                assert keys <= task.result().keys()

    def act(self, action, which, keys):
        if action in {"ask", "look"}:
            request = self.request(keys, looks=action == "look")
            self.requests.append((asyncio.ensure_future(request), keys))
        elif action == "leave" and self.requests:
            self.requests[which % len(self.requests)][0].cancel()
        elif action in {"answer", "fail"} and (live := [w for w in self.works if w.live]):
            work = live[which % len(live)]
            if action == "fail":
                work.call.answer.set_exception(FaultError())
            else:
                # A look finds some of its keys, a call brings all of them.
                brought = keys & set(work.keys) if work.looks else work.keys
                work.call.answer.set_result(dict.fromkeys(brought, "vector"))

    def check(self):
        live = [work for work in self.works if work.live]
        carried = [key for work in live for key in work.keys]
        assert len(carried) == len(set(carried)), "two calls for one key"
        wanted = {key for task, keys in self.requests if not task.done() for key in keys}
        for work in live:
            assert work.flight & wanted, "a call of a flight that nobody waits for"
            assert all(self.flights.get(key) is not None for key in work.keys)
        for task, keys in self.requests:
            assert task.done() or keys & set(carried), "a request that waits for no call"
