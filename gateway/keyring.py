"""API keys: from an `Authorization` header to a Caller, in a time that tells nothing.

Keys are held as SHA-256 digests. A presented key is digested and compared with every one of them
in constant time, so neither the answer's delay nor a heap dump gives a key away.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from hmac import compare_digest

from gateway.errors import AuthenticationError, PermissionDeniedError
from gateway.types import Caller

Headers = Iterable[tuple[bytes, bytes]]
"""Raw ASGI headers: names in lower case."""


class Keyring:
    """The keys of a config; with none, anybody may call and any key is taken."""

    def __init__(self, keys: Sequence[tuple[bytes, Caller]]) -> None:
        """`keys` are (SHA-256 of the secret, who it stands for)."""
        self._keys = keys
        self._anyone = Caller()

    def caller(self, headers: Headers) -> Caller:
        """Return who asks; raise AuthenticationError for a missing or unknown key.

        Taken from `Authorization: Bearer …`, or from `api-key` as Azure's clients send it.
        """
        if not self._keys:
            return self._anyone
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

    def admin(self, headers: Headers) -> Caller:
        """Return the caller if its key has `admin = true`; raise PermissionDeniedError if not."""
        caller = self.caller(headers)
        if self._keys and not caller.admin:
            raise PermissionDeniedError("This needs a key with `admin = true`.")
        return caller


def _presented(headers: Headers) -> bytes | None:
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer" and key.strip():
                return key.strip()
        elif name == b"api-key" and value:
            return value
    return None
