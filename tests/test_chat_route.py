"""What one chat model's route says: who answers, and where answers are kept."""

import pytest

from gateway.cache.scopes import Scopes
from gateway.chat_route import ChatModel
from gateway.route import EmbeddingModel
from gateway.routing import RoutingTable
from gateway.tokens import Cl100k
from gateway.types import Caller
from tests.backend import Backend

ANYONE = Caller()
CL100K = Cl100k()


def route(name="m", scopes=None, **options):
    """Return the route of a chat model's name, or of a name that fits it."""
    options = {"backend": Backend(), "identity": "chat\ni"} | options
    models = [ChatModel(options.pop("pattern", name), **options)]
    return RoutingTable(models, CL100K, scopes or Scopes(b"s" * 32)).chat(name, ANYONE)


def kept_in(of, tenant="t"):
    """Return what names the answers of a route: they are shared exactly where this is equal."""
    return of.place(Caller(tenant=tenant)).namespace


def test_a_name_upstream_is_the_configs_or_the_clients():
    """`upstream_model` goes out in the place of a name; names of a pattern go out as they are."""
    assert (route().name, route().upstream_model) == ("m", "m")
    assert route(upstream_model="n").upstream_model == "n"
    fitting = route("gpt-5", pattern="gpt-*")
    assert (fitting.name, fitting.upstream_model) == ("gpt-5", "gpt-5")


def test_answers_are_kept_by_tenant_identity_and_name_upstream():
    """What may answer otherwise is another place; an alias of a model is not."""
    scopes = Scopes(b"s" * 32)
    routes = [
        route(scopes=scopes),
        route(scopes=scopes, identity="chat\nelsewhere"),
        route(scopes=scopes, upstream_model="n"),
        route("gpt-5", scopes, pattern="gpt-*"),
        route("gpt-6", scopes, pattern="gpt-*"),
    ]
    places = [kept_in(one, tenant) for one in routes for tenant in "ab"]
    assert len(set(places)) == len(places)
    assert kept_in(routes[0]) == kept_in(route(scopes=scopes, aliases=("other",)))
    assert routes[0].place(ANYONE) is routes[0].place(ANYONE)


def test_a_local_model_has_no_name_upstream_in_its_identity():
    """It is the file that answers, whatever the config calls it."""
    assert kept_in(route("a", local=True, named=False)) == kept_in(
        route("b", local=True, named=False)
    )


def test_chats_and_vectors_of_one_model_are_kept_apart():
    """One name, one upstream, two scopes: their entries are of another kind."""
    scopes = Scopes(b"s" * 32)
    embeds = EmbeddingModel("m", Backend(), "openai\na")
    models = [embeds, ChatModel("m", Backend(), "chat\nopenai\na")]
    routes = RoutingTable(models, CL100K, scopes)
    vectors, _ = routes.embedding("m", ANYONE).keys(["x"], None, Caller(tenant="t"), {})
    assert vectors.namespace != kept_in(routes.chat("m", ANYONE))


@pytest.mark.parametrize(
    ("prices", "counted"),
    [
        ({}, False),
        ({"price_in": 0.0, "price_out": 0.0}, True),
        ({"price_in": 0.15, "price_out": 0.6}, True),
    ],
)
def test_tokens_are_counted_where_they_have_a_price(prices, counted):
    """Else an upstream that does not know `stream_options` is not troubled with it."""
    assert route(**prices).counted == counted
