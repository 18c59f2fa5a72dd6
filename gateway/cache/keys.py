"""The names under which vectors are kept.

A key is a keyed BLAKE2b digest over (format version, tenant, identity, generation, forwarded
fields, seed, text). Every part is written with its length or a fixed width, so no two different
requests can spell the same bytes. Without the secret nobody can test whether a text was embedded.
Not in a key: encoding_format, dimensions, user, the alias used, list or string.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from struct import pack
from typing import Any

import msgspec

from gateway.types import Text

Key = bytes
"""32 bytes."""

FORMAT = 1
"""Raised whenever the encoding below or the meaning of an entry changes."""

_encode_canonical = msgspec.json.Encoder(order="deterministic").encode


class Keyspace:
    """Makes the keys of one (tenant, model identity); cheap to keep, cheap to ask."""

    def __init__(self, secret: bytes, *, tenant: str, identity: str, generation: int = 0) -> None:
        """`secret` is 16 to 64 bytes; `identity` names the vector space, not the model's alias."""
        self._base = blake2b(key=secret, digest_size=32)
        for part in (str(FORMAT), tenant, identity, str(generation)):
            self._base.update(_sized(part.encode()))

    def keys(
        self, texts: Iterable[Text], seed: int | None, forwarded: Mapping[str, Any] | None = None
    ) -> list[Key]:
        """Return a key for each text, in order. `forwarded` are the body fields sent upstream."""
        draw = self._base.copy()
        draw.update(_sized(_encode_canonical(forwarded) if forwarded else b""))
        # A seed names a draw of its own; no seed is another one, not the same as any number.
        draw.update(b"-" * 9 if seed is None else pack("<cq", b"s", seed))
        keys = []
        for text in texts:
            digest = draw.copy()
            if isinstance(text, str):
                digest.update(b"t" + text.encode())
            else:
                digest.update(pack(f"<c{len(text)}Q", b"i", *text))
            keys.append(digest.digest())
        return keys


def _sized(part: bytes) -> bytes:
    return pack("<Q", len(part)) + part
