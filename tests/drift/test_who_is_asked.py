"""Which models are watched, and when nobody may be asked."""

import asyncio

import pytest

from gateway.cache.facts import Checked
from gateway.drift.canaries import ASKER
from gateway.errors import UnavailableError
from tests.cache.shelf import Shelf
from tests.drift.watching import (
    DELAY,
    EVERY,
    FIRST_ROUND,
    Watching,
    learn,
    meet,
)


@pytest.mark.parametrize(
    "model", [{"offline": True}, {"cached": False}, {"forwards": True}, {"drift": "off"}]
)
def test_some_models_are_never_asked(model):
    """Nobody may be, nothing is kept, there is no key of our own, or nobody wants it."""

    async def watch():
        watching = Watching(**model)
        await watching.first()
        assert await watching.after(EVERY) == 0
        assert watching.backend.calls == []
        assert watching.told.results == []

    asyncio.run(watch())


def test_never_is_never():
    """A schedule of 0 asks nobody; and what others have found out is known and heeded."""

    async def watch():
        shelf = Shelf()
        asking = Watching(stores=[shelf])
        silent = Watching(stores=[shelf], every=0.0, drift="refuse")
        await asking.first()
        asking.backend.model = "another"
        await asking.after(EVERY)
        assert await silent.first() == 0
        assert await silent.after(EVERY) == 0
        await meet(asking, silent)
        with pytest.raises(UnavailableError):
            await silent.line.ask("new")

    asyncio.run(watch())


def test_an_engine_at_rest_is_not_woken():
    """It is asked when somebody else has woken it, once, and its time of rest stays its own."""

    async def watch():
        watching = Watching(local=True)
        backend = watching.backend
        backend.states = ("waiting",)
        await watching.first()
        assert await watching.after(EVERY) == 0
        backend.states = ("starting",)
        assert await watching.after(1) == 0
        backend.states = ("ready",)
        assert await watching.after(1) == FIRST_ROUND
        for _ in range(10):
            assert await watching.after(EVERY) == 0
        for state, calls in (("waiting", 0), ("starting", 0), ("ready", 1), ("ready", 0)):
            backend.states = (state,)
            assert await watching.after(EVERY) == calls

    asyncio.run(watch())


@pytest.mark.parametrize(
    ("states", "asked"),
    [("open", 0), ("unknown", 0), ("half-open", 6), ("ready open", 6), ("ready waiting", 0)],
)
def test_nobody_is_asked_before_he_is_there(states, asked):
    """One that is left alone, or of whom nothing is known yet, waits; one that may be back not."""

    async def watch():
        watching = Watching()
        watching.backend.states = states.split()
        assert await watching.first() == asked
        watching.backend.states = ("ready",)
        assert await watching.after(1) == FIRST_ROUND - asked

    asyncio.run(watch())


def test_names_that_fit_a_pattern_are_watched_once_they_are_used():
    """Which of them there are is the clients' choice, so they are as many as there is room for."""

    async def watch():
        watching = Watching(name="*")
        await watching.first()
        assert await watching.after(EVERY) == 0
        await watching.line.ask("a", model="model-0")
        await watching.after(0)
        assert await watching.after(DELAY) == FIRST_ROUND
        for number in range(100):
            await watching.line.ask("a", model=f"model-{number}")
        await watching.after(0)
        assert await watching.after(DELAY) == 63 * FIRST_ROUND
        assert watching.told.results == [("*", "steady")] * 64

    asyncio.run(watch())


def test_models_are_asked_side_by_side():
    """One that takes its time keeps few others waiting."""

    async def watch():
        watching = Watching(name="*")
        for number in range(10):
            await watching.line.ask("a", model=f"model-{number}")
        watching.backend.most = 0
        await watching.first()
        assert watching.backend.most == 8

    asyncio.run(watch())


def test_of_the_names_of_a_pattern_the_worst_is_shown():
    """One series for the pattern, and it says drift if any of them has drifted."""

    async def watch():
        watching = Watching(name="*")
        for name in ("a", "b", "c"):
            await watching.line.ask("a", model=name)
        await watching.first()
        scope = watching.line.routes.embedding("b", ASKER).place(ASKER).scope
        bad = Checked(watching.time + 1, "drift", 0.5, 0.0)
        learn(watching, scope, checked=bad)
        watching.drift.look()
        assert watching.told.models == {"*": bad}

    asyncio.run(watch())
