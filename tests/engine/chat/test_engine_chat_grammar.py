"""Grammars made of JSON schemas and tools, followed by llama.cpp."""

import json
from collections.abc import Iterator
from contextlib import suppress

import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.engine.chat.gbnf_check import check_grammar
from gateway.engine.chat.grammar import grammar_of
from gateway.engine.chat.template import Template
from gateway.errors import InvalidRequestError
from tests.engine.chat.asking import TIME, WEATHER, ask, built_in
from tests.engine.chat.following import Follower
from tests.tiny_chat import write_chat

CHATML = built_in("chatml")
DRAWN = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def follower(llama: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Follower]:
    path = write_chat(tmp_path_factory.mktemp("vocabulary") / "chat.gguf")
    follower = Follower(path)
    yield follower
    follower.close()


def of_schema(schema: object) -> str:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    grammar = grammar_of(ask(response_format=form), CHATML)
    assert grammar is not None
    return grammar


def nested(depth: int) -> object:
    schema: object = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def forked(word: str, depth: int) -> object:
    """Each definition names the next one twice."""
    definitions: dict[str, object] = {
        f"d{n}": {word: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)
    }
    definitions[f"d{depth}"] = {"type": "string"}
    return {"$defs": definitions, word: [{"$ref": "#/$defs/d0"}] * 2}


def test_depth_does_not_double_the_work() -> None:
    """Arrays in arrays, 60 deep: each is looked at once."""
    assert of_schema(nested(60)).count("\n") < 200
    assert of_schema(forked("anyOf", 60)).count("\n") < 200


def test_a_schema_that_forks_again_and_again_is_refused() -> None:
    """One small schema must not hold up the thread that prepares every prompt."""
    with pytest.raises(InvalidRequestError, match="too large"):
        of_schema(forked("allOf", 60))


CALENDAR = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "kind": {"enum": ["meeting", 'a "quoted"\nline', "\\d", "日本", 7, None, {"deep": [1]}]},
        "days": {"type": "array", "items": {"type": "integer", "minimum": -3, "maximum": 31}},
        "place": {"anyOf": [{"$ref": "#/$defs/Place_Of[int]"}, {"type": "null"}]},
        "weight": {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-\\d{1,3}$"},
    },
    "required": ["name", "kind", "days", "place", "weight", "code"],
    "additionalProperties": False,
    "$defs": {
        "Place_Of[int]": {
            "title": "Place",
            "type": "object",
            "properties": {
                "city": {"type": ["string", "null"]},
                "near": {"type": "array", "items": {"$ref": "#/$defs/Place_Of[int]"}},
            },
            "required": ["city", "near"],
            "additionalProperties": False,
        }
    },
}
GOOD = {
    "name": 'a"b',
    "kind": 'a "quoted"\nline',
    "days": [-3, 0, 31],
    "place": {"city": None, "near": [{"city": "Ås", "near": []}]},
    "weight": 0.001,
    "code": "XY-12",
}


