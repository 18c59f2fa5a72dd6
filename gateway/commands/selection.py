"""Which scopes of a store a command is about: those of some models, of some tenants, or all."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gateway.cache.facts import ScopeFact
from gateway.commands.opened import CommandError
from gateway.config import Config, LlamaUpstream, Model, is_pattern
from gateway.types import matches


@dataclass(frozen=True, slots=True)
class Selection:
    """Names that were typed; none of a kind: all of it. `*` stands for any characters."""

    models: Collection[str] = ()
    tenants: Collection[str] = ()

    def of(self, config: Config, known: Mapping[str, ScopeFact]) -> dict[str, ScopeFact]:
        """Return what is meant of these scopes, by id.

        A model is meant by the name that stands in the store, and by each of its names in the
        config. Raises CommandError for a name that means nothing here.
        """
        for name in self.models:
            if not any(_is_called(config, fact.model, name) for fact in known.values()):
                raise _unknown("model", name, [fact.model for fact in known.values()])
        for name in self.tenants:
            if not any(matches(name, fact.tenant) for fact in known.values()):
                raise _unknown("tenant", name, [fact.tenant for fact in known.values()])
        return {
            scope: fact
            for scope, fact in known.items()
            if (not self.models or any(_is_called(config, fact.model, n) for n in self.models))
            and (not self.tenants or any(matches(n, fact.tenant) for n in self.tenants))
        }


def _unknown(kind: str, name: str, there: Collection[str]) -> CommandError:
    listed = ", ".join(sorted(set(there))) or "nothing at all"
    return CommandError(f"the store holds nothing of {kind} '{name}'; it holds {listed}")


def _is_called(config: Config, stored: str, name: str) -> bool:
    """Whether vectors that are stored under one name are those of another."""
    if matches(name, stored):
        return True
    asked = _vectors_of(config, name)
    return asked is not None and asked == _vectors_of(config, stored)


def _vectors_of(config: Config, name: str) -> tuple[object, ...] | None:
    """Return what tells a model's vectors from others, as far as the config says."""
    found = _find(config, name)
    if found is None:
        return None
    called, model = found
    if model.space is not None:
        return ("space", model.space)
    first = model.upstreams[0]
    upstream = config.upstreams[first]
    if isinstance(upstream, LlamaUpstream):
        return (upstream.model, upstream.pooling, upstream.n_ctx if model.truncate else None)
    return (upstream.base_url, model.name_at(first, called))


def _find(config: Config, name: str) -> tuple[str, Model] | None:
    """Return the model that a name means in the config, and its name without aliases."""
    for called, model in config.models.items():
        if name == called or name in model.aliases:
            return called, model
    fitting = [p for p in config.models if is_pattern(p) and matches(p, name)]
    longest = max(fitting, key=lambda pattern: len(pattern.replace("*", "")), default=None)
    return None if longest is None else (name, config.models[longest])
