"""The tree of errors: each has its status, and every body is OpenAI's."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.errors import (
    ConfigError,
    GatewayError,
    InvalidInputError,
    InvalidRequestError,
    NotCachedError,
    TooManyTokensError,
    VectorsRefusedError,
    context_length_exceeded,
    retry_headers,
    texts_not_cached,
)


def family(root):
    return [root, *(kind for child in root.__subclasses__() for kind in family(child))]


SPECIAL = {
    InvalidInputError,
    TooManyTokensError,
    VectorsRefusedError,
    NotCachedError,
    ConfigError,
}


OURS = [kind for kind in family(GatewayError) if kind.__module__ == GatewayError.__module__]


@pytest.mark.parametrize("kind", [kind for kind in OURS if kind not in SPECIAL])
def test_every_body_has_openais_four_keys(kind):
    """message, type, param and code, null where there is nothing to say."""
    body = json.loads(kind("It broke.", param="input").body())
    assert list(body) == ["error"]
    error = body["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["message"], error["type"], error["param"]) == ("It broke.", kind.type, "input")
    assert error["code"] == kind.default_code


def test_clients_mistakes_are_4xx_and_all_others_5xx_or_429():
    """P8: SDKs ask again after a 5xx, so no mistake of a client's may be one."""
    for kind in family(GatewayError):
        if issubclass(kind, InvalidRequestError):
            assert 400 <= kind.status < 500
        elif not issubclass(kind, errors.RateLimitError):
            assert kind.status >= 500


def test_a_code_given_goes_before_the_kinds_own():
    """An empty code is a code; None is not."""
    assert errors.RateLimitError("m").code == "rate_limit_exceeded"
    assert errors.RateLimitError("m", code="insufficient_quota").code == "insufficient_quota"


def test_headers_belong_to_one_error():
    """What is added to an error does not turn up at another."""
    given = {"a": "1"}
    first, second = GatewayError("m", headers=given), GatewayError("m")
    first.headers["b"] = "2"
    assert (given, second.headers) == ({"a": "1"}, {})


def test_a_bad_item_is_named_by_its_place():
    """The code stays, the type is that of an invalid request."""
    error = context_length_exceeded(600, 512, 3).at(7)
    assert type(error) is InvalidRequestError
    assert error.message == (
        "'input[7]': This model's maximum context length is 512 tokens, however you requested 600 "
        "tokens (600 in your prompt; 0 for the completion). Please reduce your prompt; or "
        "completion length."
    )
    assert ("input", "context_length_exceeded") == (error.param, error.code)


def test_too_many_tokens_are_said_as_openai_says_it():
    """Type and code are the same word."""
    error = json.loads(TooManyTokensError(309_209, 300_000).body())["error"]
    assert error == {
        "message": "Requested 309209 tokens, max 300000 tokens per request",
        "type": "max_tokens_per_request",
        "param": "input",
        "code": "max_tokens_per_request",
    }


@pytest.mark.parametrize(
    ("missing", "said"), [(1, "cache, and"), (2, "nor is one more text"), (7, "nor are 6 more")]
)
def test_what_is_not_cached_is_named_and_not_to_be_asked_for_again(missing, said):
    """504, as RFC 9111 has it, but SDKs, which repeat a 5xx, are told not to."""
    error = texts_not_cached(3, missing)
    body = json.loads(error.body())["error"]
    assert (error.status, error.headers) == (504, {"x-should-retry": "false"})
    assert (body["type"], body["param"], body["code"]) == ("not_cached", "input", "not_cached")
    assert body["message"].startswith("'input[3]' is not in the cache")
    assert said in body["message"]


def test_vectors_that_are_refused_say_whose_and_why():
    """In the message for people, and in words for metrics."""
    error = VectorsRefusedError("far", "a vector is all zeros", "zero")
    assert error.message == "The answer of upstream 'far' was refused: a vector is all zeros."
    assert (error.status, error.code) == (502, "upstream_invalid_response")
    assert (error.upstream, error.fault, error.reason) == ("far", "zero", None)


def test_a_config_error_holds_every_problem():
    """One line for each thing that is wrong."""
    error = ConfigError(["a is wrong", "b too"])
    assert (error.problems, str(error)) == (["a is wrong", "b too"], "a is wrong\nb too")


@given(seconds=st.floats(-10, 1e6))
def test_a_wait_is_told_in_both_of_the_sdks_headers(seconds):
    """Whole seconds, at least one and never less than the milliseconds; at most two minutes."""
    said = retry_headers(seconds)
    assert {"retry-after", "retry-after-ms"} == said.keys()
    whole, milliseconds = int(said["retry-after"]), int(said["retry-after-ms"])
    assert 1 <= whole <= 120
    assert milliseconds <= whole * 1000
    assert milliseconds == int(min(max(seconds, 0.001), 120) * 1000)


@given(message=st.text(), code=st.none() | st.text(max_size=5))
def test_any_message_can_be_written(message, code):
    """Whatever an upstream said, the body is JSON."""
    assert json.loads(GatewayError(message, code=code).body())["error"]["message"] == message
