"""Who serves a model: its one upstream, or several as one backend."""

from collections.abc import Callable, Mapping
from random import random

from gateway.backends.member import Backend, Member, Pair
from gateway.backends.several import ChatUpstreams, EmbeddingUpstreams
from gateway.backends.turns import Turns
from gateway.config import Config, Model, is_pattern
from gateway.spaces.space import Space, Spaces

OnFailover = Callable[[str, str, str], None]
"""Told the model, the upstream that failed, and the one that is asked next."""


class Servers:
    """The backends that the models of a config are served by."""

    def __init__(
        self,
        config: Config,
        backends: Mapping[str, Backend],
        spaces: Spaces,
        on_failover: OnFailover = lambda _, __, ___: None,
        chance: Callable[[], float] = random,
    ) -> None:
        """`spaces` is told of those that have several upstreams."""
        self._config = config
        self._backends = backends
        self._on_failover = on_failover
        self._chance = chance
        self._spaces = {
            name: spaces.add(name, model, list(members.values()))
            for name, (model, members) in self._of_spaces().items()
            if len(members) > 1
        }

    def embedding(self, name: str, model: Model) -> Backend | EmbeddingUpstreams:
        """Return who embeds; a lone upstream too is compared with others of its space."""
        space = self._space_of(model)
        if space is None:
            return self._backends[model.upstreams[0]]
        return EmbeddingUpstreams(
            [self._member(upstream, name, model) for upstream in model.upstreams],
            space,
            self._turns(name, model),
        )

    def chat(self, name: str, model: Model) -> Backend | ChatUpstreams:
        """Return who chats."""
        if len(model.upstreams) == 1 or self._is_offline(model):
            return self._backends[model.upstreams[0]]
        members = [self._member(upstream, name, model) for upstream in model.upstreams]
        return ChatUpstreams(members, self._turns(name, model))

    def _of_spaces(self) -> dict[str, tuple[str, dict[Pair, tuple[Member, float]]]]:
        """Return for each space a model of it, and its members with what is alike enough."""
        found: dict[str, tuple[str, dict[Pair, tuple[Member, float]]]] = {}
        for name, model in self._config.models.items():
            if model.space is None or model.task == "chat" or self._is_offline(model):
                continue
            _, members = found.setdefault(model.space, (name, {}))
            for upstream in model.upstreams:
                member = self._member(upstream, name, model)
                _, alike = members.get(member.pair, (member, 0.0))
                members[member.pair] = member, max(alike, model.similarity)
        return found

    def _space_of(self, model: Model) -> Space | None:
        return None if self._is_offline(model) else self._spaces.get(model.space or "")

    def _is_offline(self, model: Model) -> bool:
        # Nobody is asked: one name is enough.
        return model.offline or self._config.server.offline

    def _member(self, upstream: str, name: str, model: Model) -> Member:
        local = self._config.is_local(upstream)
        # What runs here has one model, whatever it is called.
        there = None if local or is_pattern(name) else model.name_at(upstream, name)
        return Member(self._backends[upstream], there, local=local)

    def _turns(self, name: str, model: Model) -> Turns:
        def failed_over(failed: str, following: str) -> None:
            self._on_failover(name, failed, following)

        return Turns(model.weights, self._chance, failed_over)
