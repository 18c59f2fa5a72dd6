"""The models that run here, at a start: what their files hold, and what their engines are told."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import structlog
from msgspec.structs import replace

from gateway.config import Config, LlamaUpstream, ModelFiles
from gateway.engines import EngineKeeper, engine_paths
from gateway.gguf import describe
from gateway.models import read_files
from gateway.server import StartError


async def with_files(config: Config) -> Config:
    """Return the config with what its local models' files hold; raise StartError for a wrong one.

    Done once, before anybody is served: workers, and those that take their places, are told.
    """
    local = _local(config)
    # Gigabytes: some seconds for each file, so side by side, and the signals are heard.
    reads = (asyncio.to_thread(_read, name, upstream) for name, upstream in local.items())
    files = dict(zip(local, await asyncio.gather(*reads), strict=True))
    return replace(config, files=files)


def open_keepers(
    config: Config, directory: Path, log: structlog.stdlib.BoundLogger
) -> list[EngineKeeper]:
    """Return a keeper for each local model of a config with its files, none of them started."""
    return [
        EngineKeeper(
            name,
            engine_settings(name, upstream, config, directory),
            directory,
            waits_for_use=upstream.load == "first-use",
            log=log,
            clock=time.monotonic,
        )
        for name, upstream in _local(config).items()
    ]


def _local(config: Config) -> Mapping[str, LlamaUpstream]:
    return {n: up for n, up in config.upstreams.items() if isinstance(up, LlamaUpstream)}


def _read(name: str, upstream: LlamaUpstream) -> ModelFiles:
    try:
        describe(upstream.model)
        files = read_files(upstream)
    except (OSError, ValueError) as error:
        raise StartError(f"upstreams.{name}.model: {upstream.model} {error}") from error
    if upstream.sha256 and upstream.sha256.lower() != files.sha256:
        raise StartError(
            f"upstreams.{name}.sha256: {upstream.model} is another file; its SHA-256 is "
            f"{files.sha256}"
        )
    return files


def engine_settings(
    name: str, upstream: LlamaUpstream, config: Config, directory: Path
) -> Mapping[str, str | int | float | None]:
    """Return what the engine of an upstream is told, as gateway.engine.settings reads it."""
    chat = config.chats(name)
    files = config.files[name]
    _, status = engine_paths(directory, name)
    return {
        "task": "chat" if chat else "embedding",
        "model": str(upstream.model),
        "weights": files.sha256,
        "chat_template": files.chat_template,
        "journal": str(status.with_suffix(".journal")),
        "journal_key": secrets.token_hex(32),
        "contexts": upstream.contexts_for(chat=chat),
        "threads": upstream.threads_for(chat=chat),
        "n_ctx": upstream.n_ctx,
        "pooling": upstream.pooling,
        "gpu_layers": upstream.gpu_layers,
        "max_queue": upstream.max_queue_for(chat=chat),
        "idle": upstream.idle,
        "log_level": config.server.log_level,
    }
