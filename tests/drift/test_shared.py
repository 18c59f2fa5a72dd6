"""What one process finds out is known after a restart, and to workers and replicas."""

import asyncio

import pytest

from gateway.errors import UnavailableError
from tests.cache.shelf import Shelf
from tests.drift.watching import (
    DELAY,
    EVERY,
    FIRST_ROUND,
    Changing,
    Watching,
    meet,
)


def test_what_was_kept_is_known_after_a_restart():
    """Another process over the same store compares with what the first one kept."""

    async def watch():
        shelf = Shelf()
        watching = Watching(Changing(0.01), [shelf])
        assert await watching.first() == FIRST_ROUND
        await watching.line.cache.meet()
        again = Watching(Changing(0.01, draws=2), [shelf])
        assert await again.first() == 1
        assert again.results == ["noise"]
        changed = Watching(Changing(0.01, draws=3), [shelf])
        changed.backend.model = "another"
        assert await changed.first() == 2
        assert changed.results == ["drift"]

    asyncio.run(watch())


def test_replicas_know_what_one_of_them_found_out():
    """They refuse with it and recover with it, and leave alone what it has asked just now."""

    async def watch():
        shelf = Shelf()
        one, other = (Watching(stores=[shelf], drift="refuse") for _ in range(2))
        for each in (one, other):
            await each.first()
        one.backend.model = other.backend.model = "another"
        other.time += EVERY / 2
        await one.after(EVERY / 2)
        other.time = one.time
        await one.after(EVERY / 2)
        assert one.check.verdict == "drift"
        await meet(one, other)
        assert other.check == one.check
        with pytest.raises(UnavailableError):
            await other.line.ask("new")
        assert await other.after(EVERY / 2) == 0
        assert other.results == ["steady"]
        other.drift.look()
        assert other.told.models["m"].verdict == "drift"

    asyncio.run(watch())


def test_nothing_is_found_out_while_a_store_is_away():
    """What it holds cannot be compared with, and must not be taken for a first sight."""

    async def watch():
        shelf = Shelf()
        watching = Watching(stores=[shelf])
        await watching.first()
        shelf.fail("timeout")
        for _ in range(5):
            await watching.line.cache.meet()
        assert await watching.after(EVERY) == 0
        shelf.recover()
        await watching.line.cache.meet()
        assert await watching.after(1) == 1
        assert watching.results == ["steady", "steady"]

    asyncio.run(watch())


def test_a_store_that_has_just_gone_is_no_first_sight():
    """Nobody has noticed yet; what is made in its place is not what was kept."""

    async def watch():
        shelf = Shelf()
        await Watching(stores=[shelf]).first()
        watching = Watching(stores=[shelf])
        watching.backend.model = "another"
        await watching.line.cache.meet()
        await watching.after(0)
        shelf.fail("timeout")
        await watching.after(DELAY)
        assert watching.results == ["failed"]
        assert watching.logged.entries[0]["reason"] == "cache_unavailable"
        assert watching.check is None

    asyncio.run(watch())


def test_a_change_is_known_where_nothing_is_kept_any_more():
    """The store has had to make room, and remembers how wide the vectors were; so others know."""

    async def watch():
        shelf = Shelf()
        first = Watching(stores=[shelf])
        await first.first()
        await first.line.cache.meet()
        shelf.values.clear()
        watching = Watching(stores=[shelf])
        watching.time += EVERY
        watching.backend.answers_wide *= 2
        await watching.first()
        assert watching.results == ["drift"]
        await meet(watching, first)
        assert first.check.verdict == "drift"

    asyncio.run(watch())


def test_a_clock_that_is_ahead_hides_nothing():
    """What is found out after a verdict from tomorrow counts all the same, also on the way back."""

    async def watch():
        shelf = Shelf()
        fast, right = (Watching(stores=[shelf], drift="refuse") for _ in range(2))
        for each in (fast, right):
            await each.first()
        fast.time += 86_400
        for model, verdict in (("another", "drift"), ("m", "steady")):
            fast.backend.model = right.backend.model = model
            await fast.after(EVERY)
            await meet(fast, right)
            assert right.check.verdict == verdict
        right.backend.model = "another"
        await right.after(0)
        await right.after(EVERY)
        await meet(fast, right)
        assert (fast.check.verdict, right.check.verdict) == ("drift", "drift")

    asyncio.run(watch())
