"""An entry as bytes: it comes back as it was, or not at all."""

import math
import struct
from hashlib import blake2b

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
vectors = st.integers(1, 40).flatmap(
    lambda width: st.binary(min_size=4 * width, max_size=4 * width)
)
about = {
    "tokens": st.integers(0, MAX_TOKENS),
    "created": st.floats(0, 1e11, exclude_min=True),
    "estimated": st.booleans(),
    "truncated": st.booleans(),
    "fingerprint": fingerprints,
    "namespace": st.just(NAMESPACE),
}
answers = st.builds(Entry, vector=st.just(b""), sealed=st.binary(min_size=1, max_size=200), **about)
entries = st.builds(Entry, vector=vectors, **about) | answers


def example(key, vector=b"", sealed=b""):
    """A record such as is kept, and what is in it."""
    entry = Entry(
        vector,
        21,
        created=NOW,
        truncated=True,
        fingerprint="fp_ä",
        namespace=NAMESPACE,
        sealed=sealed,
    )
    return pack(key, entry), entry


EACH = pytest.mark.parametrize("payload", [{"vector": bytes(range(64))}, {"sealed": b"closed" * 9}])
"""A vector, and an answer."""


@given(keys, entries)
def test_an_entry_comes_back_as_it_was(key, entry):
    """Every field of it; the namespace is said by whoever read it."""
    record = pack(key, entry)
    assert unpack(key, record, NAMESPACE) == entry
    assert unpack(key, record, "another").namespace == "another"
    assert pack(key, entry) == record


OLD = {
    "45475731010500000200000015000000000000000000108074d2da41000102030405060708090a0b0c0d0e0f101112"
    "131415161718191a1b1c1d1e1f66705fc3a49a99193fcdcc4cbf8698b98f42b0c2faef716b006519f03c": Entry(
        struct.pack("<2f", 0.6, -0.8), 21, created=NOW, estimated=True, fingerprint="fp_ä"
    ),
    "45475731020000000100000000ca9a3b00000000000000000000f83f00000000000000000000000000000000000000"
    "000000000000000000000000000000803f9555d4d154d0d96994c5dba00b43063d": Entry(
        struct.pack("<f", 1.0), MAX_TOKENS, created=1.5, truncated=True
    ),
}
"""Records that were written before there were answers."""


@pytest.mark.parametrize(("record", "entry"), OLD.items())
def test_what_was_written_before_is_read_and_written_as_ever(record, entry):
    """Byte for byte: stores are full of it, and older gateways beside this one read them too."""
    value = bytes.fromhex(record)
    assert unpack(value[28:60], value, "") == entry
    assert pack(value[28:60], entry) == value


@given(keys, answers)
def test_an_answer_is_no_vector(key, entry):
    """Its width is 0, and what was sealed is in it once, as it was."""
    assert unpack(key, pack(key, entry), NAMESPACE).width == 0
    assert len(pack(key, entry)) == HEADER_BYTES + len(entry.fingerprint.encode()) + 16 + len(
        entry.sealed
    )


@pytest.mark.parametrize(
    ("flags", "width", "payload"),
    [(4, 0, b""), (4, 1, b"four"), (0, 0, b"four"), (0, 2, b"four"), (0, 0, b"")],
)
def test_a_record_is_one_or_the_other(flags, width, payload):
    """Nothing empty, no answer with a width, no vector of another one; the checksum is right."""
    key = bytes(range(32))
    body = struct.pack("<4sBBHIQd32s", b"EGW1", flags, 0, 0, width, 1, NOW, key) + payload
    with pytest.raises(CorruptRecordError, match="length"):
        unpack(key, body + blake2b(body, digest_size=16).digest(), NAMESPACE)


@given(keys, entries)
def test_rendered_forms_are_not_kept(key, entry):
    """They are made again from the vector; nor is what is said of where it is kept."""
    record = pack(key, entry)
    entry.base64, entry.floats = b"base64", b"floats"
    entry.shared, entry.memory_only = False, True
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


@EACH
def test_every_flipped_bit_is_seen(payload):
    """Wherever it is: header, key, fingerprint, vector or answer, or checksum."""
    key = bytes(range(32))
    record, _ = example(key, **payload)
    for at in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(CorruptRecordError):
            unpack(key, bytes(flipped), NAMESPACE)


@EACH
def test_every_length_but_its_own_is_seen(payload):
    """Cut anywhere, at either end, or longer than it was."""
    key = bytes(range(32))
    record, _ = example(key, **payload)
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
    record, _ = example(key, vector=bytes(64))
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
    record = bytearray(example(bytes(32), vector=bytes(64))[0])
    struct.pack_into("<d", record, 20, moment)
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
