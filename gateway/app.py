"""The composition root: a Config becomes an application. Only this file knows every name."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from starlette.requests import Request
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from gateway.backends.local import EngineStatus, LocalBackend
from gateway.backends.member import Backend
from gateway.cache.flight import Flights
from gateway.cache.seal import can_seal
from gateway.cache.tiered import TieredCache
from gateway.catalog import Catalog
from gateway.chat.answers import Answers
from gateway.chat.calls import Calls
from gateway.chat.line import Chat
from gateway.chat.recording import Recordings
from gateway.config import Config, Key
from gateway.console import routes as console
from gateway.drift.asking import Canaries
from gateway.drift.knowledge import refuse_drifted
from gateway.drift.schedule import Times
from gateway.drift.watch import Drift
from gateway.edge.bodies import Bodies
from gateway.edge.endpoints import (
    ChatEndpoint,
    EmbeddingsEndpoint,
    HealthEndpoints,
    ModelEndpoints,
    root,
)
from gateway.edge.middleware import RequestEdge
from gateway.edge.origins import Origins
from gateway.edge.paths import OPERATIONS, operation, straight
from gateway.embeddings import Embeddings
from gateway.foundation import Foundation
from gateway.keyring import Keyring
from gateway.metrics.observed_chat import ObservedCalls, ObservedChat
from gateway.metrics.observed_upstreams import ObservedUpstreams
from gateway.metrics.scrape import Scrape
from gateway.models import models_of, open_backend
from gateway.route import Route as EmbeddingRoute
from gateway.routing import RoutingTable
from gateway.spaces.members import Servers
from gateway.spaces.space import Spaces
from gateway.types import Account, Caller

_SEED_BITS = 53
"""Of the seeds that we draw: what JavaScript's numbers hold exactly."""


class Gateway:
    """What one config makes. It stands on a Foundation, which other configs may share.

    Backends of upstreams that are as they were in `before` are the same ones: their connections,
    and what is known of their health, outlive a reload.
    """

    def __init__(
        self, config: Config, foundation: Foundation, before: "Gateway | None" = None
    ) -> None:
        """Raises OSError or GGUFError for a model file that cannot be read."""
        # Long, because it is the one list of what is plugged into what; parted, the order would
        # hide.
        metrics, cache, clock, log = (
            foundation.metrics,
            foundation.cache,
            foundation.clock,
            foundation.log,
        )
        self.config = config
        self.running = 0
        """Requests that are answered by this config now; counted by the Door."""
        self.backends = _backends(config, foundation, before)
        self.foundation = foundation
        self.spaces = Spaces(cache, log=log, clock=clock, on_refused=metrics.vectors.refused)
        servers = Servers(config, self.backends, self.spaces, metrics.upstreams.failed_over)
        self.upstreams = ObservedUpstreams(self.backends, self.spaces, metrics.upstreams, log)
        if before is not None:
            self.spaces.adopt(before.spaces)
            self.upstreams.adopt(before.upstreams)
        self._telling: list[asyncio.Task[None]] = []
        self._beside: list[asyncio.Task[None]] = []
        self._routes = RoutingTable(models_of(config, servers), foundation.cl100k, cache.scopes)
        self._flights = Flights()
        self._recordings = Recordings()
        line = Embeddings(
            self._routes,
            cache,
            self._flights,
            on_computed=self._computed,
            on_refused=metrics.vectors.refused,
            clock=clock,
            may_ask=refuse_drifted,
        )
        self.drift = Drift(
            self._routes,
            Canaries(line),
            cache,
            Times(config.server.drift_every, config.server.drift_delay),
            tells=metrics.drift,
            log=log,
            clock=clock,
        )
        if before is not None:
            self.drift.adopt(before.drift)
        chat = ObservedChat(
            Chat(
                self._routes,
                _answers(cache),
                self._recordings,
                Calls(
                    silence=config.server.chat_timeout,
                    on_made=ObservedCalls(metrics.chats, metrics.keys, log).made,
                ),
                draw_seed=partial(secrets.randbits, _SEED_BITS),
                clock=clock,
            ),
            metrics.chats,
            clock,
        )
        quotas = foundation.quotas
        self._keyring = Keyring(
            [(key.secret.sha256, _caller(key, quotas.account(key))) for key in config.keys],
            forwards=config.forwards_keys,
        )
        self.catalog = Catalog(self._routes, clock)
        self._engines = {} if config.server.offline else _local(self.backends)
        bodies = Bodies(config.server.max_body)
        embed = EmbeddingsEndpoint(
            line,
            self._keyring,
            bodies=bodies,
            request_timeout=config.server.request_timeout,
        )
        talk = ChatEndpoint(
            chat,
            self._keyring,
            bodies=bodies,
            chat_timeout=config.server.chat_timeout,
        )
        health = HealthEndpoints(
            self.engines, foundation.draining, lambda: foundation.change().shown()
        )
        operations = [
            Route("/health/live", health.live, methods=["GET"]),
            Route("/health/ready", health.ready, methods=["GET"]),
        ]
        scrape = Scrape(
            metrics,
            cache,
            self._engines,
            foundation.metrics_directory,
            admit=self._admit,
            look=self.upstreams.look,
        )
        scraped = Route("/metrics", scrape.get, methods=["GET"])
        public = [*_api(embed, talk, ModelEndpoints(self.catalog, self._keyring)), *operations]
        apart = config.server.admin is not None
        self.app = self._finished(public if apart else [*public, scraped], keyless=not config.keys)
        at_admin = [*operations, scraped, *console()]
        self.admin = self._finished(at_admin, keyless=True) if apart else None
        """The admin listener's application, where there is one."""

    @property
    def busy(self) -> bool:
        """Whether a request runs, or what requests began goes on without them."""
        return self.running > 0 or len(self._flights) > 0 or len(self._recordings) > 0

    def engines(self) -> Mapping[str, EngineStatus]:
        """Return the state of every local model's engine, by upstream."""
        return {name: engine.status() for name, engine in self._engines.items()}

    async def start(self) -> None:
        """Become the one whose models' names the metrics know."""
        metrics = self.foundation.metrics
        metrics.flush()
        self.foundation.label = self._routes.label
        metrics.requests.know(OPERATIONS)
        metrics.vectors.know(self.backends)
        telling = [self.upstreams.watch(), self.drift.show()]
        if self.foundation.asks:
            telling.append(self.drift.ask())
        self._telling = list(map(asyncio.create_task, telling))
        self._beside = [asyncio.create_task(self.spaces.watch())]

    def step_down(self) -> None:
        """Leave it to another to tell of upstreams: two of one name would contradict each other."""
        for task in self._telling:
            task.cancel()

    async def aclose(self, others: Sequence["Gateway"] = ()) -> None:
        """Close the backends that no other gateway uses; after the last request."""
        beside = [*self._telling, *self._beside]
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await self.spaces.aclose()
        used = {id(backend) for other in others for backend in other.backends.values()}
        own = [backend for backend in self.backends.values() if id(backend) not in used]
        await asyncio.gather(*(backend.aclose() for backend in own))

    def _computed(self, route: EmbeddingRoute, tokens: int, caller: Caller) -> None:
        self.foundation.metrics.requests.computed(route, tokens, caller)
        self.drift.used(route)

    def _admit(self, request: Request) -> None:
        if self.config.server.admin is None:
            self._keyring.admin(request.scope["headers"])

    def _finished(self, routes: Sequence[Route], *, keyless: bool) -> ASGIApp:
        # A bare Router: RequestEdge renders every error, so that Starlette's two middlewares, which
        # would cost a cached answer a fifth of its time, have nothing to do.
        return RequestEdge(
            straight(Router(routes=routes, redirect_slashes=False), routes),
            operation=operation,
            begun=self.foundation.metrics.requests.begun,
            ended=self.foundation.metrics.requests.ended,
            clock=self.foundation.clock,
            log=self.foundation.log,
            origins=Origins(self.config.server.hosts, self.config.server.origins, keyless=keyless),
            refused=self.foundation.metrics.requests.refused,
        )


