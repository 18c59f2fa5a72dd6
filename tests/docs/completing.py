"""What a piece of a config on a page leaves out, made up: upstreams, models, files, variables."""

import re
import tomllib
from pathlib import Path
from typing import Any

from tests.backends.sockets import make_authority
from tests.tiny_chat import write_chat
from tests.tiny_gguf import write_encoder

_VARIABLE = re.compile(r"\$\{env:(\w+)\}")
_FILE = re.compile(r"\$\{file:([^}]+)\}")
_CERTIFICATES = re.compile(r"'(?:ca_file|tls_cert|tls_key)': '([^']+)'")
_UPSTREAM = """
[upstreams.{name}]
kind = "openai"
base_url = "https://{name}.internal/v1"
"""
_MODEL = """
[models."{name}"]
upstreams = ["{upstream}"]
price = 0.02
"""
_ADMIN = f"""
[[keys]]
name = "made-up"
secret = "sha256:{"0" * 64}"
admin = true
"""
_LONG_ENOUGH = "long-enough-for-every-kind-of-secret"


def environ(toml: str) -> dict[str, str]:
    """Return a value for each variable that a config names."""
    values = {name: f"{name}-{_LONG_ENOUGH}" for name in _VARIABLE.findall(toml)}
    return values | {"HOME": "/home/somebody"}


def completed(toml: str, directory: Path) -> str:
    """Return a whole config of what may be a piece of one; what it names is put in `directory`.

    Upstreams that only models name are added, a model where there is none, somebody who may read
    the metrics, and the files that it wants to read. What stands on the page is left as it is.
    """
    config = tomllib.loads(toml)
    models: dict[str, Any] = config.get("models", {})
    upstreams: dict[str, Any] = config.get("upstreams", {})
    keys: list[dict[str, Any]] = config.get("keys", [])
    named = {name for model in models.values() for name in model.get("upstreams", [])}
    missing = sorted(named - upstreams.keys()) or ([] if upstreams else ["somebody"])
    added = [_UPSTREAM.format(name=name) for name in missing]
    if not models:
        served_by = {f"of-{name}": name for name in [*upstreams, *missing]}
        anyone = next(iter(served_by.values()))
        served_by |= {name: anyone for key in keys for name in key.get("models", [])}
        added += [_MODEL.format(name=name, upstream=at) for name, at in served_by.items()]
    if keys and not any(key.get("admin") for key in keys) and "server" not in config:
        added.append(_ADMIN)
    chats = {
        name
        for model in models.values()
        for name in model.get("upstreams", [])
        if model.get("task") == "chat"
    }
    for name, upstream in upstreams.items():
        if upstream["kind"] == "llama" and not upstream["model"].startswith("builtin:"):
            _weights(directory / upstream["model"], chat=name in chats)
    _small_files(config, directory)
    return "\n".join([toml, *added])


def _weights(path: Path, *, chat: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if chat:
        write_chat(path)
    else:
        write_encoder(path)


def _small_files(config: Any, directory: Path) -> None:
    """Write what `${file:…}` names, and certificates that are read before the start."""
    text = str(config)
    contents = dict.fromkeys(_FILE.findall(text), _LONG_ENOUGH)
    if certificates := _CERTIFICATES.findall(text):
        contents |= dict.fromkeys(certificates, make_authority(directory)[0].read_text())
    for name, content in contents.items():
        path = directory / name
        assert path.is_relative_to(directory), f"{name}: a page's files start at its config"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
