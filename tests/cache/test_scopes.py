"""What is known of whose vectors: whoever knows what, in whatever order it is learned."""

import gc
from hashlib import blake2b
from math import inf
from weakref import ref

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.facts import PREFIX, Checked, ScopeFact, read_fact, read_facts, write_fact
from gateway.cache.keys import scope_id
from gateway.cache.scopes import Scopes, namespace
from tests.cache.scoping import ID, NAME, OTHER_SECRET, SECRET, said, scopes

facts = st.builds(
    ScopeFact,
    tenant=st.just("tenant"),
    model=st.sampled_from(["m", "alias"]),
    generation=st.integers(0, 3),
    before=st.sampled_from([0.0, 1.5, 2e9]),
    width=st.none() | st.sampled_from([8, 16]),
    seen=st.sets(st.sampled_from(["fp_1", "fp_2", "ä", "z" * 255])).map(sorted).map(tuple),
    least=st.integers(0, 3),
    checked=st.none()
    | st.builds(
        Checked,
        at=st.sampled_from([1.5, 2e9]),
        verdict=st.sampled_from(["steady", "noise", "drift"]),
        distance=st.sampled_from([0.0, 1e-12, 2.0]),
        noise=st.just(0.5),
    ),
)


# facts


@given(one=facts, other=facts, third=facts)
def test_what_two_know_together_is_the_same_whoever_says_it_first(one, other, third):
    """The larger of each, in any order, however often; a width is that of its generation."""
    both = one.joined(other)
    assert both.joined(third) == one.joined(other.joined(third))
    assert both == other.joined(one) == both.joined(one)
    assert one.joined(one) == one
    assert both.generation == max(one.generation, other.generation)
    assert both.before == max(one.before, other.before)
    newest = [fact.width for fact in (one, other) if fact.generation == both.generation]
    assert both.width in ({*newest} - {None} or {None})
    assert set(both.seen) == {*one.seen, *other.seen}


OLD = {
    b'{"tenant":"default","model":"m"}\xd48Ii\xaaZ\x9f ': ScopeFact("default", "m"),
    b'{"tenant":"red","model":"text-embedding-3-small","generation":3,"before":1800000000.5,'
    b'"width":1536}\xb9\xc0\xd4\'\x1b!ZR': ScopeFact(
        "red", "text-embedding-3-small", 3, 1800000000.5, 1536
    ),
}
"""Facts that were written before there were fingerprints in them."""


@pytest.mark.parametrize(("value", "fact"), OLD.items())
def test_what_was_written_before_is_read_and_written_as_ever(value, fact):
    """Byte for byte: older gateways beside this one do not write against it."""
    assert read_fact(value) == fact
    assert write_fact(fact) == value


@given(fact=facts)
def test_a_fact_is_read_as_it_was_written(fact):
    """As bytes, and by the name of its scope among others."""
    assert read_fact(write_fact(fact)) == fact
    others = {"secret": b"x", "epoch": b"y", "space": b"z"}
    assert dict(read_facts(others | {NAME: write_fact(fact)})) == {ID: fact}


@given(fact=facts, data=st.data())
def test_a_fact_with_a_changed_bit_is_not_one(fact, data):
    """Wherever the bit is; nor is one that was cut short."""
    value = bytearray(write_fact(fact))
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8
    assert read_fact(bytes(value)) is None
    assert read_fact(write_fact(fact)[: data.draw(st.integers(0, len(value) - 1))]) is None


@pytest.mark.parametrize(
    "text",
    [
        b"", b"null", b"{}", b"[]", b'{"tenant":"t"}', b'{"tenant":1,"model":"m"}',
        b'{"tenant":"t","model":"m","generation":1.5}', b'{"tenant":"\xff","model":"m"}', b"{",
    ],
)  # fmt: skip
def test_what_is_sound_and_means_nothing_counts_as_not_said(text):
    """Written by something else, with the right digest: it is left out, and nothing fails."""
    whole = write_fact(ScopeFact("t", "m"))
    assert read_fact(sealed(msgspec.json.encode(ScopeFact("t", "m")))) == read_fact(whole)
    assert read_fact(sealed(text)) is None
    assert list(read_facts({NAME: sealed(text)})) == []


def sealed(text):
    """Return these bytes with the digest that a fact has."""
    return text + blake2b(text, digest_size=8).digest()


# scopes


