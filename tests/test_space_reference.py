"""What upstreams of a space are compared with: kept like any vectors, the first one stored wins."""

import asyncio

import pytest

from gateway.errors import UpstreamConnectError
from gateway.spaces.reference import TENANT
from tests import several
from tests.cache.shelf import Shelf
from tests.several import Clock, another, away, embed, member, probes, run, served, space, upstreams


def test_a_stored_reference_lets_others_serve_while_the_first_is_away():
    """After a restart, and on another replica: both have the store."""
    shelf = Shelf()

    async def scene():
        a, b = member("a"), member("b")
        first = several.cache([shelf])
        await first.meet()
        await embed(upstreams([a, b], space(a, b, cache=first)), "x")

        c, d = member("a"), member("b")
        c.backend.answer = away
        second = several.cache([shelf])
        await second.meet()
        backend = upstreams([c, d], space(c, d, cache=second))
        await embed(backend, "y")
        assert (served(c), served(d)) == ([], ["y"])

    run(scene)


def test_the_reference_that_was_stored_first_counts():
    """A first-named upstream that has become another model is out, not the new measure."""
    shelf = Shelf()

    async def scene():
        caches = [several.cache([shelf]), several.cache([shelf])]
        for each in caches:
            await each.meet()
        a, b = member("a"), member("b")
        await embed(upstreams([a, b], space(a, b, cache=caches[0])), "x")
        changed, same = member("a"), member("b")
        changed.backend.answer = another
        where = space(changed, same, cache=caches[1])
        await embed(upstreams([changed, same], where), "y")
        assert where.info(changed).state == "out"
        assert (served(changed), served(same)) == ([], ["y"])

    run(scene)


def test_a_purge_has_the_reference_made_anew():
    """What was known of the upstreams was known of the old one."""
    shelf = Shelf()

    async def scene():
        a, b = member("a"), member("b")
        kept = several.cache([shelf])
        await kept.meet()
        where = space(a, b, cache=kept)
        backend = upstreams([a, b], where)
        await embed(backend, "x")
        await asyncio.sleep(0.01)
        await kept.meet()
        a.backend.answer = b.backend.answer = another
        [reference] = [scope for scope in kept.scopes if scope.fact.tenant == TENANT]
        reference.fact = several.purged(reference.fact)
        reference.move(kept.scopes.secret)
        await embed(backend, "y")
        await asyncio.sleep(0.01)
        assert (where.info(a).state, where.info(b).state) == ("ready", "ready")
        assert (probes(a), probes(b)) == (2, 2)

    run(scene)


def test_a_reference_that_others_stored_first_takes_the_place_of_a_provisional_one():
    """Made while the store was away; who agreed with it is compared again."""
    shelf = Shelf()

    async def scene():
        a, b = member("a"), member("b")
        first = several.cache([shelf])
        await first.meet()
        await embed(upstreams([a, b], space(a, b, cache=first)), "x")

        c, d = member("a"), member("b")
        c.backend.answer = d.backend.answer = another
        second = several.cache([shelf])
        shelf.fail("connect")
        await second.meet()
        where = space(c, d, cache=second)
        await embed(upstreams([c, d], where), "x")
        assert where.info(c).state == "ready"
        shelf.recover()
        await second.meet()
        where.look()
        await asyncio.sleep(0.01)
        assert (where.info(c).state, where.info(d).state) == ("out", "out")

    run(scene)


def test_nothing_is_kept_and_still_it_is_known_who_agrees():
    """With memory = "0" and no store the process remembers the reference itself."""
    a, b, clock = member("a"), member("b"), Clock()
    b.backend.answer = away

    async def scene():
        where = space(a, b, cache=several.cache(memory=0), clock=clock)
        backend = upstreams([a, b], where)
        await embed(backend, "x")
        a.backend.answer = away
        b.backend.answer = None
        clock.now += 1
        with pytest.raises(UpstreamConnectError):
            await embed(backend, "y")
        await asyncio.sleep(0.01)
        await embed(backend, "y")

    run(scene)
    assert (served(b), probes(a)) == (["y"], 1)


def test_what_is_known_is_taken_over_where_the_upstream_is_the_same_one():
    """A reload probes nobody again; an upstream that was changed is another one."""
    a, b = member("a"), member("b")

    async def scene():
        kept = several.cache()
        before = space(a, b, cache=kept)
        await embed(upstreams([a, b], before), "x")
        await asyncio.sleep(0.01)
        c = member("b")
        after = space(a, c, cache=kept)
        after.adopt(before)
        assert (after.info(a).state, after.info(c).state) == ("ready", "unknown")
        await embed(upstreams([a, c], after), "y")
        await asyncio.sleep(0.01)
        assert after.info(c).state == "ready"
        assert (probes(a), probes(c)) == (1, 1)

    run(scene)
