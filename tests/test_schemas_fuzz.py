"""No body at all makes the parser fail in a way nobody foresaw."""

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import InvalidRequestError
from gateway.schemas import MAX_INPUTS, parse_embedding_request

M = {"model": "m"}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["m", "base64", "float", 1, 2**40]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["input", "model", "encoding_format", "dimensions", "seed", "user", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(value=json_values)
@example(value=M | {"input": "x"})
def test_no_json_raises_anything_but_our_errors(value):
    """Whatever JSON is sent: a request, or a 4xx of ours."""
    check(json.dumps(value).encode())


@given(
    value=json_values, damage=st.integers(0, 200), byte=st.integers(0, 255), insert=st.booleans()
)
def test_no_damaged_json_raises_anything_but_our_errors(value, damage, byte, insert):
    """One byte put in or changed anywhere in a right body never surprises the parser."""
    body = bytearray(json.dumps(M | {"input": ["some text", "é"], "extra": value}).encode())
    at = damage % len(body)
    body[at : at + (not insert)] = bytes([byte])
    check(bytes(body))


@given(body=st.binary(max_size=60))
def test_no_bytes_raise_anything_but_our_errors(body):
    """Bytes that are no JSON either."""
    check(body)


@pytest.mark.parametrize("depth", [100, 500, 900, 980, 1000, 1100, 5000, 100_000])
def test_no_depth_raises_anything_but_our_errors(depth):
    """Brackets in a field that nobody reads, at every depth around Python's limit."""
    check(b'{"model":"m","input":"x","e":' + b"[" * depth + b"]" * depth + b"}")


@pytest.mark.parametrize(
    "odd",
    [
        b'"e":"\xff"',
        b'"\xff":1',
        b'"e":"\\ud800"',
        b'"e":1e999',
        b'"e":-1E+4000',
        b'"e":' + b"9" * 5000,
    ],
)
def test_nothing_in_a_field_that_nobody_reads_raises_anything_but_our_errors(odd):
    """It is dropped or refused, whatever is wrong with it."""
    check(b'{"model":"m","input":"x",' + odd + b"}")


def check(body):
    """Parse it: InvalidRequestError is an answer, anything else that is raised is not."""
    with suppress(InvalidRequestError):
        right(parse_embedding_request(body))


def right(asked):
    assert 1 <= len(asked.inputs) <= MAX_INPUTS
    assert len({type(text) for text in asked.inputs}) == 1
    msgspec.json.encode(asked.extra)
    for text in asked.inputs:
        assert isinstance(text, tuple) or text.encode().decode() == text
