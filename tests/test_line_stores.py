"""The straight line over stores: what is found there, and who waits for whom."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cache.shelf import Shelf
from tests.cache.worker import NOW, Clock
from tests.line import Line, counts, lines, right, settle, vectors


def test_what_a_store_has_is_counted_as_its_own():
    """A hit, with an age and without a bill; then it is in memory."""

    async def scene():
        clock = Clock()
        one, other = await lines(2, Shelf(), now=clock)
        kept = await one.ask("a", "b")
        assert (counts(kept), kept.stored) == ({"upstream": 2}, 2)
        clock.now = NOW + 9
        found = await other.ask("b", "a", "b")
        assert vectors(found) == [vectors(kept)[1], vectors(kept)[0], vectors(kept)[1]]
        assert counts(found) == {"store": 2, "duplicate": 1}
        assert (found.billed, found.stored, found.age, found.forced) == (0, 0, 9.0, False)
        assert other.backend.calls == []
        again = await other.ask("a", "b")
        assert (counts(again), again.age) == ({"memory": 2}, 9.0)
        assert again.tokens == kept.tokens

    asyncio.run(scene())


def test_only_what_no_tier_has_goes_upstream():
    """Memory, store and upstream, in one request; each vector is its own text's."""

    async def scene():
        shelf = Shelf()
        one = Line(stores=[shelf])
        other = Line(stores=[shelf])
        for line in (one, other):
            await line.cache.meet()
        await one.ask("in memory", "in the store")
        other_known = await other.ask("in memory")
        assert counts(other_known) == {"store": 1}
        answer = await other.ask("new", "in memory", "in the store", "new")
        assert counts(answer) == {"memory": 1, "store": 1, "upstream": 1, "duplicate": 1}
        assert vectors(answer) == right("new", "in memory", "in the store", "new")
        assert other.backend.calls == [["new"]]
        assert shelf.asked["get"] == 3

    asyncio.run(scene())


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5),
            st.integers(0, 8),
        ),
        min_size=1,
        max_size=8,
    ),
    max_batch=st.integers(1, 3),
    memory=st.sampled_from([0, 2**20]),
)
def test_whatever_workers_ask_at_once_a_text_has_one_vector(requests, max_batch, memory):
    """P2 and P4 over one store: at most one call a worker for a text, and one winner."""

    async def scene():
        shelf = Shelf()
        workers = await lines(3, shelf, memory=memory)
        waiting = []
        for worker, texts, steps in requests:
            workers[worker].backend.max_batch = max_batch
            waiting.append(workers[worker].begin(*texts))
            for _ in range(steps):
                await asyncio.sleep(0)
        seen = {}
        for (_, texts, _), answer in zip(requests, await asyncio.gather(*waiting), strict=True):
            for text, vector in zip(texts, vectors(answer), strict=True):
                assert seen.setdefault(text, vector) == vector
        for line in workers:
            asked = [text for call in line.backend.calls for text in call]
            assert len(asked) == len(set(asked)), "a worker asked twice"
            assert len(line.flights) == 0
        (late,) = await lines(1, shelf)
        assert vectors(await late.ask(*seen)) == list(seen.values())
        assert late.backend.calls == []

    asyncio.run(scene())


# who waits for whom


def test_a_thousand_equal_requests_are_one_look_and_one_call():
    """P4: they wait for the one that looks, and then for the one that asks."""

    async def scene():
        shelf = Shelf()
        (line,) = await lines(1, shelf)
        answers = await asyncio.gather(*(line.ask("x") for _ in range(1000)))
        assert len({vectors(answer)[0] for answer in answers}) == 1
        assert (shelf.asked["get"], shelf.asked["add"], len(line.backend.calls)) == (1, 1, 1)
        assert sum(answer.sources["upstream"] for answer in answers) == 1
        assert sum(answer.billed for answer in answers) == answers[0].billed

    asyncio.run(scene())


def test_equal_texts_of_batches_are_looked_up_once():
    """Whatever else stands in the request."""

    async def scene():
        shelf = Shelf()
        (line,) = await lines(1, shelf)
        batches = [["shared", f"own {number}"] for number in range(20)]
        answers = await asyncio.gather(*(line.ask(*batch) for batch in batches))
        assert len({vectors(answer)[0] for answer in answers}) == 1
        assert sorted(shelf.keys_asked) == sorted(set(shelf.keys_asked))

    asyncio.run(scene())


def test_what_anothers_look_finds_does_not_wait_for_that_ones_call():
    """A batch of a stored and a new text; who only wants the stored one has it at once."""

    async def scene():
        shelf = Shelf()
        one, other = await lines(2, shelf)
        kept = vectors(await one.ask("stored"))
        looks = shelf.asked["get"]
        other.backend.gate = asyncio.Event()
        shelf.hang("get")
        slow = other.begin("stored", "new")
        await settle()
        quick = other.begin("stored")
        await settle()
        shelf.release()
        assert vectors(await asyncio.wait_for(quick, 5)) == kept
        assert not slow.done()
        # And who comes now has it from memory.
        assert vectors(await asyncio.wait_for(other.ask("stored"), 5)) == kept
        other.backend.gate.set()
        assert vectors(await slow)[:1] == kept
        assert other.backend.calls == [["new"]]
        assert shelf.asked["get"] == looks + 1

    asyncio.run(scene())


def test_what_anothers_look_found_is_a_hit():
    """Nothing went out for it: it says so, and how old it is."""

    async def scene():
        clock, shelf = Clock(), Shelf()
        one, other = await lines(2, shelf, now=clock)
        await one.ask("x")
        clock.now = NOW + 9
        answers = await asyncio.gather(*(other.ask("x") for _ in range(3)))
        assert [counts(answer) for answer in answers] == [{"store": 1}] * 3
        assert [answer.age for answer in answers] == [9.0] * 3

    asyncio.run(scene())


def test_who_joins_while_anothers_texts_are_looked_up_asks_for_the_rest_together():
    """One request's texts and another's are both brought, each by whoever asked for it first."""

    async def scene():
        shelf = Shelf()
        one, other = await lines(2, shelf)
        await one.ask("a", "c")
        first = other.begin("a", "b")
        second = other.begin("b", "c", "d")
        answers = await asyncio.gather(first, second)
        assert vectors(answers[0])[1] == vectors(answers[1])[0]
        assert sorted(text for call in other.backend.calls for text in call) == ["b", "d"]
        assert counts(answers[0]) == {"store": 1, "upstream": 1}
        assert counts(answers[1]) == {"in-flight": 1, "store": 1, "upstream": 1}

    asyncio.run(scene())
