"""The straight line over a backend without a network: what is asked, how often, and who pays.

What needs exact interleavings is here; the same promises over sockets are in `test_embeddings`.
"""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequestError, TooManyTokensError, UpstreamTimeoutError
from tests.backend import Backend, true
from tests.line import Line, bad, right, settle, vectors


def test_every_text_gets_its_own_vector_in_its_own_place():
    """Duplicates and all, whatever of it was known before."""

    async def scene():
        line = Line()
        await line.ask("b", "d")
        answer = await line.ask("a", "b", "a", "c", "d", "b")
        assert vectors(answer) == right("a", "b", "a", "c", "d", "b")
        assert line.backend.calls == [["b", "d"], ["a", "c"]]
        assert dict(answer.sources) == {
            "memory": 2, "duplicate": 2, "store": 0, "in-flight": 0, "upstream": 2
        }  # fmt: skip
        assert (answer.stored, answer.forced, answer.unshared) == (2, False, False)

    asyncio.run(scene())


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(
        st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), min_size=1, max_size=6
    ),
    max_batch=st.integers(1, 4),
    order=st.randoms(use_true_random=False),
)
def test_whatever_is_asked_at_once_each_text_is_asked_for_once(requests, max_batch, order):
    """P1, P2 and P4 for any overlap of requests and any order in which calls come back."""

    class Late(Backend):
        async def embed(self, *args, **options):
            for _ in range(order.randrange(6)):
                await asyncio.sleep(0)
            return await super().embed(*args, **options)

    async def scene():
        line = Line(Late(max_batch=max_batch, parallel=2))
        waiting = []
        for texts in requests:
            waiting.append(line.begin(*texts))
            if order.random() < 0.5:
                await asyncio.sleep(0)
        answers = await asyncio.gather(*waiting)
        assert [vectors(answer) for answer in answers] == [right(*texts) for texts in requests]
        asked = [text for call in line.backend.calls for text in call]
        assert sorted(asked) == sorted({text for texts in requests for text in texts})
        await settle()
        assert len(line.flights) == 0

    asyncio.run(scene())


def test_equal_texts_in_flight_are_waited_for():
    """Twenty equal requests are one call; each says where its vector came from."""

    async def scene():
        line = Line(Backend(gate=asyncio.Event()))
        waiting = [line.begin("x") for _ in range(20)]
        await settle()
        line.backend.gate.set()
        answers = await asyncio.gather(*waiting)
        assert [["x"]] == line.backend.calls
        assert {tuple(vectors(answer)) for answer in answers} == {tuple(right("x"))}
        assert [1] + [0] * 19 == [answer.sources["upstream"] for answer in answers]
        assert [0] + [1] * 19 == [answer.sources["in-flight"] for answer in answers]
        assert answers[0].billed > 0
        assert {0} == {answer.billed for answer in answers[1:]}
        assert [1] + [0] * 19 == [answer.stored for answer in answers]
        assert 1 == len({answer.tokens for answer in answers})

    asyncio.run(scene())


def test_only_what_is_missing_is_asked_for():
    """Three of a hundred unknown: three are sent."""

    async def scene():
        line = Line()
        known = [f"text {n}" for n in range(97)]
        await line.ask(*known)
        await line.ask("new 1", *known[:50], "new 2", *known[50:], "new 3")
        assert line.backend.calls[1] == ["new 1", "new 2", "new 3"]

    asyncio.run(scene())


def test_with_no_memory_each_request_asks_and_equal_ones_at_once_still_share():
    """`memory = 0` keeps nothing, and a duplicate is still one text."""

    async def scene():
        line = Line(memory=0)
        for _ in range(2):
            assert vectors(await line.ask("a", "a")) == right("a", "a")
        assert [["a"], ["a"]] == line.backend.calls

    asyncio.run(scene())


def test_the_first_vector_kept_is_the_answer_of_everybody():
    """P2: a nondeterministic upstream, asked again after a refused batch, has one answer here."""

    async def scene():
        number = 0

        def noisy(texts):
            nonlocal number
            number += 1
            raw = bad("worst")(texts)
            raw.rows[0][0] += number
            return raw

        line = Line(Backend(answer=noisy, gate=asyncio.Event()))
        refused = line.begin("x", "worst")
        await settle()
        others = [line.begin("x") for _ in range(4)]
        await settle()
        line.backend.gate.set()
        answers = await asyncio.gather(refused, *others, return_exceptions=True)
        seen = [vectors(answer) for answer in answers[1:]]
        seen += [vectors(await line.ask("x")) for _ in range(2)]
        assert seen == [seen[0]] * 6

    asyncio.run(scene())


def test_large_requests_are_split_by_count_and_put_together_in_order():
    """2,000 texts, 96 a call, at most so many calls at a time."""

    async def scene():
        line = Line(Backend(max_batch=96, parallel=3, max_batch_bytes=10**9))
        texts = [f"text {n}" for n in range(2000)]
        assert vectors(await line.ask(*texts)) == right(*texts)
        sizes = sorted(map(len, line.backend.calls), reverse=True)
        assert sizes == [96] * 20 + [80]
        assert line.backend.most == 3

    asyncio.run(scene())


