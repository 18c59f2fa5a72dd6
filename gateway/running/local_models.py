"""The models that run here: what their files hold, and what their engines are told."""

import asyncio
import secrets
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from msgspec.structs import replace

from gateway.config import Config, LlamaUpstream, ModelFiles, OpenAIUpstream
from gateway.edge.server import StartError
from gateway.engines import engine_paths, stamp
from gateway.gguf import describe
from gateway.models import read_files

Stamp = tuple[int, int, int]
Digests = dict[Path, tuple[Stamp | None, str]]
"""The SHA-256 of model files, each with the stamp of the file that was read."""


async def with_files(config: Config, known: Digests | None = None) -> Config:
    """Return the config with what the files of its upstreams hold; raise StartError for wrong ones.

    Done once for all who serve: workers, and those that take their places, are told. A file that is
    `known`, and has not changed since, is not read again.
    """
    local = local_upstreams(config)
    known = {} if known is None else known
    # Gigabytes: some seconds for each file, so side by side, and the signals are heard.
    reads = (asyncio.to_thread(_read, name, upstream, known) for name, upstream in local.items())
    files = dict(zip(local, await asyncio.gather(*reads), strict=True))
    return replace(config, files=files, ca_files=await asyncio.to_thread(_ca_files, config))


def local_upstreams(config: Config) -> Mapping[str, LlamaUpstream]:
    """Return the upstreams of a config that run here, by name."""
    return {n: up for n, up in config.upstreams.items() if isinstance(up, LlamaUpstream)}


def _read(name: str, upstream: LlamaUpstream, known: Digests) -> ModelFiles:
    try:
        describe(upstream.model)
        before = stamp(upstream.model)
        seen, digest = known.get(upstream.model, (None, None))
        files = read_files(upstream, digest if seen is not None and seen == before else None)
    except (OSError, ValueError) as error:
        raise StartError(f"upstreams.{name}.model: {upstream.model} {error}") from error
    known[upstream.model] = (before, files.sha256)
    if upstream.sha256 and upstream.sha256.lower() != files.sha256:
        raise StartError(
            f"upstreams.{name}.sha256: {upstream.model} is another file; its SHA-256 is "
            f"{files.sha256}"
        )
    return files


def _ca_files(config: Config) -> dict[str, str]:
    """Return the digests by which a changed file is noticed; the upstream says what is wrong."""
    found = {}
    for name, upstream in config.upstreams.items():
        if isinstance(upstream, OpenAIUpstream) and upstream.ca_file is not None:
            try:
                found[name] = sha256(upstream.ca_file.read_bytes()).hexdigest()
            except OSError as error:
                reason = error.strerror or str(error)
                raise StartError(
                    f"upstreams.{name}.ca_file: {upstream.ca_file} cannot be read: {reason}"
                ) from error
    return found


def engine_settings(
    name: str, upstream: LlamaUpstream, config: Config, directory: Path, engine: str = ""
) -> Mapping[str, str | int | float | None]:
    """Return what the engine of an upstream is told, as gateway.engine.settings reads it."""
    _, status = engine_paths(directory, engine or name)
    return {
        **lasting_settings(name, upstream, config),
        "journal": str(status.with_suffix(".journal")),
        "journal_key": secrets.token_hex(32),
    }


def lasting_settings(
    name: str, upstream: LlamaUpstream, config: Config
) -> Mapping[str, str | int | float | None]:
    """Return what decides whether an engine may go on when the config has changed."""
    chat = config.chats(name)
    files = config.files[name]
    return {
        "task": "chat" if chat else "embedding",
        "model": str(upstream.model),
        "weights": files.sha256,
        "chat_template": files.chat_template,
        "contexts": upstream.contexts_for(chat=chat),
        "threads": upstream.threads_for(chat=chat),
        "n_ctx": upstream.n_ctx,
        "pooling": upstream.pooling,
        "gpu_layers": upstream.gpu_layers,
        "max_queue": upstream.max_queue_for(chat=chat),
        "idle": upstream.idle,
        "log_level": config.server.log_level,
    }
