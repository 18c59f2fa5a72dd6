"""One call per text: joining, leaving and failing, of those who ask and of those who look."""

import asyncio
import gc
from functools import partial

import pytest

from gateway.cache.flight import Flights, land
from tests.cache.flying import Call, FaultError, nothing_else, settle


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
        del flight, waiting, call
        gc.collect()
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


@pytest.mark.parametrize("looking", [False, True])
def test_a_call_that_fails_after_it_was_called_off_is_silent(looking):
    """Nobody is there any more who could be told."""

    async def fail_when_cancelled(call):
        try:
            return await call()
        except asyncio.CancelledError:
            raise FaultError from None

    async def scene():
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
        flights, call = Flights(), Call()
        if looking:
            flight = flights.look_up([b"k"], partial(fail_when_cancelled, call), nothing_else)
        else:
            flight = flights.ask([([b"k"], fail_when_cancelled(call))])
        waiting = asyncio.create_task(land(flight, {}))
        await settle()
        waiting.cancel()
        await asyncio.wait({waiting})
        await settle()
        assert call.cancelled
        del flight, waiting
        gc.collect()
        return complaints

    assert asyncio.run(scene()) == []


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
