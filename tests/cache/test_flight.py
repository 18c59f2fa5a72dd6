"""One call per text: joining, leaving, failing, and every order in which these can happen."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.flight import Flights, land


class Call:
    """An upstream call that ends when the test says so."""

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
    flight = flights.get(key) or flights.begin([key], call())
    await land([flight])
    return flight.task.result()


def test_whoever_comes_while_a_call_is_on_its_way_joins_it():
    """Two ask for one text: one call, the same answer, and nothing is left behind."""

    async def scene():
        flights, call, unused = Flights(), Call(), Call()
        both = [asyncio.create_task(ask(flights, b"k", c)) for c in (call, unused)]
        await settle()
        assert len(flights) == 1
        call.answer.set_result("vector")
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
        call.answer.set_result("vector")
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
        anew.answer.set_result("vector")
        assert await second == "vector"

    asyncio.run(scene())


def test_a_call_that_was_just_called_off_cannot_be_joined():
    """Not even in the very step of the loop in which the last one leaves."""

    async def scene():
        flights, call = Flights(), Call()
        flight = flights.begin([b"k"], call())
        await settle()
        flight.join()
        assert flights.get(b"k") is flight
        flight.leave()
        assert not flight.task.done()
        assert flights.get(b"k") is None
        await settle()
        assert call.cancelled

    asyncio.run(scene())


def test_a_failure_is_seen_by_those_who_waited_and_nobody_after():
    """Who waits gets the error itself; who comes then asks anew."""

    async def scene():
        flights, call, anew = Flights(), Call(), Call()
        waiting = [asyncio.create_task(ask(flights, b"k", call)) for _ in range(2)]
        await settle()
        error = FaultError()
        call.answer.set_exception(error)
        assert [error, error] == await asyncio.gather(*waiting, return_exceptions=True)
        anew.answer.set_result("vector")
        assert await ask(flights, b"k", anew) == "vector"

    asyncio.run(scene())


def test_a_failure_that_nobody_waits_for_is_silent():
    """The loop is told of no exception that was never retrieved."""

    async def scene():
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
        flights, call = Flights(), Call()
        waiting = asyncio.create_task(ask(flights, b"k", call))
        await settle()
        waiting.cancel()
        call.answer.set_exception(FaultError())
        await asyncio.wait({waiting})
        await settle()
        return complaints

    assert asyncio.run(scene()) == []


@pytest.mark.parametrize("begun_by", ["us", "others"])
def test_a_forgiven_failure_is_forgiven_to_others_alone(begun_by):
    """What is about the request that began a call is no failure of those who joined it."""

    async def scene():
        flights, bad, good = Flights(), Call(), Call()
        failing, fine = flights.begin([b"a"], bad()), flights.begin([b"b"], good())
        own, others = ([failing], [fine]) if begun_by == "us" else ([fine], [failing])
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
        good.answer.set_result("vector")
        await waiting
        assert fine.task.result() == "vector"

    asyncio.run(scene())


def test_one_call_brings_many_keys():
    """A key in a batch is joined in that batch."""

    async def scene():
        flights, call = Flights(), Call()
        flight = flights.begin([b"a", b"b"], call())
        assert flights.get(b"a") is flights.get(b"b") is flight
        assert flights.get(b"c") is None
        call.answer.set_result(1)
        await land([flight])

    asyncio.run(scene())


steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "leave", "answer", "fail", "run"]),
        st.integers(0, 5),
        st.sets(st.sampled_from([b"a", b"b", b"c"]), min_size=1),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=steps)
def test_no_order_of_events_breaks_the_rules(steps):
    """One live call a key, none without a waiter, none called off while somebody waits."""
    asyncio.run(Story().play(steps))


class Story:
    """Requests that ask, leave, are answered and fail in a given order."""

    def __init__(self):
        self.flights = Flights()
        self.calls = []  # (keys, call, flight)
        self.requests = []  # (task, keys)

    async def request(self, keys):
        joined = {key: self.flights.get(key) for key in keys}
        others = {flight for flight in joined.values() if flight is not None}
        own = [key for key in sorted(keys) if joined[key] is None]
        if own:
            call = Call()
            flight = self.flights.begin(own, call())
            self.calls.append((own, call, flight))
            others.add(flight)
        await land(others)
        return set().union(*(flight.task.result() for flight in others))

    async def play(self, steps):
        for action, which, keys in steps:
            self.act(action, which, keys)
            if action == "run":
                await settle()
                self.check()
        await settle()
        for _, call, _ in self.calls:
            if not call.answer.done():
                call.answer.set_exception(FaultError())
        await asyncio.gather(*(task for task, _ in self.requests), return_exceptions=True)
        await settle()
        self.check()
        assert len(self.flights) == 0
        for task, keys in self.requests:
            if not task.cancelled() and not task.exception():
                assert keys <= task.result()

    def act(self, action, which, keys):
        if action == "ask":
            self.requests.append((asyncio.ensure_future(self.request(keys)), keys))
        elif action == "leave" and self.requests:
            self.requests[which % len(self.requests)][0].cancel()
        elif self.calls:
            own, call, _ = self.calls[which % len(self.calls)]
            if action == "answer" and not call.answer.done():
                call.answer.set_result(set(own))
            elif action == "fail" and not call.answer.done():
                call.answer.set_exception(FaultError())

    def check(self):
        live = [(keys, flight) for keys, _, flight in self.calls if not flight.task.done()]
        carried = [key for keys, _ in live for key in keys]
        assert len(carried) == len(set(carried)), "two calls for one key"
        wanted = {key for task, keys in self.requests if not task.done() for key in keys}
        for keys, flight in live:
            assert set(keys) & wanted, "a call that nobody waits for"
            assert self.flights.get(keys[0]) is flight
        waiting = [keys for task, keys in self.requests if not task.done()]
        for keys in waiting:
            assert keys & set(carried), "a request that waits for no call"
