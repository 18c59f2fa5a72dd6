"""What is wrong with an upstream although each of its options could be read.

It asks no upstream anything. What an upstream may do without is looked at in `absent`.
"""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.config.addresses import is_loopback
from gateway.config.files import no_authorities, no_gguf, no_template
from gateway.config.options import Server
from gateway.config.problems import KeyPath, Problem, quote
from gateway.config.schema import Config
from gateway.config.secret import IN_PLAIN_TEXT, Secret
from gateway.config.upstreams import LlamaUpstream, OpenAIUpstream

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = frozenset(
    {"host", "content-type", "content-length", "transfer-encoding", "accept-encoding", "connection"}
)
"""Headers that an HTTP client has to set itself."""
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on


def upstream_problems(config: Config) -> Iterator[Problem]:
    """Yield what is wrong with each upstream."""
    used = {name for model in config.models.values() for name in model.upstreams}
    for name, upstream in config.upstreams.items():
        path: KeyPath = ("upstreams", name)
        if not _NAME.fullmatch(name):
            yield Problem(
                path, 'an upstream\'s name has letters, digits, ".", "_" and "-", at most 64'
            )
        if name not in used:
            yield Problem(path, "no model uses it", warning=True)
        match upstream:
            case OpenAIUpstream():
                yield from _openai(upstream, path, config.server)
                yield from _forwarding(config, upstream, path)
            case LlamaUpstream():
                yield from _llama(upstream, path)
                yield from _of_one_task(upstream, path, chat=config.chats(name))


def _openai(upstream: OpenAIUpstream, path: KeyPath, server: Server) -> Iterator[Problem]:
    if upstream.api_key is not None and upstream.api_key.in_file:
        yield Problem(
            (*path, "api_key"),
            IN_PLAIN_TEXT,
            warning=True,
        )
    if upstream.ca_file is not None and (reason := no_authorities(upstream.ca_file)):
        yield Problem((*path, "ca_file"), reason)
    if not _HEADER.fullmatch(upstream.auth_header):
        yield Problem((*path, "auth_header"), "is not the name of an HTTP header")
    if _is_ourselves(upstream.base_url, server):
        yield Problem(
            (*path, "base_url"),
            "is the gateway's own address, so that it would ask itself for ever (is "
            "OPENAI_BASE_URL set for the clients?)",
            because=(("server", "host"), ("server", "port")),
        )
    yield from _headers(upstream, path)
    for name, value in upstream.query.items():
        if not name or not value.reveal().isprintable():
            yield Problem((*path, "query", name), "must have a name and printable text")


def _forwarding(config: Config, upstream: OpenAIUpstream, path: KeyPath) -> Iterator[Problem]:
    at = (*path, "forward_key")
    if upstream.shared_cache and not upstream.forward_key:
        yield Problem((*path, "shared_cache"), "has no meaning without forward_key = true")
    if not upstream.forward_key:
        return
    if config.keys:
        yield Problem(
            at,
            "callers have one key to send, which is the upstream's or the gateway's: leave out "
            "[[keys]], or name an api_key",
            because=(("keys",),),
        )
    if upstream.api_key is not None:
        yield Problem(
            at,
            "sends the caller's key in place of api_key; leave one of them out",
            because=((*path, "api_key"),),
        )
    name = path[1]
    for model_name, model in config.models.items():
        if name in model.upstreams and len(model.upstreams) > 1 and model.task != "chat":
            yield Problem(
                ("models", model_name, "upstreams"),
                f"{quote(str(name))} is asked with callers' keys, so that nobody could find out "
                "whether its vectors are those of the others; name it alone",
                because=(at,),
            )


def _headers(upstream: OpenAIUpstream, path: KeyPath) -> Iterator[Problem]:
    seen: set[str] = set()
    for name, value in upstream.headers.items():
        at = (*path, "headers", name)
        low = name.lower()
        if not _HEADER.fullmatch(name):
            yield Problem(at, "is not the name of an HTTP header")
        elif low in _OURS:
            yield Problem(at, "is set by the gateway itself; leave it out")
        elif low in seen:
            yield Problem(at, "stands here twice: names of headers differ not by case")
        elif low == upstream.auth_header.lower() and (upstream.api_key or upstream.forward_key):
            carried = "the caller's key" if upstream.forward_key else "api_key"
            yield Problem(at, f"is the header that carries {carried}; leave one of them out")
        elif not _sendable(value):
            yield Problem(at, "must be ASCII text on one line, without spaces at its ends")
        seen.add(low)


def _sendable(value: Secret) -> bool:
    text = value.reveal()
    return text.isascii() and text.isprintable() and text == text.strip()


def _is_ourselves(base_url: str, server: Server) -> bool:
    if not base_url or (server.host not in _EVERYWHERE and not is_loopback(server.host)):
        return False
    parts = urlsplit(base_url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return port == server.port and is_loopback(parts.hostname or "")


def _llama(upstream: LlamaUpstream, path: KeyPath) -> Iterator[Problem]:
    if reason := no_gguf(upstream.model):
        yield Problem((*path, "model"), reason)
    if upstream.idle is not None and upstream.load != "first-use":
        yield Problem(
            (*path, "idle"),
            'needs load = "first-use": what is loaded at start stays loaded',
            because=((*path, "load"),),
        )
    if upstream.chat_template is not None and (reason := no_template(upstream.chat_template)):
        yield Problem((*path, "chat_template"), reason)


def _of_one_task(upstream: LlamaUpstream, path: KeyPath, *, chat: bool) -> Iterator[Problem]:
    option, does = ("pooling", "chats") if chat else ("chat_template", "embeds")
    if getattr(upstream, option) is not None:
        yield Problem((*path, option), f"has no meaning for an upstream that {does}", warning=True)
