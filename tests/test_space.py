"""Only upstreams that are known to make vectors of a space are asked for them (promise P6)."""

import asyncio

import pytest

from gateway.errors import UnavailableError, UpstreamConnectError, UpstreamError
from gateway.errors import UpstreamTimeoutError as Late
from gateway.spaces.reference import TEXTS
from gateway.spaces.standing import OUT_FOR
from tests import several
from tests.backend import true
from tests.several import (
    Clock,
    another,
    away,
    embed,
    known,
    member,
    probes,
    run,
    served,
    space,
    upstreams,
)


def test_the_first_request_waits_until_it_is_known_who_agrees():
    """The first-named gives the reference, the second is compared, and the first is asked."""
    a, b = member("a"), member("b")

    async def scene():
        backend = upstreams([a, b], space(a, b))
        raw = await embed(backend, "x")
        await embed(backend, "y")
        assert known(raw.rows[0]) == known(true("m", ["x"]).rows[0])

    run(scene)
    assert (served(a), served(b)) == (["x", "y"], [])
    assert (probes(a), probes(b)) == (1, 1)


def test_requests_that_come_together_wait_for_one_probe():
    """Nobody is probed twice for the same question."""
    a, b = member("a"), member("b")

    async def scene():
        a.backend.gate = b.backend.gate = asyncio.Event()
        backend = upstreams([a, b], space(a, b))
        asking = [asyncio.ensure_future(embed(backend, str(number))) for number in range(20)]
        await asyncio.sleep(0.01)
        a.backend.gate.set()
        await asyncio.gather(*asking)

    run(scene)
    assert (probes(a), probes(b)) == (1, 1)
    assert sorted(served(a), key=int) == list(map(str, range(20)))


def test_an_upstream_of_another_space_is_never_asked():
    """Neither beside the first nor in its place; it is looked at again a minute later."""
    a, b, clock = member("a"), member("b"), Clock()
    b.backend.answer = another

    async def scene():
        where = space(a, b, clock=clock)
        backend = upstreams([b, a], where)
        await embed(backend, "x")
        a.backend.answer = away
        for _ in range(3):
            with pytest.raises(UpstreamConnectError):
                await embed(backend, "y")
        told = where.info(b)
        assert told.state == "out"
        assert told.reason is not None
        assert told.reason.startswith("its vectors are not of the space 's': cosine ")
        assert probes(b) == 1
        clock.now += OUT_FOR
        b.backend.answer = None
        where.look()
        await asyncio.sleep(0.01)
        assert where.info(b).state == "ready"
        await embed(backend, "z")

    run(scene)
    assert served(b) == ["z"]


@pytest.mark.parametrize("alone", [True, False])
def test_where_only_others_agree_there_is_no_vector(alone):
    """A model whose upstream is out is not served by another model's upstream of that space."""
    a, b = member("a"), member("b")
    b.backend.answer = another

    async def scene():
        backend = upstreams([b] if alone else [b, a], space(a, b))
        if alone:
            with pytest.raises(UnavailableError, match=r"b: its vectors are not of the space 's'"):
                await embed(backend, "x")
        else:
            await embed(backend, "x")

    run(scene)
    assert served(b) == []
    assert served(a) == ([] if alone else ["x"])


def test_without_a_reference_nobody_stands_in_for_the_first():
    """503 with a time to come back; the other is never asked to make the reference."""
    a, b, clock = member("a"), member("b"), Clock()
    a.backend.answer = away

    async def scene():
        where = space(a, b, clock=clock)
        backend = upstreams([a, b], where)
        with pytest.raises(UnavailableError) as refused:
            await embed(backend, "x")
        assert refused.value.code == "upstream_unavailable"
        assert refused.value.headers == {"retry-after": "1", "retry-after-ms": "1000"}
        assert "a: it could not be compared: upstream_unreachable" in str(refused.value)
        with pytest.raises(UnavailableError):
            await embed(backend, "x")
        assert (probes(a), probes(b)) == (1, 0), "it was asked again at once"
        a.backend.answer = None
        clock.now += 1
        await embed(backend, "x")

    run(scene)
    assert (served(a), served(b)) == (["x"], [])


