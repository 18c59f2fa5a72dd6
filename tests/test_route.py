"""What one model's route makes of a request: its texts, its keys, its width, its fields."""

import pytest

from gateway.cache.facts import PREFIX, ScopeFact, write_fact
from gateway.cache.scopes import Scopes
from gateway.errors import InvalidInputError, InvalidRequestError, VectorsRefusedError
from gateway.route import VECTOR_FIELDS, EmbeddingModel
from gateway.routing import RoutingTable
from gateway.tokens import Cl100k
from gateway.types import Caller, EmbeddingRequest
from tests.backend import Backend

ANYONE = Caller()
HALF_EMOJI = (9468,)
"""The id of cl100k's first two bytes of four: no text by themselves."""
CL100K = Cl100k()


def model(name, **options):
    options = {"backend": Backend(), "identity": f"id of {name}"} | options
    return EmbeddingModel(name, **options)


def table(*models):
    return RoutingTable(models, CL100K, Scopes(b"s" * 32))


def route(**options):
    return table(model("m", **options)).embedding("m", ANYONE)


def request(*inputs, **fields):
    return EmbeddingRequest("m", inputs, **fields)


def keys(of, text="x", seed=None, tenant="t", **fields):
    _, made = of.keys(of.texts(request(text)), seed, Caller(tenant=tenant), fields)
    return made


def test_a_prefix_is_part_of_the_text():
    """The model's, or that of the alias in its place; the key is that of the whole text."""
    routes = table(
        model("m", prefix="passage: ", aliases={"m:query": "query: ", "m:bare": "", "same": None})
    )
    texts = {
        name: list(routes.embedding(name, ANYONE).texts(request("x", "y")))
        for name in ("m", "m:query", "m:bare", "same")
    }
    assert texts == {
        "m": ["passage: x", "passage: y"],
        "m:query": ["query: x", "query: y"],
        "m:bare": ["x", "y"],
        "same": ["passage: x", "passage: y"],
    }
    bare, query = (routes.embedding(name, ANYONE) for name in ("m:bare", "m:query"))
    assert keys(bare, "query: x") == keys(query, "x")


def test_tenants_share_no_keys():
    """Two tenants, one text, two names, in two places."""
    here = route()
    assert keys(here, tenant="a") != keys(here, tenant="b")
    places = [here.keys(["x"], None, Caller(tenant=tenant), {})[0] for tenant in "aba"]
    assert places[0] is places[2]
    assert places[0].namespace != places[1].namespace


def test_a_purge_gives_every_text_another_name():
    """The generation of a tenant's vectors is part of their keys, from the next request on."""
    scopes = Scopes(b"s" * 32)
    here = RoutingTable([model("m")], CL100K, scopes).embedding("m", ANYONE)
    before = [keys(here, tenant=tenant) for tenant in "ab"]
    place, _ = here.keys(["x"], None, Caller(tenant="a"), {})
    fact = write_fact(ScopeFact("a", "m", generation=1))
    scopes.learn({PREFIX + place.scope.id: fact})
    after = [keys(here, tenant=tenant) for tenant in "ab"]
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)


def test_keys_follow_identity_upstream_name_seed_and_fields():
    """Whatever could change the vector is in the key."""
    made = [
        keys(route()),
        keys(route(identity="elsewhere")),
        keys(route(upstream_model="n")),
        keys(route(), seed=1),
        keys(route(), seed=2),
        keys(route(), input_type="query"),
        keys(route(), text="y"),
    ]
    assert len({key for (key,) in made}) == len(made)


def test_a_named_space_is_the_identity_whatever_the_name():
    """`space` says that models are the same; their names upstream may differ."""
    one = route(identity="space\ns", named=False, upstream_model="a")
    two = route(identity="space\ns", named=False, upstream_model="b")
    assert keys(one) == keys(two)


# dimensions


@pytest.mark.parametrize(
    ("allowed", "width", "asked", "ok"),
    [
        ("any", 8, 1, True),
        ("any", 8, 8, True),
        ("any", 8, 9, False),
        ("any", None, 9, True),
        ("native", 8, 8, True),
        ("native", 8, 4, False),
        ("native", 8, 9, False),
        ("native", None, 4, True),
        ((4, 2), 8, 4, True),
        ((4, 2), 8, 2, True),
        ((4, 2), 8, 8, True),
        ((4, 2), 8, 3, False),
        ((4, 2), 8, 16, False),
        ((4, 16), 8, 16, False),
        ((4, 2), None, 4, True),
        # mem0 always sends the model's own width; it may be that, as long as nobody knows.
        ((4, 2), None, 8, True),
    ],
)
def test_dimensions_are_those_the_model_allows(allowed, width, asked, ok):
    """Its own width always; smaller ones where the config says it was trained for them."""
    here = route(dimensions=allowed)
    if ok:
        here.check_dimensions(asked, width)
        return
    with pytest.raises(InvalidRequestError) as caught:
        here.check_dimensions(asked, width)
    assert (400, "dimensions") == (caught.value.status, caught.value.param)
    assert str(width) in caught.value.message


