"""From a model's name to its Route: exact name, then alias, then the longest pattern.

Names that nobody serves are refused; no name is ever answered with another model's vectors.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from cachetools import LRUCache

from gateway.cache.scopes import Scopes
from gateway.chat_route import ChatModel, ChatRoute, Listed
from gateway.errors import InvalidRequestError, NotFoundError, PermissionDeniedError
from gateway.route import EmbeddingModel, Route, Space
from gateway.tokens import Cl100k
from gateway.types import Caller, matches

_ROUTES_KEPT = 1024
"""Concrete names made from patterns are the clients' choice, so they are bounded."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model of the config, as what it can be asked for: one of the two, or both."""

    name: str
    backend: Listed
    aliases: Collection[str]
    embedding: EmbeddingModel | None = None
    chat: ChatModel | None = None

    @property
    def task(self) -> str | None:
        """The only thing it does; None where the endpoint decides."""
        if self.embedding and self.chat:
            return None
        return "embedding" if self.embedding else "chat"

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for every name that fits."""
        return "*" in self.name


class RoutingTable:
    """All models of a config. Names that nobody serves raise NotFoundError, never a neighbour."""

    def __init__(
        self, models: Sequence[EmbeddingModel | ChatModel], cl100k: Cl100k, scopes: Scopes
    ) -> None:
        """`models` are in the config's order; two of one name are one model that does both."""
        self.models = _together(models)
        self._cl100k = cl100k
        self._scopes = scopes
        self._routes: dict[str, Route] = {}
        self._by_pattern: LRUCache[str, Route] = LRUCache(_ROUTES_KEPT)
        self._chats: dict[str, ChatRoute] = {}
        self._chats_by_pattern: LRUCache[str, ChatRoute] = LRUCache(_ROUTES_KEPT)
        self._labels: dict[str, str] = {}
        aliases = {alias: served for served in self.models for alias in served.aliases}
        self._by_name = aliases | {served.name: served for served in self.models}
        self._patterns = sorted(
            (served for served in self.models if served.is_pattern),
            key=lambda served: len(served.name.replace("*", "")),
            reverse=True,
        )
        self._spaces: LRUCache[str, Space] = LRUCache(16 * _ROUTES_KEPT)
        for served in self.models:
            if not served.is_pattern:
                self._add(served)

    def embedding(self, name: str, caller: Caller) -> Route:
        """Return who embeds for this name.

        Raises PermissionDeniedError where the caller's key may not use it, NotFoundError for a
        name that nobody serves, InvalidRequestError for a model of another kind.
        """
        _admit(name, caller)
        return self._routes.get(name) or self._by_pattern.get(name) or self._resolve(name, caller)

    def chat(self, name: str, caller: Caller) -> ChatRoute:
        """Return who chats under this name; raises as `embedding` does."""
        _admit(name, caller)
        known = self._chats.get(name) or self._chats_by_pattern.get(name)
        return known or self._resolve_chat(name, caller)

    def width(self, name: str) -> int | None:
        """Return the width of a name's vectors as far as it is known."""
        route = self._routes.get(name) or self._by_pattern.get(name)
        return route.space.width if route is not None else None

    def names(self) -> list[str]:
        """Return every name and pattern, in the config's order, aliases behind their model."""
        return [name for served in self.models for name in (served.name, *served.aliases)]

    def label(self, name: str) -> str:
        """Return the config's name for a client's name, or "other": a bounded set, for metrics."""
        label = self._labels.get(name)
        if label is None:
            served = self.find(name)
            label = served.name if served is not None else "other"
            if len(self._labels) < _ROUTES_KEPT:
                self._labels[name] = label
        return label

    def find(self, name: str) -> Served | None:
        """Return the model that this name means, whatever its task."""
        named = self._by_name.get(name)
        return named or next((s for s in self._patterns if matches(s.name, name)), None)

    def _add(self, served: Served) -> None:
        if (chat := served.chat) is not None:
            route = ChatRoute(chat, served.name, self._scopes)
            self._chats |= dict.fromkeys([served.name, *served.aliases], route)
        if (model := served.embedding) is not None:
            self._routes[model.name] = self._route(model, model.name, model.prefix)
            for alias, prefix in model.aliases.items():
                own = model.prefix if prefix is None else prefix
                self._routes[alias] = self._route(model, model.name, own)

    def _route(self, model: EmbeddingModel, name: str, prefix: str) -> Route:
        # One model has one width, by whichever of its names it was learned.
        space = self._spaces.get(name)
        if space is None:
            space = self._spaces[name] = Space(model.backend.info().width)
        return Route(model, name, prefix, space, self._cl100k, self._scopes)

    def _resolve(self, name: str, caller: Caller) -> Route:
        model = self._meant(name, caller).embedding
        if model is None:
            raise InvalidRequestError(
                f"Model '{name[:100]}' is for chat completions (POST /v1/chat/completions); it "
                "makes no embeddings.",
                param="model",
            )
        if model.by_name is not None:
            model = replace(model, **model.by_name(name))
        route = self._by_pattern[name] = self._route(model, name, model.prefix)
        return route

    def _resolve_chat(self, name: str, caller: Caller) -> ChatRoute:
        model = self._meant(name, caller).chat
        if model is None:
            raise InvalidRequestError(
                f"Model '{name[:100]}' is for embeddings (POST /v1/embeddings); it makes no chat "
                "completions.",
                param="model",
            )
        route = self._chats_by_pattern[name] = ChatRoute(model, name, self._scopes)
        return route

    def _meant(self, name: str, caller: Caller) -> Served:
        served = self.find(name) if "*" not in name else None
        if served is None:
            raise unknown_model(name, [known for known in self.names() if caller.may_use(known)])
        return served


def _together(models: Sequence[EmbeddingModel | ChatModel]) -> Sequence[Served]:
    """Return the models by name, in their order."""
    together: dict[str, Served] = {}
    for model in models:
        known = together.get(model.name)
        served = known or Served(model.name, model.backend, model.aliases)
        if isinstance(model, ChatModel):
            together[model.name] = replace(served, chat=model)
        else:
            together[model.name] = replace(served, embedding=model)
    return list(together.values())


def _admit(name: str, caller: Caller) -> None:
    if not caller.may_use(name):
        raise PermissionDeniedError(
            f"This key may not use model '{name[:100]}'; it may use: "
            f"{', '.join(caller.models or ())}.",
            param="model",
        )


def unknown_model(name: str, served: Sequence[str]) -> NotFoundError:
    """Return the 404 that lists what there is, and the line to add."""
    shown = name if len(name) <= 100 else name[:100] + "…"
    listed = ", ".join(served)
    if not served:
        return NotFoundError(
            f"The model '{shown}' is not served here, and this key covers no other.",
            param="model",
            code="model_not_found",
        )
    return NotFoundError(
        f"The model '{shown}' is not served here. Served: {listed}. To call one of them by this "
        f'name, add  aliases = ["{shown}"]  to its [models."…"] table in the gateway\'s config.',
        param="model",
        code="model_not_found",
    )
