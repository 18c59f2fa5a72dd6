"""Whose entries: one scope for each tenant and model identity, with what the stores know of it.

Stores keep a fact for each scope: its generation, a moment before which its entries count as
purged, its vectors' width, and more; see `facts`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from weakref import ReferenceType, WeakValueDictionary, ref

import msgspec

from gateway.cache.facts import PREFIX, ScopeFact, few, is_fingerprint, read_facts, write_fact
from gateway.cache.keys import Keyspace, scope_id
from gateway.cache.store import Namespace

_MOST = 4096
"""Scopes of tenants of which facts are kept: names that fit a pattern are the clients' choice."""
_TOLD_APART = 1024
"""Fingerprints that a process tells apart: some servers have a new one for each answer."""
OWN = "(drift)"
"""The gateway's own tenant: its scope of a model says what is known of it for all tenants."""


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
        *("fact", "id", "identity", "own_id", "told", "used"),
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
        self.own_id = scope_id(secret, OWN, self.identity)
        """Of the scope that says what is known of the model for all tenants."""
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
        if len(self._saw) >= _TOLD_APART or not is_fingerprint(fingerprint):
            return False
        self._saw.add(fingerprint)
        seen = few({*self.fact.seen, fingerprint})
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
            scope = Scope(self.secret, identity, ScopeFact(tenant, model))
            scope.fact = self._known(scope, self._facts.get(scope.id))
            scope.move(self.secret)
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
            joined = self._known(scope, self._facts.get(scope.id) or told.get(scope.id))
            if joined == scope.fact:
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

    def successor(self, scope: Scope) -> ScopeFact:
        """Return the fact by which all tenants of this scope's model begin a new generation.

        It is the one of the gateway's own scope. Where others say the same, they mean the same.
        """
        generations = [fact.generation for fact in self._of_model(scope).values()]
        generations += [each.fact.generation for each in self if each.identity == scope.identity]
        least = max(generations) + 1
        return msgspec.structs.replace(scope.fact, least=least).at_least(least)

    def lift(self, scope: Scope) -> None:
        """Have all tenants of this scope's model in the generation that they have at least.

        Those who are in use here are there already; others may ask nobody any more, and what is
        said of them is for people and their commands.
        """
        least = scope.fact.least
        for id_, fact in self._of_model(scope).items():
            self._facts[id_] = fact.at_least(least)

    def _of_model(self, scope: Scope) -> dict[str, ScopeFact]:
        """Return what is known of all tenants of a scope's model, by the ids of their scopes."""
        return {
            id_: fact
            for id_, fact in self._facts.items()
            if id_ == scope_id(self.secret, fact.tenant, scope.identity)
        }

    def _known(self, scope: Scope, told: ScopeFact | None) -> ScopeFact:
        """Return what a scope is to know, `told` what others say of it."""
        joined = scope.fact.joined(told) if told is not None else scope.fact
        own = joined if scope.id == scope.own_id else self._facts.get(scope.own_id)
        return joined.at_least(own.least) if own is not None else joined

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
        elif len(self._facts) < _MOST or fact.tenant == OWN:
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
