"""Asking a model for the canary texts, by the straight line like anybody else."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from pybase64 import b64decode

from gateway.cache.scopes import Place
from gateway.drift.canaries import ASKER, SEEDS, TEXTS
from gateway.drift.comparison import FARTHEST, FLOOR, Comparison, Draw, compare
from gateway.embedded import Embedded
from gateway.embeddings import CreatesEmbeddings
from gateway.errors import OTHER_WIDTH, VectorsRefusedError, store_away
from gateway.route import Route
from gateway.types import USUAL, CacheControl, EmbeddingRequest

PATIENCE = 60.0
"""Seconds that one draw may take."""
_FRESH = CacheControl(no_store=True)
_OTHER_WIDTH = Comparison((), 0.0, FARTHEST, FLOOR, "drift", (0, 0))
"""The line refuses vectors of another width, and so nothing more is known of them."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The kept draws of a model, as they were last seen."""

    place: Place
    before: float
    """What was made earlier than this Unix time was purged then."""
    draws: Sequence[Draw]

    def stands(self, place: Place) -> bool:
        """Whether nothing of the model was purged since."""
        return self.place is place and self.before == place.scope.fact.before


class Canaries:
    """Asks models for the canary texts."""

    def __init__(self, line: CreatesEmbeddings) -> None:
        self._line = line

    async def compare(
        self, route: Route, place: Place, known: Kept | None
    ) -> tuple[Comparison, Kept | None]:
        """Compare a fresh draw with the kept ones, and return these too; they are made if need be.

        `known` is what was returned before: the kept draws stay what they were even where the cache
        has had to make room. Raises GatewayError for a model that does not answer.
        """
        try:
            kept = await self._kept(route, place, known)
            found = compare(kept.draws, [await self._draw(route, SEEDS[0], _FRESH)])
            if found.verdict == "drift":
                # Some servers answer one in many times with something else. What is believed is
                # what they say twice.
                again = compare(kept.draws, [await self._draw(route, SEEDS[0], _FRESH)])
                found = min(found, again, key=lambda comparison: comparison.distance)
        except VectorsRefusedError as error:
            if error.code != OTHER_WIDTH:
                raise
            return _OTHER_WIDTH, known
        return found, kept

    async def _kept(self, route: Route, place: Place, known: Kept | None) -> Kept:
        before = place.scope.fact.before
        # One after the other: together some models would answer with other bits.
        answers = [await self._ask(route, seed, USUAL) for seed in SEEDS]
        if any(answer.unshared for answer in answers):
            raise store_away()
        made = any(answer.sources.get("upstream") for answer in answers)
        if made and known is not None and known.stands(place):
            return known
        return Kept(place, before, [_vectors(answer) for answer in answers])

    async def _draw(self, route: Route, seed: int, cache: CacheControl) -> Draw:
        return _vectors(await self._ask(route, seed, cache))

    async def _ask(self, route: Route, seed: int, cache: CacheControl) -> Embedded:
        request = EmbeddingRequest(route.name, TEXTS, base64=True, seed=seed, cache=cache)
        deadline = asyncio.get_running_loop().time() + PATIENCE
        return await self._line.create(request, ASKER, deadline=deadline)


def _vectors(answer: Embedded) -> Draw:
    return [b64decode(fragment[1:-1]) for fragment in answer.fragments]
