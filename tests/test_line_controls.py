"""What a request says of the cache: fresh vectors, none kept, none but kept ones, none too old."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequestError, NotCachedError, TooManyTokensError
from gateway.types import USUAL, CacheControl
from tests.backend import Backend
from tests.cache.shelf import Shelf
from tests.cache.worker import NOW, Clock
from tests.line import Line, Noisy, bad, settle, vectors

FRESH = CacheControl(no_cache=True)
APART = CacheControl(no_store=True)
KEPT = CacheControl(only_if_cached=True)


def counts(answer):
    """Return how many vectors came from where, zeros left out."""
    return {source: count for source, count in answer.sources.items() if count}


async def line_over(stores, **options):
    """Return a line over so many shelves, which it has met, and the shelves."""
    shelves = [Shelf() for _ in range(stores)]
    line = Line(Noisy(), stores=shelves, **options)
    await line.cache.meet()
    return line, shelves


STORES = pytest.mark.parametrize("stores", [0, 1])


# no-cache


@STORES
def test_no_cache_answers_a_fresh_draw_and_leaves_the_stored_one(stores):
    """However often; what is kept stays everybody's."""

    async def scene():
        line, _ = await line_over(stores)
        (kept,) = vectors(await line.ask("x"))
        fresh = [await line.ask("x", cache=FRESH) for _ in range(3)]
        assert len({kept, *(vectors(answer)[0] for answer in fresh)}) == 4
        for answer in fresh:
            assert counts(answer) == {"upstream": 1}
            assert (answer.stored, answer.forced, answer.age) == (0, True, None)
            assert answer.billed > 0
        assert vectors(await line.ask("x")) == [kept]

    asyncio.run(scene())


def test_no_cache_leaves_also_what_is_only_in_a_store():
    """It is found there, and not answered; another process has it as before."""

    async def scene():
        line, shelves = await line_over(1)
        (kept,) = vectors(await line.ask("x"))
        other = Line(Noisy(), stores=shelves)
        await other.cache.meet()
        answer = await other.ask("x", cache=FRESH)
        assert vectors(answer) != [kept]
        assert (answer.forced, answer.stored) == (True, 0)
        assert vectors(await other.ask("x")) == vectors(await line.ask("x")) == [kept]

    asyncio.run(scene())


@STORES
def test_no_cache_with_nothing_kept_is_the_usual_way(stores):
    """The fresh draw is then the one that is kept, and nothing was forced."""

    async def scene():
        line, _ = await line_over(stores)
        answer = await line.ask("x", cache=FRESH)
        assert (answer.stored, answer.forced) == (1, False)
        assert vectors(await line.ask("x")) == vectors(answer)

    asyncio.run(scene())


@STORES
def test_no_cache_in_a_batch_is_for_every_text_of_it(stores):
    """What is new among them is kept; duplicates are one draw."""

    async def scene():
        line, _ = await line_over(stores)
        old = vectors(await line.ask("a", "b"))
        answer = await line.ask("a", "c", "b", "a", cache=FRESH)
        fresh = vectors(answer)
        assert fresh[0] == fresh[3]
        assert len({*old, *fresh}) == 5
        assert counts(answer) == {"upstream": 3, "duplicate": 1}
        assert answer.stored == 1
        assert vectors(await line.ask("a", "b", "c")) == [*old, fresh[1]]

    asyncio.run(scene())


def test_two_fresh_draws_at_once_are_two():
    """Nobody joins a call whose vector is not the one that is kept."""

    async def scene():
        line = Line(Noisy())
        (kept,) = vectors(await line.ask("x"))
        line.backend.gate = asyncio.Event()
        waiting = [line.begin("x", cache=FRESH) for _ in range(3)]
        await settle()
        assert vectors(await line.ask("x")) == [kept]
        line.backend.gate.set()
        drawn = {vectors(answer)[0] for answer in await asyncio.gather(*waiting)}
        assert len(drawn) == 3
        assert kept not in drawn
        assert len(line.flights) == 0

    asyncio.run(scene())


def test_a_fresh_draw_stays_out_while_the_store_is_away():
    """P2: what memory holds is everybody's still, and not replaced by what one request was told."""

    async def scene():
        line, (shelf,) = await line_over(1)
        (kept,) = vectors(await line.ask("x"))
        shelf.fail("connect")
        assert vectors(await line.ask("x", cache=FRESH)) != [kept]
        answer = await line.ask("x")
        assert (vectors(answer), answer.unshared) == ([kept], False)

    asyncio.run(scene())


# no-store


