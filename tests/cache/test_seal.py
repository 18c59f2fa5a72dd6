"""The seal: who has secret, request and key reads what was sealed, and nobody else any of it."""

import subprocess
import sys
from hashlib import blake2b

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.entry import Entry
from gateway.cache.record import pack, unpack
from gateway.cache.seal import can_seal, seal, unseal
from tests.processes import ROOT

SECRET, KEY, OTHER = b"s" * 32, bytes(range(32)), bytes(32)
REQUEST = b'{"messages":[{"content":"What is the capital of France?","role":"user"}],"seed":1}'
PLAIN = b'{"choices":[{"message":{"content":"Paris."}}]}'

secrets = st.binary(min_size=16, max_size=64)
keys = st.binary(min_size=32, max_size=32)
texts = st.binary(max_size=300)


@given(secrets, texts, keys, texts)
def test_what_was_sealed_is_opened_as_it_was(secret, request, key, plain):
    """Any bytes, none too, and 29 more of them while they are sealed."""
    sealed = seal(secret, request, key, plain)
    assert len(sealed) == len(plain) + 29
    assert unseal(secret, request, key, sealed) == plain


@given(
    st.tuples(secrets, texts, keys),
    st.tuples(secrets, texts, keys),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_who_lacks_one_of_the_three_reads_nothing(own, other, swapped):
    """Another's secret, another request, or another key: what is under it was not meant for it."""
    tried = tuple(b if swap else a for a, b, swap in zip(own, other, swapped, strict=True))
    opened = unseal(*tried, seal(*own, PLAIN))
    assert opened == (PLAIN if tried == own else None)


def test_every_flipped_bit_is_seen():
    """Of version, nonce, answer or tag: there is no checksum here but the tag itself."""
    sealed = seal(SECRET, REQUEST, KEY, PLAIN)
    for at in range(len(sealed) * 8):
        flipped = bytearray(sealed)
        flipped[at // 8] ^= 1 << at % 8
        assert unseal(SECRET, REQUEST, KEY, bytes(flipped)) is None


def test_a_forged_record_is_not_opened():
    """Whoever may write to a store can make a checksum that is right; the seal is behind it."""
    sealed = seal(SECRET, REQUEST, KEY, PLAIN)
    for at in range(len(sealed)):
        forged = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        entry = unpack(KEY, pack(KEY, Entry(b"", 1, created=1.0, sealed=forged)), "")
        assert unseal(SECRET, REQUEST, KEY, entry.sealed) is None
    moved = unpack(OTHER, pack(OTHER, Entry(b"", 1, created=1.0, sealed=sealed)), "")
    assert unseal(SECRET, REQUEST, OTHER, moved.sealed) is None


def test_every_length_but_its_own_is_seen():
    """Cut anywhere, at either end, or longer than it was."""
    sealed = seal(SECRET, REQUEST, KEY, PLAIN)
    cut = [sealed[:end] for end in range(len(sealed))] + [
        sealed[start:] for start in range(1, len(sealed))
    ]
    for wrong in (*cut, sealed + b"\0", b"\0" + sealed, sealed * 2):
        assert unseal(SECRET, REQUEST, KEY, wrong) is None


@given(texts)
def test_anything_else_is_no_seal(value):
    """Whatever else lies there, with the version of a seal before it or not."""
    assert unseal(SECRET, REQUEST, KEY, value) is None
    assert unseal(SECRET, REQUEST, KEY, b"\1" + value) is None


def test_no_two_seals_are_alike():
    """Each has a nonce of its own, so equal answers do not show; nothing of them does."""
    made = [seal(SECRET, REQUEST, KEY, PLAIN) for _ in range(1000)]
    assert len({sealed[1:13] for sealed in made}) == 1000
    assert len({sealed[13:] for sealed in made}) == 1000
    for sealed in made:
        assert not any(PLAIN[at : at + 8] in sealed for at in range(len(PLAIN) - 7))


def test_the_format_is_what_its_page_says():
    """Made by hand, and one of version 1 as it was first made: it must be opened for ever."""
    aes = AESGCM(blake2b(REQUEST, key=SECRET, digest_size=32, person=b"gateway seal").digest())
    by_hand = b"\1" + b"n" * 12 + aes.encrypt(b"n" * 12, PLAIN, b"\1" + KEY)
    assert unseal(SECRET, REQUEST, KEY, by_hand) == PLAIN
    first = bytes.fromhex("01b8bc57584c0d954c2073a9af0e11ba9b70edc31fd6fd8b06b6cf48457aec45c43610")
    assert unseal(SECRET, REQUEST, KEY, first) == b"Paris."


@pytest.mark.parametrize("version", [0, 2, 255])
def test_a_seal_of_another_version_is_not_opened(version):
    """Though it is sound in itself: what it means is not known here."""
    said = bytes([version])
    aes = AESGCM(blake2b(REQUEST, key=SECRET, digest_size=32, person=b"gateway seal").digest())
    other = said + b"n" * 12 + aes.encrypt(b"n" * 12, PLAIN, said + KEY)
    assert unseal(SECRET, REQUEST, KEY, other) is None


def test_the_gateway_knows_whether_it_can_seal():
    """Without the package nothing fails before somebody seals; it is told at start."""
    assert can_seal()
    without = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from gateway.cache.seal import can_seal; print(can_seal())"
    )
    done = subprocess.run(
        [sys.executable, "-c", without], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
