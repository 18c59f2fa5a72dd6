"""What is served, for people and programs that ask: the models, their widths, where they go."""

import asyncio
from collections.abc import Callable, Sequence

from gateway.chat_route import Listed
from gateway.errors import GatewayError
from gateway.routing import RoutingTable, Served, unknown_model
from gateway.schemas import Model
from gateway.types import Caller, matches

LISTED_FOR = 300.0
"""Seconds that an upstream's own list of models is kept."""
ASKED_AGAIN_AFTER = 10.0
"""Seconds until one that did not tell is asked again."""


class Catalog:
    """The models of the config, and for patterns the upstream's own names that fit them."""

    def __init__(self, routes: RoutingTable, clock: Callable[[], float]) -> None:
        self._routes = routes
        self._clock = clock
        self._listed: dict[str, tuple[float, Sequence[str]]] = {}

    async def models(self, caller: Caller) -> list[Model]:
        """Return what the caller may use: names in the config's order, then what fits patterns."""
        exact = [m for m in self._routes.models if not m.is_pattern]
        patterns = [m for m in self._routes.models if m.is_pattern]
        backends = {m.backend.name: m.backend for m in patterns}
        lists = dict(
            zip(
                backends,
                await asyncio.gather(*(self._names(b, caller) for b in backends.values())),
                strict=True,
            )
        )
        found = {m.name: self._describe(m, m.name) for m in exact}
        for model in patterns:
            for name in lists[model.backend.name]:
                if matches(model.name, name) and self._routes.find(name) is model:
                    found.setdefault(name, self._describe(model, name))
        for named in exact:
            # A key may cover a model by another of its names only.
            if not caller.may_use(named.name):
                for alias in filter(caller.may_use, named.aliases):
                    found[alias] = self._describe(named, alias)
        return [model for name, model in found.items() if caller.may_use(name)]

    def model(self, name: str, caller: Caller) -> Model:
        """Return one model by name, alias or fitting name; raise NotFoundError otherwise."""
        model = self._routes.find(name) if "*" not in name else None
        if model is None or not caller.may_use(name):
            raise unknown_model(name, [n for n in self._routes.names() if caller.may_use(n)])
        return self._describe(model, name if model.is_pattern else model.name)

    def _describe(self, served: Served, name: str) -> Model:
        info = served.backend.info()
        embeds = served.embedding
        return Model(
            id=name,
            owned_by=served.backend.name,
            task=served.task,
            upstream=served.backend.name,
            dimensions=(info.width or self._routes.width(name)) if embeds else None,
            context_length=(embeds and embeds.max_tokens) or info.context,
            pooling=info.pooling if embeds else None,
            aliases=tuple(served.aliases),
            state=info.state,
            upstreams=info.upstreams,
        )

    async def _names(self, backend: Listed, caller: Caller) -> Sequence[str]:
        """Return the upstream's own names; one that does not tell now is asked again later.

        Where it is asked with the caller's own key, it tells of what that key may use.
        """
        if caller.credential is not None and backend.forwards:
            try:
                return await backend.models(caller)
            except GatewayError:
                return ()
        kept = self._listed.get(backend.name)
        if kept is not None and self._clock() < kept[0]:
            return kept[1]
        lasts = LISTED_FOR
        try:
            names = await backend.models()
        except GatewayError:
            names = kept[1] if kept is not None else ()
            lasts = ASKED_AGAIN_AFTER
        self._listed[backend.name] = (self._clock() + lasts, names)
        return names
