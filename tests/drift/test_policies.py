"""What is done where a model has drifted: it is said, new texts are refused, or all begins anew."""

import asyncio

import pytest

from gateway.cache.facts import read_facts
from gateway.drift.canaries import ASKER, TEXTS
from gateway.drift.schedule import AGAIN
from gateway.errors import UnavailableError, UpstreamError
from gateway.types import CacheControl
from tests.cache.shelf import Shelf
from tests.drift.watching import (
    DELAY,
    EVERY,
    FIRST_ROUND,
    Watching,
    meet,
    purge,
    tenant,
)
from tests.line import vectors


@pytest.mark.parametrize("policy", ["warn", "refuse", "generation"])
def test_another_width_is_drift(policy):
    """The line refuses such vectors, and still it is known why; a new generation takes them."""

    async def watch():
        watching = Watching(drift=policy)
        await watching.first()
        await watching.line.ask("a")
        watching.backend.answers_wide *= 2
        await watching.after(EVERY)
        assert watching.results[-1] == "drift"
        if policy == "generation":
            assert watching.check is None
            (vector,) = vectors(await watching.line.ask("a"))
            assert len(vector) == 4 * watching.backend.answers_wide
        else:
            assert watching.check.distance == 2.0
            with pytest.raises(UpstreamError if policy == "warn" else UnavailableError):
                await watching.line.ask("b")

    asyncio.run(watch())


def test_a_model_that_refuses_only_answers_what_is_kept():
    """Hits go on; nothing new is asked for, whatever a request says of the cache; canaries are."""

    async def watch():
        watching = Watching(drift="refuse", prefix="query: ")
        await watching.first()
        line, backend = watching.line, watching.backend
        kept = vectors(await line.ask("kept"))
        backend.model = "another"
        await watching.after(EVERY)
        calls = len(backend.calls)
        assert vectors(await line.ask("kept", "kept")) == 2 * kept
        for texts, control in [
            (("new",), CacheControl()),
            (("kept", "new"), CacheControl()),
            (("kept",), CacheControl(no_cache=True)),
            (("kept",), CacheControl(no_store=True)),
            ((TEXTS[0], "new"), CacheControl()),
        ]:
            with pytest.raises(UnavailableError) as refused:
                await line.ask(*texts, cache=control)
            assert refused.value.code == "model_drifted"
            assert refused.value.headers["x-should-retry"] == "false"
        assert len(backend.calls) == calls
        # The canaries pass, but nothing of them is kept: it would be the baseline of this tenant.
        for control in (CacheControl(), CacheControl(no_cache=True)):
            with pytest.raises(UnavailableError):
                await line.ask(TEXTS[1], cache=control)
        await line.ask(*TEXTS, cache=CacheControl(no_store=True))
        await line.ask(*TEXTS, cache=CacheControl(no_cache=True), seed=1, caller=ASKER)
        assert len(backend.calls) == calls + 2
        backend.model = "m"
        await watching.after(AGAIN)
        await line.ask("new")

    asyncio.run(watch())


def test_only_who_wants_it_refuses():
    """With the default policy everything goes on."""

    async def watch():
        watching = Watching()
        await watching.first()
        watching.backend.model = "another"
        await watching.after(EVERY)
        assert watching.check.verdict == "drift"
        await watching.line.ask("new")

    asyncio.run(watch())


def test_a_new_generation_is_seen_for_the_first_time():
    """All tenants leave what they have, and the canaries are kept anew."""

    async def watch():
        watching = Watching(drift="generation")
        await watching.first()
        before = vectors(await watching.line.ask("a"))
        watching.backend.model = "another"
        await watching.after(EVERY)
        assert watching.events == ["model has drifted", "new generation"]
        assert watching.check is None
        assert vectors(await watching.line.ask("a")) != before
        assert await watching.after(1) == 0
        assert await watching.after(DELAY) == FIRST_ROUND
        assert watching.results[-1] == "steady"
        assert await watching.after(EVERY) == 1
        assert watching.results[-1] == "steady"

    asyncio.run(watch())


@pytest.mark.parametrize("together", [True, False])
def test_a_generation_begins_once_though_two_replicas_want_it(together):
    """One fact is changed by compare-and-set; who comes second has what the first one began."""

    async def watch():
        shelf = Shelf()
        replicas = [Watching(stores=[shelf], drift="generation") for _ in range(2)]
        for each in replicas:
            await each.first()
            await each.line.ask("a")
        await meet(*replicas)
        for each in replicas:
            each.backend.model = "another"
        if together:
            await asyncio.gather(*(each.after(EVERY) for each in replicas))
        else:
            for each in replicas:
                await each.after(EVERY)
        await meet(*replicas)
        assert sum(each.events.count("new generation") for each in replicas) == 1
        assert {fact.generation for _, fact in read_facts(shelf.said)} == {1}
        one, other = [vectors(await each.line.ask("a")) for each in replicas]
        assert one == other

    asyncio.run(watch())


def test_every_tenant_begins_the_new_generation():
    """Those that are in use, those that have purged before, and those that come later."""

    async def watch():
        shelf = Shelf()
        one, other = (Watching(stores=[shelf], drift="generation") for _ in range(2))
        await one.first()
        tenants = [tenant(name) for name in ("here", "there", "later")]
        await one.line.ask("a", caller=tenants[0])
        old = vectors(await other.line.ask("a", caller=tenants[1]))
        for each in (one, other):
            await each.line.cache.meet()
        purge(shelf, other, tenants[1])
        await meet(one, other)
        one.backend.model = other.backend.model = "another"
        await one.after(EVERY)
        await meet(one, other)
        for each in (one, other):
            for caller in tenants:
                assert vectors(await each.line.ask("a", caller=caller)) != old
        assert {fact.generation for _, fact in read_facts(shelf.said)} == {2}

    asyncio.run(watch())


def test_no_generation_begins_while_the_store_is_away():
    """It begins when that is back: replicas would not agree about it otherwise."""

    async def watch():
        shelf = Shelf()
        watching = Watching(stores=[shelf], drift="generation")
        await watching.first()
        await watching.line.cache.meet()
        watching.backend.model = "another"
        shelf.fail("timeout", "swap", "settle")
        await watching.after(EVERY)
        assert watching.check.verdict == "drift"
        assert "new generation" not in watching.events
        shelf.recover()
        await watching.line.cache.meet()
        await watching.after(AGAIN)
        assert "new generation" in watching.events

    asyncio.run(watch())
