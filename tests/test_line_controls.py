"""What a request says of the cache: fresh vectors, none kept, none but kept ones, none too old."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequestError, NotCachedError, TooManyTokensError
from gateway.types import USUAL, CacheControl
from tests.backend import Backend
from tests.cache.worker import Clock
from tests.line import Line, Noisy, bad, counts, line_over, settle, vectors

FRESH = CacheControl(no_cache=True)
APART = CacheControl(no_store=True)
KEPT = CacheControl(only_if_cached=True)


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
@pytest.mark.parametrize("count", [False, True])
def test_no_store_neither_reads_nor_writes(stores, count):
    """Not the memory, not a store; what was kept stays, what was not is not."""

    async def scene():
        line, shelves = await line_over(stores, count=count)
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