@STORES
def test_no_store_neither_reads_nor_writes(stores):
    """Not the memory, not a store; what was kept stays, what was not is not."""

    async def scene():
        line, shelves = await line_over(stores)
        (kept,) = vectors(await line.ask("x"))
        asked = [dict(shelf.asked) for shelf in shelves]
        answers = [await line.ask("x", "y", "x", cache=APART) for _ in range(2)]
        assert [dict(shelf.asked) for shelf in shelves] == asked
        assert len({kept, *(v for answer in answers for v in vectors(answer))}) == 5
        for answer in answers:
            assert counts(answer) == {"upstream": 2, "duplicate": 1}
            assert (answer.stored, answer.forced, answer.age) == (0, True, None)
        answer = await line.ask("x", "y")
        assert vectors(answer)[0] == kept
        assert counts(answer) == {"memory": 1, "upstream": 1}

    asyncio.run(scene())


def test_no_store_joins_nobody_and_is_joined_by_nobody():
    """Whoever comes first."""

    async def scene():
        line = Line(Noisy(gate=asyncio.Event()))
        requests = [line.begin("x", cache=control) for control in (APART, USUAL, APART, USUAL)]
        await settle()
        assert line.backend.calls == [["x"]] * 3
        line.backend.gate.set()
        apart, kept, other, joined = [vectors(a)[0] for a in await asyncio.gather(*requests)]
        assert kept == joined
        assert len({apart, kept, other}) == 3
        assert vectors(await line.ask("x")) == [kept]

    asyncio.run(scene())


def test_no_store_is_split_limited_and_refused_like_any_request():
    """It is about what is kept, and about nothing else."""

    async def scene():
        line = Line(Noisy(max_batch=4, parallel=2))
        texts = [f"text {number}" for number in range(10)]
        assert len(set(vectors(await line.ask(*texts, cache=APART)))) == 10
        assert sorted(map(len, line.backend.calls)) == [2, 4, 4]
        line = Line(Backend(answer=bad("worst"), counts=len))
        with pytest.raises(InvalidRequestError, match=r"input\[2\]"):
            await line.ask("a", "b", "worst", cache=APART)
        with pytest.raises(TooManyTokensError):
            await line.ask(*("x" * 100_000 + str(n) for n in range(4)), cache=APART)

    asyncio.run(scene())


def test_a_model_that_is_not_cached_is_always_asked():
    """`cache = "off"`: without a word in the request, and for equal ones at once too."""

    async def scene():
        line = Line(Noisy(), cached=False)
        answers = await asyncio.gather(*(line.ask("x") for _ in range(3)))
        answers += [await line.ask("x"), await line.ask("x", cache=FRESH)]
        assert len({vectors(answer)[0] for answer in answers}) == 5
        assert {answer.stored for answer in answers} == {0}
        assert len(line.memory) == 0

    asyncio.run(scene())


# only what is kept


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
        assert "1 more" in error.message
        assert reader.backend.calls == before

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

    asyncio.run(scene())


# any order

requests = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=4),
        st.sampled_from([USUAL, FRESH, APART, KEPT]) | st.builds(
            CacheControl,
            no_cache=st.booleans(),
            no_store=st.booleans(),
            only_if_cached=st.booleans(),
            max_age=st.none() | st.integers(0, 4),
        ),
        st.integers(0, 3),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(requests=requests, stores=st.integers(0, 1), memory=st.sampled_from([0, 2**20]))
def test_any_requests_in_any_order_get_what_they_asked_for(requests, stores, memory):
    """Every vector is the kept one, or one never seen before; and the kept ones never change."""

    async def scene():
        clock = Clock()
        line, _ = await line_over(stores, now=clock, memory=memory)
        kept, seen = {}, set()
        for texts, control, passed in requests:
            clock.now += passed
            calls = len(line.backend.calls)
            usable = {
                text: vector
                for text, (vector, made) in kept.items()
                if not (control.no_cache or control.no_store)
                and (control.max_age is None or clock.now - made <= control.max_age)
            }
            if control.only_if_cached and not usable.keys() >= set(texts):
                with pytest.raises(NotCachedError):
                    await line.ask(*texts, cache=control)
                assert len(line.backend.calls) == calls
                continue
            answer = dict(pairwise_(texts, vectors(await line.ask(*texts, cache=control))))
            for text, vector in answer.items():
                if text in usable:
                    assert vector == usable[text]
                else:
                    assert vector not in seen
                    if not control.no_store and (memory or stores):
                        kept.setdefault(text, (vector, clock.now))
            seen.update(answer.values())

    asyncio.run(scene())


def pairwise_(texts, given):
    """Pair texts with their vectors; a text that stands there twice has one."""
    pairs = list(zip(texts, given, strict=True))
    for (text, vector), (again, other) in pairwise(sorted(pairs)):
        assert text != again or vector == other
    return pairs
