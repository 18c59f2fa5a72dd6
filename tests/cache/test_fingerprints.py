"""Fingerprints that were seen: all who hear of them agree, each is new once, and they stay few."""

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.facts import ScopeFact, read_fact, read_facts, write_fact
from gateway.cache.scopes import Scopes
from tests.cache.scoping import OTHER_SECRET, SECRET, said, scopes

MANY = [f"fp_{number}" for number in range(300)]


def kept(*fingerprints):
    """Return what is kept of these: 64, and which they are the digests decide."""
    digests = {blake2b(text.encode(), digest_size=8).digest(): text for text in fingerprints}
    return tuple(sorted(digests[digest] for digest in sorted(digests)[:64]))


@given(order=st.permutations(range(6)), groups=st.integers(0, 5), data=st.data())
def test_of_many_fingerprints_all_keep_the_same(order, groups, data):
    """Whoever joins what with what: a set of 64, however often, and never what was not seen."""
    seen = [data.draw(st.sets(st.sampled_from(MANY), max_size=200)) for _ in order]
    parts = [ScopeFact("t", "m", seen=kept(*each)) for each in seen]
    left, right = ScopeFact("t", "m"), ScopeFact("t", "m")
    for number in order[:groups]:
        left = left.joined(parts[number])
    for number in order[groups:]:
        right = parts[number].joined(right)
    assert left.joined(right).seen == right.joined(left).seen == kept(*set().union(*seen))
    assert left.joined(right).joined(left) == left.joined(right)


def test_what_is_no_fingerprint_does_not_last():
    """Whoever wrote it into a store: nothing, too long, or unfit for a line of a log."""
    strange = ScopeFact("t", "m", generation=2, seen=("", "\n", "x" * 256, "fp_1", "fp_1"))
    assert read_fact(write_fact(strange)) == strange
    assert strange.joined(ScopeFact("t", "m")) == ScopeFact("t", "m", 2, seen=("fp_1",))


def test_a_fingerprint_is_new_once():
    """In each scope; it is told to the stores, also where nothing is kept."""
    here, scope = scopes()
    other = here.of("other", "identity", "m")
    seen = {name: [scope.saw(name), scope.saw(name)] for name in ("fp_2", "fp_1")}
    assert seen == {"fp_2": [True, False], "fp_1": [True, False]}
    assert scope.fact.seen == ("fp_1", "fp_2")
    assert dict(here.facts()) == said(seen=("fp_1", "fp_2"))
    assert other.saw("fp_1")


def test_what_another_worker_saw_is_not_new():
    """It is known before the scope is asked for, or learned while it is in use."""
    here, scope = scopes(seen=("fp_1",))
    here.learn(said(seen=("fp_2",)))
    late = Scopes(SECRET)
    late.learn(dict(here.facts()))
    for knows in (scope, late.of("tenant", "identity", "m")):
        assert [knows.saw(f"fp_{number}") for number in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize("text", ["", "x" * 256, "ä" * 128, "fp\n1", "\ud800", "\x1b[31m"])
def test_what_is_no_fingerprint_is_never_new(text):
    """Nothing, more than 255 bytes, or what would spoil a line of a log: it is not kept either."""
    here, scope = scopes()
    assert not scope.saw(text)
    assert dict(here.facts()) == {}
    assert scope.saw("ä" * 127 + "x")


def test_a_server_with_ever_new_fingerprints_fills_nothing():
    """The fact stays small, and the process stops telling them apart; each is new once."""
    here, scope = scopes()
    names = [f"fp_{number}" for number in range(3000)]
    new = [name for name in names * 2 if scope.saw(name)]
    assert new == names[: len(new)]
    assert 64 < len(new) < 3000
    assert scope.fact.seen == kept(*new)
    (value,) = dict(here.facts()).values()
    assert len(value) < 1000


def test_a_purge_does_not_make_anybody_unseen():
    """What was kept goes; who answers is the same."""
    here, scope = scopes(seen=("fp_1",))
    here.learn(said(generation=1, before=5.0))
    assert not scope.saw("fp_1")
    assert scope.fact.seen == ("fp_1",)


def test_another_secret_does_not_make_anybody_unseen():
    """Nothing can be found any more, and nothing is told but who was seen."""
    here, scope = scopes()
    scope.widen(0)
    scope.saw("fp_1")
    here.rekey(OTHER_SECRET)
    assert not scope.saw("fp_1")
    told = {scope.id: ScopeFact("tenant", "m", seen=("fp_1",))}
    assert dict(read_facts(dict(here.facts()))) == told
