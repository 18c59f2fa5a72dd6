"""A model that embeds as the config describes it, and a Route: one of its names, to be asked.

A Route holds all that the config says about a model and turns a request into what is asked: which
texts, which keys, which width. It asks nobody.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.backends.base import EmbeddingBackend
from gateway.cache.keys import Key
from gateway.cache.scopes import Place, Scope, Scopes
from gateway.errors import (
    OTHER_WIDTH,
    InvalidInputError,
    InvalidRequestError,
    VectorsRefusedError,
)
from gateway.tenants import Tenants
from gateway.tokens import Cl100k
from gateway.types import Caller, EmbeddingRequest, Text


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A model of the config that embeds. `name` may be a pattern; see `Route` for one name."""

    name: str
    backend: EmbeddingBackend
    identity: str
    """Names the vector space, up to the upstream's name for the model where `named`."""
    named: bool = True
    upstream_model: str | None = None
    aliases: Mapping[str, str | None] = field(default_factory=dict)
    """Alias -> prefix that takes the place of the model's own, or None."""
    dimensions: str | Sequence[int] = "native"
    """"native", "any", or the widths allowed beside the native one."""
    prefix: str = ""
    truncate: bool = False
    token_ids: str = "native"  # noqa: S105 - a policy for id arrays, not a password
    """What an array of ids means: "decode" (cl100k), "native" or "reject"."""
    knows_ids: bool = False
    """Whether whoever serves it knows cl100k's ids, so that those that are no text may go there."""
    max_tokens: int | None = None
    count: bool = False
    """Whether texts are counted with cl100k before the upstream is asked."""
    forward: Sequence[str] = ()
    local: bool = False
    """Whether it runs here: then a lone empty text is embedded, where OpenAI refuses it."""
    cached: bool = True
    """Whether vectors are kept at all."""
    offline: bool = False
    """Whether only what is kept is answered."""
    drift: str = "warn"
    """What is done where its vectors are not any more what they were: see gateway.drift."""
    price: float | None = None
    """US dollars for a million tokens."""
    forwards: bool = False
    """Whether upstreams are asked with the caller's own key."""
    split: bool = False
    """Whether the cache is split by that key."""
    by_name: Callable[[str], Mapping[str, Any]] | None = None
    """For a pattern: which of the fields above are others for a name that fits it."""


class Space:
    """The width of a model's vectors, as far as it is known before a tenant has any."""

    def __init__(self, declared: int | None = None) -> None:
        self.declared = declared
        """By the model's file."""
        self.width = declared
        """As it was last seen, for people."""


