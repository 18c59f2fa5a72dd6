"""The names of vectors: what is in a key, what is not, and that no two things share one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.keys import Keyspace

SECRET = bytes(range(32))

texts = st.one_of(
    st.text(max_size=20),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5).map(tuple),
)
seeds = st.none() | st.integers(-(2**63), 2**63 - 1)
fields = st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(0, 9), max_size=3)
names = st.text(max_size=8)
asked = st.tuples(names, names, st.integers(0, 20), fields, seeds, texts)


def key(tenant="t", identity="i", generation=0, forwarded=None, seed=None, text="x", secret=SECRET):
    space = Keyspace(secret, tenant=tenant, identity=identity, generation=generation)
    (made,) = space.keys([text], seed, forwarded)
    return made


@given(first=asked, second=asked)
def test_two_keys_are_equal_exactly_where_everything_is(first, second):
    """Tenant, identity, generation, fields, seed and text: all equal, or another key."""
    assert (key(*first) == key(*second)) == (first == second)


@given(parts=st.lists(names, min_size=2, max_size=2), text=st.text(max_size=8))
def test_parts_cannot_be_shifted_into_each_other(parts, text):
    """The border between tenant, identity and text is part of the key."""
    tenant, identity = parts
    moved = [
        key(tenant + identity, "", text=text),
        key("", tenant + identity, text=text),
        key(tenant, "", text=identity + text),
        key(tenant, identity + text, text=""),
    ]
    same = [
        (tenant + identity, "", text),
        ("", tenant + identity, text),
        (tenant, "", identity + text),
        (tenant, identity + text, ""),
    ]
    here = key(tenant, identity, text=text)
    assert [k == here for k in moved] == [s == (tenant, identity, text) for s in same]


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("x", "x "),
        ("x", " x"),
        ("x", "X"),
        ("é", "e\u0301"),  # NFC and NFD
        ("x", "x\n"),
        ("x", "x\0"),
        ("1", (1,)),
        ("\x01\0\0\0\0\0\0\0", (1,)),
        ((1, 2), (1, 2, 0)),
        ((1,), (1, 0)),
        ((1, 2), (2, 1)),
        ((258,), (2, 1)),
    ],
)
def test_the_exact_bytes_of_a_text_are_its_name(text, other):
    """No trimming, no folding, no normalizing; ids are not the text of their digits."""
    assert key(text=text) != key(text=other)


def test_no_seed_is_a_draw_of_its_own():
    """No seed is none of the seeds, and each seed is itself."""
    draws = [None, 0, 1, -1, 2**63 - 1, -(2**63), int.from_bytes(b"-" * 8)]
    assert len({key(seed=seed) for seed in draws}) == len(draws)


def test_the_order_of_forwarded_fields_does_not_matter():
    """Fields are one set, however the client wrote them; nested ones too."""
    assert key(forwarded={"a": 1, "b": {"c": 1, "d": 2}}) == key(
        forwarded={"b": {"d": 2, "c": 1}, "a": 1}
    )
    assert key(forwarded={"a": [1, 2]}) != key(forwarded={"a": [2, 1]})
    assert key(forwarded={}) == key(forwarded=None)


def test_a_key_depends_on_its_text_alone_and_not_on_the_list():
    """A text has one key, alone or in any company; a key is 32 bytes."""
    space = Keyspace(SECRET, tenant="t", identity="i")
    batch = space.keys(["a", "b", (1, 2), "a"], 7)
    assert batch == [k for text in ["a", "b", (1, 2), "a"] for k in space.keys([text], 7)]
    assert batch[0] == batch[3]
    assert {32} == set(map(len, batch))


def test_without_the_secret_nobody_can_make_a_key():
    """Another secret gives other keys for everything."""
    assert key(secret=b"a" * 32) != key(secret=b"b" * 32)
