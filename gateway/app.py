"""The composition root: a Config becomes a running application. Only this file knows every name."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import random
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from gateway.backends.base import EmbeddingBackend
from gateway.backends.local import EngineStatus, LocalBackend
from gateway.backends.openai import Endpoint, OpenAIBackend
from gateway.backends.transport import Transport, TransportSettings, open_transport
from gateway.cache.flight import Flights
from gateway.cache.memory import MemoryStore
from gateway.catalog import Catalog
from gateway.config import Config, Key, LlamaUpstream, Model, OpenAIUpstream
from gateway.embeddings import Embeddings
from gateway.endpoints import (
    EmbeddingsEndpoint,
    HealthEndpoints,
    ModelEndpoints,
    root,
)
from gateway.engines import engine_paths
from gateway.gguf import describe, sha256_file
from gateway.keyring import Keyring
from gateway.metrics import CONTENT_TYPE, Metrics, ObservedEmbeddings, ObservedTransport
from gateway.middleware import RequestEdge
from gateway.resilience.retry import RetryPolicy
from gateway.route import ChatModel, EmbeddingModel
from gateway.routing import RoutingTable
from gateway.tokens import Cl100k
from gateway.types import Caller, ModelInfo

MAX_ANSWER = 256 * 2**20
"""Bytes of one upstream answer, decoded: 2,048 vectors of 4,096 numbers as JSON text fit."""

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


def create_app(
    config: Config,
    directory: Path,
    log: structlog.stdlib.BoundLogger,
    *,
    open_transport: OpenTransport = open_transport,
    clock: Callable[[], float] = time.monotonic,
    registry: CollectorRegistry | None = None,
    metrics_directory: str | None = None,
    draining: Callable[[], bool] = lambda: False,
) -> Gateway:
    """Put everything together. `directory` holds the sockets of the engines (see EngineKeeper).

    With several workers `metrics_directory` is where prometheus-client keeps their values.
    Raises OSError or GGUFError for a model file that cannot be read.
    """
    # Long, because it is the one list of what is plugged into what; parted, the order would hide.
    # The routes need the backends, whose transports are counted: the label is asked for later.
    metrics = Metrics(registry or CollectorRegistry(), lambda name: routes.label(name))  # noqa: PLW0108

    def connect(name: str, settings: TransportSettings) -> Transport:
        return ObservedTransport(open_transport(settings), metrics, name, clock)

    backends = {
        name: _open_backend(name, upstream, directory, connect)
        for name, upstream in config.upstreams.items()
    }
    models = [_model(name, model, config, backends) for name, model in config.models.items()]
    routes = RoutingTable(models, Cl100k(), secret=os.urandom(32))
    memory = MemoryStore(config.cache.memory)
    embeddings = ObservedEmbeddings(Embeddings(routes, memory, Flights()), metrics)
    keyring = Keyring([(key.secret.sha256, _caller(key)) for key in config.keys])
    catalog = Catalog(routes, clock)
    engines = {name: b for name, b in backends.items() if isinstance(b, LocalBackend)}

    def states() -> Mapping[str, EngineStatus]:
        return {name: engine.status() for name, engine in engines.items()}

    async def scrape(request: Request) -> Response:
        if config.server.admin is None:
            keyring.admin(request.scope["headers"])
        figures = await asyncio.gather(*(e.health(SCRAPE_PATIENCE) for e in engines.values()))
        restarts = {name: status.restarts for name, status in states().items()}
        metrics.engines(dict(zip(engines, figures, strict=True)), restarts)
        metrics.memory(memory)
        return Response(metrics.page(metrics_directory), media_type=CONTENT_TYPE)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        for backend in backends.values():
            await backend.aclose()

    def finished(routes: Sequence[Route], lifespan: Any = None) -> ASGIApp:
        # A bare Router: RequestEdge renders every error, so that Starlette's two middlewares, which
        # would cost a cached answer a fifth of its time, have nothing to do.
        router = Router(routes=routes, lifespan=lifespan, redirect_slashes=False)
        return RequestEdge(
            router, operations=_OPERATIONS, observe=metrics.request, clock=clock, log=log
        )

    embed = EmbeddingsEndpoint(
        embeddings,
        keyring,
        max_body=config.server.max_body,
        request_timeout=config.server.request_timeout,
    )
    health = HealthEndpoints(states, draining)
    operations = [
        Route("/health/live", health.live, methods=["GET"]),
        Route("/health/ready", health.ready, methods=["GET"]),
    ]
    scraped = Route("/metrics", scrape, methods=["GET"])
    public = [*_api(embed, ModelEndpoints(catalog, keyring)), *operations]
    if config.server.admin is None:
        return Gateway(finished([*public, scraped], lifespan), None, catalog, states)
    return Gateway(finished(public, lifespan), finished([*operations, scraped]), catalog, states)


def _api(embed: EmbeddingsEndpoint, models: ModelEndpoints) -> Iterator[Route]:
    """Yield OpenAI's paths, each also without /v1, as some clients leave it out."""
    for prefix in ("/v1", ""):
        yield Route(f"{prefix}/embeddings", embed, methods=["POST"])
        yield Route(f"{prefix}/models", models.all, methods=["GET"])
        yield Route(f"{prefix}/models/{{id:path}}", models.one, methods=["GET"])
    yield Route("/", root, methods=["GET"])


