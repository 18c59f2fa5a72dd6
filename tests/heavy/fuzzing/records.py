"""What stores hold: somebody else may have written it, or a disk has changed it."""

from contextlib import suppress
from hashlib import blake2b
from struct import pack_into

from msgspec import msgpack

from gateway.cache.entry import Entry
from gateway.cache.facts import ScopeFact, read_fact, write_fact
from gateway.cache.keys import is_check_value
from gateway.cache.record import CorruptRecordError, created, pack, unpack
from gateway.cache.seal import seal, unseal
from gateway.quota.book import Book, Seat
from gateway.quota.sqlite import _read as read_book
from tests.heavy.fuzzing.target import Target

_KEY, _SECRET, _ASKED = b"k" * 32, b"s" * 16, b"what was asked"
_CHECK = 16


def try_record(data: bytes) -> None:
    """Read a value as it is, and with checksums that fit: then its words are what counts."""
    created(data)
    read_book(data)
    is_check_value(data)
    assert unseal(_SECRET, _ASKED, _KEY, data) in (None, b"an answer")
    for value in (data, data + _sum(data)):
        with suppress(CorruptRecordError):
            entry = unpack(_KEY, value, "n")
            assert pack(_KEY, entry) == _canonical(value)
            _use(entry)
        fact = read_fact(value)
        assert fact is None or read_fact(write_fact(fact)) == fact


def _canonical(value: bytes) -> bytes:
    """Return a record without what says nothing: spare bits, and spare bytes."""
    body = bytearray(value[:-_CHECK])
    pack_into("<B", body, 4, body[4] & 7)
    pack_into("<H", body, 6, 0)
    return bytes(body) + _sum(bytes(body))


def _use(entry: Entry) -> None:
    if entry.sealed:
        unseal(_SECRET, _ASKED, _KEY, entry.sealed)
    else:
        entry.render(base64=True)


def _sum(body: bytes) -> bytes:
    return blake2b(body, digest_size=_CHECK).digest()


def _records() -> list[bytes]:
    vector = Entry(b"\0\0\x80\x3f" * 4, 5, created=1.7e9, fingerprint="fp", truncated=True)
    sealed = seal(_SECRET, _ASKED, _KEY, b"an answer")
    chat = Entry(b"", 0, created=1.7e9, sealed=sealed)
    whole = [
        pack(_KEY, vector),
        pack(_KEY, chat),
        write_fact(ScopeFact("t", "m", 1, 5.0, 4, ("fp",))),
    ]
    book = msgpack.encode(Book(1.7e9, 1.0, 2.0, 20_000, 5, {"w": Seat(1.7e9)}))
    return [*whole, sealed, book, *(value[:-_CHECK] for value in whole)]


RECORD = Target(try_record, _records(), [b"EGW1", b"k" * 32, b"\xff\xff\xff\xff", b"generation"])
