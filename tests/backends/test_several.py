"""Several upstreams as one backend: what it says of itself, and what it counts."""

import asyncio

import pytest

from gateway.backends.several import ChatUpstreams
from gateway.backends.turns import Turns
from gateway.errors import InvalidInputError, UpstreamConnectError, UpstreamError
from tests.several import member, space, upstreams

SOON = 1e12
"""A deadline."""


def chats(*members):
    return ChatUpstreams(members, Turns(None, lambda: 0.5))


def listed(*lists):
    members = [member(f"u{number}", listed=names) for number, names in enumerate(lists)]
    return asyncio.run(chats(*members).models())


def test_what_all_serve_is_listed():
    """In the order of the first; one that does not say, or is away, is passed over."""
    away = UpstreamError("away")
    assert listed(["x", "y", "z"], ["z", "x"]) == ["x", "z"]
    assert listed(["x", "y"], []) == ["x", "y"]
    assert listed(away, ["y"]) == ["y"]
    assert listed([], []) == []
    with pytest.raises(UpstreamError):
        listed(away, away)
    with pytest.raises(RuntimeError):
        listed(["x"], RuntimeError("a defect"))


def test_the_most_careful_is_right_for_all():
    """Batches, bytes and calls at a time."""
    a = member("a", max_batch=10, max_batch_bytes=300, parallel=4)
    b = member("b", max_batch=20, max_batch_bytes=200, parallel=2)
    both = upstreams([a, b], space(a, b))
    assert (both.max_batch, both.max_batch_bytes, both.parallel) == (10, 200, 2)
    assert both.name == "a, b"


def test_what_is_known_of_any_is_told():
    """Their states one by one; the width once it is the space's."""
    a, b = member("a"), member("b", width=8)

    async def scene():
        both = upstreams([a, b], space(a, b))
        told = both.info()
        assert (told.width, told.context, told.pooling) == (None, 512, "mean")
        assert [each.state for each in told.upstreams] == ["unknown", "unknown"]
        await both.embed("m", ["x"], fields={}, truncate=False, deadline=SOON)
        assert both.info().width == 8

    asyncio.run(scene())
    assert chats(a, b).info().context == 512
    assert [each.name for each in chats(a, b).info().upstreams] == ["a", "b"]


def count(*members):
    async def scene():
        both = upstreams(members, space(*members))
        await both.embed("m", ["x"], fields={}, truncate=False, deadline=SOON)
        await asyncio.sleep(0.01)
        return await both.count(["four", "two"], deadline=SOON)

    return asyncio.run(scene())


def test_texts_are_counted_by_whoever_can():
    """One that cannot tell, or is away, is passed over; without any nobody knows."""

    def away(_):
        raise UpstreamConnectError("away")

    def refused(_):
        raise InvalidInputError("too long", item=0)

    assert count(member("a"), member("b", counts=len)) == [4, 3]
    assert count(member("a", counts=away), member("b", counts=len)) == [4, 3]
    assert count(member("a", counts=away), member("b")) is None
    with pytest.raises(InvalidInputError):
        count(member("a", counts=refused), member("b", counts=len))
