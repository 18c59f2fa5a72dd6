"""What is served: the config's models, and for patterns what the upstream lists."""

import asyncio

import pytest

from gateway.cache.scopes import Scopes
from gateway.catalog import LISTED_FOR, Catalog
from gateway.chat_route import ChatModel
from gateway.errors import NotFoundError, UpstreamError
from gateway.route import EmbeddingModel
from gateway.routing import RoutingTable
from gateway.tokens import Cl100k
from gateway.types import Caller
from tests.backend import Backend

ANYONE = Caller()


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def catalog(*models, clock=None):
    return Catalog(RoutingTable(models, Cl100k(), Scopes(b"s" * 32)), clock or Clock())


def model(name, backend=None, **options):
    return EmbeddingModel(name, backend or Backend(), "i", **options)


def chat_model(name, backend=None, **options):
    return ChatModel(name, backend or Backend("up"), "i", **options)


def names(of, caller=ANYONE):
    return [found.id for found in asyncio.run(of.models(caller))]


def test_models_are_listed_in_the_configs_order_and_patterns_by_what_fits():
    """What the upstream has and no pattern covers is not served, so it is not listed."""
    backend = Backend(listed=["text-b", "text-a", "image-1", "exact"])
    of = catalog(model("text-*", backend), model("exact"), chat_model("gpt-5"), model("z"))
    assert names(of) == ["exact", "gpt-5", "z", "text-b", "text-a"]


def test_a_name_goes_to_the_pattern_that_would_serve_it():
    """Two patterns over two upstreams: each name once, where it would be answered."""
    wide = Backend("wide", listed=["text-1", "text-long-1", "z"])
    long = Backend("long", listed=["text-long-1", "text-2"])
    of = catalog(model("text-*", wide), model("text-long-*", long))
    listed = {found.id: found.upstream for found in asyncio.run(of.models(ANYONE))}
    assert listed == {"text-1": "wide", "text-long-1": "long"}


def test_a_key_sees_only_its_models():
    """In the list, and one by one."""
    of = catalog(model("mine"), model("theirs"))
    caller = Caller(models=["mine"])
    assert names(of, caller) == ["mine"]
    assert of.model("mine", caller).id == "mine"
    with pytest.raises(NotFoundError) as caught:
        of.model("theirs", caller)
    assert "Served: mine." in caught.value.message


def test_a_model_tells_width_context_pooling_and_where_it_is():
    """What helps to choose; unknown is null."""
    known = model("m", Backend("engine", width=384), aliases={"a": None}, max_tokens=256)
    said = catalog(known).model("a", ANYONE)
    assert (said.id, said.dimensions, said.context_length, said.pooling) == ("m", 384, 256, "mean")
    assert (said.upstream, said.owned_by, said.task, said.aliases) == (
        "engine", "engine", "embedding", ("a",),
    )  # fmt: skip
    unknown = catalog(model("m")).model("m", ANYONE)
    assert (unknown.dimensions, unknown.context_length, unknown.pooling) == (None, None, None)


def test_a_chat_model_says_what_it_is_for():
    """It is listed with its task, as whoever asks for the list may choose by it."""
    said = catalog(chat_model("gpt-*", aliases=())).model("gpt-5", ANYONE)
    assert (said.id, said.task, said.upstream) == ("gpt-5", "chat", "up")
    local = catalog(chat_model("m", Backend("engine", width=384), aliases=("a",)))
    said = local.model("a", ANYONE)
    assert (said.id, said.context_length, said.aliases) == ("m", 512, ("a",))
    assert (said.dimensions, said.pooling) == (None, None)


def test_a_model_that_does_both_is_listed_once():
    """The endpoint decides what it is for, so it has no task."""
    backend = Backend(listed=["text-1"])
    of = catalog(
        model("m", backend), chat_model("m", backend), model("*", backend), chat_model("*", backend)
    )
    listed = asyncio.run(of.models(ANYONE))
    assert [(found.id, found.task) for found in listed] == [("m", None), ("text-1", None)]
    assert backend.listings == 1


def test_names_that_fit_a_chat_pattern_are_listed():
    """As those of a pattern that embeds, each where it would be answered."""
    backend = Backend(listed=["gpt-5", "text-1", "image-1"])
    of = catalog(chat_model("gpt-*", backend), model("text-*", backend))
    listed = asyncio.run(of.models(ANYONE))
    assert [(found.id, found.task) for found in listed] == [
        ("gpt-5", "chat"),
        ("text-1", "embedding"),
    ]


@pytest.mark.parametrize("name", ["nope", "text-*", "*", ""])
def test_what_is_not_served_is_a_404(name):
    """A pattern is no name of a model."""
    with pytest.raises(NotFoundError) as caught:
        catalog(model("m"), model("text-*")).model(name, ANYONE)
    assert caught.value.code == "model_not_found"


def test_a_name_that_fits_a_pattern_is_a_model():
    """It would be answered, so it is there, under its own name."""
    assert catalog(model("text-*")).model("text-1", ANYONE).id == "text-1"


def test_an_upstreams_list_is_kept_for_five_minutes():
    """Nobody's model menu becomes an upstream's load."""
    backend, clock = Backend(listed=["text-1"]), Clock()
    of = catalog(model("text-*", backend), model("text-long-*", backend), clock=clock)
    for _ in range(3):
        assert names(of) == ["text-1"]
    assert backend.listings == 1
    clock.now += LISTED_FOR
    backend.listed = ["text-2"]
    assert names(of) == ["text-2"]


def test_an_upstream_that_does_not_tell_leaves_the_rest_of_the_list():
    """Its last list is shown as long as there is one; the config's own names always."""
    backend, clock = Backend(listed=UpstreamError("no")), Clock()
    of = catalog(model("text-*", backend), model("m"), clock=clock)
    assert names(of) == ["m"]
    backend.listed, clock.now = ["text-1"], clock.now + LISTED_FOR
    assert names(of) == ["m", "text-1"]
    backend.listed, clock.now = UpstreamError("no"), clock.now + LISTED_FOR
    assert names(of) == ["m", "text-1"]


def test_a_key_for_an_alias_sees_the_model_under_it():
    """Who may call a model by one name only is shown that name."""
    served = catalog(model("m", aliases={"by": None, "other": None}))
    listed = asyncio.run(served.models(Caller(models=("by",))))
    assert [one.id for one in listed] == ["by"]