@given(
    texts=st.lists(
        st.text("aé€\U0001f600", min_size=1, max_size=30) | st.tuples(st.integers(0, 9)),
        min_size=1,
        max_size=12,
        unique=True,
    ),
    max_bytes=st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_parts_are_within_the_bytes_an_upstream_takes(texts, max_bytes):
    """Or hold a single text that is longer than all of them."""
    backend = Backend(max_batch_bytes=max_bytes, max_batch=5)
    asyncio.run(Line(backend, token_ids="native").ask(*texts))
    asked = [text for call in backend.calls for text in call]
    assert asked == sorted(texts, key=lambda text: isinstance(text, tuple))
    for call in backend.calls:
        size = sum(len(text.encode()) for text in call if isinstance(text, str))
        assert size <= max_bytes or len(call) == 1
        assert len(call) <= 5
        assert len(set(map(type, call))) == 1


# tokens


def test_texts_too_long_for_the_model_are_refused_before_anybody_is_asked():
    """P7: with a declared tokenizer, in OpenAI's words and with the item."""

    async def scene():
        line = Line(count=True, max_tokens=3)
        with pytest.raises(InvalidRequestError) as caught:
            await line.ask("one two", "one two three four")
        error = caught.value
        assert ("context_length_exceeded", "input") == (error.code, error.param)
        assert error.message.startswith(
            "'input[1]': This model's maximum context length is 3 tokens, however you requested 4 "
        )
        assert line.backend.calls == []
        assert vectors(await line.ask("one two three")) == right("one two three")

    asyncio.run(scene())


def test_a_text_that_cannot_but_be_too_long_is_not_counted():
    """Megabytes are refused by their length: no token is longer than 128 characters."""
    line = Line(count=True, max_tokens=3)
    with pytest.raises(InvalidRequestError, match=r"'input\[1\]'.*requested 7813 tokens"):
        asyncio.run(line.ask("a", "x" * 1_000_000))


def test_counting_has_the_time_of_its_request():
    """It is done in a thread, and nobody waits for that longer than for anything else."""
    with pytest.raises(UpstreamTimeoutError) as caught:
        asyncio.run(Line(count=True).ask("many words " * 2000, timeout=-1.0))
    assert caught.value.code == "counting_timeout"


def test_declared_tokens_are_exact_and_kept():
    """The tokenizer's count replaces the upstream's share of a sum, on hits as well."""

    async def scene():
        line = Line(count=True)
        word = "antidisestablishmentarianism"  # 28 bytes: the fake backend says 7, cl100k 6
        first, again = await line.ask(word, "hi"), await line.ask(word, "hi")
        assert (first.tokens, first.billed) == (7, 8)
        assert (again.tokens, again.billed) == (7, 0)

    asyncio.run(scene())


@pytest.mark.parametrize("by", ["tokenizer", "backend"])
def test_too_many_tokens_for_one_request_are_openais_error(by):
    """300,000 tokens a request, wherever tokens are known."""

    async def scene():
        long = ["word " * 60_000 + str(n) for n in range(6)]
        backend = Backend(counts=lambda text: len(text) // 5 if by == "backend" else 1)
        line = Line(backend, count=by == "tokenizer")
        with pytest.raises(TooManyTokensError) as caught:
            await line.ask(*long)
        assert "max 300000 tokens per request" in caught.value.message
        assert line.backend.calls == []

    asyncio.run(scene())


def test_a_text_that_came_while_tokens_were_counted_is_not_asked_for_again():
    """Counting leaves the event loop: what another request brought meanwhile is there."""

    async def scene():
        line = Line(count=True)
        long = "many words " * 2000
        slow = line.begin(long, "x")
        await asyncio.sleep(0)
        quick = await line.ask("x")
        answer = await slow
        assert vectors(answer)[1:] == vectors(quick)
        assert [text for call in line.backend.calls for text in call].count("x") == 1

    asyncio.run(scene())


# what is asked of the backend


def test_fields_user_truncation_and_names_reach_the_backend():
    """The upstream's own name, the listed fields and the user; never the seed or dimensions."""

    async def scene():
        line = Line(upstream_model="theirs", truncate=True, forward=("input_type",))
        extra = {"input_type": "query", "other": 1}
        await line.ask("x", user="u", seed=7, dimensions=4, extra=extra)
        assert line.backend.options == [
            {"model": "theirs", "fields": {"input_type": "query", "user": "u"}, "truncate": True}
        ]

    asyncio.run(scene())


def test_truncation_is_told_by_position_and_remembered():
    """A hit on a truncated text says so again."""

    async def scene():
        def cutting(texts):
            raw = true("m", texts)
            return type(raw)(raw.rows, raw.tokens, False, [text == "long" for text in texts])

        line = Line(Backend(answer=cutting), truncate=True)
        assert [1, 3] == list((await line.ask("a", "long", "b", "long")).truncated)
        assert [0] == list((await line.ask("long")).truncated)

    asyncio.run(scene())
