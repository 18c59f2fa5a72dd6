"""Every kind of error body that peers send, and what the client is told instead."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.failures import read_failure
from gateway.backends.transport import Reply
from gateway.errors import (
    GatewayError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    RateLimitError,
    UnavailableError,
    UpstreamError,
    UpstreamTimeoutError,
)


def reply(status, body=b"", **headers):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): v for name, v in headers.items()}, body)


def failure(status, body=b"", **headers):
    read = read_failure(reply(status, body, **headers), "up")
    assert read is not None
    return read


def openai_error(message="No.", **keys):
    return {"error": {"message": message, "type": "t", "param": None, "code": None} | keys}


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_success_is_no_failure(status):
    """Any 2xx is looked at by whoever asked."""
    assert read_failure(reply(status, b"anything"), "up") is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (openai_error("Too long."), "Too long."),
        (
            {"message": "batch size 33 > 32", "code": 422, "type": "validation"},
            "batch size 33 > 32",
        ),
        ({"error": "invalid input type"}, "invalid input type"),
        ({"detail": "Invalid API key"}, "Invalid API key"),
        ({"error": {"code": 400, "message": "m", "type": "t"}}, "m"),
        ({"error": {"detail": "d"}}, "d"),
        ("a mere string", "a mere string"),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, None),
        ({"error": None}, None),
        ({"error": []}, None),
        ([1, 2], None),
        (17, None),
        (None, None),
        (b"", None),
        (b"<html>Bad Request</html>", None),
        (b"plain text", None),
        (b'{"error": {"message": "half', None),
        (b"[" * 100_000, None),
        (b'{"error":{"message":"\xff"}}', None),
    ],
)
def test_a_clients_mistake_is_told_in_the_upstreams_words(body, message):
    """OpenAI, TEI, Ollama, FastAPI, llama-server: the message is found; HTML is not passed on."""
    read = failure(400, body)
    assert type(read.error) is InvalidRequestError
    assert read.error.message == message or (
        message is None and read.error.message == "Upstream 'up' refused the request (400)."
    )
    assert not read.retry


def test_param_and_code_are_kept_and_numbers_are_no_codes():
    """OpenAI's contract has strings there; an HTTP status as a number is left out."""
    kept = failure(400, openai_error(param="input", code="context_length_exceeded")).error
    assert ("input", "context_length_exceeded") == (kept.param, kept.code)
    dropped = failure(400, openai_error(param=3, code=400)).error
    assert (None, None) == (dropped.param, dropped.code)


@pytest.mark.parametrize(
    ("status", "kind", "retry"),
    [
        (300, UpstreamError, False),
        (301, UpstreamError, False),
        (304, UpstreamError, False),
        (307, UpstreamError, False),
        (400, InvalidRequestError, False),
        (401, UpstreamError, False),
        (402, InvalidRequestError, False),
        (403, UpstreamError, False),
        (404, NotFoundError, False),
        (408, UpstreamTimeoutError, True),
        (409, InvalidRequestError, False),
        (413, PayloadTooLargeError, False),
        (422, InvalidRequestError, False),
        (429, RateLimitError, True),
        (500, UpstreamError, True),
        (501, UpstreamError, True),
        (502, UpstreamError, True),
        (503, UnavailableError, True),
        (504, UpstreamTimeoutError, True),
        (529, UpstreamError, True),
        (599, UpstreamError, True),
    ],
)
def test_a_status_decides_whose_fault_it_is_and_whether_to_ask_again(status, kind, retry):
    """The client's mistake stays 4xx and is final; the upstream's is 5xx and asked again."""
    read = failure(status, openai_error())
    assert (kind, retry) == (type(read.error), read.retry)
    assert (read.error.status < 500) == (issubclass(kind, (InvalidRequestError, RateLimitError)))


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_of_ours_is_not_the_clients_fault(status):
    """The client's own key was fine: 502, final, without the upstream's words about the key."""
    error = failure(status, openai_error("Incorrect API key provided: sk-abc*def.")).error
    assert (502, "upstream_authentication") == (error.status, error.code)
    assert "sk-" not in error.message
    assert error.headers["x-should-retry"] == "false"


