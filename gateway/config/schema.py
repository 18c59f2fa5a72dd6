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
from gateway.config.several import ALIKE, SIMILARITY, UPSTREAM_MODEL, WEIGHTS
from gateway.config.upstreams import LlamaUpstream, OpenAIUpstream

Tokenizer = Literal["cl100k_base"]
TokenIds = Literal["decode", "native", "reject"]
CachePolicy = Literal["always", "deterministic", "seeded", "off"]
DriftPolicy = Literal["warn", "refuse", "generation", "off"]
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
    upstreams: Annotated[
        tuple[Name, ...],
        Meta(min_length=1),
        about(
            "Who serves it, in the order of preference: the next one where one fails. Several for "
            "embeddings need a space.",
            ["openai"],
        ),
    ]
    weights: Annotated[
        dict[str, int] | None,
        about(
            "Shares of the requests by upstream, in place of the order; one with 0, or left out, "
            "is asked where all others fail.",
            {"east": 3, "west": 1},
            form=WEIGHTS,
        ),
    ] = None
    upstream_model: Annotated[
        str | dict[str, str] | None,
        about(
            "Its name there, or a table of its names by upstream; default the same name.",
            "text-embedding-3-small",
            {"azure": "my-deployment"},
            form=UPSTREAM_MODEL,
        ),
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
        about(
            "Name of its vector space: models that share it have equal vectors for a text. Several "
            "upstreams of one space are compared with the first of them before they are asked."
        ),
    ] = None
    similarity: Annotated[
        float,
        about(
            "Least cosine of an upstream's vectors to its space's; with less it is left out.",
            form=SIMILARITY,
        ),
    ] = ALIKE
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
    drift: Annotated[
        DriftPolicy,
        about(
            "What is done where its vectors are not any more what they were when it was first "
            "seen: say so, refuse texts that are not in the cache, leave behind what is kept and "
            "begin a new generation, or never look."
        ),
    ] = "warn"
    offline: Annotated[
        bool,
        about(
            "Answer from the cache only; nothing is asked upstream for this model. What is only "
            "needed to ask an upstream may be missing where all of its models are offline."
        ),
    ] = False

    def name_at(self, upstream: str, name: str) -> str:
        """Return what an upstream calls what is called so here."""
        if isinstance(self.upstream_model, dict):
            return self.upstream_model.get(upstream, name)
        return self.upstream_model or name

    def is_called(self, prefix: str, name: str) -> bool:
        """Whether all upstreams call it so, what is called `name` here."""
        return all(self.name_at(upstream, name).startswith(prefix) for upstream in self.upstreams)

    def dimensions_for(self, name: str) -> Literal["native", "any"] | tuple[int, ...]:
        """Return the widths allowed under this name (or pattern) of the model."""
        if self.dimensions is not None:
            return self.dimensions
        # OpenAI documents shortening for its third generation only.
        return "any" if self.is_called("text-embedding-3-", name) else "native"

    def token_ids_for(self, name: str, *, local: bool) -> TokenIds:
        """Return what id arrays mean under this name; `local` if a llama upstream serves it."""
        if self.token_ids is not None:
            return self.token_ids
        speaks_cl100k = self.is_called("text-embedding-", name)
        if local or self.tokenizer is not None or speaks_cl100k:
            return "decode"
        # Text cannot be put before ids of a vocabulary that we do not know.
        return "reject" if self.prefixed else "native"

    def price_for(self, name: str, *, local: bool) -> float | None:
        """Return the US dollars for a million embedded tokens under this name; None: not known.

        `local` if only llama upstreams serve it.
        """
        if isinstance(self.price, ChatPrice):
            return self.price.input
        if self.price is not None:
            return self.price
        if local:
            return 0.0
        prices = {PRICES.get(self.name_at(upstream, name)) for upstream in self.upstreams}
        return prices.pop() if len(prices) == 1 else None

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
    """Of the llama upstreams, by name; empty until `local_models.with_files` has read them."""
    engines: dict[str, str] = {}
    """What their engines are called, by upstream: after a reload another one may serve it."""
    ca_files: dict[str, str] = {}
    """The SHA-256 of the `ca_file` of upstreams that have one, by name."""

    def is_local(self, upstream: str) -> bool:
        """Whether it is a llama upstream."""
        return isinstance(self.upstreams.get(upstream), LlamaUpstream)

    def runs_here(self, model: Model) -> list[bool]:
        """Return for each upstream of a model whether it is a llama upstream."""
        return list(map(self.is_local, model.upstreams))

    @property
    def forwards_keys(self) -> bool:
        """Whether any upstream is asked with the caller's own key."""
        return any(isinstance(u, OpenAIUpstream) and u.forward_key for u in self.upstreams.values())

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
