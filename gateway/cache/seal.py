"""Chat answers as stores keep them: closed to whoever has not got the request.

    version 1 | nonce 12 | the answer in AES-256-GCM, and its tag of 16

The key is made from the cache's secret and the canonical request: a stolen store tells no answer,
not even together with the secret, to somebody who cannot say what was asked. The version and the
entry's key are bound to it, so what was sealed under one key opens under no other.
"""

import os
from hashlib import blake2b

from gateway.cache.keys import Key

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError:  # the extra [seal] has it
    AESGCM = None  # type: ignore[assignment, misc]

_VERSION = b"\x01"
"""Raised whenever anything here changes; what has another one is not opened."""
_NONCE, _TAG = 12, 16
_PERSON = b"gateway seal"
"""Keeps these digests apart from all others that are made with the secret."""


def can_seal() -> bool:
    """Whether answers can be sealed: the package cryptography is installed, and works."""
    return AESGCM is not None


def seal(secret: bytes, request: bytes, key: Key, plain: bytes) -> bytes:
    """Return `plain` as only `unseal` with the same three reads it, 29 bytes longer.

    `secret` is 16 to 64 bytes, `request` is in its canonical form. Needs `can_seal`.

    The nonce is random. Two equal ones under one AES key would give answers away, but there is a
    key for each request, under which answers are sealed only when that request finds none kept,
    or loses a race: among a billion of them the odds of two equal nonces are one in 10^11.
    """
    nonce = os.urandom(_NONCE)
    closed = AESGCM(_aes_key(secret, request)).encrypt(nonce, plain, _VERSION + key)
    return _VERSION + nonce + closed


def unseal(secret: bytes, request: bytes, key: Key, sealed: bytes) -> bytes | None:
    """Return what `seal` was given; None for what is damaged, or was sealed with something else."""
    if sealed[:1] != _VERSION or len(sealed) < len(_VERSION) + _NONCE + _TAG:
        return None
    nonce, closed = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
    try:
        return AESGCM(_aes_key(secret, request)).decrypt(nonce, closed, _VERSION + key)
    except InvalidTag:
        return None


def _aes_key(secret: bytes, request: bytes) -> bytes:
    return blake2b(request, key=secret, digest_size=32, person=_PERSON).digest()
