"""The vectors that upstreams of one space are compared with, kept in the cache like any others.

The first ones stored win, so restarts, workers and replicas compare with the same.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.cache.entry import Entry
from gateway.cache.keys import Key
from gateway.cache.scopes import Place
from gateway.cache.tiered import TieredCache
from gateway.types import RawEmbeddings
from gateway.vectors import unit

TENANT = "(gateway)"
"""Whose references are; their identity is no model's, so no key of this tenant finds them."""
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Die Lieferung verzögert sich wegen des Schneefalls um zwei Tage.",
    "機械学習モデルは文章を数値のベクトルに変換します。",
    "¿Cuál es la capital de Australia, y por qué no es Sídney?",
    "def mean(values):\n    return sum(values) / len(values)",
)
"""What all are asked for: languages and code, as models that are alike in one may differ there."""


@dataclass(frozen=True, slots=True)
class Known:
    """A reference, as it was kept."""

    place: Place
    vectors: Sequence[bytes]
    """Unit vectors of the TEXTS."""
    created: float
    """Unix time of the oldest."""


class Reference:
    """The reference of one space."""

    def __init__(
        self,
        space: str,
        model: str,
        cache: TieredCache,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`model` is what the stores call it, for people and for `purge`."""
        self._cache = cache
        self._scope = cache.scopes.of(TENANT, f"reference\n{space}", model)
        self._now = now
        self._known: Known | None = None

    @property
    def place(self) -> Place:
        """Where it is kept now; another one after a purge."""
        return self._scope.place

    @property
    def width(self) -> int | None:
        """Components of its vectors, as far as it is known."""
        known = self._known
        return len(known.vectors[0]) // 4 if known and known.place is self.place else None

    def adopt(self, before: "Reference") -> None:
        """Take over what another one knows of the same space."""
        self._known = before._known  # noqa: SLF001 - of its own class

    async def find(self, place: Place) -> Known | None:
        """Return it as it is kept there, or as it was where nothing was purged since."""
        keys = _keys(place)
        found = dict(zip(keys, self._cache.recall(keys), strict=True))
        missing = [key for key, entry in found.items() if entry is None]
        if missing:
            found.update(await self._cache.look_up(place, missing))
        entries = [entry for entry in map(found.get, keys) if entry is not None]
        if len(entries) == len(keys):
            return self._remember(place, entries)
        known = self._known
        if known is None or known.place is not place or known.created < place.scope.fact.before:
            return None
        return known

    async def keep(self, place: Place, raw: RawEmbeddings) -> Known:
        """Offer an upstream's answer as the reference; return the one that was stored first.

        Raises InvalidVectorError for vectors that cannot be kept.
        """
        created = max(self._now(), place.scope.fact.before)
        entries = [
            Entry(unit(row).tobytes(), tokens, created=created, namespace=place.namespace)
            for row, tokens in zip(raw.rows, raw.tokens, strict=True)
        ]
        keys = _keys(place)
        kept = await self._cache.keep(place, dict(zip(keys, entries, strict=True)))
        return self._remember(place, [kept[key] for key in keys])

    def replaced(self) -> bool:
        """Whether another one turned out to be stored first; then it is not known any more."""
        known = self._known
        if known is None or known.place is not self.place:
            return False
        kept = [entry for entry in self._cache.recall(_keys(known.place)) if entry is not None]
        if len(kept) < len(TEXTS) or [entry.vector for entry in kept] == known.vectors:
            return False
        self._known = None
        return True

    def _remember(self, place: Place, entries: Sequence[Entry]) -> Known:
        created = min(entry.created for entry in entries)
        self._known = Known(place, [entry.vector for entry in entries], created)
        return self._known


def _keys(place: Place) -> list[Key]:
    return place.keyspace.keys(TEXTS, None)