def test_a_tenants_scope_of_an_identity_is_one_whatever_the_models_name():
    """Two names of one vector space share it; two tenants, or two spaces, do not."""
    all_ = Scopes(SECRET)
    first = all_.of("t", "i", "m")
    assert all_.of("t", "i", "alias") is first
    others = [all_.of("u", "i", "m"), all_.of("t", "j", "m")]
    places = [scope.place.namespace for scope in (first, *others)]
    assert len(set(places)) == 3
    assert list(all_) == [first, *others]
    assert first.id == scope_id(SECRET, "t", "i")
    assert first.place.namespace == namespace(first.id, 0) == f"{first.id}.0"


def test_an_id_says_nothing_of_tenant_and_model():
    """P10: 24 hexadecimal digits, others under another secret, apart for shifted names."""
    made = {
        scope_id(secret, *names)
        for secret in (SECRET, OTHER_SECRET)
        for names in (("tenant", "identity"), ("tenanti", "dentity"), ("", "tenantidentity"))
    }
    assert len(made) == 6
    assert all(len(id_) == 24 and int(id_, 16) >= 0 for id_ in made)


def test_what_a_store_knows_before_anybody_asks_is_known():
    """A worker that is started later begins in the generation that it is, with its width."""
    late = Scopes(SECRET)
    assert late.learn(said(generation=4, before=7.0, width=16)) == []
    scope = late.of("tenant", "identity", "m")
    assert (scope.fact.generation, scope.fact.before, scope.fact.width) == (4, 7.0, 16)
    assert scope.place.namespace == namespace(ID, 4)


def test_a_new_generation_is_another_place_with_other_keys():
    """What was there is purged, told once, and what is on its way to it is known as past."""
    here, scope = scopes()
    old = scope.place
    assert old.current
    assert here.learn(said(generation=2)) == [(old.namespace, inf)]
    assert not old.current
    assert scope.place.current
    assert scope.place.namespace == namespace(ID, 2)
    assert scope.place.keyspace.keys(["x"], None) != old.keyspace.keys(["x"], None)
    assert here.learn(said(generation=2)) == []
    assert here.learn(said(generation=1)) == []
    assert scope.place.namespace == namespace(ID, 2)


def test_a_later_moment_purges_what_is_older_and_moves_nothing():
    """Keys and place stay; an earlier moment, told later, changes nothing."""
    here, scope = scopes()
    place = scope.place
    assert here.learn(said(before=5.0)) == [(place.namespace, 5.0)]
    assert here.learn(said(before=5.0)) == here.learn(said(before=4.0)) == []
    assert here.learn(said(before=6.0)) == [(place.namespace, 6.0)]
    assert scope.place is place
    assert scope.fact.before == 6.0


def test_only_the_scopes_that_are_meant_are_purged():
    """Other tenants, other models, and what another secret made, stay as they are."""
    here = Scopes(SECRET)
    mine, theirs = here.of("tenant", "identity", "m"), here.of("other", "identity", "m")
    foreign = {PREFIX + scope_id(OTHER_SECRET, "other", "identity"): write_fact(
        ScopeFact("other", "m", generation=9))}  # fmt: skip
    assert here.learn(said(generation=1) | foreign) == [(namespace(mine.id, 0), inf)]
    assert theirs.place.namespace == namespace(theirs.id, 0)


def test_damaged_facts_count_as_not_said():
    """The sound ones beside them are learned; what was known stays."""
    here, scope = scopes(generation=3)
    other = here.of("other", "identity", "m")
    damaged = {NAME: b"damaged", PREFIX: b"", f"{PREFIX}nonsense": b"\0" * 40}
    sound = {PREFIX + other.id: write_fact(ScopeFact("other", "m", generation=1))}
    assert here.learn(damaged | sound) == [(namespace(other.id, 0), inf)]
    assert scope.fact.generation == 3


def test_a_scope_is_told_of_once_it_holds_something():
    """Names that were asked for once and never answered leave nothing in a store."""
    here, scope = scopes()
    assert dict(here.facts()) == {}
    scope.widen(16)
    assert dict(read_facts(dict(here.facts()))) == {ID: ScopeFact("tenant", "m", width=16)}
    scope.widen(8)
    assert scope.fact.width == 16


def test_chats_have_no_width_and_are_told_of_all_the_same():
    """Else nobody could purge them by tenant or model."""
    here, scope = scopes()
    scope.widen(0)
    assert scope.fact.width is None
    assert dict(here.facts()) == said()


