"""What a config says of upstreams and models becomes what the gateway works with."""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import random

from gateway.backends.local import ADDRESS, PART_TEXTS, LocalBackend
from gateway.backends.member import Backend
from gateway.backends.openai import Endpoint, OpenAIBackend, SeesVectors
from gateway.backends.transport import Transport, TransportSettings
from gateway.chat_route import ChatModel
from gateway.config import Config, LlamaUpstream, Model, ModelFiles, OpenAIUpstream, is_pattern
from gateway.engines import engine_paths
from gateway.gguf import describe, sha256_file
from gateway.resilience.retry import RetryPolicy
from gateway.route import EmbeddingModel
from gateway.spaces.members import Servers
from gateway.types import ModelInfo

MAX_ANSWER = 256 * 2**20
"""Bytes of one upstream answer, decoded: 2,048 vectors of 4,096 numbers as JSON text fit."""


def open_backend(
    name: str,
    upstream: OpenAIUpstream | LlamaUpstream,
    directory: Path,
    connect: Callable[[str, TransportSettings], Transport],
    *,
    chat: bool = False,
    engine: str = "",
    seen: SeesVectors | None = None,
) -> Backend:
    """Return who asks this upstream; `directory` holds the sockets of the engines.

    `chat` says which of the two the engine of a llama upstream does, `engine` what it is called
    where that is not as the upstream, `seen` is told of its vectors.
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
        return OpenAIBackend(
            name, _endpoint(upstream), connect(name, settings), _retry(), seen=seen
        )
    contexts = upstream.contexts_for(chat=chat) or cores()
    endpoint = engine_endpoint(upstream, contexts, chat=chat)
    socket, status = engine_paths(directory, engine or name)
    settings = TransportSettings(
        connect_timeout=60.0,
        pool=endpoint.concurrency + 1,  # for its health, which has no place
        max_answer=MAX_ANSWER,
        proxy=None,
        ca_file=None,
        uds=str(socket),
    )
    return LocalBackend(
        name,
        endpoint,
        connect(name, settings),
        RetryPolicy(chance=random, attempts=None, base=0.02, cap=0.25),
        model_info(upstream, chat=chat),
        status,
        contexts=contexts,
        seen=seen,
    )


def _retry() -> RetryPolicy:
    return RetryPolicy(chance=random)


def _endpoint(upstream: OpenAIUpstream) -> Endpoint:
    return Endpoint(
        base_url=upstream.base_url,
        api_key=upstream.api_key.reveal() if upstream.api_key else None,
        auth_header=upstream.auth_header,
        forward_key=upstream.forward_key,
        headers={name: value.reveal() for name, value in upstream.headers.items()},
        query={name: value.reveal() for name, value in upstream.query.items()},
        encoding=None if upstream.encoding == "none" else upstream.encoding,
        by_position=upstream.order == "position",
        timeout=upstream.timeout,
        max_batch=upstream.max_batch,
        concurrency=upstream.concurrency,
        max_queue=upstream.max_queue,
        max_queue_per_key=upstream.max_queue_per_key or max(1, upstream.max_queue // 2),
    )


def engine_endpoint(upstream: LlamaUpstream, contexts: int, *, chat: bool) -> Endpoint:
    """Return how an engine is called: never with more than its own queue takes."""
    waiting = upstream.max_queue_for(chat=chat)
    part = 1 if chat else min(PART_TEXTS, waiting)
    calls = waiting // part
    return Endpoint(
        ADDRESS,
        timeout=3600.0,
        max_batch=part,
        concurrency=min(
            upstream.concurrency_for(contexts, chat=chat), calls + contexts if chat else calls
        ),
        max_queue=calls,
        max_queue_per_key=upstream.max_queue_per_key or max(1, calls // 2),
    )


def models_of(config: Config, servers: Servers) -> list[EmbeddingModel | ChatModel]:
    """Return what the config says of its models, as the routes want it, in its order.

    A model that does both stands there twice. Raises OSError or GGUFError for a model file that
    cannot be read.
    """
    models: list[EmbeddingModel | ChatModel] = []
    for name, model in config.models.items():
        if model.task != "chat":
            models.append(_embedding_model(name, model, config, servers))
        if model.task == "chat" or (model.task is None and not any(config.runs_here(model))):
            models.append(_chat_model(name, model, config, servers))
    return models


def _embedding_model(name: str, model: Model, config: Config, servers: Servers) -> EmbeddingModel:
    here = config.runs_here(model)
    return EmbeddingModel(
        name=name,
        backend=servers.embedding(name, model),
        identity=_space(model, config),
        **_forwarding(model, config),
        named=not any(here) and model.space is None,
        upstream_model=_one_name(model),
        aliases=model.aliases,
        dimensions=model.dimensions_for(name),
        by_name=lambda fitting: {
            "dimensions": model.dimensions_for(fitting),
            "token_ids": model.token_ids_for(fitting, local=any(here)),
            "price": model.price_for(fitting, local=all(here)),
            "knows_ids": _knows_ids(fitting, model, config),
        },
        prefix=model.prefix or "",
        truncate=model.truncate,
        token_ids=model.token_ids_for(name, local=any(here)),
        knows_ids=_knows_ids(name, model, config),
        max_tokens=model.max_tokens,
        count=model.tokenizer is not None,
        forward=model.forward,
        local=all(here),
        cached=model.cache_for("embedding") == "always",
        offline=model.offline or config.server.offline,
        drift=model.drift,
        price=model.price_for(name, local=all(here)),
    )


def _chat_model(name: str, model: Model, config: Config, servers: Servers) -> ChatModel:
    local = all(config.runs_here(model))
    price = model.chat_price(local=local)
    several = len(model.upstreams) > 1
    return ChatModel(
        name=name,
        backend=servers.chat(name, model),
        identity=_speakers(name, model, config)
        if several
        else _speaker(model.upstreams[0], config),
        named=is_pattern(name) if several else not local,
        **_forwarding(model, config),
        upstream_model=_one_name(model),
        aliases=tuple(model.aliases),
        local=local,
        cache=model.cache_for("chat"),
        offline=model.offline or config.server.offline,
        price_in=price.input if price else None,
        price_out=price.output if price else None,
    )


def _forwarding(model: Model, config: Config) -> dict[str, bool]:
    """Return whether callers' own keys are needed to ask for a model, and split its cache."""
    asked = [config.upstreams[name] for name in model.upstreams]
    forwards = [u for u in asked if isinstance(u, OpenAIUpstream) and u.forward_key]
    split = any(not upstream.shared_cache for upstream in forwards)
    return {"forwards": bool(forwards), "split": split}


def _one_name(model: Model) -> str | None:
    """Return the model's name upstream where it is one; else each upstream is told its own."""
    if isinstance(model.upstream_model, dict):
        return model.upstream_model.get(model.upstreams[0]) if len(model.upstreams) == 1 else None
    return model.upstream_model


def _knows_ids(name: str, model: Model, config: Config) -> bool:
    """Whether ids of cl100k that are no text may go to any of its upstreams as they are."""
    return model.is_called("text-embedding-", name) and not any(config.runs_here(model))


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


def _speakers(name: str, model: Model, config: Config) -> str:
    """Name several that may answer a chat; their order and their weights do not matter."""
    asked = None if is_pattern(name) else name
    named = sorted(
        (_speaker(upstream, config), asked and model.name_at(upstream, asked))
        for upstream in model.upstreams
    )
    return f"chat\nany of\n{named}"


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


def read_files(upstream: LlamaUpstream, digest: str | None = None) -> ModelFiles:
    """Return what names the answers of a local model; all of its file is read, which takes seconds.

    Unless its `digest` is known.

    Raises OSError, or ValueError for a template that is no text.
    """
    template = upstream.chat_template
    return ModelFiles(
        sha256=digest or sha256_file(upstream.model),
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