def test_strict_schema_takes_what_is_valid(follower: Follower):
    """A schema as OpenAI's strict mode wants it, with every feature named in its guide."""
    grammar = of_schema(CALENDAR)
    assert follower.allows(grammar, json.dumps(GOOD, ensure_ascii=False))
    assert follower.allows(grammar, json.dumps(GOOD | {"place": None}, ensure_ascii=True))
    assert follower.allows(grammar, json.dumps(GOOD, indent=2, ensure_ascii=False))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "thirteen long"},
        {"kind": "a"},
        {"kind": "\\\\d"},
        {"days": [-4]},
        {"days": [32]},
        {"days": [1.5]},
        {"days": ["1"]},
        {"place": {"city": 3, "near": []}},
        {"place": {"city": "x", "near": [], "more": 1}},
        {"weight": 0},
        {"weight": 0.0},
        {"weight": 2.51},
        {"weight": -1},
        {"code": "XY-1234"},
        {"code": "xy-1"},
        {"other": 1},
    ],
    ids=json.dumps,
)
def test_strict_schema_refuses_what_is_not_valid(follower: Follower, wrong: dict[str, object]):
    """Each of these differs from a good one in one place."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(GOOD | wrong, CALENDAR)
    assert not follower.allows(of_schema(CALENDAR), json.dumps(GOOD | wrong))


@given(seed=st.integers(0, 10**9))
@DRAWN
def test_what_is_drawn_from_a_schema_is_valid(follower: Follower, seed: int):
    """A model that writes at random writes a valid object."""
    text = follower.draw(of_schema(CALENDAR), seed)
    if text is not None:
        jsonschema.validate(json.loads(text), CALENDAR)


scalars = st.one_of(
    st.builds(
        lambda low, size, kind: {"type": kind, "minimum": low, "maximum": round(low + size, 3)},
        st.integers(-150, 150) | st.decimals(-3, 3, places=3).map(float),
        st.integers(1, 2000),
        st.sampled_from(["integer", "number"]),
    ),
    st.builds(
        lambda bound, word, kind: {"type": kind, word: bound},
        st.integers(-150, 150) | st.decimals(-3, 3, places=3).map(float),
        st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
        st.sampled_from(["integer", "number"]),
    ),
    st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    st.sampled_from(
        [
            {"type": "string", "pattern": pattern}
            for pattern in (
                *("^a+$", "b|c", '^(foo|b[^x-z"]r){2}$', "^.{3}$", "\\d{2,}", "^\\w+@\\S*?\\.de$"),
                *('^"\\\\$', "^[\\s\\-\\]]$", "^a?$|^$", "^x|y$"),
            )
        ]
        + [{"type": "string", "format": name} for name in ("date-time", "uuid", "ipv4", "email")]
        + [{"type": ["string", "null"], "enum": ["a", None]}, {"const": "\u2028\"'"}]
        + [{"type": ["boolean", "integer"]}, {"type": "null"}],
    ),
)
schemas = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(
            lambda named, required, closed: (
                {
                    "type": "object",
                    "properties": named,
                    "required": [name for name in named if name in required],
                }
                | ({"additionalProperties": False} if closed else {})
            ),
            st.dictionaries(st.sampled_from(["a", "b", "a-b", 'q"', "é"]), inner, max_size=4),
            st.sets(st.sampled_from(["a", "b", "a-b", 'q"'])),
            st.booleans(),
        ),
        st.builds(
            lambda item, least, more: {
                "type": "array",
                "items": item,
                "minItems": least,
                "maxItems": least + more,
            },
            inner,
            st.integers(0, 3),
            st.integers(0, 3),
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda first: {"type": "array", "prefixItems": first, "minItems": len(first)}
        ),
        inner.map(lambda item: {"allOf": [item, {"title": "the same"}]}),
        inner.map(lambda item: {"type": "object", "additionalProperties": item}),
    ),
    max_leaves=5,
)


@given(schema=schemas, seed=st.integers(0, 10**9))
@DRAWN
def test_any_schema_is_kept(follower: Follower, schema: dict[str, object], seed: int):
    """Whatever text a grammar lets through is valid under the schema it was made of."""
    text = follower.draw(of_schema(schema), seed)
    if text is not None:
        # A pattern's \\s is ECMAScript's, which means this one too; Python's does not.
        jsonschema.validate(json.loads(text.replace("\ufeff", " ")), schema)


WORDS = [
    *("type", "properties", "required", "additionalProperties", "items", "prefixItems", "$ref"),
    *("minItems", "maxItems", "minLength", "maxLength", "pattern", "format", "enum", "const"),
    *("anyOf", "oneOf", "allOf", "$defs", "minimum", "maximum", "exclusiveMinimum", "not", "a"),
]
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.sampled_from(["object", "array", "string", "number", "integer", "#", "#/$defs/a", "date"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(schema=st.dictionaries(st.sampled_from(WORDS), anything, max_size=4))
@settings(max_examples=200, deadline=None)
@example(schema={"type": "integer", "minimum": 10**4000})
@example(schema={"type": "number", "minimum": 5e-324, "maximum": 1.7e308})
@example(schema={"enum": [1e308, 10**400]})
def test_nonsense_is_refused_and_never_surprises(schema: dict[str, object]):
    """Whatever stands where a schema should: a grammar that can be read, or a 400."""
    with suppress(InvalidRequestError):
        check_grammar(of_schema(schema))


@given(
    low=st.decimals(-40, 40, places=2),
    size=st.decimals(0, 60, places=2),
    value=st.decimals(-120, 120, places=2),
    strict=st.booleans(),
    whole=st.booleans(),
)
@DRAWN
def test_bounds_are_exact(follower: Follower, low, size, value, strict, whole):
    """A number is taken if, and only if, it lies between the bounds."""
    value = value.to_integral_value() if whole else value.normalize()
    low_word = "exclusiveMinimum" if strict else "minimum"
    schema = {
        "type": "integer" if whole else "number",
        low_word: float(low),
        "maximum": float(low + size),
    }
    inside = (low < value if strict else low <= value) and value <= low + size
    try:
        grammar = of_schema(schema)
    except InvalidRequestError:
        assert not inside
        return
    assert follower.allows(grammar, f"{value:f}" if value else "0") is inside


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"not": {"type": "string"}}, "'not'"),
        ({"type": "array", "items": {}, "uniqueItems": True}, "'uniqueItems'"),
        ({"type": "object", "patternProperties": {"^a": {}}}, "'patternProperties'"),
        ({"properties": None}, "'properties' in it is not an object"),
        ({"type": "number", "multipleOf": 3}, "'multipleOf'"),
        ({"type": "string", "pattern": "(?=a)b"}, "looks around"),
        ({"type": "string", "pattern": "\\bword\\b"}, "'\\b'"),
        ({"type": "string", "pattern": "("}, "an open '('"),
        ({"type": "string", "pattern": "a{3,2}"}, "below its beginning"),
        ({"type": "string", "pattern": "a**"}, "count behind a count"),
        ({"type": "string", "maxLength": 10**9}, "counts to more"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no number lies"),
        ({"type": "string", "minLength": 1, "pattern": "a"}, "stand together"),
        ({"$ref": "#/$defs/missing"}, "leads nowhere"),
        ({"$ref": "https://example.com/schema"}, "begin with '#/'"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"anyOf": [{"$ref": "#/anyOf/0"}]}, "leads back to itself"),
        ({"allOf": [{"$ref": "#"}]}, "nested too deeply"),
        ({"type": "thing"}, "none of JSON schema's"),
        ({"type": "object", "properties": []}, "not an object"),
        ({"type": "object", "properties": {"a": 3}}, "no schema"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "not allowed"),
        ({"enum": []}, "not a list with something"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "at once"),
        ({"type": "array", "minItems": -1, "items": {}}, "whole number"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused(schema: dict[str, object], word: str):
    """Never a grammar that lets more through than the schema: a 400 says which part is at fault."""
    with pytest.raises(InvalidRequestError) as caught:
        of_schema(schema)
    assert caught.value.param == "response_format"
    assert word in caught.value.message


def test_huge_schema_is_refused():
    """A grammar is walked through for every token, so its size is bounded."""
    with pytest.raises(InvalidRequestError, match="too large"):
        of_schema({"enum": [f"{number:050}" for number in range(10_000)]})


def test_long_counts_are_kept(follower: Follower):
    """Counts beyond what llama.cpp writes out are made of blocks."""
    grammar = of_schema({"type": "string", "minLength": 1500, "maxLength": 3500})
    for length, inside in [(1499, False), (1500, True), (2700, True), (3500, True), (3501, False)]:
        assert follower.allows(grammar, '"' + "x" * length + '"') is inside, length


def test_json_object_is_an_object_and_nothing_else(follower: Follower):
    """response_format json_object, without a word about JSON in the messages."""
    grammar = grammar_of(ask(response_format={"type": "json_object"}), CHATML)
    assert grammar is not None
    assert follower.allows(grammar, '{"a": [1, -2.5e3, {"b": null}], "c": "\\u00e9\\n", "d": true}')
    assert follower.allows(grammar, "{}")
    for wrong in ("[]", "3", '{"a": 01}', '{"a": "\\ud800"}', '{"a": "\n"}', "{a: 1}", '{"a": 1,}'):
        assert not follower.allows(grammar, wrong), wrong


def test_text_has_no_grammar():
    """Plain requests, tools that may be called, and tools that may not."""
    assert grammar_of(ask(), CHATML) is None
    assert grammar_of(ask(response_format={"type": "text"}), CHATML) is None
    assert grammar_of(ask(tools=[WEATHER]), CHATML) is None
    assert grammar_of(ask(tools=[WEATHER], tool_choice="none"), built_in("gemma")) is None


CALLS = {
    "chatml": '<tool_call>\n{"name": "get_weather", "arguments": {"place": "Rome"}}\n</tool_call>',
    "llama3": '{"name": "get_weather", "parameters": {"place": "Rome"}}',
    "mistral": '[TOOL_CALLS][{"name": "get_weather", "arguments": {"place": "Rome"}}]',
    "named": '[TOOL_CALLS]get_weather[ARGS]{"place": "Rome"}',
}
TWO = {
    "chatml": CALLS["chatml"]
    + '\n<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>',
    "llama3": CALLS["llama3"] + ' ; {"name": "get_time", "parameters": {}}',
    "mistral": CALLS["mistral"][:-1] + ', {"name": "get_time", "arguments": {}}]',
    "named": CALLS["named"] + "[TOOL_CALLS]get_time[ARGS]{}",
}


def form(name: str) -> Template:
    if name == "named":
        return Template("{{ tools }}[TOOL_CALLS]name[ARGS]", "", "")
    return built_in(name)


@pytest.mark.parametrize("name", CALLS)
def test_required_calls_are_forced(follower: Follower, name: str):
    """One call in the model's own form, and no text beside it."""
    grammar = grammar_of(ask(tools=[WEATHER, TIME], tool_choice="required"), form(name))
    assert grammar is not None
    assert follower.allows(grammar, CALLS[name])
    assert not follower.allows(grammar, "No.")
    assert not follower.allows(grammar, CALLS[name].replace("Rome", "\n"))
    assert not follower.allows(grammar, CALLS[name].replace("get_weather", "get_other"))
    assert not follower.allows(grammar, CALLS[name].replace('"place"', '"town"'))
    assert not follower.allows(grammar, "")


