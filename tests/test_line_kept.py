"""Requests for what is kept, or for nothing; and for what is not too old."""

import asyncio

import pytest

from gateway.errors import NotCachedError, UnavailableError
from gateway.types import USUAL, CacheControl
from tests.cache.worker import NOW, Clock
from tests.line import Line, Noisy, counts, line_over, settle, vectors

FRESH = CacheControl(no_cache=True)
APART = CacheControl(no_store=True)
KEPT = CacheControl(only_if_cached=True)


STORES = pytest.mark.parametrize("stores", [0, 1])


@pytest.mark.parametrize(("stores", "offline"), [(0, False), (1, False), (1, True)])
def test_only_what_is_kept_is_answered(stores, offline):
    """A miss is a 504 that names its item and is not to be repeated; nobody is asked."""

    async def scene():
        line, shelves = await line_over(stores)
        kept = vectors(await line.ask("a", "b"))
        control = USUAL if offline else KEPT
        reader = line
        if stores:
            reader = Line(Noisy(), stores=shelves, offline=offline)
            await reader.cache.meet()
        answer = await reader.ask("b", "a", "b", cache=control)
        assert vectors(answer) == [kept[1], kept[0], kept[1]]
        assert counts(answer) == {"store" if stores else "memory": 2, "duplicate": 1}
        assert answer.age >= 0
        before = list(reader.backend.calls)
        with pytest.raises(NotCachedError) as caught:
            await reader.ask("a", "new", "b", "other", "new", cache=control)
        error = caught.value
        assert (error.status, error.headers["x-should-retry"]) == (504, "false")
        assert error.message.startswith("'input[1]' is not in the cache")
        assert "one more" in error.message
        assert reader.backend.calls == before

    asyncio.run(scene())


@pytest.mark.parametrize("offline", [False, True])
def test_what_may_be_in_a_store_that_is_away_may_be_asked_for_again(offline):
    """It is a 503 with a time to wait, and no 504 for ever: the store may have it."""

    async def scene():
        line, (shelf,) = await line_over(1)
        kept = vectors(await line.ask("a"))
        reader = Line(Noisy(), stores=[shelf], offline=offline)
        shelf.fail("connect")
        await reader.cache.meet()
        control = USUAL if offline else KEPT
        with pytest.raises(UnavailableError) as caught:
            await reader.ask("a", cache=control)
        assert caught.value.code == "cache_unavailable"
        assert "x-should-retry" not in caught.value.headers
        assert int(caught.value.headers["retry-after"]) >= 1
        shelf.recover()
        await reader.cache.meet()
        assert vectors(await reader.ask("a", cache=control)) == kept
        assert reader.backend.calls == []

    asyncio.run(scene())


@pytest.mark.parametrize(
    "control",
    [
        USUAL,
        FRESH,
        APART,
        KEPT,
        CacheControl(max_age=0),
        CacheControl(no_store=True, only_if_cached=True),
        CacheControl(no_cache=True, no_store=True, max_age=5),
    ],
)
def test_an_offline_model_asks_nobody_whatever_the_request_says(control):
    """A job without a key stays without a bill."""

    async def scene():
        line = Line(Noisy(), offline=True)
        with pytest.raises(NotCachedError):
            await line.ask("x", cache=control)
        assert line.backend.calls == []

    asyncio.run(scene())


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("control", "model"),
    [
        (CacheControl(only_if_cached=True, no_cache=True), {}),
        (CacheControl(only_if_cached=True, no_store=True), {}),
        (CacheControl(only_if_cached=True, max_age=5), {}),
        (KEPT, {"cached": False}),
    ],
)
def test_what_cannot_be_had_from_the_cache_is_not_asked_for_elsewhere(control, model, kept):
    """Nothing fresh is kept, nothing may be read, or it is too old: `only-if-cached` is a 504."""

    async def scene():
        clock = Clock()
        line = Line(Noisy(), now=clock, **model)
        if kept:
            await line.ask("x")
        before = list(line.backend.calls)
        clock.now = NOW + 6
        with pytest.raises(NotCachedError):
            await line.ask("x", cache=control)
        assert line.backend.calls == before

    asyncio.run(scene())


def test_what_is_only_on_its_way_is_not_kept():
    """`only-if-cached` waits for nobody's call."""

    async def scene():
        line = Line(Noisy(gate=asyncio.Event()))
        waiting = line.begin("x")
        await settle()
        with pytest.raises(NotCachedError):
            await line.ask("x", cache=KEPT)
        line.backend.gate.set()
        assert vectors(await waiting) == vectors(await line.ask("x", cache=KEPT))

    asyncio.run(scene())


# max-age


@STORES
def test_what_is_too_old_is_drawn_afresh_and_stays(stores):
    """Young ones are answered as they are, missing ones are asked for and kept."""

    async def scene():
        clock = Clock()
        line, _ = await line_over(stores, now=clock)
        (old,) = vectors(await line.ask("old"))
        clock.now = NOW + 100
        (young,) = vectors(await line.ask("young"))
        clock.now = NOW + 110
        answer = await line.ask("young", "old", "new", cache=CacheControl(max_age=10))
        fresh = vectors(answer)
        assert fresh[0] == young
        assert old not in fresh
        assert counts(answer) == {"memory": 1, "upstream": 2}
        assert (answer.stored, answer.forced, answer.age) == (1, True, 10.0)
        assert vectors(await line.ask("old", "young", "new")) == [old, young, fresh[2]]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("age", "allowed", "fresh"), [(0, 0, False), (1, 0, True), (5, 5, False), (5.5, 5, True)]
)
def test_a_vector_of_exactly_that_age_will_do(age, allowed, fresh):
    """`max-age` is the greatest age that is accepted (RFC 9111, 5.2.1.1)."""

    async def scene():
        clock = Clock()
        line = Line(Noisy(), now=clock)
        kept = vectors(await line.ask("x"))
        clock.now = NOW + age
        answer = await line.ask("x", cache=CacheControl(max_age=allowed))
        assert (vectors(answer) != kept) is fresh
        assert answer.forced is fresh

    asyncio.run(scene())


def test_the_age_is_that_of_the_oldest():
    """Of those that were kept; what was made just now has none."""

    async def scene():
        clock = Clock()
        line = Line(Noisy(), now=clock)
        assert (await line.ask("a")).age is None
        clock.now = NOW + 30
        assert (await line.ask("a", "b")).age == 30
        clock.now = NOW + 40
        assert [(await line.ask(*texts)).age for texts in ("ab", "b", "ba")] == [40, 10, 40]
        assert (await line.ask("b", "new", "a")).age == 40

    asyncio.run(scene())