def test_what_one_store_said_is_told_to_the_others():
    """Also of scopes that nobody asked this process for: a store that begins anew learns it."""
    here = Scopes(SECRET)
    here.learn(said(generation=2, before=3.0, width=8))
    assert dict(here.facts()) == said(generation=2, before=3.0, width=8)


def test_another_secret_is_another_place_for_everything():
    """What was learned of the places of the old one says nothing of the new ones."""
    here, scope = scopes(generation=2, before=5.0, width=16)
    old = scope.place
    here.rekey(OTHER_SECRET)
    assert here.secret == OTHER_SECRET
    assert here.of("tenant", "identity", "m") is scope
    assert not old.current
    assert scope.id == scope_id(OTHER_SECRET, "tenant", "identity")
    assert scope.place.namespace == namespace(scope.id, 0)
    assert scope.place.keyspace.keys(["x"], 1) != old.keyspace.keys(["x"], 1)
    assert dict(here.facts()) == {}
    assert here.learn(said(generation=7)) == []
    assert here.of("other", "identity", "m").id == scope_id(OTHER_SECRET, "other", "identity")


def test_a_scope_that_nobody_holds_is_forgotten_and_what_is_known_of_it_is_not():
    """Names that fit a pattern are the clients' choice; a purge holds for those who come back."""
    here, scope = scopes(generation=3, width=16)
    name = scope.place.namespace
    del scope
    gc.collect()
    assert list(here) == []
    assert here.learn(said(generation=4, width=8)) == []
    again = here.of("tenant", "identity", "m")
    assert again.place.namespace == namespace(ID, 4) != name
    assert again.fact.width == 8


def test_what_a_name_leaves_behind_is_gone_at_once():
    """Names that fit a pattern are the clients' choice: none waits for the garbage collector."""
    gc.disable()
    try:
        known = Scopes(SECRET)
        place = known.of("tenant", "identity", "m").place
        held = ref(place), ref(place.scope)
        assert place.current
        assert place.scope.place is place
        del place
        assert [each() for each in held] == [None, None]
    finally:
        gc.enable()


def test_a_purge_makes_the_width_unknown():
    """Another model may stand behind the name; two stores that know different things agree."""
    here, scope = scopes(width=16)
    here.learn(said(generation=1))
    assert scope.fact.width is None
    here.learn(said(width=16))
    assert scope.fact.width is None
    scope.widen(8)
    assert dict(read_facts(dict(here.facts())))[ID].width == 8


def test_names_of_clients_choosing_do_not_fill_the_memory():
    """Of thousands of scopes only the first are told of; all of them work."""
    here = Scopes(SECRET)
    held = [here.of("tenant", f"identity {number}", "m") for number in range(5000)]
    for scope in held:
        scope.widen(8)
    told = dict(read_facts(dict(here.facts())))
    assert 4000 < len(told) < 5000
    assert told.keys() < {scope.id for scope in held}
    late = PREFIX + held[-1].id
    assert here.learn({late: write_fact(ScopeFact("tenant", "m", generation=1))}) == [
        (namespace(held[-1].id, 0), inf)
    ]


@given(
    told=st.lists(
        st.tuples(st.integers(0, 2), facts.map(write_fact) | st.binary(max_size=9)), max_size=12
    ),
    asked=st.integers(0, 12),
)
def test_workers_that_hear_the_same_agree_in_any_order(told, asked):
    """And each purges what the others purge: nothing of a past generation stays anywhere."""
    ids = [scope_id(SECRET, "tenant", f"identity {number}") for number in range(3)]
    workers = [Scopes(SECRET), Scopes(SECRET)]
    purges = ({}, {})
    held = []
    for worker, order, purged in zip(workers, (told, told[::-1]), purges, strict=True):
        for step, (number, value) in enumerate([*order, (0, b"")]):
            if step == min(asked, len(told)):
                held += [worker.of("tenant", f"identity {each}", "m") for each in range(3)]
            for where, before in worker.learn({PREFIX + ids[number]: value}):
                purged[where] = max(before, purged.get(where, 0))
    one, other = ({scope.id: scope.fact for scope in worker} for worker in workers)
    assert one == other
    names = [scope.place.namespace for scope in held]
    assert names[:3] == names[3:]
    for purged in purges:
        for where, before in purged.items():
            id_, generation = where.split(".")
            past = int(generation) < one[id_].generation
            assert past if before == inf else before <= one[id_].before
    assert {i: read for worker in workers for i, read in read_facts(dict(worker.facts()))} == dict(
        read_facts(dict(workers[0].facts()))
    )
