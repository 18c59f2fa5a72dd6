"""When an upstream fails: asked again where that can help, told honestly where it cannot.

After each, the same texts are asked for again of a healthy upstream: whatever had been kept of a
wrong answer would show there.
"""

import json
import time

import numpy as np
import openai
import pytest

from gateway.backends.aiohttp_transport import AiohttpTransport
from gateway.backends.httpx_transport import HttpxTransport
from tests import upstream_behaviours as behave
from tests.running import one_model

TEXTS = ["a", "b", "c"]


@pytest.fixture
def running(gateway, fake_openai):
    return gateway(one_model(fake_openai.base_url))


def right(fake, *texts):
    rows = np.array([fake.vector("m", text) for text in texts], np.float64)
    units = (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32)
    return units.astype(np.float64).tolist()


def healthy(running, fake, texts=TEXTS):
    """Check that every text gets its own vector now, and that none came from before."""
    fake.forget()
    assert running.vectors(texts) == right(fake, *texts)
    assert fake.texts == texts, "something was kept of an answer that was refused"


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
@pytest.mark.parametrize(
    "behaviour",
    [
        behave.status(500),
        behave.status(502),
        behave.status(503),
        behave.status(504),
        behave.status(529),
        behave.html_error,
        behave.rate_limit("0"),
        behave.flat_error,
        behave.cut_body,
        behave.close_after_headers,
        behave.close_before_answer,
    ],
)
def test_a_passing_fault_is_not_seen(gateway, fake_openai, behaviour, transport):
    """Connect errors, 429 and 5xx are asked again within the request's time."""
    running = gateway(one_model(fake_openai.base_url), open_transport=transport)
    fake_openai.script(behaviour)
    assert running.vectors(TEXTS) == right(fake_openai, *TEXTS)
    assert fake_openai.calls == 2


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "should_retry"),
    [
        (behave.status(500), 502, "upstream_error", "false"),
        (behave.html_error, 502, "upstream_error", "false"),
        (behave.status(504), 504, "upstream_timeout", "false"),
        (behave.status(503, {"retry-after": "0"}), 503, "upstream_unavailable", None),
        (behave.cut_body, 502, "upstream_unreachable", "false"),
        (behave.close_before_answer, 502, "upstream_unreachable", "false"),
        (behave.rate_limit("0"), 429, "rate_limit_exceeded", None),
        (behave.flat_error, 429, "rate_limit_exceeded", None),
    ],
)
def test_a_lasting_fault_is_tried_three_times_and_told(
    running, fake_openai, behaviour, status, code, should_retry
):
    """Three attempts of ours; then SDKs are told whether theirs could help."""
    fake_openai.always(behaviour)
    refused = running.embed(TEXTS)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (status, code)
    assert refused.headers.get("x-should-retry") == should_retry
    assert (status in (429, 503)) == ("retry-after" in refused.headers)
    assert fake_openai.calls == 3
    healthy(running, fake_openai)


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (behave.status(400), 400, None),
        (behave.status(404), 404, "model_not_found"),
        (behave.status(413), 413, "payload_too_large"),
        (behave.status(422), 400, None),
        (behave.status(401), 502, "upstream_authentication"),
        (behave.status(403), 502, "upstream_authentication"),
        (behave.redirect, 502, "upstream_redirect"),
        (behave.rate_limit("0", code="insufficient_quota"), 429, "insufficient_quota"),
        (behave.rate_limit("200"), 429, "rate_limit_exceeded"),
    ],
)
def test_what_asking_again_cannot_mend_is_asked_once(running, fake_openai, behaviour, status, code):
    """The client's mistakes, a refused key, a redirect, a quota, a wait beyond the deadline."""
    fake_openai.always(behaviour)
    refused = running.embed(TEXTS)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert {"message", "type", "param", "code"} == refused.json()["error"].keys()
    assert fake_openai.calls == 1
    healthy(running, fake_openai)


def test_retry_after_is_waited_for_and_no_longer(running, fake_openai):
    """Not before the upstream wants us back."""
    fake_openai.script(behave.rate_limit("1"))
    began = time.monotonic()
    assert running.vectors("a") == right(fake_openai, "a")
    assert 1.0 <= time.monotonic() - began < 2.5


def test_a_429_tells_the_sdk_when_to_come_back(running, fake_openai):
    """In both of its headers, with the upstream's own limits beside."""
    fake_openai.script(behave.rate_limit("200"))
    refused = running.embed("a")
    assert (refused.headers["retry-after"], refused.headers["retry-after-ms"]) == ("120", "120000")
    assert refused.headers["x-ratelimit-limit-requests"] == "3000"
    fake_openai.script(behave.rate_limit("200"))
    with pytest.raises(openai.RateLimitError) as caught:
        running.client.embeddings.create(model="m", input="a")
    assert caught.value.code == "rate_limit_exceeded"


def test_the_sdks_own_retries_do_not_multiply_ours(running, fake_openai):
    """Two retries of the SDK's after three attempts of ours would be nine calls; it makes none."""
    fake_openai.always(behave.status(500))
    with pytest.raises(openai.InternalServerError):
        running.sdk(max_retries=2).embeddings.create(model="m", input="a")
    assert fake_openai.calls == 3


def test_an_upstream_that_is_not_there_is_a_502(gateway, fake_openai):
    """Nothing listens at the address: told without the address."""
    running = gateway(one_model("http://127.0.0.1:9/v1"))
    refused = running.embed("a")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (502, "upstream_unreachable")
    assert "127.0.0.1" not in error["message"]
    assert running.metric("gateway_upstream_requests_total", outcome="connect") == 3


def test_what_a_large_request_is_refused_for_is_told(running, fake_openai):
    """Half a megabyte of texts, one of them too long: the upstream's words and code arrive."""
    message = "This model's maximum context length is 8192 tokens, however you requested 9001."
    body = {"error": {"message": message, "type": "t", "param": "input", "code": "too_long"}}
    fake_openai.always(behave.status(400, body=json.dumps(body).encode()))
    refused = running.embed([f"text {n} " + "word " * 40 for n in range(1400)])
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["message"]) == (400, "too_long", message)


def test_a_broken_key_of_ours_never_shows(gateway, fake_openai):
    """OpenAI shows parts of a refused key in its message; the client sees nothing of it."""
    fake_openai.key = "sk-another"
    toml = one_model(fake_openai.base_url, upstream='api_key = "${env:KEY}"')
    refused = gateway(toml, KEY="sk-1234567890abcdef").embed("a")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (502, "upstream_authentication")
    assert refused.headers["x-should-retry"] == "false"
    assert "sk-1" not in json.dumps(error)
    assert "cdef" not in json.dumps(error)
