"""An upstream in its part for one of the models that it serves."""

from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from gateway.backends.base import ChatBackend, EmbeddingBackend
from gateway.backends.upstream import Upstream
from gateway.resilience.circuit import Circuit
from gateway.types import UpstreamInfo


class Backend(EmbeddingBackend, ChatBackend, Protocol):
    """One upstream: it embeds and chats, and what became of its calls is known."""

    @property
    def circuit(self) -> Circuit:
        """How its calls went; shared by all models that it serves."""
        ...

    @property
    def upstream(self) -> Upstream:
        """Who makes its calls; shared likewise."""
        ...


Pair = tuple[str, str | None]
"""An upstream's name, and the model's name there."""


@dataclass(frozen=True, slots=True)
class Member:
    """An upstream in its part for one model."""

    backend: Backend
    model: str | None = None
    """The model's name there; None for the name that is asked for."""
    local: bool = False
    """Whether it runs here."""

    @property
    def pair(self) -> Pair:
        """What tells it from others."""
        return self.backend.name, self.model

    def info(self) -> UpstreamInfo:
        """Return how the upstream is."""
        said = self.backend.info().upstreams or [UpstreamInfo(self.backend.name, "ready")]
        return replace(said[0], model=self.model)