@pytest.mark.parametrize("name", CALLS)
def test_several_calls_may_come_unless_forbidden(follower: Follower, name: str):
    """parallel_tool_calls is true unless it is false; Llama's models make one call."""
    tools = {"tools": [WEATHER, TIME], "tool_choice": "required"}
    many = grammar_of(ask(**tools), form(name))
    one = grammar_of(ask(**tools, parallel_tool_calls=False), form(name))
    assert many is not None
    assert one is not None
    assert follower.allows(many, TWO[name]) is (name != "llama3")
    assert follower.allows(one, CALLS[name])
    assert not follower.allows(one, TWO[name])


def test_named_function_is_the_only_one(follower: Follower):
    """tool_choice as an object."""
    choice = {"type": "function", "function": {"name": "get_time"}}
    grammar = grammar_of(ask(tools=[WEATHER, TIME], tool_choice=choice), CHATML)
    assert grammar is not None
    assert not follower.allows(grammar, CALLS["chatml"])
    call = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
    assert follower.allows(grammar, call)
    assert not follower.allows(grammar, call.replace("{}", '{"a": 1}'))


def test_schema_beside_tools_allows_both(follower: Follower):
    """With tool_choice auto the model may call, or answer in the form asked for."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}}
    grammar = grammar_of(ask(tools=[WEATHER], response_format=schema), CHATML)
    assert grammar is not None
    assert follower.allows(grammar, CALLS["chatml"])
    assert follower.allows(grammar, "42")
    assert not follower.allows(grammar, "forty-two")


def test_parameters_that_cannot_be_kept_name_the_tools():
    """The same refusal, for a function's schema."""
    bad = {"name": "f", "parameters": {"type": "object", "minProperties": 1}}
    tools = [{"type": "function", "function": bad}]
    with pytest.raises(InvalidRequestError, match="'minProperties'") as caught:
        grammar_of(ask(tools=tools, tool_choice="required"), CHATML)
    assert caught.value.param == "tools"


@pytest.mark.parametrize(
    ("template", "word"),
    [(built_in("gemma"), "knows no tools"), (Template("{{ tools }}", "", ""), "not known here")],
)
def test_tools_need_a_template_that_knows_them(template: Template, word: str):
    """Tools the model would never see are a 400 that says what to set."""
    with pytest.raises(InvalidRequestError, match=word) as caught:
        grammar_of(ask(tools=[WEATHER]), template)
    assert caught.value.param == "tools"
    assert "chat_template" in caught.value.message
