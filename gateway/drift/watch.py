"""Drift, watched: each model is asked now and then, what is found out is told, and acted upon.

One worker of a gateway asks. What it learns stands in a fact that workers and replicas share, so
all refuse together, and a replica leaves alone what another one has asked just now.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf, nextafter
from random import random
from typing import Protocol

import structlog
from msgspec.structs import replace

from gateway.cache.facts import Checked
from gateway.cache.generations import begin_generation
from gateway.cache.scopes import Place
from gateway.cache.tiered import TieredCache
from gateway.drift.asking import Canaries, Kept
from gateway.drift.canaries import ASKER
from gateway.drift.comparison import CEILING, FACTOR, Comparison
from gateway.drift.knowledge import is_watched, last_check
from gateway.drift.schedule import Due, Times
from gateway.errors import GatewayError
from gateway.route import Route
from gateway.routing import RoutingTable

_LOOKS_EVERY = 1.0
_AT_ONCE = 8
_MOST_USED = 64
"""Names that are watched because they are used: which ones fit a pattern is the clients' choice."""


class Tells(Protocol):
    """Whoever counts rounds, and shows how models stand; models by their name in the config."""

    def watched(self, model: str) -> None:
        """Be ready to count the rounds of a model, as it is going to be asked."""
        ...

    def checked(self, model: str, result: str) -> None:
        """Count a round: its verdict, or "failed"."""
        ...

    def stand(self, models: Mapping[str, Checked]) -> None:
        """Show what was last found out about each model of which anything is known."""
        ...


@dataclass(slots=True)
class _Model:
    """A model that is watched."""

    due: Due
    place: Place | None = None
    """Where its vectors were when it was last asked."""
    kept: Kept | None = None
    seen: Checked | None = None
    """What was last found out, as far as that was noticed here."""
    failing: bool = False
    unlike: bool = False
    """Whether its kept draws are too far apart to be of one model."""


