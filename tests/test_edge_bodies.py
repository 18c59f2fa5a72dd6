"""Bodies at the HTTP edge: what is no right request is a 4xx in OpenAI's form, whatever it is."""

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.edge import GOOD, error, post
from tests.running import one_model


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/vnd.api+json", 200),
        ("", 200),
        (None, 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("\xff", 415),
    ],
)
def test_only_json_is_read(edge, content_type, status):
    """What curl sends by default is refused with the header to set."""
    headers = {} if content_type is None else {"content-type": content_type.encode("latin-1")}
    answer = edge.http.post("/v1/embeddings", content=GOOD, headers=headers)
    assert answer.status_code == status
    if status == 415:
        said = error(answer)
        assert said["code"] == "unsupported_media_type"
        assert "Content-Type: application/json" in said["message"]


def test_a_compressed_body_is_a_415(edge):
    """It would have to be unpacked to be measured."""
    answer = post(edge, b"\x1f\x8b...", content_encoding="gzip")
    assert (answer.status_code, error(answer)["code"]) == (415, "unsupported_media_type")
    assert post(edge, GOOD, content_encoding="identity").status_code == 200


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_a_413(edge, announced):
    """Announced it is not even read; in chunks it is dropped where it gets too large."""
    body = b'{"model":"m","input":"' + b"x" * 70_000 + b'"}'
    answer = post(edge, body if announced else iter([body[:40_000], body[40_000:], b" " * 200_000]))
    said = error(answer)
    assert (answer.status_code, said["code"]) == (413, "payload_too_large")
    assert "65536 bytes" in said["message"]
    assert post(edge, GOOD).status_code == 200


def test_a_body_of_just_the_limit_is_read(edge):
    """In one piece and in many."""
    body = GOOD + b" " * (65536 - len(GOOD))
    assert post(edge, body).status_code == 200
    assert post(edge, iter([body[:1], body[1:65530], body[65530:]])).status_code == 200
    assert post(edge, iter([body, b" "])).status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b'{"model":"m","input":"\xff"}',
        b'{"model":"m","input":"\\ud83d"}',
        b'{"model":"m","input":"x","e":"\xff"}',
        b'{"model":"m","input":"x","e":1e999}',
        b'{"model":"m"}',
        b'{"input":"x"}',
        b'{"model":"m","input":[]}',
        b'{"model":"m","input":""}',
        b'{"model":"m","input":["a",""]}',
        b'{"model":"m","input":["a",1]}',
        b'{"model":"m","input":[1.5]}',
        b'{"model":"m","input":"x","dimensions":33}',
        b'{"model":"m","input":"x","dimensions":8}',
        b'{"model":"m","input":"x","input_type":"query"}',
        b"[" * 30_000,
        b'{"model":"m","input":' + b"[" * 30_000,
        b'{"model":"m","input":"x","e":' + b"[" * 30_000,
    ],
)
def test_a_body_that_is_wrong_is_a_400(edge, body):
    """Whatever is wrong with it; the connection goes on."""
    answer = post(edge, body)
    assert error(answer)["type"] == "invalid_request_error"
    assert answer.status_code == 400


def test_a_very_deep_body_is_a_400(gateway, fake_openai):
    """A hundred thousand brackets, in every place, where bodies may be that large."""
    running = gateway(one_model(fake_openai.base_url))
    for body in (
        b"[" * 100_000,
        b'{"model":"m","input":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"m","input":"x","e":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    ):
        assert error(post(running, body))["type"] == "invalid_request_error"


@pytest.mark.parametrize("depth", [300, 900, 950, *range(960, 1000, 3), 1000])
def test_a_forwarded_field_of_any_depth_is_a_request_or_a_400(gateway, fake_openai, depth):
    """What can be read can be written again, or is refused."""
    fake_openai.allow = ("e",)
    running = gateway(one_model(fake_openai.base_url, model='forward = ["e"]'))
    body = b'{"model":"m","input":"x","e":' + b"[" * depth + b"]" * depth + b"}"
    assert post(running, body).status_code in (200, 400)


def test_a_name_of_any_length_costs_no_more_than_itself(edge):
    """A model's name of many thousand letters is nobody's, though a pattern would fit it."""
    answer = post(edge, json.dumps({"model": "text-" + "x" * 50_000, "input": "x"}).encode())
    assert answer.status_code in (400, 404)
    assert len(error(answer)["message"]) < 1000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=10,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["m", "alias", "text-1", "nope", "*"]) | json_values,
        "input": st.text(max_size=8)
        | st.lists(st.text(max_size=4), max_size=4)
        | json_values
        | st.lists(st.lists(st.integers(-1, 2**33), max_size=3), max_size=3),
        "encoding_format": st.sampled_from(["float", "base64", None, "x"]) | json_values,
        "dimensions": st.integers(-1, 40) | json_values,
        "seed": st.integers() | json_values,
        "user": st.text(max_size=4) | json_values,
        "input_type": json_values,
        "whatever": json_values,
    },
)
quick = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def never_broken(edge, body):
    answer = post(edge, body)
    assert answer.status_code < 500, (body, answer.text)
    if answer.status_code == 200:
        assert answer.json()["data"]
    else:
        error(answer)


@quick
@given(value=fields | json_values)
def test_no_json_breaks_the_endpoint(edge, value):
    """Never a 5xx, never a lost connection, always OpenAI's form."""
    never_broken(edge, json.dumps(value).encode())


@quick
@example(value={"whatever": "\xff"}, at=50, byte=255, insert=True)
@given(value=fields, at=st.integers(0, 400), byte=st.integers(0, 255), insert=st.booleans())
def test_no_damaged_body_breaks_the_endpoint(edge, value, at, byte, insert):
    """One byte put in or changed anywhere."""
    body = bytearray(json.dumps({"model": "m", "input": ["a", "b"]} | value).encode())
    at %= len(body)
    body[at : at + (not insert)] = bytes([byte])
    never_broken(edge, bytes(body))
