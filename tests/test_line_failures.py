"""The straight line when a call fails, a client leaves or time runs out: whose loss it is."""

import asyncio

import numpy as np
import pytest

from gateway.errors import InvalidRequestError, UpstreamError, UpstreamTimeoutError
from tests.backend import WIDTH, Backend, true
from tests.line import Line, bad, right, settle, vectors


def test_a_bad_text_is_named_by_its_place_in_the_clients_request():
    """Split and deduplicated on the way, the index is still that of the client's own list."""

    async def scene():
        line = Line(Backend(max_batch=2, answer=bad("worst")))
        await line.ask("a")
        with pytest.raises(InvalidRequestError) as caught:
            await line.ask("a", "b", "b", "c", "worst", "d", "worst")
        assert caught.value.message == "'input[4]': it is bad"
        assert caught.value.param == "input"

    asyncio.run(scene())


def test_a_bad_text_of_one_request_does_not_fail_another_that_joined_for_a_good_one():
    """B waits for A's batch, A's batch is refused for A's bad text, B gets its vector."""

    async def scene():
        line = Line(Backend(gate=asyncio.Event(), answer=bad("worst")))
        first = line.begin("good", "worst")
        await settle()
        second = line.begin("good")
        await settle()
        line.backend.gate.set()
        with pytest.raises(InvalidRequestError, match=r"input\[1\]"):
            await first
        assert vectors(await second) == right("good")
        assert line.backend.calls == [["good", "worst"], ["good"]]

    asyncio.run(scene())


def test_many_who_joined_a_refused_batch_ask_once_more_between_them():
    """P4 holds after a failure too: equal texts asked again are asked for once."""

    async def scene():
        line = Line(Backend(gate=asyncio.Event(), answer=bad("worst")))
        first = line.begin("good", "worst")
        await settle()
        others = [line.begin("good") for _ in range(5)]
        await settle()
        line.backend.gate.set()
        with pytest.raises(InvalidRequestError):
            await first
        answers = await asyncio.gather(*others)
        assert {tuple(vectors(answer)) for answer in answers} == {tuple(right("good"))}
        assert line.backend.calls == [["good", "worst"], ["good"]]

    asyncio.run(scene())


def test_whoever_joins_refused_batches_again_and_again_asks_at_last_by_itself():
    """Others that keep asking for its text beside a bad one cannot keep it waiting for ever."""

    async def scene():
        line = Line(Backend(answer=bad("worst")))
        rounds = 0

        async def ask_again_and_again():
            nonlocal rounds
            while not waiting.done():
                rounds += 1
                assert rounds < 50
                with pytest.raises(InvalidRequestError):
                    await line.ask("x", "worst")

        hostile = asyncio.ensure_future(ask_again_and_again())
        waiting = asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)
        answer = await line.ask("x")
        waiting.set_result(None)
        assert vectors(answer) == right("x")
        assert rounds > 1
        await hostile

    asyncio.run(scene())


def test_a_failure_of_the_upstream_is_everybodys_and_nothing_is_kept():
    """Those who waited see it, those who come later ask anew."""

    async def scene():
        def fail(texts):
            raise UpstreamError("no")

        line = Line(Backend(gate=asyncio.Event(), answer=fail))
        waiting = [line.begin("x"), line.begin("x", "y")]
        await settle()
        line.backend.gate.set()
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [UpstreamError, UpstreamError] == list(map(type, errors))
        assert len(line.memory) == 0
        line.backend.answer = None
        assert vectors(await line.ask("x", "y")) == right("x", "y")

    asyncio.run(scene())


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_one_vector_that_cannot_be_kept_fails_the_whole_answer(value):
    """P1: accepted whole or not at all; the good vectors beside it are not kept either."""

    async def scene():
        def spoiled(texts):
            raw = true("m", texts)
            raw.rows[-1][:] = value
            return raw

        line = Line(Backend(answer=spoiled))
        with pytest.raises(UpstreamError) as caught:
            await line.ask("a", "b")
        assert caught.value.code == "upstream_invalid_response"
        assert len(line.memory) == 0
        line.backend.answer = None
        assert vectors(await line.ask("a", "b")) == right("a", "b")
        assert line.backend.calls == [["a", "b"], ["a", "b"]]

    asyncio.run(scene())


def test_another_width_than_before_is_refused():
    """A model has one width; an answer with another is of another model."""

    async def scene():
        line = Line()
        await line.ask("a")
        line.backend.answer = lambda texts: true("m", texts, width=WIDTH + 1)
        with pytest.raises(UpstreamError, match="9 components where this model's have 8"):
            await line.ask("b")
        line.backend.answer = None
        assert vectors(await line.ask("b")) == right("b")

    asyncio.run(scene())


# leaving and deadlines


def test_a_request_that_leaves_ends_its_call_and_frees_the_text():
    """Nobody waits, so nobody pays; the next one asks anew."""

    async def scene():
        line = Line(Backend(gate=asyncio.Event()))
        first = line.begin("x")
        await settle()
        first.cancel()
        await settle()
        assert (line.backend.running, len(line.flights)) == (0, 0)
        line.backend.gate.set()
        assert vectors(await line.ask("x")) == right("x")

    asyncio.run(scene())


def test_a_call_that_came_back_though_it_was_called_off_is_the_one_that_counts():
    """P2: it was first. Whoever asked anew meanwhile answers with what it left, not its own."""

    class Stubborn(Backend):
        async def embed(self, *args, **options):
            try:
                return await super().embed(*args, **options)
            except asyncio.CancelledError:
                return await super().embed(*args, **options)

    async def scene():
        number = 0

        def noisy(texts):
            nonlocal number
            number += 1
            raw = true("m", texts)
            raw.rows[0][0] += number
            return raw

        line = Line(Stubborn(gate=asyncio.Event(), answer=noisy))
        first = line.begin("x")
        await settle()
        first.cancel()
        await settle()
        second = line.begin("x")
        await settle()
        line.backend.gate.set()
        answer = vectors(await second)
        assert number == 2
        assert vectors(await line.ask("x")) == answer

    asyncio.run(scene())


def test_a_call_survives_the_one_who_began_it():
    """Somebody else still waits for it."""

    async def scene():
        line = Line(Backend(gate=asyncio.Event()))
        first, second = line.begin("x", "y"), line.begin("y")
        await settle()
        first.cancel()
        await settle()
        line.backend.gate.set()
        assert vectors(await second) == right("y")
        assert line.backend.calls == [["x", "y"]]

    asyncio.run(scene())


def test_after_the_deadline_it_is_a_504():
    """A request has its own time, however long the upstream takes."""

    async def scene():
        line = Line(Backend(gate=asyncio.Event()))
        with pytest.raises(UpstreamTimeoutError) as caught:
            await line.ask("x", timeout=0.01)
        assert caught.value.status == 504
        await settle()
        assert line.backend.running == 0

    asyncio.run(scene())


def test_who_joined_later_has_the_time_of_its_own_request():
    """The first one's deadline ends its waiting, not the call that another still waits for."""

    async def scene():
        line = Line(Backend(gate=asyncio.Event()))
        first = line.begin("x", timeout=0.05)
        await settle()
        second = line.begin("x", timeout=5.0)
        with pytest.raises(UpstreamTimeoutError):
            await first
        await asyncio.sleep(0.02)
        line.backend.gate.set()
        assert vectors(await second) == right("x")

    asyncio.run(scene())
