"""The straight line over stores: who looks, who waits for whom, and what needs nobody else."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequestError, TooManyTokensError, UpstreamError
from tests.backend import Backend, true
from tests.cache.shelf import Shelf
from tests.cache.worker import NOW, Clock, purge
from tests.line import Line, Noisy, bad, right, settle, vectors


def counts(answer):
    """Return how many vectors came from where, zeros left out."""
    return {source: count for source, count in answer.sources.items() if count}


async def lines(count, *shelves, **options):
    """Return lines over these stores, each as one worker has it."""
    made = [Line(Noisy(), stores=shelves, **options) for _ in range(count)]
    for line in made:
        await line.cache.meet()
    return made


def broken(_):
    raise UpstreamError("nobody is there")


# what is found


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


# leaving and failing


def test_the_one_who_looks_may_leave():
    """Those who joined get what it finds, and what it asks for."""

    async def scene():
        shelf = Shelf()
        (line,) = await lines(1, shelf)
        shelf.hang("get")
        first = line.begin("x")
        await settle()
        others = [line.begin("x") for _ in range(3)]
        await settle()
        first.cancel()
        await settle()
        shelf.release()
        answers = await asyncio.gather(*others)
        assert len({vectors(answer)[0] for answer in answers}) == 1
        assert line.backend.calls == [["x"]]
        assert shelf.asked["get"] == 1

    asyncio.run(scene())


@pytest.mark.parametrize("verb", ["get", "add"])
def test_when_all_have_left_nothing_goes_on(verb):
    """The look ends, and no call is made; the next one looks and asks anew."""

    async def scene():
        shelf = Shelf()
        (line,) = await lines(1, shelf)
        shelf.hang(verb)
        waiting = [line.begin("x") for _ in range(3)]
        await settle()
        for request in waiting:
            request.cancel()
        await asyncio.wait(waiting)
        await settle()
        assert len(line.flights) == 0
        assert len(line.backend.calls) == (verb == "add")
        shelf.release()
        await settle()
        calls = len(line.backend.calls)
        (vector,) = vectors(await line.ask("x"))
        assert len(line.backend.calls) == calls + 1
        assert vectors(await line.ask("x")) == [vector]

    asyncio.run(scene())


def test_a_failure_of_the_upstream_is_everybodys_who_waits_and_the_store_stays_clean():
    """Who comes later looks and asks anew."""

    async def scene():
        shelf = Shelf()
        line = Line(Backend(answer=broken), stores=[shelf])
        await line.cache.meet()
        waiting = [line.begin("x"), line.begin("y", "x")]
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [UpstreamError, UpstreamError] == list(map(type, errors))
        assert not any(shelf.values.values())
        line.backend.answer = None
        assert vectors(await line.ask("x", "y")) == right("x", "y")

    asyncio.run(scene())


def test_a_refused_text_is_named_by_its_place_in_each_request():
    """Found, bad and good ones beside each other: who joined asks for the good ones again."""

    async def scene():
        shelf = Shelf()
        one = Line(stores=[shelf])
        line = Line(Backend(answer=bad("worst")), stores=[shelf])
        for each in (one, line):
            await each.cache.meet()
        await one.ask("stored")
        first = line.begin("stored", "good", "worst")
        second = line.begin("worst", "stored")
        third = line.begin("good", "stored")
        with pytest.raises(InvalidRequestError, match=r"input\[2\]"):
            await first
        with pytest.raises(InvalidRequestError, match=r"input\[0\]"):
            await second
        assert vectors(await third) == right("good", "stored")
        await settle()
        assert len(line.flights) == 0

    asyncio.run(scene())


def test_a_look_that_fails_is_a_miss():
    """A store that goes away while many wait for it costs them a miss, and one call."""

    async def scene():
        shelf = Shelf()
        (line,) = await lines(1, shelf)
        shelf.hang()
        waiting = [line.begin("x") for _ in range(10)]
        await settle()
        shelf.fail("timeout")
        shelf.release()
        answers = await asyncio.gather(*waiting)
        assert len({vectors(answer)[0] for answer in answers}) == 1
        assert {answer.unshared for answer in answers} == {True}
        assert line.backend.calls == [["x"]]

    asyncio.run(scene())


# what needs nobody else


def test_what_is_kept_is_answered_though_the_upstream_is_down():
    """P9: from a store as from memory, and in a batch of nothing but that."""

    async def scene():
        shelf = Shelf()
        (one,) = await lines(1, shelf)
        kept = vectors(await one.ask("a", "b"))
        line = Line(Backend(answer=broken), stores=[shelf])
        await line.cache.meet()
        assert vectors(await line.ask("a")) == kept[:1]
        assert vectors(await line.ask("b", "a")) == kept[::-1]
        with pytest.raises(UpstreamError):
            await line.ask("a", "new")

    asyncio.run(scene())


@pytest.mark.parametrize(("count", "max_tokens"), [(False, None), (True, None), (False, 200_000)])
def test_long_texts_that_are_kept_are_not_counted(count, max_tokens):
    """P9: their tokens have to be known before an upstream is asked, and nobody asks one."""

    class Dead(Backend):
        async def count(self, *_, **__):
            raise UpstreamError("the engine is down")

    async def scene():
        shelf = Shelf()
        texts = ["word " * 30_000, "words " * 20_000]
        backend = Backend(counts=lambda text: len(text.split()))
        one = Line(backend, stores=[shelf], count=count, max_tokens=max_tokens)
        await one.cache.meet()
        kept = await one.ask(*texts)
        model = {"count": count, "max_tokens": max_tokens}
        line = Line(Dead(answer=broken), stores=[shelf], **model)
        await line.cache.meet()
        found = await line.ask(*texts)
        assert vectors(found) == vectors(kept)
        assert found.tokens == kept.tokens

    asyncio.run(scene())


def test_tokens_of_what_is_kept_count_towards_the_limit_of_a_request():
    """300,000 a request, wherever they are known; nothing more is asked for then."""

    async def scene():
        shelf = Shelf()
        texts = ["word " * 60_000 + str(number) for number in range(6)]
        line = Line(Backend(counts=lambda text: len(text) // 5), stores=[shelf])
        await line.cache.meet()
        for text in texts[:3]:
            await line.ask(text)
        calls = list(line.backend.calls)
        with pytest.raises(TooManyTokensError):
            await line.ask(*texts)
        assert line.backend.calls == calls

    asyncio.run(scene())


def test_a_text_that_stands_in_a_request_many_times_counts_as_often():
    """Though it would be sent once."""

    async def scene():
        line = Line(Backend(counts=lambda text: len(text) // 5))
        text = "word " * 10_000
        with pytest.raises(TooManyTokensError):
            await line.ask(*[text] * 40)
        assert line.backend.calls == []

    asyncio.run(scene())


def test_a_request_that_is_too_much_stops_nobody_who_joined_it():
    """Its tokens are its own affair: who waits for one of its texts asks for that by itself."""

    async def scene():
        shelf = Shelf()
        backend = Backend(counts=lambda text: len(text) // 5)
        line = Line(backend, stores=[shelf])
        await line.cache.meet()
        large = line.begin("x", *("word " * 80_000 + str(number) for number in range(5)))
        small = line.begin("x")
        with pytest.raises(TooManyTokensError):
            await large
        assert vectors(await small) == right("x")

    asyncio.run(scene())


# the winner, and what it is


def test_the_one_who_was_first_is_answered_by_the_one_who_was_second():
    """P2: another worker was quicker; its vector goes out, with its tokens, and no claim to it."""

    async def scene():
        shelf = Shelf()
        one, other = await lines(2, shelf)
        other.backend.gate = asyncio.Event()
        late = other.begin("x")
        await settle()
        first = await one.ask("x")
        other.backend.gate.set()
        answer = await late
        assert vectors(answer) == vectors(first) == vectors(await other.ask("x"))
        assert (counts(answer), answer.stored, answer.age) == ({"upstream": 1}, 0, None)
        assert answer.billed == first.billed

    asyncio.run(scene())


def test_an_answer_says_whether_it_is_everybodys():
    """Unshared while the store is away, for as long as it is; what was kept before is not."""

    async def scene():
        shelf = Shelf()
        (line,) = await lines(1, shelf)
        await line.ask("old")
        shelf.fail("connect")
        told = [
            (await line.ask(*texts)).unshared
            for texts in (["old"], ["new"], ["new"], ["old", "new"], ["old"])
        ]
        assert told == [False, True, True, True, False]
        shelf.recover()
        await line.cache.meet()
        assert not (await line.ask("old", "new")).unshared

    asyncio.run(scene())


def test_what_was_cut_is_told_of_from_the_store_as_well():
    """P7: with its exact tokens and the fingerprint of what made it."""

    def cutting(texts):
        raw = true("m", texts)
        cut = [text == "long" for text in texts]
        return type(raw)(raw.rows, raw.tokens, False, cut, fingerprint="model 1")

    async def scene():
        shelf = Shelf()
        one = Line(Backend(answer=cutting), stores=[shelf], truncate=True)
        other = Line(stores=[shelf], truncate=True)
        for line in (one, other):
            await line.cache.meet()
        kept = await one.ask("a", "long")
        found = await other.ask("a", "long")
        assert list(kept.truncated) == list(found.truncated) == [1]
        assert (found.tokens, counts(found)) == (kept.tokens, {"store": 2})
        (entry,) = (entry for _, entry in other.memory.items() if entry.truncated)
        assert entry.fingerprint == "model 1"

    asyncio.run(scene())


def test_a_width_that_another_worker_learned_is_demanded():
    """P6: an upstream that was changed to another model is refused by all of them."""

    async def scene():
        shelf = Shelf()
        (one,) = await lines(1, shelf)
        await one.ask("x")
        await one.cache.meet()
        line = Line(Backend(answer=lambda texts: true("m", texts, width=9)), stores=[shelf])
        await line.cache.meet()
        with pytest.raises(UpstreamError, match="9 components where this model's have 8"):
            await line.ask("y")

    asyncio.run(scene())


def test_dimensions_are_checked_against_what_a_store_has():
    """The first request of a process may be one that cannot be had."""

    async def scene():
        shelf = Shelf()
        one = Line(stores=[shelf], dimensions="native")
        line = Line(Backend(answer=broken), stores=[shelf], dimensions="native")
        for each in (one, line):
            await each.cache.meet()
        await one.ask("x")
        assert vectors(await line.ask("x", dimensions=8)) == right("x")
        fresh = Line(Backend(answer=broken), stores=[shelf], dimensions="native")
        await fresh.cache.meet()
        with pytest.raises(InvalidRequestError):
            await fresh.ask("x", dimensions=4)

    asyncio.run(scene())


@pytest.mark.parametrize("ahead", [0.0, 60.0])
def test_after_a_purge_there_is_one_new_vector_whatever_the_clocks_say(ahead):
    """The one who purged may have another clock: what is made once it is known of is newer."""

    async def scene():
        clock, shelf = Clock(), Shelf()
        workers = await lines(2, shelf, now=clock)
        old = {vectors(await line.ask("x"))[0] for line in workers}
        clock.now = NOW + 1
        (scope,) = workers[0].cache.scopes
        purge(shelf, scope, before=NOW + 1 + ahead)
        for line in workers:
            await line.cache.meet()
        new = [vectors(await line.ask("x"))[0] for line in workers for _ in range(2)]
        assert new == [new[0]] * 4
        assert new[0] not in old

    asyncio.run(scene())
