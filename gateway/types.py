"""The values that travel between the floors. They know nothing of HTTP, caches or backends."""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Raw, Struct

Text = str | tuple[int, ...]
"""One input: a text, or the ids of a tokenizer's tokens."""

Row = npt.NDArray[np.float32]
"""One vector as a backend gave it: shape (width,), float32, not yet normalized."""


@dataclass(frozen=True, slots=True)
class CacheControl:
    """What a request says of vectors that are kept (RFC 9111, 5.2.1)."""

    no_cache: bool = False
    """A fresh vector, whatever is kept; what is kept stays."""
    no_store: bool = False
    """A fresh vector, of which nothing is kept."""
    only_if_cached: bool = False
    """What is kept, or nothing."""
    max_age: int | None = None
    """Seconds: a vector that was kept longer will not do."""

    @property
    def dated(self) -> bool:
        """Whether what is kept may not be good enough."""
        return self.no_cache or self.max_age is not None


USUAL = CacheControl()
"""What most requests say: nothing."""


class Spared(NamedTuple):
    """What became of the texts of a request for vectors, and what it did not cost."""

    sources: Mapping[str, int]
    """Texts by where their vectors came from."""
    tokens: int
    """Those that were not computed for it."""
    price: float | None
    """US dollars for a million tokens, where that is known."""


class Asked(Struct):
    """A request at its end, as it is counted."""

    operation: str
    model: str | None
    """The name that was asked for, as far as the request was read."""
    status: int
    seconds: float
    """From the request's headers to its answer's last byte."""
    cache: str = ""
    """What the cache did for it; "" where nothing was looked up."""
    overhead: float | None = None
    """Seconds to the answer's first byte, less those in which an upstream was waited for."""
    spared: Spared | None = None
    """None for all but vectors."""


class EmbeddingRequest(Struct, frozen=True):
    """What a client asks of `POST /v1/embeddings`, checked for shape."""

    model: str
    inputs: Sequence[Text]
    base64: bool = False
    dimensions: int | None = None
    seed: int | None = None
    user: str | None = None
    cache: CacheControl = USUAL
    extra: Mapping[str, Any] = {}
    """Body fields beyond OpenAI's and ours; the model's `forward` list decides about them."""


class ChatRequest(Struct, frozen=True):
    """What a client asks of `POST /v1/chat/completions`: all of it, and what the gateway reads."""

    model: str
    fields: Mapping[str, Raw]
    """Every field of the body, as it was sent."""
    stream: bool = False
    include_usage: bool = False
    """Whether a stream is to end with a chunk that tells its tokens."""
    seed: int | None = None
    cache: CacheControl = USUAL


@dataclass(frozen=True, slots=True)
class RawEmbeddings:
    """A backend's whole answer: one row a text, in the order of the texts."""

    rows: Sequence[Row]
    tokens: Sequence[int]
    """Tokens of each text; see `estimated`."""
    estimated: bool
    """True where the upstream gave only a sum and the split over the texts is ours."""
    truncated: Sequence[bool] | None = None
    """For each text, whether the backend cut it (only where the config asks for it)."""
    fingerprint: str = ""
    """What made them, as far as it says: at most 255 bytes."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Upstream headers the client should see (`x-ratelimit-*`)."""
    request_id: bytes = b""
    """The upstream's, where it gives one."""
    upstream: str = ""
    """Whose answer it is."""


class UpstreamInfo(Struct, frozen=True, omit_defaults=True):
    """How an upstream of a model is, for people."""

    name: str
    state: str
    """"ready"; "open" or "half-open" where it fails (see Circuit); "unknown" or "out" of the space
    (see Space); or the state of its engine."""
    reason: str | None = None
    """Why it is not ready."""
    model: str | None = None
    """The model's name there, where that is another one."""
    similarity: float | None = None
    """Least cosine of its vectors to those of its space, where they are compared."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a backend can say of its model before it is asked for anything; None is unknown."""

    width: int | None = None
    context: int | None = None
    pooling: str | None = None
    state: str | None = None
    """Of its engine, where it has one: "waiting", "starting", "ready" or "failed"."""
    upstreams: Sequence[UpstreamInfo] = ()
    """Who serves it, in the order of preference."""


class Reserved(Protocol):
    """What an upstream call was expected to take, and counts as spent until more is known."""

    def settle(self, tokens: int, dollars: float) -> None:
        """Count what was billed in its place; only the first time counts."""
        ...


class Account(Protocol):
    """What a key may still use. Raises OwnLimitError where that is too little."""

    pays: bool
    """Whether tokens or dollars are limited, so that upstream calls have to be reserved."""

    def admitted(self) -> AbstractAsyncContextManager[None]:
        """Count a request: one of a minute, and one of those at the same time as the block runs."""
        ...

    async def reserve(
        self, tokens: int, dollars: float | None, *, guess: int = 0
    ) -> "Reserved | None":
        """Reserve what a call is expected to take; dollars are None where no price is known.

        `guess` of the tokens may be less, where the limit is smaller. None: nothing is limited.
        Raises PermissionDeniedError where the dollars are limited, and the price is not known.
        """
        ...

    def headers(self) -> Mapping[str, str]:
        """Return OpenAI's `x-ratelimit-*` headers for those limits that there are."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A caller's own key, for upstreams that are asked with it, and whom it names there."""

    key: str
    organization: str | None = None
    project: str | None = None

    def __repr__(self) -> str:
        return "***"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a key of the config, or anybody where there are no keys."""

    name: str = "anyone"
    tenant: str = "default"
    models: Sequence[str] | None = None
    """Names and patterns of the models the key may use; None is all."""
    admin: bool = False
    account: Account | None = field(default=None, repr=False, compare=False)
    """None: a key without limits."""
    credential: Credential | None = field(default=None, repr=False)
    """None: nobody forwards keys, or there was none."""

    def may_use(self, model: str) -> bool:
        """Whether the key covers this name; a pattern of the config is covered by itself."""
        return self.models is None or any(matches(pattern, model) for pattern in self.models)


ANYONE = Caller()
"""Whoever asks where there are no keys, and the gateway itself."""


def matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern, in which only `*` is special and stands for any text."""
    if "*" not in pattern:
        return pattern == name
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None
