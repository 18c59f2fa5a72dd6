"""Whose entries: one scope for each tenant and model identity, with what the stores know of it.

Stores keep a fact for each scope: its generation, a moment before which its entries count as
purged, its vectors' width, and the fingerprints of those who answered its chats. All of these only
ever grow or get known, so workers, replicas and stores that know different things agree by taking
the larger of each, in whatever order they meet.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from heapq import nsmallest
from math import inf
from weakref import ReferenceType, WeakValueDictionary, ref

import msgspec

from gateway.cache.keys import Keyspace, scope_id
from gateway.cache.store import Namespace

_CHECK = 8
_MOST = 4096
"""Scopes of which facts are kept: names that fit a pattern are the clients' choice."""
PREFIX = "space."
"""Facts of this name and a scope's id are about scopes."""
_SEEN = 64
"""Fingerprints in a fact: facts are read twice a second by everybody."""
_TOLD_APART = 1024
"""Fingerprints that a process tells apart: some servers have a new one for each answer."""
_LONGEST_FINGERPRINT = 255


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

    def joined(self, other: "ScopeFact") -> "ScopeFact":
        """Return what both know together, whoever is asked: else stores would never agree.

        A width is that of a generation: who purges may have another model behind the name.
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
            seen=self.seen if self.seen == other.seen else _few({*self.seen, *other.seen}),
        )


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Place:
    """Where the entries of a scope are, in one of its generations.

    It holds its scope, and not the other way round: names that fit a pattern are the clients'
    choice, and what knows of each other in a circle stays until the garbage collector comes.
    """

    scope: "Scope"
    namespace: Namespace
    keyspace: Keyspace

    @property
    def current(self) -> bool:
        """Whether this still is the scope's generation; what belongs to a past one is purged."""
        return self.scope.place is self


class Scope:
    """One tenant's vectors of one model, or its chats, as this process knows them now."""

    __slots__ = (
        *("__weakref__", "_generation", "_place", "_saw", "_secret"),
        *("fact", "id", "identity", "told", "used"),
    )

    def __init__(self, secret: bytes, identity: str, fact: ScopeFact) -> None:
        self.identity = identity
        self.fact = fact
        self.used = False
        """Whether it holds anything, as far as this process knows."""
        self._saw: set[str] = set()
        self._place: ReferenceType[Place] | None
        self.move(secret)

    def move(self, secret: bytes) -> None:
        """Make the names anew: for another secret, or after the generation changed."""
        self._secret, self._generation = secret, self.fact.generation
        self.told = False
        """Whether the stores have been told of this generation."""
        self.id = scope_id(secret, self.fact.tenant, self.identity)
        self._place = None

    @property
    def namespace(self) -> Namespace:
        """Where the stores keep its entries now."""
        return namespace(self.id, self._generation)

    @property
    def place(self) -> Place:
        """Where its entries are now: the same one for as long as somebody holds it."""
        place = self._place() if self._place is not None else None
        if place is None:
            keyspace = Keyspace(
                self._secret,
                tenant=self.fact.tenant,
                identity=self.identity,
                generation=self._generation,
            )
            place = Place(self, self.namespace, keyspace)
            self._place = ref(place)
        return place

    def widen(self, width: int) -> None:
        """Note that it holds entries, and their vectors' width once it is known; 0 is none."""
        self.used = True
        if self.fact.width is None and width:
            self.fact = msgspec.structs.replace(self.fact, width=width)

    def saw(self, fingerprint: str) -> bool:
        """Note who answered; return whether that is the first time in this scope.

        It never is for what is no fingerprint: nothing, or more than 255 bytes, or unprintable.
        """
        if fingerprint in self._saw or fingerprint in self.fact.seen:
            return False
        if len(self._saw) >= _TOLD_APART or not _is_fingerprint(fingerprint):
            return False
        self._saw.add(fingerprint)
        seen = _few({*self.fact.seen, fingerprint})
        self.fact = msgspec.structs.replace(self.fact, seen=seen)
        return True


