"""A model that chats as the config describes it, and a ChatRoute: one of its names, to be asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.backends.base import ChatBackend
from gateway.cache.scopes import Place, Scopes
from gateway.tenants import Tenants
from gateway.types import ANYONE, Caller, ModelInfo


class Listed(Protocol):
    """What any upstream says of itself, whatever it is asked for."""

    name: str

    @property
    def forwards(self) -> bool:
        """Whether it is asked with the caller's own key."""
        ...

    async def models(self, caller: Caller = ANYONE) -> Sequence[str]:
        """Return the model names that the upstream says it serves; empty where it does not say."""
        ...

    def info(self) -> ModelInfo:
        """Return what is known of the model without asking anybody."""
        ...


class ListedChat(ChatBackend, Listed, Protocol):
    """An upstream that chats, and says what it serves."""


@dataclass(frozen=True, slots=True)
class ChatModel:
    """A model of the config that chats. `name` may be a pattern; see `ChatRoute` for one name."""

    name: str
    backend: ListedChat
    identity: str
    """Names what answers, up to the upstream's name for the model where `named`."""
    named: bool = True
    upstream_model: str | None = None
    aliases: Sequence[str] = ()
    local: bool = False
    """Whether it runs here, where a seed means the same answer."""
    cache: Literal["always", "deterministic", "seeded", "off"] = "seeded"
    """Which answers are kept: all, those with a seed or temperature 0, with a seed, or none."""
    offline: bool = False
    """Whether only what is kept is answered."""
    forwards: bool = False
    """Whether upstreams are asked with the caller's own key."""
    split: bool = False
    """Whether the cache is split by that key."""
    price_in: float | None = None
    """US dollars for a million tokens of prompts; None: not known."""
    price_out: float | None = None
    """US dollars for a million tokens of answers; None: not known."""


class ChatRoute:
    """One model name, resolved for chat."""

    def __init__(self, model: ChatModel, name: str, scopes: Scopes) -> None:
        self.model = model
        self.name = name
        self.backend = model.backend
        self.upstream_model = model.upstream_model or name
        self.local = model.local
        self.counted = model.price_in is not None or model.price_out is not None
        """Whether it is worth asking the upstream how many tokens a stream had."""
        self._identity = (
            f"{model.identity}\n{self.upstream_model}" if model.named else model.identity
        )
        self._tenants = Tenants(
            self._identity, name, scopes, forwards=model.forwards, split=model.split
        )

    def place(self, caller: Caller) -> Place:
        """Return where the caller's answers are kept now; see Route.keys."""
        return self._tenants.place(caller)
