"""What is wrong with the models as a whole: names that clash, upstreams that cannot do the work.

Names and patterns are compared; nothing is asked whether it serves them.
"""

from collections.abc import Iterator
from itertools import combinations

from gateway.config.patterns import is_pattern, literal_length, overlap
from gateway.config.prices import ChatPrice
from gateway.config.problems import KeyPath, Problem, did_you_mean, quote, spell
from gateway.config.schema import Config, Model
from gateway.config.several_rules import several_problems
from gateway.config.upstreams import LlamaUpstream, OpenAIUpstream

_ALWAYS_HANDLED = frozenset({"model", "input", "encoding_format", "dimensions", "user", "seed"})
"""Body fields that mean the same for every model, whatever its config says."""
_ONLY_EMBEDDING = ("space", "similarity", "dimensions", "prefix", "truncate", "token_ids",
                   "tokenizer", "max_tokens", "forward", "drift")  # fmt: skip


_NO_MEANING = "has no meaning for a chat model"
_ACTS = frozenset({"refuse", "generation"})
"""Policies that somebody relies on."""


def model_problems(config: Config) -> Iterator[Problem]:
    """Yield what is wrong with each model, and between them."""
    if not config.models:
        yield Problem(
            ("models",),
            "there are none, so nothing can be asked for; add "
            '[models."NAME"] with upstreams = ["…"]',
        )
    for name, model in config.models.items():
        path: KeyPath = ("models", name)
        yield from _name(name, path)
        yield from _upstreams(config, model, path)
        yield from _pattern(name, model, path)
        yield from _options(model, path)
        yield from several_problems(config, name, model, path)
        yield from _once(_on_upstreams(config, name, model, path))
    yield from _aliases(config)
    yield from _ties(config)


def _name(name: str, path: KeyPath) -> Iterator[Problem]:
    if not name or not name.isprintable() or name != name.strip() or len(name) > 256:
        yield Problem(path, "a name is 1 to 256 printable characters, without spaces at its ends")


def _upstreams(config: Config, model: Model, path: KeyPath) -> Iterator[Problem]:
    at = (*path, "upstreams")
    unknown = [place for place, name in enumerate(model.upstreams) if name not in config.upstreams]
    for place in unknown:
        name = model.upstreams[place]
        one = at if len(model.upstreams) == 1 else (*at, place)
        hint = did_you_mean(name, config.upstreams) or "; add [upstreams.NAME]"
        yield Problem(one, f"no upstream is called {quote(name)}{hint}", because=(("upstreams",),))


def _on_upstreams(config: Config, name: str, model: Model, path: KeyPath) -> Iterator[Problem]:
    for upstream in model.upstreams:
        because: KeyPath = ("upstreams", upstream, "kind")
        match config.upstreams.get(upstream):
            case OpenAIUpstream() as asked if model.task != "chat":
                yield from _on_openai(model, asked, path, because)
            case LlamaUpstream():
                yield from _on_llama(name, model, path, because)
                yield from _one_task(config, upstream, model, path)


def _once(problems: Iterator[Problem]) -> Iterator[Problem]:
    """Leave out what is wrong for the same reason with several upstreams."""
    said = set()
    for problem in problems:
        if (problem.path, problem.message) not in said:
            said.add((problem.path, problem.message))
            yield problem


def _pattern(name: str, model: Model, path: KeyPath) -> Iterator[Problem]:
    if not is_pattern(name):
        return
    if set(name) & set("?[]"):
        yield Problem(path, 'only "*" is special in a pattern; "?", "[" and "]" cannot be used')
    if model.upstream_model is not None:
        yield Problem(
            (*path, "upstream_model"), "a pattern sends each name on as it is; leave this out"
        )
    if model.space is not None:
        yield Problem(
            (*path, "space"), "a pattern serves many models, and each has a space of its own"
        )
    if model.aliases:
        yield Problem(
            (*path, "aliases"), "a pattern cannot have aliases: which name would they be?"
        )


def _options(model: Model, path: KeyPath) -> Iterator[Problem]:
    for place, field in enumerate(model.forward):
        if field in _ALWAYS_HANDLED:
            yield Problem(
                (*path, "forward", place), f"{quote(field)} is always handled; leave it out"
            )
    if model.prefixed and model.token_ids == "native":  # noqa: S105
        yield Problem(
            (*path, "token_ids"),
            'a prefix cannot be put before ids of an unknown vocabulary; use "decode" or "reject"',
        )
    yield from _of_chat(model, path) if model.task == "chat" else _not_of_chat(model, path)