def test_a_redirect_names_itself_and_not_its_target():
    """A redirect would carry the key elsewhere; it is an error of the config."""
    error = failure(307, location="http://elsewhere/v1").error
    assert (502, "upstream_redirect") == (error.status, error.code)
    assert "elsewhere" not in error.message
    assert error.headers["x-should-retry"] == "false"


def test_a_full_upstream_says_when_to_come_back():
    """Retry-After in both of the SDKs' forms, the rate-limit headers, and the wait for us."""
    read = failure(
        429,
        openai_error("Slow down.", code="rate_limit_exceeded"),
        retry_after="2.5",
        x_ratelimit_remaining_requests="0",
        set_cookie="no",
    )
    assert read.after == 2.5
    assert read.error.message == "Slow down."
    assert read.error.headers == {
        "retry-after": "3",
        "retry-after-ms": "2500",
        "x-ratelimit-remaining-requests": "0",
    }


def test_a_wait_beyond_the_sdks_patience_is_capped_for_them_and_kept_for_us():
    """SDKs give up above 120 s; our own decision sees the real wait."""
    read = failure(429, retry_after="3600")
    assert read.after == 3600
    assert read.error.headers["retry-after"] == "120"
    assert read.error.message == "Upstream 'up' takes no more requests just now."
    assert read.error.code == "rate_limit_exceeded"


def test_a_used_up_quota_is_not_waited_for():
    """It does not come back by waiting a few seconds."""
    read = failure(429, openai_error("You exceeded your quota.", code="insufficient_quota"))
    assert (read.retry, read.error.code) == (False, "insufficient_quota")


def test_an_unavailable_upstream_says_when_to_come_back():
    """503 is 503, with the wait in the SDKs' headers."""
    error = failure(503, retry_after="9").error
    assert (503, "upstream_unavailable", "9") == (
        error.status,
        error.code,
        error.headers["retry-after"],
    )


@pytest.mark.parametrize(
    "message",
    [
        "input is too large to process. increase the physical batch size",
        "input (600 tokens) is too large to process. increase the physical batch size (512)",
    ],
)
def test_llama_servers_500_for_a_long_text_is_the_clients_400(message):
    """P8: a text that is too long is not a fault of the server, whatever its status."""
    read = failure(500, {"error": {"code": 500, "message": message, "type": "server_error"}})
    error = read.error
    assert (400, "input", "context_length_exceeded") == (error.status, error.param, error.code)
    assert not read.retry


def test_errors_of_an_upstream_are_not_passed_on_in_its_words():
    """A traceback or an address inside a 500 is the operator's business."""
    error = failure(500, openai_error("Traceback: /srv/model.py, db=10.0.0.7")).error
    assert error.message == "Upstream 'up' failed with status 500."


def test_spent_retries_tell_the_sdks_not_to_add_theirs():
    """Three attempts of ours times three of theirs would be nine; 503 and 429 keep their wait."""
    for status, expected in ((500, "false"), (502, "false"), (504, "false"), (503, None)):
        error = failure(status).final(spent=True)
        assert error.headers.get("x-should-retry") == expected
    assert "x-should-retry" not in failure(429).final(spent=True).headers
    assert "x-should-retry" not in failure(500).final(spent=False).headers


@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=80)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["error", "message", "code", "detail"]), inner)
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
    after=st.text(max_size=9),
)
def test_no_answer_can_make_the_reading_fail(status, body, after):
    """Whatever an upstream sends, there is an error body for the client, and it is JSON."""
    read = read_failure(reply(status, body, retry_after=after), "up")
    if read is None:
        assert 200 <= status < 300
        return
    assert isinstance(read.error, GatewayError)
    error = json.loads(read.error.body())["error"]
    assert {"message", "type", "param", "code"} == error.keys()
    assert error["message"]
    assert len(error["message"]) <= 1000
