"""The composition root: a Config becomes an application. Only this file knows every name."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

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
from gateway.edge.bodies import Bodies
from gateway.edge.endpoints import (
    ChatEndpoint,
    EmbeddingsEndpoint,
    HealthEndpoints,
    ModelEndpoints,
    PostEndpoint,
    root,
)
from gateway.edge.middleware import RequestEdge
from gateway.edge.origins import Origins
from gateway.embeddings import Embeddings
from gateway.foundation import Foundation
from gateway.keyring import Keyring
from gateway.metrics.collectors import CONTENT_TYPE
from gateway.metrics.observed import ObservedEmbeddings
from gateway.metrics.observed_chat import ObservedCalls, ObservedChat
from gateway.metrics.observed_upstreams import ObservedUpstreams
from gateway.models import models_of, open_backend
from gateway.routing import RoutingTable
from gateway.spaces.members import Servers
from gateway.spaces.space import Spaces
from gateway.types import Account, Caller

_SEED_BITS = 53
"""Of the seeds that we draw: what JavaScript's numbers hold exactly."""
SCRAPE_PATIENCE = 0.5
"""Seconds that a scrape waits for an engine's figures."""


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
        self.spaces = Spaces(cache, log=log, clock=clock)
        servers = Servers(config, self.backends, self.spaces, metrics.upstreams.failed_over)
        self.upstreams = ObservedUpstreams(self.backends, self.spaces, metrics.upstreams, log)
        if before is not None:
            self.spaces.adopt(before.spaces)
            self.upstreams.adopt(before.upstreams)
        self._beside: list[asyncio.Task[None]] = []
        self._routes = RoutingTable(models_of(config, servers), foundation.cl100k, cache.scopes)
        self._flights = Flights()
        self._recordings = Recordings()
        embeddings = ObservedEmbeddings(
            Embeddings(self._routes, cache, self._flights, on_computed=metrics.computed), metrics
        )
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
            embeddings,
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
        scraped = Route("/metrics", self._scrape, methods=["GET"])
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
        self.foundation.label = self._routes.label
        beside = (self.upstreams.watch(), self.spaces.watch())
        self._beside = list(map(asyncio.create_task, beside))

    def step_down(self) -> None:
        """Leave it to another to tell of upstreams: two of one name would contradict each other."""
        for task in self._beside[:1]:
            task.cancel()

    async def aclose(self, others: Sequence["Gateway"] = ()) -> None:
        """Close the backends that no other gateway uses; after the last request."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self.spaces.aclose()
        used = {id(backend) for other in others for backend in other.backends.values()}
        own = [backend for backend in self.backends.values() if id(backend) not in used]
        await asyncio.gather(*(backend.aclose() for backend in own))

    async def _scrape(self, request: Request) -> Response:
        if self.config.server.admin is None:
            self._keyring.admin(request.scope["headers"])
        engines, metrics = self._engines, self.foundation.metrics
        figures = await asyncio.gather(*(e.health(SCRAPE_PATIENCE) for e in engines.values()))
        restarts = {name: status.restarts for name, status in self.engines().items()}
        metrics.engines(dict(zip(engines, figures, strict=True)), restarts)
        self.upstreams.look()
        await metrics.cache(self.foundation.cache)
        page = metrics.page(self.foundation.metrics_directory)
        return Response(page, media_type=CONTENT_TYPE)

    def _finished(self, routes: Sequence[Route], *, keyless: bool) -> ASGIApp:
        # A bare Router: RequestEdge renders every error, so that Starlette's two middlewares, which
        # would cost a cached answer a fifth of its time, have nothing to do.
        return RequestEdge(
            straight(Router(routes=routes, redirect_slashes=False), routes),
            operations=_OPERATIONS,
            observe=self.foundation.metrics.request,
            clock=self.foundation.clock,
            log=self.foundation.log,
            origins=Origins(self.config.server.hosts, self.config.server.origins, keyless=keyless),
            refused=self.foundation.metrics.refused,
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


def straight(router: ASGIApp, routes: Sequence[Route]) -> ASGIApp:
    """Return the router, but for applications among its routes that take a POST: straight to them.

    Going through the patterns of all routes costs a tenth of a cached answer.
    """
    posted = {
        ("POST", route.path): route.endpoint
        for route in routes
        if isinstance(route.endpoint, PostEndpoint)
    }

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        app = posted.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (app or router)(scope, receive, send)

    return dispatch


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


_OPERATIONS = {
    "/v1/embeddings": "embeddings",
    "/embeddings": "embeddings",
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/v1/models": "models",
    "/models": "models",
    "/metrics": "metrics",
    "/health/live": "health",
    "/health/ready": "health",
}