def _of_chat(model: Model, path: KeyPath) -> Iterator[Problem]:
    if isinstance(model.price, float):
        yield Problem(
            (*path, "price"),
            "is two prices for a chat model: write { input = 0.15, output = 0.60 }",
            because=((*path, "task"),),
        )
    defaults = Model(upstreams=model.upstreams)
    for option in _ONLY_EMBEDDING:
        if getattr(model, option) != getattr(defaults, option):
            yield Problem((*path, option), _NO_MEANING, warning=True)
    for alias, prefix in model.aliases.items():
        if prefix is not None:
            yield Problem((*path, "aliases", alias, "prefix"), _NO_MEANING, warning=True)


def _not_of_chat(model: Model, path: KeyPath) -> Iterator[Problem]:
    because: tuple[KeyPath, ...] = ((*path, "task"),)
    if model.cache in {"seeded", "deterministic"}:
        yield Problem(
            (*path, "cache"),
            f'{quote(model.cache)} is about chats: add task = "chat", or use "always" or "off"',
            because=because,
        )
    if model.task == "embedding" and isinstance(model.price, ChatPrice):
        yield Problem(
            (*path, "price"),
            f"is one number for a model that embeds: write {model.price.input}",
            because=because,
        )
    if model.cache == "off" and model.drift in _ACTS:
        yield Problem(
            (*path, "drift"),
            "has no meaning where nothing is kept to compare with",
            because=((*path, "cache"),),
            warning=True,
        )


def _on_openai(
    model: Model, upstream: OpenAIUpstream, path: KeyPath, because: KeyPath
) -> Iterator[Problem]:
    if upstream.forward_key and model.drift in _ACTS:
        yield Problem(
            (*path, "drift"),
            "has no meaning where callers send keys of their own: there is none to ask with",
            because=((*because[:2], "forward_key"),),
            warning=True,
        )
    if model.truncate:
        yield Problem(
            (*path, "truncate"),
            "only a llama upstream can cut texts and say so in this version",
            because=(because,),
        )
    if model.max_tokens is not None and model.tokenizer is None:
        yield Problem(
            (*path, "max_tokens"),
            'needs tokenizer = "cl100k_base", or tokens cannot be counted before they are sent',
            because=(because, (*path, "tokenizer")),
        )


def _on_llama(name: str, model: Model, path: KeyPath, because: KeyPath) -> Iterator[Problem]:
    if is_pattern(name):
        yield Problem(
            path,
            "a pattern cannot be served by a llama upstream: it has one model, and would answer "
            "for every name",
            because=(because,),
        )
    if model.forward and model.task != "chat":
        yield Problem(
            (*path, "forward"), "a llama upstream takes no further fields", because=(because,)
        )


def _one_task(config: Config, upstream: str, model: Model, path: KeyPath) -> Iterator[Problem]:
    because: KeyPath = ("upstreams", upstream, "kind")
    if model.task == "chat" or not config.chats(upstream):
        return
    chat = next(n for n, m in config.models.items() if m.task == "chat" and upstream in m.upstreams)
    at: KeyPath = ("models", chat)
    yield Problem(
        (*path, "upstreams"),
        f"{quote(upstream)} is for chat, as {spell(at)} says, and a llama upstream does one task; "
        "add a second one, with the same file, for this model",
        because=(because, (*path, "task"), (*at, "task")),
    )


def _aliases(config: Config) -> Iterator[Problem]:
    owners: dict[str, KeyPath] = {}
    for name, model in config.models.items():
        for alias in model.aliases:
            path: KeyPath = ("models", name, "aliases", alias)
            yield from _name(alias, path)
            if is_pattern(alias):
                yield Problem(path, 'an alias is one name, without "*"')
            elif alias in config.models:
                yield Problem(path, f"is also the name of {spell(('models', alias))}")
            elif alias in owners:
                yield Problem(path, f"is also an alias of {spell(owners[alias])}")
            owners.setdefault(alias, ("models", name))


def _ties(config: Config) -> Iterator[Problem]:
    patterns = [name for name in config.models if is_pattern(name)]
    for first, second in combinations(patterns, 2):
        if literal_length(first) == literal_length(second) and overlap(first, second):
            yield Problem(
                ("models", second),
                f"a name can fit this and {spell(('models', first))}, and neither is more "
                "specific; make one of them longer",
            )
