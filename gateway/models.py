"""What a config says of upstreams and models becomes what the gateway works with."""

import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from random import random
from typing import Protocol

from gateway.backends.base import ChatBackend, EmbeddingBackend
from gateway.backends.local import LocalBackend
from gateway.backends.openai import Endpoint, OpenAIBackend
from gateway.backends.transport import Transport, TransportSettings
from gateway.chat_route import ChatModel
from gateway.config import Config, LlamaUpstream, Model, ModelFiles, OpenAIUpstream
from gateway.engines import engine_paths
from gateway.gguf import describe, sha256_file
from gateway.resilience.retry import RetryPolicy
from gateway.route import EmbeddingModel
from gateway.types import ModelInfo

MAX_ANSWER = 256 * 2**20
"""Bytes of one upstream answer, decoded: 2,048 vectors of 4,096 numbers as JSON text fit."""


class Backend(EmbeddingBackend, ChatBackend, Protocol):
    """An upstream that embeds and chats; an engine does the one that its model is for."""


def open_backend(
    name: str,
    upstream: OpenAIUpstream | LlamaUpstream,
    directory: Path,
    connect: Callable[[str, TransportSettings], Transport],
    *,
    chat: bool = False,
) -> Backend:
    """Return who asks this upstream; `directory` holds the sockets of the engines.

    `chat` says which of the two the engine of a llama upstream does.
    """
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
        model_info(upstream, chat=chat),
        status,
        contexts=upstream.contexts_for(chat=chat) or cores(),
        concurrency=upstream.concurrency,
        max_queue=upstream.max_queue_for(chat=chat),
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


def models_of(config: Config, backends: Mapping[str, Backend]) -> list[EmbeddingModel | ChatModel]:
    """Return what the config says of its models, as the routes want it, in its order.

    A model that does both stands there twice. Raises OSError or GGUFError for a model file that
    cannot be read.
    """
    models: list[EmbeddingModel | ChatModel] = []
    for name, model in config.models.items():
        upstream = config.upstreams[model.upstreams[0]]
        if model.task != "chat":
            models.append(_embedding_model(name, model, config, backends))
        if model.task == "chat" or (model.task is None and isinstance(upstream, OpenAIUpstream)):
            models.append(_chat_model(name, model, config, backends))
    return models


def _embedding_model(
    name: str, model: Model, config: Config, backends: Mapping[str, Backend]
) -> EmbeddingModel:
    served_by = model.upstreams[0]
    local = isinstance(config.upstreams[served_by], LlamaUpstream)
    return EmbeddingModel(
        name=name,
        backend=backends[served_by],
        identity=_space(model, config),
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
        cached=model.cache_for("embedding") == "always",
        offline=model.offline or config.server.offline,
        price=model.price_for(name, local=local),
    )


def _chat_model(
    name: str, model: Model, config: Config, backends: Mapping[str, Backend]
) -> ChatModel:
    served_by = model.upstreams[0]
    local = isinstance(config.upstreams[served_by], LlamaUpstream)
    price = model.chat_price(local=local)
    return ChatModel(
        name=name,
        backend=backends[served_by],
        identity=_speaker(served_by, config),
        named=not local,
        upstream_model=model.upstream_model,
        aliases=tuple(model.aliases),
        local=local,
        cache=model.cache_for("chat"),
        offline=model.offline or config.server.offline,
        price_in=price.input if price else None,
        price_out=price.output if price else None,
    )


def _space(model: Model, config: Config) -> str:
    """Name the vector space, so that a config that points elsewhere never meets old vectors."""
    served_by = model.upstreams[0]
    upstream = config.upstreams[served_by]
    if model.space is not None:
        return f"space\n{model.space}"
    if isinstance(upstream, OpenAIUpstream):
        return _address(upstream)
    pooling = model_info(upstream).pooling
    cut = f"cut at {upstream.n_ctx}" if model.truncate else "whole"
    return f"gguf\n{_files(served_by, upstream, config).sha256}\n{pooling}\n{cut}"


def _speaker(served_by: str, config: Config) -> str:
    """Name what answers a chat: for a local model, whatever changes what it is asked."""
    upstream = config.upstreams[served_by]
    if isinstance(upstream, OpenAIUpstream):
        return f"chat\n{_address(upstream)}"
    files = _files(served_by, upstream, config)
    template = "own" if files.chat_template is None else _digest(files.chat_template)
    return f"chat\ngguf\n{files.sha256}\n{template}\n{upstream.n_ctx or 'own'}"


def _address(upstream: OpenAIUpstream) -> str:
    query = sorted((name, value.reveal()) for name, value in upstream.query.items())
    return f"openai\n{upstream.base_url}\n{query}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _files(name: str, upstream: LlamaUpstream, config: Config) -> ModelFiles:
    return config.files.get(name) or read_files(upstream)


def read_files(upstream: LlamaUpstream) -> ModelFiles:
    """Return what names the answers of a local model; all of its file is read, which takes seconds.

    Raises OSError, or ValueError for a template that is no text.
    """
    template = upstream.chat_template
    return ModelFiles(
        sha256=sha256_file(upstream.model),
        chat_template=None if template is None else template.read_text("utf-8"),
    )


def model_info(upstream: LlamaUpstream, *, chat: bool = False) -> ModelInfo:
    """Return what the GGUF's header and the config say of a local model, for one of the tasks."""
    header = describe(upstream.model)
    context = upstream.context_for(header.context_train, chat=chat)
    if chat:
        return ModelInfo(context=context)
    return ModelInfo(header.width, context, upstream.pooling or header.pooling)


def cores() -> int:
    """Return the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
