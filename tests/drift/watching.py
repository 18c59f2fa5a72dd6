"""A model that is watched for drift, without a network, and with a clock that a test moves."""

from dataclasses import replace

import msgspec
import numpy as np
import structlog

from gateway.cache.facts import PREFIX, read_fact, write_fact
from gateway.drift.asking import Canaries
from gateway.drift.canaries import ASKER, DRAWS, TEXTS
from gateway.drift.knowledge import last_check
from gateway.drift.schedule import Times
from gateway.drift.watch import Drift
from gateway.types import Caller, ModelInfo, UpstreamInfo
from tests.backend import WIDTH, Backend, true
from tests.line import Line

EVERY, DELAY = 3600.0, 30.0
FIRST_ROUND = DRAWS + 1
"""Calls of a first round: the kept draws, and a fresh one."""


class Changing(Backend):
    """A backend that jitters, and may become another model, of another width, or fail."""

    def __init__(self, noise=0.0, draws=1, **options):
        """`draws` tells one that jitters from others."""
        super().__init__(**options)
        self.model = "m"
        self.noise = noise
        self.answers_wide = WIDTH
        self.states = ()
        self._chance = np.random.default_rng(draws)
        self.answer = self._said

    def info(self):
        """See EmbeddingBackend.info."""
        upstreams = [UpstreamInfo(self.name, state) for state in self.states]
        return replace(ModelInfo(), upstreams=upstreams)

    def _said(self, texts):
        raw = true(self.model, texts, self.answers_wide)
        return replace(raw, rows=list(map(self._jittered, raw.rows)))

    def _jittered(self, row):
        spread = self.noise * np.linalg.norm(row)
        return row + (spread * self._chance.standard_normal(len(row))).astype(np.float32)


class Told:
    """Whoever counts rounds and shows how models stand."""

    def __init__(self):
        self.results = []
        self.awaited = []
        self.models = {}

    def watched(self, model):
        """See gateway.drift.watch.Tells."""
        self.awaited.append(model)

    def checked(self, model, result):
        """See gateway.drift.watch.Tells."""
        self.results.append((model, result))

    def stand(self, models):
        """See gateway.drift.watch.Tells."""
        self.models = dict(models)


class Watching:
    """One process that watches the model `m` of a Line."""

    def __init__(self, backend=None, stores=(), *, every=EVERY, delay=DELAY, clock=None, **model):
        self.time = 1_000_000.0 if clock is None else clock
        self.backend = Changing() if backend is None else backend
        self.line = Line(
            self.backend,
            stores=stores,
            now=lambda: self.time,
            on_computed=lambda route, *_: self.drift.used(route),
            **model,
        )
        self.told = Told()
        self.times = Times(every, delay)
        self.logged = structlog.testing.LogCapture()
        self.drift = self.another()

    def another(self, **times):
        """Return what watches the same models by another config."""
        return Drift(
            self.line.routes,
            Canaries(self.line.embeddings),
            self.line.cache,
            Times(**times) if times else self.times,
            tells=self.told,
            log=structlog.wrap_logger(None, processors=[self.logged]),
            clock=lambda: self.time,
            now=lambda: self.time,
            chance=lambda: 0.0,
        )

    @property
    def route(self):
        """The route of the model."""
        return self.line.routes.embedding("m", ASKER)

    @property
    def check(self):
        """What is known of it here."""
        return last_check(self.route)

    @property
    def results(self):
        """The results of all rounds so far."""
        return [result for _, result in self.told.results]

    @property
    def events(self):
        """What was logged so far."""
        return [entry["event"] for entry in self.logged.entries]

    async def after(self, seconds):
        """Let so many seconds pass, and then ask whoever is due; return how many calls it took."""
        before = len(self.backend.calls)
        self.time += seconds
        await self.drift.turn()
        return len(self.backend.calls) - before

    async def first(self):
        """Meet the stores, and have the first round."""
        await self.line.cache.meet()
        await self.after(0)
        return await self.after(DELAY)


def only_canaries(backend):
    """Whether a backend was never asked for anything else."""
    return all(set(texts) <= set(TEXTS) for texts in backend.calls)


def tenant(name):
    """Return somebody of a tenant."""
    return Caller(name, name)


async def meet(*replicas):
    """Let all know what all know."""
    for _ in range(2):
        for each in replicas:
            await each.line.cache.meet()


def purge(shelf, watching, caller):
    """Raise a tenant's generation in the store, as `gateway cache purge` does."""
    name = PREFIX + watching.route.place(caller).scope.id
    fact = read_fact(shelf.said[name])
    shelf.said[name] = write_fact(fact.at_least(fact.generation + 1))


def learn(watching, scope, **changes):
    """Have a process know this of a scope."""
    fact = write_fact(msgspec.structs.replace(scope.fact, **changes))
    watching.line.cache.learn({PREFIX + scope.id: fact})
