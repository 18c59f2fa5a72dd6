"""API keys: from an `Authorization` header to a Caller, in a time that tells nothing.

Keys are held as SHA-256 digests. A presented key is digested and compared with every one of them
in constant time, so neither the answer's delay nor a heap dump gives a key away.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from hmac import compare_digest

from gateway.errors import AuthenticationError, InvalidRequestError, PermissionDeniedError
from gateway.types import ANYONE, Caller, Credential

Headers = Iterable[tuple[bytes, bytes]]
"""Raw ASGI headers: names in lower case."""


_NAMES = (b"openai-organization", b"openai-project")
_ONCE = frozenset({b"authorization", b"api-key", *_NAMES})
"""Headers that say who asks; two of one name, and others may read the other one."""
_SENDABLE = re.compile(rb"[!-~]{1,512}").fullmatch


class Keyring:
    """The keys of a config; with none, anybody may call and any key is taken."""

    def __init__(self, keys: Sequence[tuple[bytes, Caller]], *, forwards: bool = False) -> None:
        """`keys` are (SHA-256 of the secret, who it stands for).

        `forwards`: there are none, and upstreams are asked with the keys of whoever calls.
        """
        self._keys = keys
        self._forwards = forwards

    def caller(self, headers: Headers) -> Caller:
        """Return who asks; raise AuthenticationError for a missing or unknown key.

        Raises InvalidRequestError for two headers of one name that say who.

        Taken from `Authorization: Bearer …`, or from `api-key` as Azure's clients send it.
        """
        if not self._keys:
            return self._with_own_key(headers) if self._forwards else ANYONE
        presented = _presented(headers)
        if presented is None:
            raise AuthenticationError(
                "You didn't provide an API key. Send one of this gateway's keys in an "
                "Authorization header: Authorization: Bearer YOUR_KEY."
            )
        digest = sha256(presented).digest()
        found = None
        for known, caller in self._keys:
            if compare_digest(known, digest):
                found = caller
        if found is None:
            raise AuthenticationError(
                "Incorrect API key provided. It must be one of this gateway's own keys, not an "
                "upstream's."
            )
        return found

    def _with_own_key(self, headers: Headers) -> Caller:
        key = _presented(headers)
        if key is None:
            return ANYONE
        named = {name: value for name, value in headers if name in _NAMES}
        if not all(_SENDABLE(value) for value in (key, *named.values())):
            raise AuthenticationError(
                "The API key, or the openai-organization or openai-project header, is not one that "
                "can be sent on: it must be 1 to 512 visible ASCII characters."
            )
        organization, project = (named.get(name, b"").decode() or None for name in _NAMES)
        return Caller(credential=Credential(key.decode(), organization, project))

    def admin(self, headers: Headers) -> Caller:
        """Return the caller if its key has `admin = true`; raise PermissionDeniedError if not."""
        caller = self.caller(headers)
        if self._keys and not caller.admin:
            raise PermissionDeniedError("This needs a key with `admin = true`.")
        return caller


def _presented(headers: Headers) -> bytes | None:
    key = None
    seen: set[bytes] = set()
    for name, value in headers:
        if name not in _ONCE:
            continue
        if name in seen:
            raise InvalidRequestError(f"The header {name.decode()} stands in your request twice.")
        seen.add(name)
        if key is None:
            key = _key_in(name, value)
    return key


def _key_in(name: bytes, value: bytes) -> bytes | None:
    if name == b"api-key":
        return value or None
    if name == b"authorization":
        scheme, _, key = value.partition(b" ")
        return key.strip() or None if scheme.lower() == b"bearer" else None
    return None