def _open_backend(
    name: str,
    upstream: OpenAIUpstream | LlamaUpstream,
    directory: Path,
    connect: Callable[[str, TransportSettings], Transport],
) -> EmbeddingBackend:
    if isinstance(upstream, OpenAIUpstream):
        settings = TransportSettings(
            connect_timeout=upstream.connect_timeout,
            pool=upstream.concurrency,
            max_answer=MAX_ANSWER,
            proxy=upstream.proxy.reveal() if upstream.proxy else None,
            ca_file=upstream.ca_file,
            uds=None,
        )
        return OpenAIBackend(name, _endpoint(upstream), connect(name, settings), _retry())
    socket, status = engine_paths(directory, name)
    settings = TransportSettings(
        connect_timeout=60.0,
        pool=upstream.concurrency,
        max_answer=MAX_ANSWER,
        proxy=None,
        ca_file=None,
        uds=str(socket),
    )
    return LocalBackend(
        name,
        connect(name, settings),
        RetryPolicy(chance=random, attempts=None, base=0.02, cap=0.25),
        model_info(upstream),
        status,
        contexts=upstream.contexts or cores(),
        concurrency=upstream.concurrency,
        max_queue=upstream.max_queue,
    )


def _retry() -> RetryPolicy:
    return RetryPolicy(chance=random)


def _endpoint(upstream: OpenAIUpstream) -> Endpoint:
    return Endpoint(
        base_url=upstream.base_url,
        api_key=upstream.api_key.reveal() if upstream.api_key else None,
        auth_header=upstream.auth_header,
        headers={name: value.reveal() for name, value in upstream.headers.items()},
        query={name: value.reveal() for name, value in upstream.query.items()},
        encoding=None if upstream.encoding == "none" else upstream.encoding,
        by_position=upstream.order == "position",
        timeout=upstream.timeout,
        max_batch=upstream.max_batch,
        concurrency=upstream.concurrency,
    )


def _model(
    name: str, model: Model, config: Config, backends: Mapping[str, EmbeddingBackend]
) -> EmbeddingModel | ChatModel:
    served_by = model.upstreams[0]
    if model.task == "chat":
        return ChatModel(name, served_by)
    upstream = config.upstreams[served_by]
    local = isinstance(upstream, LlamaUpstream)
    return EmbeddingModel(
        name=name,
        backend=backends[served_by],
        identity=_identity(model, upstream),
        named=not local and model.space is None,
        upstream_model=model.upstream_model,
        aliases=model.aliases,
        dimensions=model.dimensions_for(name),
        by_name=lambda fitting: {
            "dimensions": model.dimensions_for(fitting),
            "token_ids": model.token_ids_for(fitting, local=local),
        },
        prefix=model.prefix or "",
        truncate=model.truncate,
        token_ids=model.token_ids_for(name, local=local),
        max_tokens=model.max_tokens,
        count=model.tokenizer is not None,
        forward=model.forward,
        local=local,
    )


def _identity(model: Model, upstream: OpenAIUpstream | LlamaUpstream) -> str:
    """Name the vector space, so that a config that points elsewhere never meets old vectors."""
    if model.space is not None:
        return f"space\n{model.space}"
    if isinstance(upstream, OpenAIUpstream):
        query = sorted((name, value.reveal()) for name, value in upstream.query.items())
        return f"openai\n{upstream.base_url}\n{query}"
    pooling = model_info(upstream).pooling
    cut = f"cut at {upstream.n_ctx}" if model.truncate else "whole"
    return f"gguf\n{sha256_file(upstream.model)}\n{pooling}\n{cut}"


def model_info(upstream: LlamaUpstream) -> ModelInfo:
    """Return what the GGUF's header and the config say of a local model."""
    header = describe(upstream.model)
    trained = header.context_train
    context = min(trained, upstream.n_ctx) if trained and upstream.n_ctx else trained
    return ModelInfo(header.width, context, upstream.pooling or header.pooling)


def cores() -> int:
    """Return the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _caller(key: Key) -> Caller:
    return Caller(key.name, key.tenant, key.models, key.admin)


_OPERATIONS = {
    "/v1/embeddings": "embeddings",
    "/embeddings": "embeddings",
    "/v1/models": "models",
    "/models": "models",
    "/metrics": "metrics",
    "/health/live": "health",
    "/health/ready": "health",
}
