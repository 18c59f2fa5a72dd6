"""The canonical form of a chat request: equal for equal requests, and for no others."""

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.chat.canonical import canonical

# Without lone surrogates: what holds them never gets past the parser of requests.
TEXTS = st.text(max_size=8)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["model", "messages", "seed", "x"]) | TEXTS
REQUESTS = st.dictionaries(NAMES, VALUES, max_size=5)
DROPPED = ("stream", "stream_options", "user")

decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def of(body):
    return canonical(decode(body if isinstance(body, bytes) else json.dumps(body).encode()))


def meaning(value):
    """Return something that is equal for what has to be the same, and only for that."""
    match value:
        case bool() | None | str():
            return (type(value).__name__, value)
        case float() if value.is_integer():
            return ("number", int(value))
        case int() | float():
            return ("number", value)
        case list():
            return ("list", tuple(map(meaning, value)))
        case dict():
            return ("object", frozenset((name, meaning(inner)) for name, inner in value.items()))
    raise TypeError(value)


def shuffled(value, draw):
    """Return the same in another writing: names in another order, whole numbers as floats."""
    match value:
        case dict():
            names = draw(st.permutations(list(value)))
            return {name: shuffled(value[name], draw) for name in names}
        case list():
            return [shuffled(inner, draw) for inner in value]
        case int() if type(value) is int and abs(value) <= 2**53 and draw(st.booleans()):
            return float(value)
    return value


@given(data=st.data(), request=REQUESTS, plain=st.booleans(), indent=st.sampled_from([None, 2]))
def test_the_same_request_written_otherwise_is_the_same(data, request, plain, indent):
    """Order, whitespace, escapes, whole numbers as floats, and how the answer is sent."""
    extra = data.draw(st.dictionaries(st.sampled_from(DROPPED), VALUES))
    bare = {name: value for name, value in request.items() if name not in DROPPED}
    other = shuffled(bare, data.draw) | extra
    written = json.dumps(other, ensure_ascii=plain, indent=indent).encode()
    assert of(written) == of(bare)


@given(REQUESTS, REQUESTS)
@example({"x": 1}, {"x": True})
@example({"x": 1}, {"x": "1"})
@example({"x": None}, {})
@example({"x": 0.0}, {"x": -0.0})
@example({"x": 2**53 + 1}, {"x": 2.0**53})
@example({"x": 1e22}, {"x": 10**22})
@example({"x": 0.1}, {"x": 0.10000000000000002})
@example({"x": "é"}, {"x": "e\u0301"})
@example({"x": {"stream": True}}, {"x": {}})
@example({"x": [[], 1]}, {"x": [[1]]})
@example({"seed": 1}, {"seed": 2})
def test_requests_are_equal_only_if_they_mean_the_same(some, others):
    """One bit of difference in a text, a number or a name is another request."""
    bare = [
        {name: value for name, value in request.items() if name not in DROPPED}
        for request in (some, others)
    ]
    assert (of(some) == of(others)) == (meaning(bare[0]) == meaning(bare[1]))


@given(data=st.data(), request=REQUESTS)
def test_a_changed_request_is_another(data, request):
    """The near misses that two random requests never are."""
    name = data.draw(NAMES.filter(lambda name: name not in DROPPED))
    value = data.draw(VALUES)
    changed = request | {name: value}
    same = name in request and meaning(request[name]) == meaning(value)
    assert (of(changed) == of(request)) == same


def test_the_form_is_sorted_ascii_without_blanks():
    """Written down once: whoever changes it makes all kept answers unreachable."""
    body = '{"b": [1.0, 2.50, 1E2], "a": {"z": "ä\\n", "y": null}, "stream": true, "user": "u"}'
    assert of(body.encode()) == b'{"a":{"y":null,"z":"\\u00e4\\n"},"b":[1,2.5,100]}'


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (b"9" * 6000, b"9" * 5999 + b"8"),
        (b"1e400", b"1e401"),
        (b"-1e400", b"1e400"),
        (b'{"a": 1, "a": 2}', b'{"a": 2, "a": 1}'),
        (b'"\xff"', b'"\xfe"'),
    ],
)
def test_what_has_no_form_stands_for_itself(value, other):
    """It is equal to itself and to nothing else, and a text in any case."""
    body = b'{"x": %b, "seed": 1}' % value
    assert of(body).isascii()
    assert of(b'{"user": "u", "seed": 1, "x": %b}' % value) == of(body)
    hexed = json.dumps({"x": value.hex(), "seed": b"1".hex()}).encode()
    others = [body.replace(value, other), body.replace(b"x", b"y"), body[:-2] + b"2}", hexed]
    assert of(body) not in map(of, others)


def test_an_object_with_a_name_twice_is_not_the_one_that_some_make_of_it():
    """Readers differ in which they take: an answer to one reading is not an answer to the other."""
    message = b'{"messages": [{"role": "user", %b}]}'
    contents = [b'"content": "a"', b'"content": "b"', b'"content": "a", "content": "b"']
    assert len({of(message % content) for content in contents}) == 3


@pytest.mark.parametrize("depth", [100, 400, 900])
def test_deep_nesting_raises_nothing(depth):
    """What msgspec decodes can be named, however deep it is."""
    body = b'{"x": ' + b"[" * depth + b"1" + b"]" * depth + b"}"
    assert of(body) != of(body.replace(b"1", b"2"))
    assert of(body) == of(body)