def _backends(
    config: Config, foundation: Foundation, before: Gateway | None
) -> Mapping[str, Backend]:
    """Return who asks each upstream: who did so before, where nothing of it has changed."""
    return {
        name: before.backends[name]
        if before is not None and upstream_of(config, name) == upstream_of(before.config, name)
        else open_backend(
            name,
            upstream,
            foundation.directory,
            foundation.connect,
            chat=config.chats(name),
            engine=config.engines.get(name, name),
            seen=foundation.metrics.vectors,
        )
        for name, upstream in config.upstreams.items()
    }


def upstream_of(config: Config, name: str) -> tuple[object, ...]:
    """Return all that decides how an upstream is asked, to be compared with another config's."""
    return (
        config.upstreams.get(name),
        config.chats(name),
        config.files.get(name),
        config.ca_files.get(name),
        config.engines.get(name),
    )


def _answers(cache: TieredCache) -> Answers:
    """Return where chat answers are kept: in the stores only if they can be sealed."""
    sealed = can_seal()
    return Answers(cache if sealed else cache.without_stores(), sealed=sealed)


def _api(embed: EmbeddingsEndpoint, chat: ChatEndpoint, models: ModelEndpoints) -> Iterator[Route]:
    """Yield OpenAI's paths, each also without /v1, as some clients leave it out."""
    for prefix in ("/v1", ""):
        yield Route(f"{prefix}/embeddings", embed, methods=["POST"])
        yield Route(f"{prefix}/chat/completions", chat, methods=["POST"])
        yield Route(f"{prefix}/models", models.all, methods=["GET"])
        yield Route(f"{prefix}/models/{{id:path}}", models.one, methods=["GET"])
    yield from console(root)


def _local(backends: Mapping[str, Backend]) -> Mapping[str, LocalBackend]:
    return {name: b for name, b in backends.items() if isinstance(b, LocalBackend)}


def _caller(key: Key, account: Account | None) -> Caller:
    return Caller(key.name, key.tenant, key.models, key.admin, account)
