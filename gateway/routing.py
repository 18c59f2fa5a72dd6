"""From a model's name to its Route: exact name, then alias, then the longest pattern.

Names that nobody serves are refused; no name is ever answered with another model's vectors.
"""

from collections.abc import Sequence
from dataclasses import replace

from cachetools import LRUCache

from gateway.cache.scopes import Scopes
from gateway.errors import InvalidRequestError, NotFoundError, PermissionDeniedError
from gateway.route import ChatModel, EmbeddingModel, Route, Space
from gateway.tokens import Cl100k
from gateway.types import Caller, matches

_ROUTES_KEPT = 1024
"""Concrete names made from patterns are the clients' choice, so they are bounded."""


class RoutingTable:
    """All models of a config. Names that nobody serves raise NotFoundError, never a neighbour."""

    def __init__(
        self, models: Sequence[EmbeddingModel | ChatModel], cl100k: Cl100k, scopes: Scopes
    ) -> None:
        self.models = models
        self._cl100k = cl100k
        self._scopes = scopes
        self._routes: dict[str, Route] = {}
        self._by_pattern: LRUCache[str, Route] = LRUCache(_ROUTES_KEPT)
        self._labels: dict[str, str] = {}
        self._patterns = sorted(
            (model for model in models if "*" in model.name),
            key=lambda model: len(model.name.replace("*", "")),
            reverse=True,
        )
        self._spaces: LRUCache[str, Space] = LRUCache(16 * _ROUTES_KEPT)
        for model in models:
            if isinstance(model, EmbeddingModel) and "*" not in model.name:
                self._add(model)

    def embedding(self, name: str, caller: Caller) -> Route:
        """Return who embeds for this name.

        Raises PermissionDeniedError where the caller's key may not use it, NotFoundError for a
        name that nobody serves, InvalidRequestError for a model of another kind.
        """
        if not caller.may_use(name):
            raise PermissionDeniedError(
                f"This key may not use model '{name[:100]}'; it may use: "
                f"{', '.join(caller.models or ())}.",
                param="model",
            )
        return self._routes.get(name) or self._by_pattern.get(name) or self._resolve(name, caller)

    def width(self, name: str) -> int | None:
        """Return the width of a name's vectors as far as it is known."""
        route = self._routes.get(name) or self._by_pattern.get(name)
        return route.space.width if route is not None else None

    def names(self) -> list[str]:
        """Return every name and pattern, in the config's order, aliases behind their model."""
        listed = []
        for model in self.models:
            listed.append(model.name)
            if isinstance(model, EmbeddingModel):
                listed.extend(model.aliases)
        return listed

    def label(self, name: str) -> str:
        """Return the config's name for a client's name, or "other": a bounded set, for metrics."""
        label = self._labels.get(name)
        if label is None:
            model = self.find(name)
            label = model.name if model is not None else "other"
            if len(self._labels) < _ROUTES_KEPT:
                self._labels[name] = label
        return label

    def find(self, name: str) -> EmbeddingModel | ChatModel | None:
        """Return the model that this name means, whatever its task."""
        for model in self.models:
            if name == model.name or (isinstance(model, EmbeddingModel) and name in model.aliases):
                return model
        return next((model for model in self._patterns if matches(model.name, name)), None)

    def _add(self, model: EmbeddingModel) -> None:
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
        model = self.find(name) if "*" not in name else None
        if isinstance(model, EmbeddingModel):
            if model.by_name is not None:
                model = replace(model, **model.by_name(name))
            route = self._by_pattern[name] = self._route(model, name, model.prefix)
            return route
        if model is not None:
            raise InvalidRequestError(
                f"Model '{name}' is for chat completions; it makes no embeddings.", param="model"
            )
        raise unknown_model(name, [served for served in self.names() if caller.may_use(served)])


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