def test_an_upstream_that_was_away_is_compared_before_it_is_asked_again():
    """Its circuit has opened: another server may stand there now."""
    a, b, clock = member("a"), member("b"), Clock()
    a.backend.circuit = several.Circuit(clock)

    async def scene():
        where = space(a, b, clock=clock)
        backend = upstreams([a, b], where)
        await embed(backend, "x")
        await asyncio.sleep(0.01)
        for _ in range(5):
            a.backend.circuit.failed("connect")
        assert where.info(a).state == "unknown"
        await embed(backend, "y")
        assert (served(a), served(b)) == (["x"], ["y"])
        a.backend.answer = another
        clock.now += 5
        await embed(backend, "z")
        await asyncio.sleep(0.01)
        assert where.info(a).state == "out"
        await embed(backend, "z")

    run(scene)
    assert (served(a), served(b)) == (["x"], ["y", "z", "z"])
    assert (probes(a), probes(b)) == (2, 1)


def test_an_answer_of_another_width_is_refused_and_told_of():
    """The next one is asked, and who sent it is out; the refusal is told of."""
    a, b = member("a"), member("b")
    refusals = []

    async def scene():
        where = space(a, b, on_refused=refusals.append)
        backend = upstreams([a, b], where)
        await embed(backend, "x")
        await asyncio.sleep(0.01)
        a.backend.answer = lambda texts: true("m", texts, 9)
        assert len((await embed(backend, "y")).rows[0]) == 8
        told = where.info(a)
        assert told.reason == "its vectors have 9 components, and those of the space 8"
        assert told.state == "out"
        await embed(backend, "z")

    run(scene)
    assert (served(a), served(b)) == (["x", "y"], ["y", "z"])
    assert [(refusal.upstream, refusal.fault) for refusal in refusals] == [("a", "width")]


def test_an_answer_that_comes_after_its_upstream_was_found_out_is_refused():
    """It was asked while it was trusted, and is not any more; the refusal is told of."""
    a, b = member("a"), member("b")
    refusals = []

    async def scene():
        where = space(a, b, on_refused=refusals.append)
        backend = upstreams([a], where)
        await embed(backend, "x")
        a.backend.gate = asyncio.Event()
        asking = asyncio.ensure_future(embed(backend, "y"))
        await asyncio.sleep(0)
        where.standings[a.pair].has_width(9, 8, 0.0)
        a.backend.gate.set()
        with pytest.raises(UpstreamError, match="was refused"):
            await asking

    run(scene)
    assert [(refusal.upstream, refusal.fault) for refusal in refusals] == [("a", "space")]


def test_a_request_waits_no_longer_than_its_deadline():
    """The probe goes on for those who come later."""
    a, b = member("a"), member("b")

    async def scene():
        a.backend.gate = asyncio.Event()
        backend = upstreams([a, b], space(a, b))
        with pytest.raises(Late):
            await embed(backend, "x", timeout=0.02)
        a.backend.gate.set()
        await embed(backend, "y")

    run(scene)
    assert (served(a), probes(a)) == (["y"], 1)


def test_small_batches_are_kept_to():
    """An upstream that takes two texts a call is asked three times for five."""
    a, b = member("a", max_batch=2), member("b")

    async def scene():
        await embed(upstreams([a, b], space(a, b)), "x")

    run(scene)
    assert [len(call) for call in a.backend.calls if call != ["x"]] == [2, 2, 1]
    assert [text for call in a.backend.calls[:3] for text in call] == list(TEXTS)


def test_a_defect_in_a_probe_is_told_and_not_repeated_at_once():
    """Who waits is told that nobody can be asked."""
    a, b = member("a"), member("b")

    def broken(_):
        raise RuntimeError("a defect")

    a.backend.answer = broken

    async def scene():
        with pytest.raises(UnavailableError, match="unforeseen error"):
            await embed(upstreams([a, b], space(a, b)), "x")

    run(scene)
    assert probes(a) == 1