class Route:
    """One model name, resolved."""

    def __init__(
        self,
        model: EmbeddingModel,
        name: str,
        prefix: str,
        space: Space,
        cl100k: Cl100k,
        scopes: Scopes,
    ) -> None:
        self.model = model
        self.name = name
        self.backend = model.backend
        self.upstream_model = model.upstream_model or name
        self.space = space
        self.price = model.price
        self._prefix = prefix
        self._cl100k = cl100k
        self._identity = (
            f"{model.identity}\n{self.upstream_model}" if model.named else model.identity
        )
        self._tenants = Tenants(
            self._identity, name, scopes, forwards=model.forwards, split=model.split
        )

    def texts(self, request: EmbeddingRequest) -> Sequence[Text]:
        """Return the inputs as they are embedded: ids decoded where they mean text, prefixed.

        Raises InvalidInputError for an item that cannot be embedded.
        """
        inputs = request.inputs
        if isinstance(inputs[0], str):
            if "" in inputs:
                self._refuse_empty(inputs)
            return [self._prefix + text for text in inputs] if self._prefix else inputs  # type: ignore[operator]
        if self.model.token_ids == "reject":  # noqa: S105
            raise InvalidRequestError(
                f"Model '{self.name}' does not take arrays of token ids; send strings.",
                param="input",
            )
        if self.model.token_ids == "native":  # noqa: S105
            return inputs
        return [self._decoded(ids, item) for item, ids in enumerate(inputs)]

    def keys(
        self, texts: Sequence[Text], seed: int | None, caller: Caller, fields: Mapping[str, Any]
    ) -> tuple[Place, list[Key]]:
        """Return where the caller's vectors are kept now, and the key of each text there.

        Raises AuthenticationError where the model wants a key of his own, and he sent none.
        """
        place = self.place(caller)
        return place, place.keyspace.keys(texts, seed, fields)

    def place(self, caller: Caller) -> Place:
        """Return where the caller's vectors are kept now; raises as `keys` does."""
        return self._tenants.place(caller)

    def width(self, scope: Scope) -> int | None:
        """Return the width of the model's vectors, as far as it is known."""
        if self.space.declared is not None:
            return self.space.declared
        if scope.fact.width is not None:
            self.space.width = scope.fact.width
        return scope.fact.width

    def admit(self, width: int, scope: Scope, upstream: str) -> None:
        """Learn the width of the model's vectors, or raise VectorsRefusedError for another one."""
        known = self.width(scope)
        if known is None:
            scope.widen(width)
            self.space.width = width
        elif known != width:
            raise VectorsRefusedError(
                upstream,
                f"its vectors have {width} components where this model's have {known}. If another "
                "model stands behind its name now, purge what is kept of the old one: gateway "
                "cache purge --model …",
                "width",
                OTHER_WIDTH,
            )

    def forwarded(self, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the body fields that go upstream; raise for one that would change vectors."""
        if not extra:
            return extra
        for name in extra:
            if name in VECTOR_FIELDS and name not in self.model.forward:
                raise InvalidRequestError(
                    f"'{name}' would change the vectors of model '{self.name}', whose config does "
                    "not forward it; add it to the model's `forward` list or leave it out.",
                    param=name,
                )
        return {name: extra[name] for name in self.model.forward if name in extra}

    def check_dimensions(self, asked: int, width: int | None) -> None:
        """Raise InvalidRequestError where the model cannot be cut to `asked` components.

        `width` is the model's own, or None before it is known.
        """
        allowed = self.model.dimensions
        if asked == width:
            return
        if width is not None and asked > width:
            raise InvalidRequestError(
                f"Model '{self.name}' has {width} dimensions; {asked} cannot be had.",
                param="dimensions",
            )
        listed = () if isinstance(allowed, str) else allowed
        # Before the first vector any width may be the model's own; then it is asked again.
        if allowed == "any" or width is None or asked in listed:
            return
        only = ", ".join(map(str, [*listed, width]))
        raise InvalidRequestError(
            f"Model '{self.name}' was not trained to be shortened; `dimensions` may be {only}, "
            "or be left out.",
            param="dimensions",
        )

    def counts(self, texts: Sequence[Text]) -> list[int] | None:
        """Return the exact tokens of each text where the config declares a tokenizer."""
        if not self.model.count:
            return None
        return [self._cl100k.count(t) if isinstance(t, str) else len(t) for t in texts]

    def _decoded(self, ids: Text, item: int) -> Text:
        try:
            raw = self._cl100k.decode(ids)  # type: ignore[arg-type]
        except ValueError as error:
            raise InvalidInputError(f"{error}.", item=item) from error
        try:
            return self._prefix + raw.decode()
        except UnicodeDecodeError:
            # A client that cuts long texts by tokens may cut a character in two. OpenAI's models
            # know these ids and get them as they are; others get the text with a mark there.
            if self.model.knows_ids and not self._prefix:
                return ids
            return self._prefix + raw.decode(errors="replace")

    def _refuse_empty(self, inputs: Sequence[Text]) -> None:
        if len(inputs) == 1 and self.model.local:
            return
        raise InvalidInputError(
            "an empty string cannot be embedded; leave it out or send a space.",
            item=inputs.index(""),
        )


VECTOR_FIELDS = frozenset(
    {"input_type", "task", "task_type", "prompt", "prompt_name", "instruction", "embed_instruction",
     "late_chunking", "truncate_prompt_tokens", "normalize", "normalized", "output_dtype",
     "embedding_type", "output_dimension", "embd_normalize"}
)  # fmt: skip
"""Body fields by which the servers known to us change what a vector is."""