class Drift:
    """The models of a config, watched."""

    def __init__(  # noqa: PLR0913 - what it works with, and whom it tells
        self,
        routes: RoutingTable,
        canaries: Canaries,
        cache: TieredCache,
        times: Times,
        *,
        tells: Tells,
        log: structlog.stdlib.BoundLogger,
        clock: Callable[[], float],
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random,
    ) -> None:
        """`clock` counts seconds, `now` gives Unix times, `chance` numbers from 0 to 1."""
        self._routes = routes
        self._canaries = canaries
        self._cache = cache
        self._times = times
        self._tells = tells
        self._log = log
        self._clock = clock
        self._now = now
        self._chance = chance
        self._models: dict[str, _Model] = {}
        self._named = dict.fromkeys(
            served.name
            for served in routes.models
            if served.task == "embedding" and not served.is_pattern
        )
        self._used: dict[str, None] = {}

    def adopt(self, before: "Drift") -> None:
        """Take over what another config knew of the same models."""
        self._used = dict(before._used)  # noqa: SLF001 - of its own class
        routes = {route.name: route for route in self._watched()}
        for name, model in before._models.items():  # noqa: SLF001
            route = routes.get(name)
            if route and (model.place is None or model.place is route.place(ASKER)):
                due = model.due.changed(self._times, self._clock())
                self._models[name] = dataclasses.replace(model, due=due)

    def used(self, route: Route) -> None:
        """Take note of a model that embeds.

        Of patterns, and of models that may also chat, nobody knows before.
        """
        if route.name not in self._named and len(self._used) < _MOST_USED and is_watched(route):
            self._used[route.name] = None

    async def show(self) -> None:
        """Show how the models stand, until cancelled; in every worker."""
        while True:
            self.look()
            await asyncio.sleep(_LOOKS_EVERY)

    async def ask(self) -> None:
        """Ask whoever is due, until cancelled; in one worker of a gateway."""
        while self._times.every > 0:
            await self.turn()
            await asyncio.sleep(_LOOKS_EVERY)

    async def turn(self) -> None:
        """Ask whoever is due now, a few models at a time: some are slow."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(route: Route) -> None:
            async with places:
                await self._round(route)

        await asyncio.gather(*(one(route) for route in self._watched() if self._is_due(route)))

    def look(self) -> None:
        """Show how the models stand; of the names that fit a pattern the one that stands worst."""
        worst: dict[str, Checked] = {}
        for route in self._watched():
            checked = last_check(route)
            if checked is not None:
                others = worst.get(route.model.name, checked)
                worst[route.model.name] = max(others, checked, key=_badness)
        self._tells.stand(worst)

    def _watched(self) -> Iterable[Route]:
        for name in (*self._named, *self._used):
            served = self._routes.find(name)
            if served is not None and served.embedding is not None:
                route = self._routes.embedding(name, ASKER)
                if is_watched(route):
                    yield route

    def _is_due(self, route: Route) -> bool:
        now, local = self._clock(), route.model.local
        model = self._models.get(route.name)
        if model is None:
            due = Due(self._times, now, self._chance)
            model = self._models[route.name] = _Model(due)
            self._tells.watched(route.model.name)
        checked = last_check(route)
        if model.place is not None and route.place(ASKER) is not model.place:
            model.place, model.kept = None, None
            model.due.forgot(now)
        elif checked is not None and checked != model.seen:
            model.due.told(now, self._now() - checked.at, drifted=checked.verdict == "drift")
        model.seen = checked
        return model.due(now, there=_is_there(route), local=local) and not self._cache.away

    async def _round(self, route: Route) -> None:
        """Ask a model, and act upon what it says."""
        model, place = self._models[route.name], route.place(ASKER)
        model.place = place
        try:
            found, model.kept = await self._canaries.compare(route, place, model.kept)
        except GatewayError as error:
            self._failed(route, error.code or error.type)
        except Exception as error:  # noqa: BLE001 - without it no model would be asked any more
            self._failed(route, f"unforeseen {type(error).__name__}")
        else:
            if place.current:
                self._note(route, place, found)
                if found.verdict == "drift" and route.model.drift == "generation":
                    await self._begin_generation(route, place)

    def _failed(self, route: Route, reason: str) -> None:
        model = self._models[route.name]
        model.due.failed(self._clock())
        self._tells.checked(route.model.name, "failed")
        if not model.failing:
            self._log.warning("model could not be compared", model=route.name, reason=reason)
        model.failing = True

    def _note(self, route: Route, place: Place, found: Comparison) -> None:
        """Have everybody know what a model has become."""
        model, scope, before = self._models[route.name], place.scope, last_check(route)
        # After what was known of before, whatever clock that was written by: the newest one counts.
        known = scope.fact.checked
        at = max(self._now(), scope.fact.before, nextafter(known.at, inf) if known else 0.0)
        model.seen = Checked(at, found.verdict, found.distance, found.noise)
        model.failing = False
        scope.fact = replace(scope.fact, checked=model.seen)
        scope.used = True
        drifted, had = found.verdict == "drift", before is not None and before.verdict == "drift"
        model.due.answered(self._clock(), drifted=drifted, local=route.model.local)
        self._tells.checked(route.model.name, found.verdict)
        unlike = FACTOR * found.noise > CEILING
        if unlike and not model.unlike:
            self._log.warning("kept draws are unlike", model=route.name, noise=found.noise)
        model.unlike = unlike
        if drifted != had:
            figures = {"distance": found.distance, "noise": found.noise}
            log = self._log.bind(model=route.name, threshold=found.threshold, **figures)
            if drifted:
                log.warning("model has drifted", policy=route.model.drift)
            else:
                log.info("model is itself again")

    async def _begin_generation(self, route: Route, place: Place) -> None:
        """Leave behind what is kept of a model; it is seen for the first time again then."""
        if await begin_generation(self._cache, place):
            generation = place.scope.fact.generation
            self._log.warning("new generation", model=route.name, generation=generation)


def _badness(checked: Checked) -> tuple[bool, float]:
    return checked.verdict == "drift", checked.distance


def _is_there(route: Route) -> bool:
    """Whether a model can answer now without anything being started for it."""
    states = {upstream.state for upstream in route.backend.info().upstreams}
    if states & {"waiting", "starting"}:
        return False
    return not states or bool(states & {"ready", "half-open"})
