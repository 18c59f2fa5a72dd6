"""Addresses and paths in the config: of upstreams, proxies, certificates, models and templates.

What they mean is worked out here; whether anything is there is asked in `rules`.
"""

import ipaddress
import re
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from gateway.config.forms import Form, Schema, Surroundings, text
from gateway.config.problems import MisfitError, Reference, did_you_mean, echo, nearest, quote
from gateway.config.secret import MASK, Secret


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_and_port(address: str) -> tuple[str, int]:
    """Return the parts of ``host:port`` (IPv6 in brackets); raise MisfitError for anything else."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})", address)
    if match is None or int(match[2]) > 65535:
        raise MisfitError(
            f'must be an address and port such as "127.0.0.1:9090", not {echo(address)}'
        )
    return match[1].strip("[]"), int(match[2])


def _read_host(value: Any, _: Surroundings) -> str:
    host = text(value, "an address")
    try:
        return str(ipaddress.ip_address(str(host)))
    except ValueError:
        if re.fullmatch(r"[A-Za-z0-9._-]+", host):
            return str(host)
    hint = "; the port is an option of its own" if re.search(r":\d+$", host) else ""
    raise MisfitError(f"must be an address or host name and nothing else, not {echo(value)}{hint}")


def _read_listener(value: Any, _: Surroundings) -> str:
    host_and_port(text(value, 'an address and port such as "127.0.0.1:9090"'))
    return str(value)


def _read_forwarders(value: Any, _: Surroundings) -> str:
    # Uvicorn takes anything else for a name, which no address ever equals.
    listed = [part.strip() for part in text(value, "addresses or networks").split(",")]
    if listed == ["*"]:
        return "*"
    for part in listed:
        _check_forwarder(part, value)
    return ",".join(listed)


def _check_forwarder(part: str, value: Any) -> None:
    try:
        ipaddress.ip_network(part)
    except ValueError as error:
        try:
            whole = ipaddress.ip_network(part, strict=False)
        except ValueError:
            raise MisfitError(
                'must be addresses or networks such as "10.0.0.0/8, ::1", or "*" alone, '
                f"not {echo(value)}"
            ) from error
        hint = "" if isinstance(value, Reference) else f": write {quote(str(whole))}"
        raise MisfitError(f"must have a network's first address before its slash{hint}") from error


HOST = Form(_read_host, {"type": "string", "minLength": 1})
LISTENER = Form(_read_listener, {"type": "string", "pattern": r":\d+$|\$\{"})
FORWARDERS = Form(
    _read_forwarders,
    {"type": "string", "pattern": r"^\s*(\*|[0-9A-Fa-f:./]+(\s*,\s*[0-9A-Fa-f:./]+)*)\s*$|\$\{"},
)


def _read_url(value: Any, what: str) -> SplitResult:
    address = text(value, what)
    if any(char.isspace() or not char.isprintable() for char in address):
        raise MisfitError(f"must be {what}, and has a space or line end in it")
    try:
        parts = urlsplit(address)
        port_fits = parts.port is None or parts.port > 0
    except ValueError as error:
        # The error may repeat a password that stands in the address.
        raise MisfitError(f"must be {what}; its host or port cannot be read") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_fits:
        raise MisfitError(f"must be {what}, and begin with http:// or https://")
    return parts


def _read_base_url(value: Any, _: Surroundings) -> str:
    parts = _read_url(value, 'an address such as "https://api.openai.com/v1"')
    if parts.username is not None or parts.password is not None:
        raise MisfitError("must not hold a user name or password; use api_key or headers")
    if parts.query or parts.fragment or str(value).endswith(("?", "#")):
        raise MisfitError('must not hold a query or fragment; use query = { name = "value" }')
    path = parts.path.rstrip("/")
    for ending in ("/embeddings", "/chat/completions", "/models"):
        if path.endswith(ending):
            raise MisfitError(f'must be the address before "{ending}"; leave that off')
    return f"{parts.scheme}://{parts.netloc}{path}"


def _read_proxy(value: Any, _: Surroundings) -> Secret:
    _read_url(value, 'a proxy\'s address such as "http://proxy:3128"')
    return Secret(str(value), in_file=not isinstance(value, Reference))


def _write_proxy(proxy: Secret) -> str:
    parts = urlsplit(proxy.reveal())
    user, at, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{MASK if user or at else ''}{at}{host}{parts.path}"


_URL_SCHEMA: Schema = {"type": "string", "pattern": r"^https?://|\$\{"}
BASE_URL = Form(_read_base_url, _URL_SCHEMA)
PROXY = Form(_read_proxy, _URL_SCHEMA, _write_proxy)

BUILTIN = "builtin:"
_ASSETS = Path(__file__).parent.parent / "assets"
_BUILTINS = {"all-minilm-l6-v2": _ASSETS / "all-minilm-l6-v2" / "all-minilm-l6-v2-q8_0.gguf"}


def builtin_model(name: str) -> Path:
    """Return where the bundled model lies; raise MisfitError for a name that is not bundled."""
    path = _BUILTINS.get(name)
    if path is None:
        names = [BUILTIN + known for known in _BUILTINS]
        raise MisfitError(f"no bundled model has this name{did_you_mean(BUILTIN + name, names)}")
    return path


_TEMPLATES = Path(__file__).parent.parent / "engine" / "chat" / "templates"
TEMPLATES = {
    name: _TEMPLATES / f"{name}.jinja" for name in ("chatml", "gemma", "llama3", "mistral")
}
"""The chat templates that come with the gateway, by name."""


def _read_path(value: Any, around: Surroundings) -> Path:
    name = text(value, "a path")
    if "\0" in name:
        raise MisfitError("must be a path, and has a NUL character in it")
    if name.startswith("~/") and around.home is not None:
        return around.home / name[2:]
    # Not resolved: Kubernetes swaps a mounted file by repointing a link above it.
    return (around.base_dir / name).absolute()


def _read_model(value: Any, around: Surroundings) -> Path:
    name = text(value, 'a path to a GGUF file, or "builtin:all-minilm-l6-v2"')
    if name.startswith(BUILTIN):
        return builtin_model(name.removeprefix(BUILTIN))
    if re.match(r"[a-z]{2,6}://?|hf:|ollama:", name):
        raise MisfitError("must be a path to a GGUF file on this machine; nothing is downloaded")
    return _read_path(value, around)


def _write_model(path: Path) -> str:
    names = {known: BUILTIN + name for name, known in _BUILTINS.items()}
    return names.get(path, str(path))


def _read_template(value: Any, around: Surroundings) -> Path:
    *others, last = map(quote, TEMPLATES)
    what = f"{', '.join(others)}, {last} or a path to a Jinja file"
    name = text(value, what)
    if name in TEMPLATES:
        return TEMPLATES[name]
    if re.fullmatch(r"[\w-]+", name):
        near = did_you_mean(name, TEMPLATES) if nearest(name, TEMPLATES) else ""
        raise MisfitError(f"must be {what}, not {echo(value)}{near}")
    return _read_path(value, around)


def _write_template(path: Path) -> str:
    return {known: name for name, known in TEMPLATES.items()}.get(path, str(path))


PATH = Form(_read_path, {"type": "string", "minLength": 1}, str)
MODEL = Form(_read_model, {"type": "string", "minLength": 1}, _write_model)
CHAT_TEMPLATE = Form(_read_template, {"type": "string", "minLength": 1}, _write_template)
