"""Models are asked for the canary texts now and then, and what they have become is known."""

import asyncio

import pytest

from gateway.drift.canaries import ASKER
from gateway.drift.schedule import AGAIN, SOON
from gateway.types import RawEmbeddings
from tests.cache.shelf import Shelf
from tests.drift.watching import (
    DELAY,
    EVERY,
    FIRST_ROUND,
    Changing,
    Watching,
    learn,
    only_canaries,
    purge,
)
from tests.line import broken


def test_a_model_is_first_asked_some_time_after_it_is_seen():
    """Who tries a gateway out for half a minute asks nobody for anything that he did not ask."""

    async def watch():
        watching = Watching()
        assert await watching.after(0) == 0
        assert await watching.after(DELAY - 1) == 0
        assert await watching.after(1) == FIRST_ROUND
        assert only_canaries(watching.backend)
        assert watching.backend.callers == [ASKER] * FIRST_ROUND
        assert watching.told.awaited == ["m"]
        assert await watching.after(EVERY - 1) == 0
        # The kept draws are kept: only a fresh one is asked for.
        assert await watching.after(1) == 1
        assert watching.results == ["steady", "steady"]

    asyncio.run(watch())


@pytest.mark.parametrize("noise", [1e-4, 0.01, 0.05])
def test_a_model_that_jitters_is_noisy_and_no_more(noise):
    """However often it is asked: its noise was measured first."""

    async def watch():
        watching = Watching(Changing(noise))
        await watching.first()
        for _ in range(50):
            assert await watching.after(EVERY) == 1
        assert set(watching.results) == {"noise"}
        assert watching.events == []
        watching.drift.look()
        assert watching.told.models == {"m": watching.check}
        assert watching.check.noise > 0
        assert watching.check.at == watching.time

    asyncio.run(watch())


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05])
def test_another_model_is_found_within_one_round(noise):
    """It is asked twice to be believed; and it is told once, as long as it stays so."""

    async def watch():
        watching = Watching(Changing(noise))
        await watching.first()
        watching.backend.model = "another"
        assert await watching.after(EVERY) == 2
        assert watching.results[-1] == "drift"
        assert watching.check.verdict == "drift"
        assert watching.check.distance > 0.1
        assert watching.events == ["model has drifted"]
        assert watching.logged.entries[0]["policy"] == "warn"
        assert watching.logged.entries[0]["log_level"] == "warning"
        assert await watching.after(AGAIN) == 2
        assert watching.events == ["model has drifted"]
        watching.backend.model = "m"
        await watching.after(AGAIN)
        assert watching.check.verdict in {"steady", "noise"}
        assert watching.events == ["model has drifted", "model is itself again"]

    asyncio.run(watch())


def test_one_strange_answer_is_no_drift():
    """Some servers say something else now and then; what is believed is what they say twice."""

    async def watch():
        watching = Watching()
        await watching.first()
        usual = watching.backend.answer

        def strange(texts):
            watching.backend.answer = usual
            right = usual(texts)
            return RawEmbeddings(right.rows[::-1], right.tokens, estimated=False)

        watching.backend.answer = strange
        assert await watching.after(EVERY) == 2
        assert watching.results == ["steady", "steady"]

    asyncio.run(watch())


def test_what_was_kept_outlives_a_cache_that_makes_room():
    """In memory alone, a process compares with what it first saw, whatever the cache has lost."""

    async def watch():
        watching = Watching()
        await watching.first()
        watching.line.memory.clear()
        watching.backend.model = "another"
        await watching.after(EVERY)
        assert watching.results == ["steady", "drift"]

    asyncio.run(watch())


def test_a_purge_ends_it():
    """Of what is made after it, nothing is known; then that is what others are compared with."""

    async def watch():
        shelf = Shelf()
        watching = Watching(stores=[shelf], drift="refuse")
        await watching.first()
        watching.backend.model = "another"
        await watching.after(EVERY)
        await watching.line.cache.meet()
        purge(shelf, watching, ASKER)
        await watching.line.cache.meet()
        assert watching.check is None
        await watching.line.ask("new")
        watching.drift.look()
        assert watching.told.models == {}
        await watching.after(0)
        assert await watching.after(DELAY) == FIRST_ROUND
        assert watching.results[-1] == "steady"

    asyncio.run(watch())


