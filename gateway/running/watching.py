"""The files that a config is made of, looked at now and then: whether any has changed.

By what they hold, not by their names: Kubernetes puts new files behind a symbolic link that stays.
"""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from gateway.config import Config, LlamaUpstream, OpenAIUpstream
from gateway.config.files import opened

_NAMED = re.compile(r"\$\{file:([^}\r\n]+)\}")
_LARGEST = 2**26
"""Bytes that are compared; no config, secret or certificate is as long."""

Contents = Mapping[Path, bytes | None]
"""The digest of each file, None where it cannot be read."""


def look(config: Config) -> Contents:
    """Return what the files hold now that a config is made of, and those that its text names now.

    Model files are not among them: gigabytes, and whoever copies one takes his time.
    """
    if config.source is None:
        return {}
    text = _read(config.source)
    paths = {config.source, *_options(config), *_references(config.source, text or b"")}
    return {path: _digest(_read(path)) for path in paths}


def _references(source: Path, text: bytes) -> Iterable[Path]:
    # Also where the text is no TOML, or names them in a comment: one too many does no harm.
    for name in _NAMED.findall(text.decode(errors="replace")):
        yield source.parent / name


def _options(config: Config) -> Iterable[Path]:
    server = config.server
    paths = [server.tls_cert, server.tls_key]
    for upstream in config.upstreams.values():
        if isinstance(upstream, OpenAIUpstream):
            paths.append(upstream.ca_file)
        elif isinstance(upstream, LlamaUpstream):
            paths.append(upstream.chat_template)
    return filter(None, paths)


def _read(path: Path) -> bytes | None:
    try:
        with opened(path) as file:
            return file.read(_LARGEST)
    except (OSError, ValueError):
        return None


def _digest(content: bytes | None) -> bytes | None:
    return None if content is None else sha256(content).digest()
