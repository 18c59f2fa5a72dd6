"""The composition root: a Config becomes a running application. Only this file knows every name."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.answers import Answers
from gateway.backends.base import EmbeddingBackend
from gateway.backends.local import EngineStatus, LocalBackend
from gateway.backends.transport import Transport, TransportSettings, open_transport
from gateway.cache.flight import Flights
from gateway.cache.memory import MemoryStore
from gateway.cache.scopes import Scopes
from gateway.cache.seal import can_seal
from gateway.cache.tiered import TieredCache
from gateway.catalog import Catalog
from gateway.chat import Chat
from gateway.chat_calls import Calls
from gateway.config import Cache, Config, Key
from gateway.embeddings import Embeddings
from gateway.endpoints import (
    ChatEndpoint,
    EmbeddingsEndpoint,
    HealthEndpoints,
    ModelEndpoints,
    root,
)
from gateway.keyring import Keyring
from gateway.metrics import CONTENT_TYPE, Metrics
from gateway.middleware import RequestEdge
from gateway.models import models_of, open_backend
from gateway.observed import ObservedEmbeddings, ObservedStore, ObservedTransport
from gateway.observed_chat import ObservedCalls, ObservedChat
from gateway.recording import Recordings
from gateway.routing import RoutingTable
from gateway.stores import CacheSecret, keep_secret, open_stores, own_secret
from gateway.tokens import Cl100k
from gateway.types import Caller

_SEED_BITS = 53
"""Of the seeds that we draw: what JavaScript's numbers hold exactly."""
SCRAPE_PATIENCE = 0.5
"""Seconds that a scrape waits for an engine's figures."""

OpenTransport = Callable[[TransportSettings], Transport]


@dataclass(frozen=True, slots=True)
class Gateway:
    """What `create_app` made: the application, and the admin listener's where there is one."""

    app: ASGIApp
    admin: ASGIApp | None
    catalog: Catalog
    engines: Callable[[], Mapping[str, EngineStatus]]
    """The state of every local model's engine, by upstream."""


def create_app(  # noqa: PLR0913 - the seams of a whole application
    config: Config,
    directory: Path,
    log: structlog.stdlib.BoundLogger,
    *,
    open_transport: OpenTransport = open_transport,
    secret: CacheSecret | None = None,
    clock: Callable[[], float] = time.monotonic,
    registry: CollectorRegistry | None = None,
    metrics_directory: str | None = None,
    draining: Callable[[], bool] = lambda: False,
) -> Gateway:
    """Put everything together. `directory` holds the sockets of the engines (see EngineKeeper).

    With several workers `metrics_directory` is where prometheus-client keeps their values, and
    `secret` what all of them name vectors with. Raises OSError or GGUFError for a model file that
    cannot be read, ConfigError for a secret.
    """
    # Long, because it is the one list of what is plugged into what; parted, the order would hide.
    # The routes need the backends, whose transports are counted: the label is asked for later.
    metrics = Metrics(registry or CollectorRegistry(), lambda name: routes.label(name))  # noqa: PLW0108

    def connect(name: str, settings: TransportSettings) -> Transport:
        return ObservedTransport(open_transport(settings), metrics, name, clock)

    backends = {
        name: open_backend(name, upstream, directory, connect, chat=config.chats(name))
        for name, upstream in config.upstreams.items()
    }
    cache = _open_cache(config.cache, secret or own_secret(config.cache), metrics, clock, log)
    routes = RoutingTable(models_of(config, backends), Cl100k(), cache.scopes)
    embeddings = ObservedEmbeddings(
        Embeddings(routes, cache, Flights(), on_computed=metrics.computed), metrics
    )
    chat = ObservedChat(
        Chat(
            routes,
            _answers(cache),
            Recordings(),
            Calls(
                silence=config.server.chat_timeout, on_made=ObservedCalls(metrics.chats, log).made
            ),
            draw_seed=partial(secrets.randbits, _SEED_BITS),
        ),
        metrics.chats,
        clock,
    )
    keyring = Keyring([(key.secret.sha256, _caller(key)) for key in config.keys])
    catalog = Catalog(routes, clock)
    engines = {} if config.server.offline else _local(backends)

    def states() -> Mapping[str, EngineStatus]:
        return {name: engine.status() for name, engine in engines.items()}

    async def scrape(request: Request) -> Response:
        if config.server.admin is None:
            keyring.admin(request.scope["headers"])
        figures = await asyncio.gather(*(e.health(SCRAPE_PATIENCE) for e in engines.values()))
        restarts = {name: status.restarts for name, status in states().items()}
        metrics.engines(dict(zip(engines, figures, strict=True)), restarts)
        await metrics.cache(cache)
        return Response(metrics.page(metrics_directory), media_type=CONTENT_TYPE)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await cache.meet()
        beside = [cache.watch(), *([metrics.keep_up(cache)] if metrics_directory else [])]
        tasks = list(map(asyncio.create_task, beside))
        yield
        await asyncio.gather(*(backend.aclose() for backend in backends.values()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await cache.aclose()

    def finished(routes: Sequence[Route], lifespan: Any = None) -> ASGIApp:
        # A bare Router: RequestEdge renders every error, so that Starlette's two middlewares, which
        # would cost a cached answer a fifth of its time, have nothing to do.
        router = Router(routes=routes, lifespan=lifespan, redirect_slashes=False)
        return RequestEdge(
            straight(router, routes),
            operations=_OPERATIONS,
            observe=metrics.request,
            clock=clock,
            log=log,
        )

    embed = EmbeddingsEndpoint(
        embeddings,
        keyring,
        max_body=config.server.max_body,
        request_timeout=config.server.request_timeout,
    )
    talk = ChatEndpoint(
        chat,
        keyring,
        max_body=config.server.max_body,
        chat_timeout=config.server.chat_timeout,
    )
    health = HealthEndpoints(states, draining)
    operations = [
        Route("/health/live", health.live, methods=["GET"]),
        Route("/health/ready", health.ready, methods=["GET"]),
    ]
    scraped = Route("/metrics", scrape, methods=["GET"])
    public = [*_api(embed, talk, ModelEndpoints(catalog, keyring)), *operations]
    if config.server.admin is None:
        return Gateway(finished([*public, scraped], lifespan), None, catalog, states)
    return Gateway(finished(public, lifespan), finished([*operations, scraped]), catalog, states)


def _open_cache(
    settings: Cache,
    secret: CacheSecret,
    metrics: Metrics,
    clock: Callable[[], float],
    log: structlog.stdlib.BoundLogger,
) -> TieredCache:
    return TieredCache(
        MemoryStore(settings.memory),
        [ObservedStore(store, metrics, clock) for store in open_stores(settings, log)],
        Scopes(secret.value),
        log=log,
        ttl=settings.ttl,
        shares_secret=secret.shared,
        on_corrupt=metrics.corrupt,
        on_begun_anew=partial(keep_secret, settings),
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
        if isinstance(route.endpoint, EmbeddingsEndpoint | ChatEndpoint)
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
    yield Route("/", root, methods=["GET"])


def _local(backends: Mapping[str, EmbeddingBackend]) -> Mapping[str, LocalBackend]:
    return {name: b for name, b in backends.items() if isinstance(b, LocalBackend)}


def _caller(key: Key) -> Caller:
    return Caller(key.name, key.tenant, key.models, key.admin)


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
