"""What stores say of a scope: a fact for each, which all who share them make grow together.

All of it only ever grows or gets known, so workers, replicas and stores that know different things
agree by taking the larger of each, in whatever order they meet.
"""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from heapq import nsmallest

import msgspec

PREFIX = "space."
"""Facts of this name and a scope's id are about scopes."""
_CHECK = 8
_SEEN = 64
"""Fingerprints in a fact: facts are read twice a second by everybody."""
_LONGEST_FINGERPRINT = 255


class Checked(msgspec.Struct, frozen=True, order=True):
    """What was last found out about a model, see gateway.drift; the newest one is the largest."""

    at: float
    """Unix time."""
    verdict: str
    """See gateway.drift.comparison.Verdict."""
    distance: float
    noise: float


class ScopeFact(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a store says of a scope. Tenant and model are for people, and for `purge`."""

    tenant: str
    model: str
    """A name of the model; several names may share one identity."""
    generation: int = 0
    before: float = 0.0
    """Unix time; what was made earlier is purged."""
    width: int | None = None
    """Components of its vectors; None while there are none, and of chats for ever."""
    seen: tuple[str, ...] = ()
    """Fingerprints, ascending: all of them while they are few, else always the same few."""
    least: int = 0
    """The least generation of every tenant of the model; only said of the gateway's own tenant."""
    checked: Checked | None = None
    """Of the gateway's own tenant: whether this generation's vectors still are what is made."""

    def joined(self, other: "ScopeFact") -> "ScopeFact":
        """Return what both know together, whoever is asked: else stores would never agree.

        A width is that of a generation: who purges may have another model behind the name. So is
        what was found out by comparing.
        """
        generation = max(self.generation, other.generation)
        newest = [fact for fact in (self, other) if fact.generation == generation]
        return ScopeFact(
            tenant=min(self.tenant, other.tenant),
            model=min(self.model, other.model),
            generation=generation,
            before=max(self.before, other.before),
            width=max((fact.width or 0 for fact in newest), default=0) or None,
            # Nearly always equal, and compared twice a second for every scope.
            seen=self.seen if self.seen == other.seen else few({*self.seen, *other.seen}),
            least=max(self.least, other.least),
            checked=max((fact.checked for fact in newest if fact.checked), default=None),
        )

    def at_least(self, generation: int) -> "ScopeFact":
        """Return it in this generation, or as it is where it has come so far."""
        if self.generation >= generation:
            return self
        return msgspec.structs.replace(self, generation=generation, width=None, checked=None)


def few(fingerprints: set[str]) -> tuple[str, ...]:
    """Return those that are kept of these: joined in any order and any groups, always the same.

    Where they are too many their digests decide, which is as good as chance; names would keep all
    of a server that counts downwards, and none of one that counts upwards.
    """
    sound = filter(is_fingerprint, fingerprints)
    return tuple(sorted(nsmallest(_SEEN, sound, key=_digest)))


def is_fingerprint(text: str) -> bool:
    """Whether it is one: not nothing, at most 255 bytes, and printable."""
    return text.isprintable() and 0 < len(text.encode()) <= _LONGEST_FINGERPRINT


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=_CHECK).digest()


def write_fact(fact: ScopeFact) -> bytes:
    """Return the fact as a store keeps it: JSON, and a digest that tells a changed bit."""
    text = msgspec.json.encode(fact)
    return text + blake2b(text, digest_size=_CHECK).digest()


def read_fact(value: bytes) -> ScopeFact | None:
    """Return what `write_fact` was given; None for what is damaged."""
    text, check = value[:-_CHECK], value[-_CHECK:]
    if blake2b(text, digest_size=_CHECK).digest() != check:
        return None
    try:
        return msgspec.json.decode(text, type=ScopeFact)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def read_facts(facts: Mapping[str, bytes]) -> Iterator[tuple[str, ScopeFact]]:
    """Yield the scopes that a store knows, by id; what is damaged counts as not said."""
    for name, value in facts.items():
        if name.startswith(PREFIX) and (fact := read_fact(value)) is not None:
            yield name.removeprefix(PREFIX), fact
