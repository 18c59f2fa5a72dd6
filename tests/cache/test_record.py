"""An entry as bytes: it comes back as it was, or not at all."""

import math
from hashlib import blake2b
from struct import pack_into

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.entry import Entry
from gateway.cache.record import (
    HEADER_BYTES,
    MAX_TOKENS,
    CorruptRecordError,
    created,
    expires,
    pack,
    unpack,
)

NAMESPACE = "0" * 24 + ".0"
NOW = 1_800_000_000.25

keys = st.binary(min_size=32, max_size=32)
fingerprints = st.text(max_size=255).filter(lambda text: len(text.encode()) <= 255)
entries = st.builds(
    Entry,
    vector=st.integers(0, 40).flatmap(
        lambda width: st.binary(min_size=4 * width, max_size=4 * width)
    ),
    tokens=st.integers(0, MAX_TOKENS),
    created=st.floats(0, 1e11, exclude_min=True),
    estimated=st.booleans(),
    truncated=st.booleans(),
    fingerprint=fingerprints,
    namespace=st.just(NAMESPACE),
)


def example(key):
    """A record such as is kept, and what is in it."""
    entry = Entry(
        bytes(range(64)), 21, created=NOW, truncated=True, fingerprint="fp_ä", namespace=NAMESPACE
    )
    return pack(key, entry), entry


@given(keys, entries)
def test_an_entry_comes_back_as_it_was(key, entry):
    """Every field of it; the namespace is said by whoever read it."""
    record = pack(key, entry)
    assert unpack(key, record, NAMESPACE) == entry
    assert unpack(key, record, "another").namespace == "another"
    assert pack(key, entry) == record


@given(keys, entries)
def test_rendered_forms_are_not_kept(key, entry):
    """They are made again from the vector."""
    record = pack(key, entry)
    entry.base64, entry.floats = b"base64", b"floats"
    assert pack(key, entry) == record


def test_the_longest_fingerprint_fits():
    """255 bytes, and an entry of any width beside it."""
    entry = Entry(bytes(4096), 1, created=NOW, fingerprint="ä" * 127 + "x", namespace=NAMESPACE)
    assert unpack(bytes(32), pack(bytes(32), entry), NAMESPACE) == entry


@pytest.mark.parametrize(
    "figures",
    [{"created": c} for c in (math.nan, math.inf, -math.inf, 0.0, -1.0)]
    + [{"tokens": t} for t in (MAX_TOKENS + 1, 2**64 - 1)],
)
def test_figures_that_cannot_be_are_not_served(figures):
    """Who can write into a store can write a sound checksum; ages and sums are made from these."""
    entry = Entry(bytes(64), 1, created=NOW, namespace=NAMESPACE)
    for name, value in figures.items():
        setattr(entry, name, value)
    with pytest.raises(CorruptRecordError, match="figures"):
        unpack(bytes(32), pack(bytes(32), entry), NAMESPACE)


def test_every_flipped_bit_is_seen():
    """Wherever it is: header, key, fingerprint, vector or checksum."""
    key = bytes(range(32))
    record, _ = example(key)
    for at in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(CorruptRecordError):
            unpack(key, bytes(flipped), NAMESPACE)


def test_every_length_but_its_own_is_seen():
    """Cut anywhere, at either end, or longer than it was."""
    key = bytes(range(32))
    record, _ = example(key)
    cut = [record[:end] for end in range(len(record))] + [
        record[at:] for at in range(1, len(record))
    ]
    for wrong in (*cut, record + b"\0", b"\0" + record, record * 2):
        with pytest.raises(CorruptRecordError):
            unpack(key, wrong, NAMESPACE)


@given(keys, keys, entries)
def test_another_keys_record_is_not_served(key, other, entry):
    """Though it is sound in itself."""
    record = pack(other, entry)
    if key == other:
        assert unpack(key, record, NAMESPACE) == entry
    else:
        with pytest.raises(CorruptRecordError, match="another key"):
            unpack(key, record, NAMESPACE)


def test_a_fingerprint_that_is_no_text_makes_it_no_record():
    """Whoever may write to a store can make a checksum too."""
    key = bytes(range(32))
    record, _ = example(key)
    body = record[:HEADER_BYTES] + b"\xff" + record[HEADER_BYTES + 1 : -16]
    with pytest.raises(CorruptRecordError, match="fingerprint"):
        unpack(key, body + blake2b(body, digest_size=16).digest(), NAMESPACE)


@given(keys, st.binary(max_size=200))
def test_anything_else_is_no_record(key, value):
    """Whatever else lies under a key."""
    with pytest.raises(CorruptRecordError):
        unpack(key, value, NAMESPACE)


@given(keys, entries)
def test_when_it_was_made_is_read_off_its_head(key, entry):
    """The bytes that `HEADER_BYTES` promises suffice, and no fewer."""
    record = pack(key, entry)
    assert created(record) == created(record[:HEADER_BYTES]) == entry.created
    assert created(record[: HEADER_BYTES - 1]) == 0


@pytest.mark.parametrize("value", [b"", b"EGW1", b"x" * 200, b"EGW2" + bytes(100)])
def test_what_is_no_record_was_never_made(value):
    """0 stands for that."""
    assert created(value) == 0


@pytest.mark.parametrize("moment", [-1.0, -math.inf, math.nan])
def test_a_time_that_cannot_be_was_never(moment):
    """`created` does not look at the checksum, so it looks at what it found."""
    record = bytearray(example(bytes(32))[0])
    pack_into("<d", record, 20, moment)
    assert created(bytes(record)) == 0


@given(keys, st.floats(0, 1e10), st.floats(1, 1e9))
def test_an_entry_expires_in_the_last_tenth_of_its_time(key, made, ttl):
    """Never later than it may, not much earlier, and at the same moment for everybody."""
    end = expires(key, made, ttl)
    assert made + 0.9 * ttl <= end <= made + ttl
    assert end == expires(bytes(key), made, ttl)


def test_what_was_made_together_does_not_end_together():
    """The keys' first bytes spread their ends over that tenth."""
    ends = {expires(bytes([first]) + bytes(31), NOW, 1000.0) for first in range(256)}
    assert len(ends) == 256
    assert min(ends) < NOW + 901
    assert max(ends) == NOW + 1000