def test_a_width_is_learned_once_and_then_demanded():
    """The first vector tells; another width later is an upstream's error, and says what to do."""
    scope = Scopes(b"s" * 32).of("t", "identity", "m")
    here = route()
    for _ in range(2):
        here.admit(8, scope, "up")
    with pytest.raises(VectorsRefusedError, match=r"9 components where this model's have 8.*purge"):
        here.admit(9, scope, "up")


def test_a_width_that_the_stores_know_is_this_models():
    """Another worker learned it, or this one before it was restarted."""
    scopes = Scopes(b"s" * 32)
    routes = RoutingTable([model("m", aliases={"q": "query: "})], CL100K, scopes)
    here = routes.embedding("m", ANYONE)
    place, _ = here.keys(["x"], None, Caller(tenant="t"), {})
    assert here.width(place.scope) is None
    place.scope.widen(8)
    assert (here.width(place.scope), routes.width("q")) == (8, 8)
    here.admit(8, place.scope, "up")
    with pytest.raises(VectorsRefusedError, match="9 components where this model's have 8"):
        here.admit(9, place.scope, "up")


def test_aliases_and_patterns_do_not_forget_a_width():
    """One model has one width, by whichever of its names it was learned."""
    routes = table(model("m", aliases={"q": "query: "}))
    routes.embedding("m", ANYONE).admit(8, Scopes(b"s" * 32).of("t", "identity", "m"), "up")
    assert routes.embedding("q", ANYONE).space.width == 8
    assert (routes.width("m"), routes.width("nope")) == (8, None)


# token ids


def test_ids_are_decoded_where_they_mean_text():
    """LangChain's arrays are the text they stand for: same text, same key, prefix and all."""
    here = route(token_ids="decode", prefix="query: ")
    ids = (15339, 1917)
    assert ["query: hello world"] == list(here.texts(request(ids)))
    as_text = here.texts(request("hello world"))
    named = here.keys(here.texts(request(ids)), None, ANYONE, {})
    assert named == here.keys(as_text, None, ANYONE, {})


def test_an_id_outside_the_vocabulary_names_itself_and_its_item():
    """100,256 was never given out, and the table ends at 100,276."""
    for wrong in (100_256, 100_277, 4_294_967_295):
        with pytest.raises(InvalidInputError, match=f"{wrong} is not a token id") as caught:
            route(token_ids="decode").texts(request((15339,), (15339, wrong)))
        assert caught.value.item == 1


def test_ids_that_are_no_text_become_text_with_a_mark_for_a_local_model():
    """A client that cuts by tokens may cut a character in two; the model knows other ids."""
    local = route(token_ids="decode", local=True, prefix="query:")
    assert ["query:\ufffd"] == list(local.texts(request(HALF_EMOJI)))


def test_native_ids_stay_ids_and_rejected_ones_are_a_400():
    """`native` asks nobody what they mean; `reject` wants strings."""
    assert [(1, 2)] == list(route(token_ids="native").texts(request((1, 2))))
    with pytest.raises(InvalidRequestError, match="does not take arrays of token ids") as caught:
        route(token_ids="reject").texts(request((1, 2)))
    assert caught.value.param == "input"
    assert ["x"] == list(route(token_ids="reject").texts(request("x")))


# empty texts, counting, fields


def test_an_empty_text_is_refused_but_alone_where_the_model_takes_it():
    """OpenAI refuses it; a local model embeds a lone one, as LangChain may send it."""
    for inputs, item in ((("",), 0), (("a", "", ""), 1)):
        with pytest.raises(InvalidInputError, match="empty string") as caught:
            route().texts(request(*inputs))
        assert caught.value.item == item
    assert [""] == list(route(local=True).texts(request("")))
    with pytest.raises(InvalidInputError):
        route(local=True).texts(request("", "a"))


def test_texts_are_counted_only_where_a_tokenizer_is_declared():
    """Exact counts of cl100k, and of id arrays their length."""
    assert route().counts(["hello world"]) is None
    assert route(count=True).counts(["hello world", (1, 2, 3)]) == [2, 3]


@pytest.mark.parametrize("name", sorted(VECTOR_FIELDS))
def test_a_field_that_changes_vectors_is_refused_or_forwarded(name):
    """Dropping it in silence would give another vector than was asked for."""
    with pytest.raises(InvalidRequestError) as caught:
        route().forwarded({name: "x"})
    assert (caught.value.status, caught.value.param) == (400, name)
    assert dict(route(forward=(name,)).forwarded({name: "x"})) == {name: "x"}


def test_other_fields_are_forwarded_where_listed_and_dropped_elsewhere():
    """In the config's order; what nobody listed does not reach a strict upstream."""
    here = route(forward=("b", "a"))
    assert list(here.forwarded({"a": 1, "c": 3, "b": 2}).items()) == [("b", 2), ("a", 1)]
    assert dict(here.forwarded({})) == {}
