"""A flight that looks things up before it asks for the others: who waits for what of it."""

import asyncio

import pytest

from gateway.cache.flight import Flights, land
from tests.cache.flying import Call, FaultError, nothing_else, settle


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
