"""Whose cache a request looks into: its tenant's, or where callers send keys of their own, a key's.

A key stands in no store: of it there is only a digest, keyed with the cache's secret.
"""

from hashlib import blake2b

from cachetools import LRUCache

from gateway.cache.scopes import Place, Scopes
from gateway.errors import AuthenticationError
from gateway.types import Caller

_KEYS_KNOWN = 1024
"""Keys that a route has the place of at hand: which ones there are is the clients' choice."""


class Tenants:
    """The scopes of one route, by who asks."""

    def __init__(
        self, identity: str, name: str, scopes: Scopes, *, forwards: bool, split: bool
    ) -> None:
        """`identity` names what answers, `name` the model; the rest: see EmbeddingModel."""
        self._identity = identity
        self._name = name
        self._all = scopes
        self._forwards = forwards
        self._split = split
        self._known: LRUCache[str, Place] | dict[str, Place] = (
            LRUCache(_KEYS_KNOWN) if split else {}
        )

    def place(self, caller: Caller) -> Place:
        """Return where what this caller has made is kept now.

        Raises AuthenticationError where a key of his own is wanted, and he sent none.
        """
        tenant = self._tenant(caller) if self._forwards else caller.tenant
        place = self._known.get(tenant)
        if place is None or not place.current:
            place = self._all.of(tenant, self._identity, self._name).place
            self._known[tenant] = place
        return place

    def _tenant(self, caller: Caller) -> str:
        if caller.credential is None:
            raise AuthenticationError(
                f"Model '{self._name}' is asked for with your own API key, and there is none in "
                "this request. Send it in an Authorization header: Authorization: Bearer YOUR_KEY."
            )
        if not self._split:
            return caller.tenant
        key = caller.credential.key.encode()
        digest = blake2b(key, key=self._all.secret[:64], person=b"forwarded key", digest_size=16)
        return f"key:{digest.hexdigest()}"
