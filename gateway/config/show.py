"""The config as it took effect, written as TOML again, with secrets masked."""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from gateway.config.schema import Config, Model, Upstream, fields
from gateway.config.typed import form_of
from gateway.config.upstreams import LlamaUpstream

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def show(config: Config) -> str:
    """Return TOML text of every option that has a value, defaults included, and no secret."""
    origin = "no file" if config.source is None else str(config.source)
    parts = [f"# What took effect ({_one_line(origin)}). Secrets are masked."]
    parts.append(_table("[server]", config.server))
    parts.append(_table("[cache]", config.cache))
    parts.extend(_table("[[keys]]", key) for key in config.keys)
    for name, upstream in config.upstreams.items():
        taken = _taken(upstream, chat=config.chats(name))
        parts.append(_table(f"[upstreams.{_key(name)}]", taken))
    for name, model in config.models.items():
        parts.append(_table(f"[models.{_key(name)}]", _settled(config, name, model)))
    return "\n\n".join(parts) + "\n"


def _taken(upstream: Upstream, *, chat: bool) -> Upstream:
    """Return the upstream with the defaults that depend on its task."""
    if not isinstance(upstream, LlamaUpstream):
        return upstream
    return msgspec.structs.replace(
        upstream,
        contexts=upstream.contexts_for(chat=chat),
        threads=upstream.threads_for(chat=chat),
        max_queue=upstream.max_queue_for(chat=chat),
    )


def _settled(config: Config, name: str, model: Model) -> Model:
    """Return the model with the defaults that depend on its name and task."""
    here = config.runs_here(model)
    if model.task == "chat":
        return msgspec.structs.replace(
            model, cache=model.cache_for("chat"), price=model.chat_price(local=all(here))
        )
    return msgspec.structs.replace(
        model,
        dimensions=model.dimensions_for(name),
        token_ids=model.token_ids_for(name, local=any(here)),
        cache=model.cache_for("embedding") if model.task or any(here) else model.cache,
        price=model.price or model.price_for(name, local=all(here)),
    )


def _table(header: str, struct: Struct) -> str:
    return "\n".join([header, *_pairs(struct)])


def _pairs(struct: Struct) -> Iterator[str]:
    for field in fields(type(struct)):
        value = getattr(struct, field.name)
        if value is None:
            continue
        form = form_of(field.type)
        yield f"{field.name} = {toml_value(value if form is None else form.write(value))}"


def toml_value(value: Any) -> str:
    """Return a text, number, boolean, list or table as TOML on one line."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return _quoted(value)
        case list() | tuple():
            return f"[{', '.join(map(toml_value, value))}]"
        case dict():
            pairs = [f"{_key(name)} = {toml_value(item)}" for name, item in value.items()]
            return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
        case _:
            return repr(value)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's too; only DEL needs one in TOML and none in JSON. A path from the
    # environment may hold bytes that are no text; they cannot be printed.
    printable = text.encode(errors="replace").decode()
    return json.dumps(printable, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
