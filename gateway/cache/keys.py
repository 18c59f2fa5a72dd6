"""The names under which vectors are kept.

A key is a keyed BLAKE2b digest over (format version, tenant, identity, generation, forwarded
fields, seed, text). Every part is written with its length or a fixed width, so no two different
requests can spell the same bytes. Without the secret nobody can test whether a text was embedded.
Not in a key: encoding_format, dimensions, user, the alias used, list or string.

It is made in two steps: all but the text gives a key of 32 bytes, once for many requests, and the
text is digested behind that one. A secret before the text keys BLAKE2 as well as its key parameter
does, since its digests cannot be extended, and takes half the time for a short text.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import repeat
from struct import pack
from typing import Any, cast

import msgspec

from gateway.types import Text

Key = bytes
"""32 bytes."""

FORMAT = 1
"""Raised whenever the encoding below or the meaning of an entry changes."""

_SUM_BYTES = 8
_CHECK_BYTES = 32 + _SUM_BYTES

_encode_canonical = msgspec.json.Encoder(order="deterministic").encode
_copy, _update, _digest = blake2b.copy, blake2b.update, blake2b.digest


class Keyspace:
    """Makes the keys of one (tenant, model identity, generation); cheap to keep and to ask."""

    def __init__(self, secret: bytes, *, tenant: str, identity: str, generation: int = 0) -> None:
        """`secret` is 16 to 64 bytes; `identity` names the vector space, not the model's alias."""
        self._base = blake2b(key=secret, digest_size=32)
        for part in (str(FORMAT), tenant, identity, str(generation)):
            self._base.update(_sized(part.encode()))
        self._usual = self._begun(b"t", None, None)

    def keys(
        self, texts: Sequence[Text], seed: int | None, forwarded: Mapping[str, Any] | None = None
    ) -> list[Key]:
        """Return a key for each text, in order. `forwarded` are the body fields sent upstream."""
        if set(map(type, texts)) == {str}:
            # The usual case, without a line of Python for each text.
            usual = seed is None and not forwarded
            begun = self._usual if usual else self._begun(b"t", seed, forwarded)
            digests = list(map(_copy, repeat(begun, len(texts))))
            deque(map(_update, digests, map(str.encode, cast("Sequence[str]", texts))), maxlen=0)
            return list(map(_digest, digests))
        return [self._key(text, seed, forwarded) for text in texts]

    def _key(self, text: Text, seed: int | None, forwarded: Mapping[str, Any] | None) -> Key:
        if isinstance(text, str):
            digest, encoded = self._begun(b"t", seed, forwarded), text.encode()
        else:
            digest, encoded = self._begun(b"i", seed, forwarded), pack(f"<{len(text)}Q", *text)
        digest.update(encoded)
        return digest.digest()

    def _begun(self, kind: bytes, seed: int | None, forwarded: Mapping[str, Any] | None) -> blake2b:
        """Return a digest to which only a text of this kind has to be added."""
        base = self._base.copy()
        base.update(_sized(_encode_canonical(forwarded) if forwarded else b""))
        # A seed names a draw of its own; no seed is another one, not the same as any number.
        base.update(b"-" * 9 if seed is None else pack("<cq", b"s", seed))
        base.update(kind)
        return blake2b(base.digest(), digest_size=32)


def scope_id(secret: bytes, tenant: str, identity: str) -> str:
    """Return 24 hexadecimal digits that stand for a tenant and a model identity in the stores."""
    digest = blake2b(b"scope", key=secret, digest_size=12)
    digest.update(_sized(tenant.encode()) + _sized(identity.encode()))
    return digest.hexdigest()


def check_value(secret: bytes) -> bytes:
    """Return what a store or an export shows of its secret, so that another one is noticed."""
    shown = blake2b(b"check", key=secret, digest_size=16).hexdigest().encode()
    return shown + _sum(shown)


def is_check_value(value: bytes) -> bool:
    """Whether this is what `check_value` returned for some secret, and not a bit of it changed."""
    return len(value) == _CHECK_BYTES and value[-_SUM_BYTES:] == _sum(value[:-_SUM_BYTES])


def _sum(shown: bytes) -> bytes:
    return blake2b(shown, digest_size=_SUM_BYTES // 2).hexdigest().encode()


def _sized(part: bytes) -> bytes:
    return pack("<Q", len(part)) + part
