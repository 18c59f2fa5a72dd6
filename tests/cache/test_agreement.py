"""Whose store it is: told by two facts, of which each may be damaged, to many who ask at once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.agreement import is_doubtful, is_ours, shared_secret
from gateway.cache.keys import check_value, is_check_value
from tests.cache.shelf import Shelf
from tests.cache.worker import OTHER_SECRET, SECRET, Worker, workers

OURS, THEIRS = check_value(SECRET), check_value(OTHER_SECRET)


def held(**facts):
    """Return a shelf that says these."""
    shelf = Shelf()
    shelf.said |= facts
    return shelf


def shared(shelf):
    return asyncio.run(shared_secret(shelf, SECRET, dict(shelf.said)))


def ours(shelf):
    return asyncio.run(is_ours(shelf, SECRET, dict(shelf.said)))


def flipped(value, bit):
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(st.integers(0, 8 * len(OURS) - 1))
def test_a_check_value_tells_a_changed_bit_by_itself(bit):
    """And shows nothing of its secret; two secrets have two."""
    assert is_check_value(OURS)
    assert not is_check_value(flipped(OURS, bit))
    assert OURS != THEIRS
    assert SECRET not in OURS
    assert SECRET.hex().encode() not in OURS


@pytest.mark.parametrize("value", [b"", b"x", OURS[:-1], OURS + b"0", b"0" * len(OURS)])
def test_what_is_no_check_value(value):
    """Cut short, grown, or made by nobody."""
    assert not is_check_value(value)


def test_the_first_secret_that_is_said_is_everybodys():
    """Ours, if nobody came before; theirs, if they did."""
    shelf = held()
    assert shared(shelf) == shelf.said["secret"] == SECRET
    shelf = held(secret=OTHER_SECRET, check=THEIRS)
    assert shared(shelf) == shelf.said["secret"] == OTHER_SECRET


@pytest.mark.parametrize(
    ("secret", "check"),
    [
        (flipped(SECRET, 7), OURS),
        (b"", OURS),
        (SECRET + b"\0", OURS),
        (SECRET[:-1], None),
        (b"short", THEIRS),
    ],
)
def test_a_damaged_secret_is_set_right_by_who_knows_it(secret, check):
    """Where the check value fits ours it was ours; what is no secret at all was nobody's."""
    shelf = held(secret=secret, **({"check": check} if check else {}))
    assert shared(shelf) == shelf.said["secret"] == SECRET


def test_a_store_is_ours_if_it_says_so_or_nothing_sound():
    """Then it says so from now on; another's is left as it is."""
    for check in (None, OURS, b"", flipped(OURS, 3), flipped(THEIRS, 3)):
        shelf = held(**({} if check is None else {"check": check}))
        assert ours(shelf)
        assert shelf.said["check"] == OURS
    shelf = held(check=THEIRS)
    assert not ours(shelf)
    assert shelf.said["check"] == THEIRS


@pytest.mark.parametrize(
    ("facts", "secret", "doubtful"),
    [
        ({"check": OURS}, None, False),
        ({"check": THEIRS}, None, False),
        ({}, None, True),
        ({"check": flipped(OURS, 1)}, None, True),
        ({"check": OURS, "secret": SECRET}, SECRET, False),
        ({"check": OURS}, SECRET, True),
        ({"check": OURS, "secret": flipped(SECRET, 1)}, SECRET, True),
        ({"check": OURS, "secret": OTHER_SECRET}, SECRET, True),
    ],
)
def test_a_store_is_looked_at_again_where_it_says_something_else(facts, secret, doubtful):
    """Than it did when it was found to be ours."""
    assert is_doubtful(facts, secret) is doubtful


@settings(max_examples=60)
@given(
    secrets=st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=5, unique=True),
    steps=st.lists(st.integers(0, 4), min_size=10, max_size=10),
)
def test_all_who_ask_at_once_agree(secrets, steps):
    """Replicas of a first start, in whatever order their words arrive."""

    async def scene():
        shelf, waits = Shelf(), iter(steps * 20)

        async def pace():
            for _ in range(next(waits)):
                await asyncio.sleep(0)

        shelf.pace = pace
        made = [Worker(shelf, secret=secret, shares_secret=True) for secret in secrets]
        await asyncio.gather(*(worker.met() for worker in made))
        for worker in made:
            await worker.met()
        assert {worker.scopes.secret for worker in made} == {shelf.said["secret"]}
        assert shelf.said["check"] == check_value(shelf.said["secret"])
        kept = await made[0].keep("x")
        assert [await worker.look_up("x") for worker in made] == [kept] * len(made)

    asyncio.run(scene())


@pytest.mark.parametrize(
    "damage",
    [
        {"check": flipped(OURS, 9)},
        {"check": None},
        {"secret": flipped(SECRET, 9)},
        {"secret": None},
        {"secret": b"", "check": flipped(OURS, 9)},
        {"secret": None, "check": None},
    ],
)
def test_facts_that_are_damaged_meanwhile_are_set_right(damage):
    """By whoever knows better; nobody loses a vector, and late comers find their way."""

    async def scene():
        shelf = Shelf()
        (one,) = await workers(1, shelf, shares_secret=True)
        kept = await one.keep("x")
        before = dict(shelf.said)
        shelf.said |= damage
        for name in [name for name, value in damage.items() if value is None]:
            del shelf.said[name]
        await one.met()
        assert {name: shelf.said.get(name) for name in before} == before
        assert one.recall("x") == kept
        late = await Worker(shelf, secret=OTHER_SECRET, shares_secret=True).met()
        assert await late.look_up("x") == kept

    asyncio.run(scene())