class Scopes:
    """All scopes of this process, made when they are first asked for."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        # Those that a route holds; routes are as many as the config has models, and some more.
        self._scopes: WeakValueDictionary[tuple[str, str], Scope] = WeakValueDictionary()
        self._facts: dict[str, ScopeFact] = {}
        self._written: dict[str, tuple[ScopeFact, bytes]] = {}
        """Facts as the stores have them: few of them change between two meetings."""

    def of(self, tenant: str, identity: str, model: str) -> Scope:
        """Return the scope of this tenant and model identity."""
        scope = self._scopes.get((tenant, identity))
        if scope is None:
            fact = ScopeFact(tenant, model)
            known = self._facts.get(scope_id(self.secret, tenant, identity))
            scope = Scope(self.secret, identity, fact.joined(known) if known else fact)
            self._scopes[tenant, identity] = scope
        return scope

    def __iter__(self) -> Iterator[Scope]:
        return iter(list(self._scopes.values()))

    def learn(self, facts: Mapping[str, bytes]) -> list[tuple[Namespace, float]]:
        """Take over what a store knows; return what is purged now.

        That is (namespace, Unix time) for everything of the namespace that was made before.
        """
        purged = []
        told = dict(read_facts(self._news(facts)))
        for id_, fact in told.items():
            self._note(id_, fact)
        for scope in self:
            # A scope in use learns of a purge even where there are too many to keep its fact.
            known = self._facts.get(scope.id) or told.get(scope.id)
            if known is None or (joined := scope.fact.joined(known)) == scope.fact:
                continue
            was, scope.fact = scope.fact, joined
            if joined.generation > was.generation:
                purged.append((scope.namespace, inf))
                scope.move(self.secret)
            elif joined.before > was.before:
                purged.append((scope.namespace, joined.before))
        return purged

    def facts(self) -> Iterator[tuple[str, bytes]]:
        """Yield, by the name of the fact, what this process knows of scopes that hold anything."""
        for scope in self:
            if scope.used or scope.fact.seen:
                self._note(scope.id, scope.fact)
        for id_ in self._facts:
            yield PREFIX + id_, self._write(id_)

    def fact_of(self, scope: Scope) -> tuple[str, bytes] | None:
        """Return the name and value of a scope's fact; None where there are too many to keep it."""
        self._note(scope.id, scope.fact)
        return (PREFIX + scope.id, self._write(scope.id)) if scope.id in self._facts else None

    def _news(self, facts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Return the facts that say something else than what is known."""
        known = {PREFIX + id_: written for id_, (_, written) in self._written.items()}
        return {name: value for name, value in facts.items() if known.get(name) != value}

    def _write(self, scope_id: str) -> bytes:
        fact = self._facts[scope_id]
        known = self._written.get(scope_id)
        if known is None or known[0] is not fact:
            known = self._written[scope_id] = fact, write_fact(fact)
        return known[1]

    def _note(self, scope_id: str, fact: ScopeFact) -> None:
        known = self._facts.get(scope_id)
        if known is not None:
            if known is not fact and (joined := known.joined(fact)) != known:
                self._facts[scope_id] = joined
        elif len(self._facts) < _MOST:
            self._facts[scope_id] = fact

    def rekey(self, secret: bytes) -> None:
        """Go over to another secret: every key is another one from now on.

        What was kept cannot be found any more; the fingerprints have been seen all the same.
        """
        self.secret = secret
        self._facts.clear()
        self._written.clear()
        for scope in self:
            fact = scope.fact
            scope.fact = ScopeFact(fact.tenant, fact.model, seen=fact.seen)
            scope.used = False
            scope.move(secret)


def namespace(scope_id: str, generation: int) -> Namespace:
    """Return where the stores keep the entries of a scope's generation."""
    return f"{scope_id}.{generation}"


def _few(fingerprints: set[str]) -> tuple[str, ...]:
    """Return those that are kept of these: joined in any order and any groups, always the same.

    Where they are too many their digests decide, which is as good as chance; names would keep all
    of a server that counts downwards, and none of one that counts upwards.
    """
    sound = filter(_is_fingerprint, fingerprints)
    return tuple(sorted(nsmallest(_SEEN, sound, key=_digest)))


def _is_fingerprint(text: str) -> bool:
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
