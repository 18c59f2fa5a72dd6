"""What is wrong with the upstreams of a model where they are several, and with a space's."""

from collections.abc import Iterable, Iterator

from gateway.config.patterns import is_pattern
from gateway.config.problems import KeyPath, Problem, did_you_mean, quote
from gateway.config.schema import Config, Model
from gateway.config.several import ALIKE
from gateway.config.upstreams import OpenAIUpstream


def several_problems(config: Config, name: str, model: Model, path: KeyPath) -> Iterator[Problem]:
    """Yield what is wrong with the upstreams of a model as its several upstreams."""
    at = (*path, "upstreams")
    yield from _twice(model, at)
    yield from _weights(model, path)
    yield from _names(config, model, path)
    if model.task == "chat":
        return
    if len(set(model.upstreams)) > 1:
        yield from _of_one_space(name, model, at)
    elif model.space is not None and _is_compared(config, model.space):
        yield from _keys_of_others(config, model, at)
    if model.space is None and model.similarity != ALIKE:
        yield Problem(
            (*path, "similarity"),
            "has no meaning without space: there is nothing to compare with",
            warning=True,
        )


def _is_compared(config: Config, space: str) -> bool:
    """Whether a space has several upstreams, or one under several names."""
    named = {
        (upstream, model.name_at(upstream, name))
        for name, model in config.models.items()
        if model.space == space and model.task != "chat"
        for upstream in model.upstreams
    }
    return len(named) > 1


def _keys_of_others(config: Config, model: Model, at: KeyPath) -> Iterator[Problem]:
    for upstream in model.upstreams:
        match config.upstreams.get(upstream):
            case OpenAIUpstream(forward_key=True):
                yield Problem(
                    at,
                    f"the upstreams of space {quote(model.space or '')} are compared with keys of "
                    f"the gateway's own, and {quote(upstream)} is only asked with those of callers",
                    because=(("upstreams", upstream, "forward_key"), (*at[:-1], "space")),
                )


def _of_one_space(name: str, model: Model, at: KeyPath) -> Iterator[Problem]:
    because = ((*at[:-1], "task"), (*at[:-1], "space"))
    chat = 'or task = "chat" if it is for chats only'
    if is_pattern(name):
        yield Problem(
            at,
            "a pattern that embeds has one upstream, as each of its models has a space of its own; "
            f"name one, {chat}",
            because=because,
        )
    elif model.space is None:
        yield Problem(
            at,
            "several upstreams for embeddings must make vectors of one space, which is compared "
            f"before they are asked: add space with a name of your own, {chat}",
            because=because,
        )


def _twice(model: Model, at: KeyPath) -> Iterator[Problem]:
    for place, upstream in enumerate(model.upstreams):
        if upstream in model.upstreams[:place]:
            yield Problem((*at, place), f"{quote(upstream)} stands here twice")


def _weights(model: Model, path: KeyPath) -> Iterator[Problem]:
    if model.weights is None:
        return
    at = (*path, "weights")
    yield from _strangers(model.weights, model, at)
    if not any(model.weights.values()):
        yield Problem(at, "are all 0, so that nobody would be asked first; give one a 1")
    elif len(model.upstreams) == 1:
        yield Problem(at, "have no meaning with one upstream", warning=True)


def _names(config: Config, model: Model, path: KeyPath) -> Iterator[Problem]:
    at = (*path, "upstream_model")
    if model.upstream_model is None:
        return
    local = list(filter(config.is_local, model.upstreams))
    if isinstance(model.upstream_model, str):
        wrong = [at] if local and len(local) == len(model.upstreams) else []
    else:
        yield from _strangers(model.upstream_model, model, at)
        wrong = [(*at, upstream) for upstream in local if upstream in model.upstream_model]
    for where in wrong:
        yield Problem(
            where,
            "a llama upstream has one model; leave this out",
            because=(("upstreams", local[0], "kind"), (*path, "upstreams")),
        )


def _strangers(named: Iterable[str], model: Model, at: KeyPath) -> Iterator[Problem]:
    for upstream in named:
        if upstream not in model.upstreams:
            hint = did_you_mean(upstream, model.upstreams)
            yield Problem(
                (*at, upstream),
                f"no upstream of this model is called {quote(upstream)}{hint}",
                because=((*at[:-1], "upstreams"),),
            )
