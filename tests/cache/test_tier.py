"""A store behind breakers: whatever it does, nothing is raised, and it is not asked in vain."""

import asyncio

import pytest

from gateway.cache.store import StoreError
from gateway.cache.tier import Tier
from tests.cache.shelf import Shelf
from tests.cache.worker import Log

WHERE = "0" * 24 + ".0"
KEY, KEPT = b"k" * 32, {b"k" * 32: b"kept"}
REASONS = ["timeout", "connect", "full", "readonly", "corrupt", "refused", "error"]
FOR_WRITES_ONLY = {"full", "readonly"}


def known():
    """Return a shelf with one value, its tier, and the log."""
    shelf, log = Shelf(), Log()
    shelf.values[WHERE] = dict(KEPT)
    tier = Tier(shelf, log.logger)
    tier.known = True
    return shelf, tier, log


def test_a_store_that_is_not_known_yet_is_not_asked():
    """It may have been made with another secret, or hold another's values."""

    async def scene():
        shelf, tier, _ = known()
        tier.known = False
        assert not tier.writable
        assert await tier.get(WHERE, [KEY]) == {}
        assert await tier.add(WHERE, KEPT) is None
        assert await tier.add(WHERE, KEPT, probing=True) is None
        await tier.discard(WHERE, KEPT)
        assert not shelf.asked

    asyncio.run(scene())


def test_while_all_is_well_it_is_the_store_itself():
    """Every verb passes through."""

    async def scene():
        _, tier, log = known()
        assert await tier.get(WHERE, [KEY, b"o" * 32]) == KEPT
        assert await tier.add(WHERE, {KEY: b"other"}) == KEPT
        await tier.discard(WHERE, {KEY: b"other"})
        assert await tier.get(WHERE, [KEY]) == KEPT
        await tier.discard(WHERE, KEPT)
        assert await tier.get(WHERE, [KEY]) == {}
        assert await tier.add(WHERE, {KEY: b"other"}) == {}
        assert log.lines == []

    asyncio.run(scene())


@pytest.mark.parametrize("reason", REASONS)
def test_a_store_that_cannot_be_read_has_nothing_and_is_left_alone(reason):
    """Until somebody has met it again; each change is one line."""

    async def scene():
        shelf, tier, log = known()
        shelf.fail(reason)
        for _ in range(3):
            assert await tier.get(WHERE, [KEY]) == {}
            assert await tier.add(WHERE, KEPT) is None
            await tier.discard(WHERE, KEPT)
        assert shelf.asked == {"get": 1}
        assert not tier.writable
        shelf.recover()
        assert await tier.get(WHERE, [KEY]) == {}
        for _ in range(2):
            tier.answered()
            tier.may_be_written()
        assert await tier.get(WHERE, [KEY]) == KEPT
        assert await tier.add(WHERE, KEPT) == KEPT
        assert log.events == ["cache is away", "cache is back"]
        _, said = log.lines[0]
        assert (said["tier"], said["reason"], said["level"]) == ("shelf", reason, "warning")
        assert said["error"] == f"the shelf says {reason}"

    asyncio.run(scene())


@pytest.mark.parametrize("reason", sorted(FOR_WRITES_ONLY))
def test_a_store_that_takes_nothing_new_still_has_the_old(reason):
    """It is probed, not asked by every request; each change is one line."""

    async def scene():
        shelf, tier, log = known()
        shelf.fail(reason, "add", "discard")
        for _ in range(3):
            assert await tier.add(WHERE, {KEY: b"other"}) is None
            assert await tier.get(WHERE, [KEY]) == KEPT
        assert shelf.asked["add"] == 1
        for _ in range(2):
            assert await tier.add(WHERE, {KEY: b"other"}, probing=True) is None
        assert shelf.asked["add"] == 3
        assert not tier.writable
        shelf.recover()
        assert await tier.add(WHERE, {KEY: b"other"}, probing=True) == KEPT
        assert tier.writable
        assert await tier.add(WHERE, {b"o" * 32: b"other"}) == {}
        assert log.events == ["cache takes no new entries", "cache takes new entries again"]

    asyncio.run(scene())


