"""From a name to who serves it: exact, alias, the longest pattern, and never a neighbour."""

import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.scopes import Scopes
from gateway.chat_route import ChatModel
from gateway.errors import (
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
)
from gateway.route import EmbeddingModel
from gateway.routing import RoutingTable
from gateway.tokens import Cl100k
from gateway.types import Caller, EmbeddingRequest, matches
from tests.backend import Backend

ANYONE = Caller()
CL100K = Cl100k()


def model(name, **options):
    options = {"backend": Backend(), "identity": f"id of {name}"} | options
    return EmbeddingModel(name, **options)


def chat_model(name, **options):
    options = {"backend": Backend("up"), "identity": f"chat id of {name}"} | options
    return ChatModel(name, **options)


def both(name, **options):
    return model(name, **options), chat_model(name, **options)


def table(*models):
    return RoutingTable(models, CL100K, Scopes(b"s" * 32))


def request(*inputs, **fields):
    return EmbeddingRequest("m", inputs, **fields)


def test_an_exact_name_goes_before_an_alias_and_that_before_the_longest_pattern():
    """The config's order does not matter; the literal part of a pattern does."""
    routes = table(
        model("*"),
        model("text-*"),
        model("text-embedding-*"),
        model("exact", aliases={"text-embedding-alias": None}),
        model("text-embedding-exact"),
    )
    served = {
        "text-embedding-exact": "text-embedding-exact",
        "text-embedding-alias": "exact",
        "text-embedding-3-small": "text-embedding-*",
        "text-ada": "text-*",
        "gte": "*",
        "exact": "exact",
        "embedding-text": "*",
    }
    found = {name: routes.embedding(name, ANYONE).model.name for name in served}
    assert found == served


@given(name=st.text(max_size=12), pattern=st.text("ab*.[?\n", max_size=8))
def test_only_the_star_is_special_in_a_pattern(name, pattern):
    """A pattern fits what a walk through its literal parts fits."""
    first, *rest = pattern.split("*")
    fits = name == pattern
    if rest:
        fits = name.startswith(first) and _in_order(name[len(first) :], rest)
    assert matches(pattern, name) == fits


def _in_order(name, parts):
    *middle, last = parts
    for part in middle:
        at = name.find(part)
        if at < 0:
            return False
        name = name[at + len(part) :]
    return len(name) >= len(last) and name.endswith(last)


def test_a_name_of_a_pattern_is_its_own_model():
    """Names of one pattern go upstream as they are and share no vectors."""
    routes = table(model("text-*"))
    small, large = (routes.embedding(name, ANYONE) for name in ("text-small", "text-large"))
    assert ("text-small", "text-large") == (small.upstream_model, large.upstream_model)
    assert keys(small) != keys(large)
    assert routes.embedding("text-small", ANYONE) is small


def test_an_alias_shares_its_models_vectors():
    """Another name for one model is another name for its vectors."""
    routes = table(model("m", aliases={"other": None}))
    assert keys(routes.embedding("m", ANYONE)) == keys(routes.embedding("other", ANYONE))
    assert routes.embedding("other", ANYONE).name == "m"


def keys(of, text="x", seed=None, tenant="t", **fields):
    _, made = of.keys(of.texts(request(text)), seed, Caller(tenant=tenant), fields)
    return made


@pytest.mark.parametrize("name", ["nope", "M", "m ", "", "*", "text-*", "x" * 5000])
def test_a_name_that_nobody_serves_is_a_404_that_teaches(name):
    """P6: never a neighbour. The answer lists what there is and the line to add."""
    routes = table(model("m", aliases={"alias": None}), model("text-*"), chat_model("chat"))
    with pytest.raises(NotFoundError) as caught:
        routes.embedding(name, ANYONE)
    error = caught.value
    assert ("model", "model_not_found") == (error.param, error.code)
    assert "Served: m, alias, text-*, chat." in error.message
    assert "aliases = [" in error.message
    assert len(error.message) < 500


def test_the_404_lists_only_what_the_key_may_use():
    """A tenant does not learn another's models from an error."""
    routes = table(model("mine-a"), model("theirs"))
    with pytest.raises(NotFoundError) as caught:
        routes.embedding("mine-b", Caller(models=["mine-*"]))
    assert "theirs" not in caught.value.message


