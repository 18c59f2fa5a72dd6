"""The whole config as one value, and its models; see `options` for the rest of it.

Knows the names and defaults, and nothing of files, lines or of who uses it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from gateway.config.forms import ALIASES, DIMENSIONS, about
from gateway.config.options import Cache, Count, Key, Name, Server
from gateway.config.prices import PRICE, PRICES, ChatPrice
from gateway.config.problems import KeyPath, Problem
from gateway.config.upstreams import LlamaUpstream, OpenAIUpstream

Tokenizer = Literal["cl100k_base"]
TokenIds = Literal["decode", "native", "reject"]
CachePolicy = Literal["always", "deterministic", "seeded", "off"]
Upstream = OpenAIUpstream | LlamaUpstream


class Model(Struct, frozen=True, kw_only=True):
    """A name that clients may ask for. `*` in the name serves every name that fits."""

    task: Annotated[
        Literal["embedding", "chat"] | None,
        about(
            "What the model is for; without it, the endpoint decides where the upstream does both, "
            "and a llama upstream embeds."
        ),
    ] = None
    upstreams: Annotated[tuple[Name, ...], Meta(min_length=1), about("Who serves it.", ["openai"])]
    upstream_model: Annotated[
        Name | None, about("Its name there; default the same name.", "text-embedding-3-small")
    ] = None
    aliases: Annotated[
        dict[str, str | None],
        about(
            "Other names for it: a list, or a table in which each may have a prefix of its own for "
            "texts that are embedded.",
            ["minilm"],
            {"e5:query": {"prefix": "query: "}, "e5:passage": {"prefix": "passage: "}},
            form=ALIASES,
        ),
    ] = {}
    space: Annotated[
        Name | None,
        about("Name of its vector space: models that share it have equal vectors for a text."),
    ] = None
    dimensions: Annotated[
        Literal["native", "any"] | tuple[int, ...] | None,
        about(
            "Widths a client may ask for: the model's own (native), any smaller one, or a list. "
            "Default: any for text-embedding-3-*, else native.",
            "any",
            [256, 512],
            form=DIMENSIONS,
        ),
    ] = None
    prefix: Annotated[str | None, about("Put before every text.", "query: ")] = None
    truncate: Annotated[
        bool, about("Cut texts that are too long, and say so, instead of refusing them.")
    ] = False
    token_ids: Annotated[
        TokenIds | None,
        about(
            "What an array of token ids means: text in cl100k ids (decode), ids of the model's "
            "own (native), or a 400 (reject)."
        ),
    ] = None
    tokenizer: Annotated[
        Tokenizer | None, about("Tokenizer to count tokens with before the upstream is asked.")
    ] = None
    max_tokens: Annotated[
        Count | None, about("Most tokens of one text; longer ones are refused here.", 8191)
    ] = None
    forward: Annotated[
        tuple[Name, ...],
        about("Further body fields that go upstream, and into the cache key.", ["input_type"]),
    ] = ()
    cache: Annotated[
        CachePolicy | None,
        about(
            "Which answers are kept: all, none (off), and of chats those with a seed, or those "
            "with a seed or temperature 0 (deterministic). Default: always, for chats seeded."
        ),
    ] = None
    price: Annotated[
        float | ChatPrice | None,
        about(
            "US dollars for a million input tokens, for chats also output tokens, to count what is "
            "saved. Default: OpenAI's list price for its embedding models, 0 for local models.",
            0.02,
            {"input": 0.15, "output": 0.6},
            form=PRICE,
        ),
    ] = None
    offline: Annotated[
        bool,
        about(
            "Answer from the cache only; nothing is asked upstream for this model. What is only "
            "needed to ask an upstream may be missing where all of its models are offline."
        ),
    ] = False

    def dimensions_for(self, name: str) -> Literal["native", "any"] | tuple[int, ...]:
        """Return the widths allowed under this name (or pattern) of the model."""
        if self.dimensions is not None:
            return self.dimensions
        # OpenAI documents shortening for its third generation only.
        trained = (self.upstream_model or name).startswith("text-embedding-3-")
        return "any" if trained else "native"

    def token_ids_for(self, name: str, *, local: bool) -> TokenIds:
        """Return what id arrays mean under this name; `local` if a llama upstream serves it."""
        if self.token_ids is not None:
            return self.token_ids
        speaks_cl100k = (self.upstream_model or name).startswith("text-embedding-")
        if local or self.tokenizer is not None or speaks_cl100k:
            return "decode"
        # Text cannot be put before ids of a vocabulary that we do not know.
        return "reject" if self.prefixed else "native"

    def price_for(self, name: str, *, local: bool) -> float | None:
        """Return the US dollars for a million embedded tokens under this name; None: not known."""
        if isinstance(self.price, ChatPrice):
            return self.price.input
        if self.price is not None:
            return self.price
        return 0.0 if local else PRICES.get(self.upstream_model or name)

    def chat_price(self, *, local: bool) -> ChatPrice | None:
        """Return the US dollars for a million tokens of its chats; None: not known."""
        if isinstance(self.price, ChatPrice):
            return self.price
        return ChatPrice(0.0, 0.0) if local else None

    def cache_for(self, task: Literal["embedding", "chat"]) -> CachePolicy:
        """Return which of its vectors, or of its chats, are kept."""
        return self.cache or ("seeded" if task == "chat" else "always")

    @property
    def prefixed(self) -> bool:
        """Whether the model or an alias of it puts something before the texts."""
        return bool(self.prefix) or any(self.aliases.values())


class ModelFiles(NamedTuple):
    """What names a local model's answers: read once at the start, for all who name them."""

    sha256: str
    """Of the GGUF file, in hex."""
    chat_template: str | None
    """The text that the config puts in the place of the file's own template."""


class Config(Struct, frozen=True, kw_only=True):
    """A whole config that has passed every check."""

    server: Server = Server()
    cache: Cache = Cache()
    keys: tuple[Key, ...] = ()
    upstreams: dict[str, Upstream] = {}
    models: dict[str, Model] = {}
    source: Path | None = None
    """The file; None for the config that is built in."""
    warnings: tuple[str, ...] = ()
    """Lines about what is allowed and probably not meant."""
    lines: dict[KeyPath, int] = {}
    """Where each key stands in the file."""
    absent: tuple[Problem, ...] = ()
    """What could not be had and is only needed to ask upstreams: left out, and wrong unless
    nobody asks them: see `offline` of the server and of models."""
    files: dict[str, ModelFiles] = {}
    """Of the llama upstreams, by name; empty until `models.with_files` has read them."""

    def chats(self, upstream: str) -> bool:
        """Return whether an upstream that does one task only, a llama upstream, is to chat."""
        return any(m.task == "chat" and upstream in m.upstreams for m in self.models.values())


SECTIONS: Mapping[str, str] = {
    "server": Server.__doc__ or "",
    "cache": Cache.__doc__ or "",
    "keys": Key.__doc__ or "",
    "upstreams": "Who makes vectors and answers chats, by name.",
    "models": "What clients may ask for, by name.",
}
"""The file's top-level tables."""

KINDS: Mapping[str, type[OpenAIUpstream] | type[LlamaUpstream]] = {
    "openai": OpenAIUpstream,
    "llama": LlamaUpstream,
}


def fields(struct: type[Struct]) -> tuple[msgspec.inspect.Field, ...]:
    """Return the Struct's fields as msgspec understands them."""
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)  # noqa: S101 - for the type checker
    return info.fields
