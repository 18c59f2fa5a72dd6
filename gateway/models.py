"""What a config says of upstreams and models becomes what the gateway works with."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from random import random

from gateway.backends.base import EmbeddingBackend
from gateway.backends.local import LocalBackend
from gateway.backends.openai import Endpoint, OpenAIBackend
from gateway.backends.transport import Transport, TransportSettings
from gateway.config import Config, LlamaUpstream, Model, OpenAIUpstream
from gateway.engines import engine_paths
from gateway.gguf import describe, sha256_file
from gateway.resilience.retry import RetryPolicy
from gateway.route import ChatModel, EmbeddingModel
from gateway.types import ModelInfo

MAX_ANSWER = 256 * 2**20
"""Bytes of one upstream answer, decoded: 2,048 vectors of 4,096 numbers as JSON text fit."""


def open_backend(
    name: str,
    upstream: OpenAIUpstream | LlamaUpstream,
    directory: Path,
    connect: Callable[[str, TransportSettings], Transport],
) -> EmbeddingBackend:
    """Return who asks this upstream; `directory` holds the sockets of the engines."""
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


def model_of(
    name: str, model: Model, config: Config, backends: Mapping[str, EmbeddingBackend]
) -> EmbeddingModel | ChatModel:
    """Return what the config says of a model, as the routes want it.

    Raises OSError or GGUFError for a model file that cannot be read.
    """
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
            "price": model.price_for(fitting, local=local),
        },
        prefix=model.prefix or "",
        truncate=model.truncate,
        token_ids=model.token_ids_for(name, local=local),
        max_tokens=model.max_tokens,
        count=model.tokenizer is not None,
        forward=model.forward,
        local=local,
        cached=model.cache == "always",
        offline=model.offline or config.server.offline,
        price=model.price_for(name, local=local),
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