def test_a_key_that_may_not_use_a_model_is_told_so_with_what_it_may():
    """403, before anybody says whether the model exists."""
    routes = table(model("mine"), model("theirs"))
    for name in ("theirs", "nothing"):
        with pytest.raises(PermissionDeniedError) as caught:
            routes.embedding(name, Caller(models=["mine", "my-*"]))
        assert "it may use: mine, my-*." in caught.value.message
    assert routes.embedding("mine", Caller(models=["mine"])).name == "mine"


def test_a_chat_model_makes_no_embeddings():
    """The name exists, so it is a 400 that says what it is for."""
    routes = table(chat_model("gpt-*"), chat_model("c", aliases=("d",)), *both("*"))
    for name in ("gpt-5", "c", "d", "gpt-" + "5" * 5000):
        with pytest.raises(InvalidRequestError, match="for chat completions") as caught:
            routes.embedding(name, ANYONE)
        assert (400, "model") == (caught.value.status, caught.value.param)
        assert "POST /v1/chat/completions" in caught.value.message
        assert len(caught.value.message) < 500


def test_an_embedding_model_makes_no_chat():
    """The other way round: no pattern that chats takes the name over."""
    routes = table(model("text-*"), model("e", aliases={"f": "query: "}), *both("*"))
    for name in ("text-1", "e", "f"):
        with pytest.raises(InvalidRequestError, match="for embeddings") as caught:
            routes.chat(name, ANYONE)
        assert (400, "model") == (caught.value.status, caught.value.param)
        assert "POST /v1/embeddings" in caught.value.message


def test_a_model_may_do_both():
    """The endpoint decides: one name, one alias and one pattern, each with a route of each kind."""
    named = model("m", aliases={"a": "query: "}), chat_model("m", aliases=("a",))
    routes = table(*named, *both("text-*"))
    for name in ("m", "a", "text-1"):
        embedding, chat = routes.embedding(name, ANYONE), routes.chat(name, ANYONE)
        assert embedding.name == chat.name == ("text-1" if name == "text-1" else "m")
        assert (routes.embedding(name, ANYONE), routes.chat(name, ANYONE)) == (embedding, chat)
    assert routes.names() == ["m", "a", "text-*"]
    assert [(served.name, served.task) for served in routes.models] == [
        ("m", None),
        ("text-*", None),
    ]


@pytest.mark.parametrize("name", ["nope", "M", "", "*", "gpt-*", "x" * 5000])
def test_a_chat_with_a_name_that_nobody_serves_is_a_404(name):
    """As for embeddings, with the same list."""
    routes = table(chat_model("c", aliases=("alias",)), chat_model("gpt-*"), model("m"))
    with pytest.raises(NotFoundError) as caught:
        routes.chat(name, ANYONE)
    assert ("model", "model_not_found") == (caught.value.param, caught.value.code)
    assert "Served: c, alias, gpt-*, m." in caught.value.message


def test_a_key_may_chat_with_its_models_only():
    """403, before anybody says whether the model exists."""
    routes = table(chat_model("mine"), chat_model("theirs"))
    for name in ("theirs", "nothing"):
        with pytest.raises(PermissionDeniedError):
            routes.chat(name, Caller(models=["mine"]))
    assert routes.chat("mine", Caller(models=["mine"])).name == "mine"


def test_labels_are_the_configs_names():
    """Whatever a client sends, a label is a name or pattern of the config, or `other`."""
    routes = table(
        model("m", aliases={"a": None}),
        model("text-*"),
        chat_model("gpt-*"),
        chat_model("c"),
    )
    labels = {name: routes.label(name) for name in ("m", "a", "text-1", "gpt-5", "c", "x", "", "*")}
    assert labels == {
        "m": "m", "a": "m", "text-1": "text-*", "gpt-5": "gpt-*", "c": "c",
        "x": "other", "": "other", "*": "other",
    }  # fmt: skip


def test_names_of_clients_choosing_are_not_kept_for_ever():
    """Thousands of names that fit a pattern: the oldest are forgotten, and nothing else changes."""
    routes = table(*both("text-*"))
    for ask in (routes.embedding, routes.chat):
        made = [weakref.ref(ask(f"text-{number}", ANYONE)) for number in range(1100)]
        alive = [ref() is not None for ref in made]
        assert sum(alive) == 1024
        assert alive[-1]
        assert ask("text-0", ANYONE).name == "text-0"