def test_what_a_purge_overtakes_says_nothing():
    """Of the new generation nothing is known, though the last answer of the old one comes late."""

    async def watch():
        shelf = Shelf()
        watching = Watching(stores=[shelf])
        await watching.first()
        await watching.line.cache.meet()
        usual = watching.backend.answer

        def late(texts):
            purge(shelf, watching, ASKER)
            watching.line.cache.learn(shelf.said)
            return usual(texts)

        watching.backend.answer, watching.backend.model = late, "another"
        await watching.after(EVERY)
        assert watching.check is None
        assert watching.results == ["steady"]
        watching.backend.answer = usual
        await watching.after(0)
        assert await watching.after(DELAY) == FIRST_ROUND
        assert watching.results == ["steady", "steady"]

    asyncio.run(watch())


def test_a_purge_up_to_a_moment_ends_it_too():
    """The kept draws are gone though the generation goes on."""

    async def watch():
        watching = Watching()
        await watching.first()
        watching.backend.model = "another"
        await watching.after(EVERY)
        watching.time += 1
        place = watching.route.place(ASKER)
        learn(watching, place.scope, before=watching.time)
        assert watching.check is None
        assert await watching.after(AGAIN) == FIRST_ROUND
        assert watching.results == ["steady", "drift", "steady"]

    asyncio.run(watch())


def test_a_model_that_does_not_answer_is_asked_again_soon():
    """And then less and less; it is told once, and is no drift."""

    async def watch():
        watching = Watching()
        await watching.first()
        good, watching.backend.answer = watching.backend.answer, broken
        assert await watching.after(EVERY) == 1
        assert await watching.after(SOON) == 1
        assert await watching.after(SOON) == 0
        assert await watching.after(SOON) == 1
        assert watching.results == ["steady", *["failed"] * 3]
        assert watching.events == ["model could not be compared"]
        assert watching.logged.entries[0]["reason"] == "upstream_error"
        assert watching.check.verdict == "steady"
        watching.backend.answer = good
        await watching.after(AGAIN)
        assert watching.results[-1] == "steady"
        watching.backend.answer = broken
        await watching.after(EVERY)
        assert watching.events == 2 * ["model could not be compared"]

    asyncio.run(watch())


def test_what_is_unforeseen_stops_nothing():
    """Another model is asked all the same, and this one again."""

    async def watch():
        watching = Watching()
        good = watching.backend.answer

        def bug(_):
            raise RuntimeError("a text might stand here")

        watching.backend.answer = bug
        await watching.first()
        assert watching.results == ["failed"]
        assert watching.logged.entries[0]["reason"] == "unforeseen RuntimeError"
        watching.backend.answer = good
        await watching.after(SOON)
        assert watching.results == ["failed", "steady"]

    asyncio.run(watch())


def test_a_reload_takes_over_what_is_known():
    """Nothing is asked again because of it, and other times are heeded."""

    async def watch():
        watching = Watching()
        await watching.first()
        given_up = watching.another(every=60.0, delay=DELAY)
        given_up.adopt(watching.drift)
        for every, calls in ((EVERY, 0), (60.0, 1), (EVERY, 1)):
            assert await watching.after(0) == 0
            later = watching.another(every=every, delay=DELAY)
            later.adopt(watching.drift)
            watching.drift = later
            assert await watching.after(60.0) == calls
        assert watching.results == ["steady"] * 3

    asyncio.run(watch())


def test_kept_draws_of_two_models_are_told_of():
    """A model that changes in the middle of its first round is one line of the log."""

    async def watch():
        watching = Watching()
        said, calls = watching.backend.answer, iter(["m", "m", "another"])

        def changing(texts):
            watching.backend.model = next(calls, "another")
            return said(texts)

        watching.backend.answer = changing
        await watching.first()
        await watching.after(EVERY)
        assert watching.events == ["kept draws are unlike"]

    asyncio.run(watch())