@pytest.mark.parametrize("reason", sorted(set(REASONS) - FOR_WRITES_ONLY))
@pytest.mark.parametrize("verb", ["add", "discard"])
@pytest.mark.parametrize("late", [False, True])
def test_a_write_that_fails_for_another_reason_says_that_nobody_is_there(reason, verb, late):
    """Who does not take an entry in time will not give one in time; nothing is claimed kept."""

    async def scene():
        shelf, tier, log = known()
        shelf.fail(reason, verb, late=late)
        assert await getattr(tier, verb)(WHERE, KEPT) is None
        assert await tier.get(WHERE, [KEY]) == {}
        assert shelf.asked == {verb: 1}
        assert log.events == ["cache is away"]

    asyncio.run(scene())


def test_who_answers_and_fails_writes_takes_nothing_new():
    """Whatever it calls that: it is not away for reads each time that somebody tries a write."""

    async def scene():
        shelf, tier, log = known()
        shelf.fail("error", "add")
        for _ in range(3):
            assert await tier.add(WHERE, KEPT, probing=True) is None
            tier.answered()
        assert await tier.get(WHERE, [KEY]) == KEPT
        assert not tier.writable
        shelf.recover()
        assert await tier.add(WHERE, KEPT, probing=True) == KEPT
        assert tier.writable
        assert log.events == [
            "cache is away",
            "cache is back",
            "cache takes no new entries",
            "cache takes new entries again",
        ]
        shelf.fail("error", "add")
        assert await tier.add(WHERE, KEPT) is None
        assert log.events[4:] == ["cache is away"]

    asyncio.run(scene())


def test_requests_beyond_the_places_wait_their_turn_and_not_at_the_store():
    """When it fails the first of them, the others are spared the wait."""

    async def scene():
        shelf, tier, _ = known()
        shelf.hang("get")
        waiting = [asyncio.create_task(tier.get(WHERE, [KEY])) for _ in range(100)]
        await asyncio.sleep(0.001)
        asked = shelf.asked["get"]
        assert 0 < asked < 100
        assert await asyncio.wait_for(tier.add(WHERE, KEPT), 5) == KEPT
        shelf.fail("timeout", "get")
        shelf.release()
        assert await asyncio.gather(*waiting) == [{}] * 100
        assert shelf.asked["get"] == asked

    asyncio.run(scene())


def test_many_who_fail_at_once_are_one_line():
    """A hundred requests were on their way when it went."""

    async def scene():
        shelf, tier, log = known()
        shelf.hang("get")
        waiting = [asyncio.create_task(tier.get(WHERE, [KEY])) for _ in range(100)]
        await asyncio.sleep(0.001)
        shelf.fail("timeout")
        shelf.release()
        assert await asyncio.gather(*waiting) == [{}] * 100
        assert log.events == ["cache is away"]

    asyncio.run(scene())


def test_one_who_leaves_is_no_failure_of_the_store():
    """A request that is cancelled says nothing of who it waited for."""

    async def scene():
        shelf, tier, log = known()
        shelf.hang("get")
        waiting = asyncio.create_task(tier.get(WHERE, [KEY]))
        await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        shelf.recover()
        assert await tier.get(WHERE, [KEY]) == KEPT
        assert log.lines == []

    asyncio.run(scene())


def test_a_store_of_another_secret_is_not_used_and_that_is_said_once():
    """Until it turns out to be ours after all: somebody put another one in its place."""

    async def scene():
        shelf, tier, log = known()
        for _ in range(3):
            tier.refuse(foreign=True)
            assert await tier.get(WHERE, [KEY]) == {}
            assert await tier.add(WHERE, KEPT, probing=True) is None
        assert not shelf.asked
        ((said, fields),) = log.lines
        assert "another secret" in said
        assert fields["level"] == "error"
        tier.refuse(foreign=False)
        assert await tier.get(WHERE, [KEY]) == KEPT
        tier.refuse(foreign=True)
        assert [said.split(":")[0] for said, _ in log.lines[1:]] == [
            "cache is back",
            "cache is not used",
        ]

    asyncio.run(scene())


def test_somebody_looks_soon_after_a_failure_and_seldom_while_all_is_well():
    """The pause is the shorter one, of reading and of writing."""
    _, tier, _ = known()
    usual = tier.pause
    tier.failed(StoreError("full", "m"), writing=True)
    assert tier.pause < usual
    tier.may_be_written()
    assert tier.pause == usual
    tier.failed(StoreError("timeout", "m"))
    tier.may_be_written()
    assert tier.pause < usual
    tier.answered()
    assert tier.pause == usual
