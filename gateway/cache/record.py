"""An entry as bytes, the way every store holds it: checked when it is read, every bit of it.

    magic 4 | flags 1 | fingerprint's length 1 | 0 2 | width 4 | tokens 8 | created 8 | key 32
    | fingerprint | vector: width little-endian float32 | BLAKE2b-128 of all before

Where a flag says that it is the answer to a chat, the width is 0, and what was sealed is in the
vector's place: all that is left, a byte at least.

The key is in it so that a value under a wrong key, however it came there, is never served.
"""

from hashlib import blake2b
from math import inf
from struct import Struct, error

from gateway.cache.entry import Entry
from gateway.cache.keys import Key
from gateway.cache.store import Namespace

_MAGIC = b"EGW1"
_HEADER = Struct("<4sBBHIQd32s")
_CHECK = 16
_ESTIMATED, _TRUNCATED, _SEALED = 1, 2, 4
MAX_TOKENS = 10**9
"""More than any text has."""
_CREATED = Struct("<d")
_CREATED_AT = 20
HEADER_BYTES = _HEADER.size
"""Bytes from a record's beginning that suffice for `created`."""


class CorruptRecordError(ValueError):
    """A value that was not written by `pack` for this key, or not read as it was written."""


def pack(key: Key, entry: Entry) -> bytes:
    """Return the entry as bytes; its fingerprint may have 255 bytes."""
    fingerprint = entry.fingerprint.encode()
    flags = _ESTIMATED * entry.estimated | _TRUNCATED * entry.truncated
    flags |= _SEALED * bool(entry.sealed)
    head = _HEADER.pack(
        _MAGIC, flags, len(fingerprint), 0, entry.width, entry.tokens, entry.created, key
    )
    body = head + fingerprint + (entry.sealed or entry.vector)
    return body + _checksum(body)


def unpack(key: Key, record: bytes, namespace: Namespace) -> Entry:
    """Return the entry that `pack` was given; raise CorruptRecordError for anything else."""
    body = record[:-_CHECK]
    if _checksum(body) != record[-_CHECK:]:
        raise CorruptRecordError("the checksum is wrong")
    try:
        magic, flags, length, _, width, tokens, created, echo = _HEADER.unpack_from(body)
    except error as short:
        raise CorruptRecordError("it is too short") from short
    if magic != _MAGIC:
        raise CorruptRecordError("it is of another kind")
    if echo != key:
        raise CorruptRecordError("it belongs to another key")
    if not 0 < created < inf or tokens > MAX_TOKENS:
        raise CorruptRecordError("its figures cannot be")
    vector, sealed = body[HEADER_BYTES + length :], b""
    if flags & _SEALED:
        vector, sealed = sealed, vector
    neither = not vector and not sealed
    if len(vector) != 4 * width or bool(sealed) != bool(flags & _SEALED) or neither:
        raise CorruptRecordError("its length is wrong")
    try:
        fingerprint = body[HEADER_BYTES : HEADER_BYTES + length].decode()
    except UnicodeDecodeError as strange:
        raise CorruptRecordError("its fingerprint is no text") from strange
    return Entry(
        vector,
        tokens,
        created=created,
        estimated=bool(flags & _ESTIMATED),
        truncated=bool(flags & _TRUNCATED),
        fingerprint=fingerprint,
        namespace=namespace,
        sealed=sealed,
    )


def created(record: bytes) -> float:
    """Return the Unix time at which a record was made, unchecked; 0 for what is none."""
    if record[:4] != _MAGIC or len(record) < HEADER_BYTES:
        return 0.0
    moment: float = _CREATED.unpack_from(record, _CREATED_AT)[0]
    return moment if moment > 0 else 0.0


def expires(key: Key, made: float, ttl: float) -> float:
    """Return the Unix time from which an entry counts as gone.

    Between 0.9 and 1 of `ttl` after it was made, so that what was made together does not end
    together; read off the key, so that every tier, worker and replica agree.
    """
    return made + ttl * (1.0 - key[0] / 2560.0)


def _checksum(body: bytes) -> bytes:
    return blake2b(body, digest_size=_CHECK).digest()
