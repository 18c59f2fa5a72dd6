"""The HTTP edge: what is not a right request is told why, always in OpenAI's form."""

import json
import socket
import time
from contextlib import suppress

import pytest

from gateway import __version__
from tests.edge import GOOD, error, post
from tests.running import one_model


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_paths_work_with_and_without_v1(edge, path):
    """Some clients are given the address without it."""
    assert post(edge, GOOD, path).status_code == 200
    assert edge.http.get(path.replace("embeddings", "models")).status_code == 200


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/completions", "POST /v1/chat/completions"),
        ("/v1/nothing", "GET /v1/models"),
        ("/v1/embeddings/", "Leave out the slash at the end."),
        ("/v1/models/", "Served:"),
        ("/v1/v1/embeddings", "The path has /v1 twice"),
        ("/v2/embeddings", "Served:"),
        ("/v1/Embeddings", "Served:"),
        ("/" + "x" * 5000, "…"),
        ("/%00%ff/<script>", "Served:"),
        ("/v1/engines/m/embeddings", "Served:"),
    ],
)
def test_a_path_that_is_not_served_teaches_what_is(edge, path, words):
    """The usual slips are named; everything that is served is listed."""
    answer = edge.http.get(path) if path.endswith("models/") else post(edge, GOOD, path)
    said = error(answer)
    assert (answer.status_code, said["code"]) == (404, "unknown_url")
    assert (said["type"], said["param"]) == ("invalid_request_error", None)
    assert words in said["message"]
    assert len(said["message"]) < 600


def test_a_model_that_is_not_served_is_a_404_that_teaches(edge):
    """The served names, and the line that makes this name one of them."""
    for answer in (post(edge, b'{"model":"nope","input":"x"}'), edge.http.get("/v1/models/nope")):
        said = error(answer)
        assert (answer.status_code, said["code"], said["param"]) == (
            404,
            "model_not_found",
            "model",
        )
        assert "Served: m, alias, text-*." in said["message"]
        assert 'aliases = ["nope"]' in said["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/embeddings", "POST"),
        ("PUT", "/embeddings", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/m", "GET"),
        ("POST", "/metrics", "GET"),
        ("POST", "/health/live", "GET"),
        ("OPTIONS", "/v1/embeddings", "POST"),
    ],
)
def test_another_method_is_a_405_that_names_the_right_one(edge, method, path, allowed):
    """With the Allow header that HTTP wants."""
    answer = edge.http.request(method, path)
    said = error(answer)
    assert (answer.status_code, said["code"]) == (405, "method_not_allowed")
    assert allowed in answer.headers["allow"]
    assert allowed in said["message"]


def test_head_has_no_body(edge):
    """HEAD works where GET does."""
    answer = edge.http.head("/v1/models")
    assert (answer.status_code, answer.content) == (200, b"")


# ids and times


@pytest.mark.parametrize("given_id", ["abc", "req_1.2:3-4", "A" * 128])
def test_a_clients_request_id_is_given_back(edge, given_id):
    """On answers and errors alike."""
    for body in (GOOD, b"{"):
        assert post(edge, body, x_request_id=given_id).headers["x-request-id"] == given_id


@pytest.mark.parametrize("given_id", ["", "a b", "A" * 129, "é", "<x>", None])
def test_any_other_gets_one_of_ours(edge, given_id):
    """What could not stand in a log line is replaced; no two are the same."""
    headers = {} if given_id is None else {"x_request_id": given_id.encode("latin-1")}
    ids = [post(edge, GOOD, **headers).headers["x-request-id"] for _ in range(2)]
    assert all(made.startswith("req_") and len(made) == 28 for made in ids)
    assert ids[0] != ids[1]


def test_the_time_taken_is_told_in_whole_milliseconds(edge):
    """As OpenAI tells it."""
    assert post(edge, GOOD).headers["openai-processing-ms"].isdigit()


# pages that are no API


def test_the_root_says_what_this_is(edge):
    """Somebody opens the address in a browser."""
    said = edge.http.get("/").json()
    assert (said["name"], said["version"]) == ("embedding-gateway", __version__)
    assert said["base_url"] == edge.base_url
    assert "POST /v1/embeddings" in said["served"]


@pytest.mark.parametrize("host", ["[", "a:b:c", "x/y", "\xff"])
def test_no_host_header_breaks_the_root(edge, host):
    """It is the client's to write."""
    answer = edge.http.get("/", headers={"host": host.encode("latin-1")})
    assert answer.status_code < 500


def test_health_depends_on_no_upstream(gateway, fake_openai):
    """Live and ready with an upstream that is not there; not ready while it is being stopped."""
    running = gateway(one_model("http://127.0.0.1:9/v1"))
    assert running.http.get("/health/live").json() == {"status": "live"}
    said = running.http.get("/health/ready").json()
    assert (said["status"], said["engines"]) == ("ready", {})
    running.draining = True
    draining = running.http.get("/health/ready")
    assert (draining.status_code, draining.json()["status"]) == (503, "draining")
    assert running.http.get("/health/live").status_code == 200


def test_models_are_listed_and_found(edge):
    """By name, alias and fitting name; with a slash in it too."""
    listed = edge.client.models.list().data
    assert next(model.id for model in listed) == "m"
    assert edge.client.models.retrieve("alias").id == "m"
    assert edge.http.get("/v1/models/text-a/b").json()["id"] == "text-a/b"


# what is not even a request


@pytest.mark.parametrize(
    "raw",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http_is_a_400_in_openais_form(edge, raw):
    """Even where no request could be read from it."""
    with socket.create_connection(("127.0.0.1", edge.port)) as connection:
        connection.settimeout(5)
        connection.sendall(raw)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert list(json.loads(body)["error"]) == ["message", "type", "param", "code"]
    assert edge.http.get("/health/live").status_code == 200


def offering(edge, body, *, cut=0, pause=False):
    """Post a body with an offer to go on in HTTP/2; return all that came back."""
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\n"
        f"Upgrade: h2c\r\nhttp2-settings: AAM\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    received = b""
    with socket.create_connection(("127.0.0.1", edge.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(0.3)
        if cut:
            connection.sendall(head[:cut])
            time.sleep(0.05)  # nothing tells when the server has read half a header
        connection.sendall(head[cut:])
        if pause:
            edge.wait_until(lambda: edge.requests_running == 1, timeout=1)
        connection.sendall(body)
        with suppress(TimeoutError):
            while chunk := connection.recv(65536):
                received += chunk
    return received


def test_a_client_that_offers_http2_is_answered_in_http1(edge):
    """Java's client does so with every first request; the offer may be ignored, the body not."""
    assert offering(edge, GOOD).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("how", [{}, {"pause": True}, {"cut": 80}, {"cut": 88}, {"cut": 120}])
def test_the_body_of_one_request_is_never_another_request(edge, how):
    """Behind a proxy it would be a stranger's, and its answer would go to somebody else."""
    received = offering(edge, b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n", **how)
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"smuggled" not in received


def test_no_header_of_a_clients_goes_upstream(gateway, fake_openai):
    """Whatever it is called: upstreams see the gateway, and what its config has them see."""
    running = gateway(one_model(fake_openai.base_url))
    given = {
        "authorization": "Bearer canary-key",
        "api-key": "canary-key",
        "cookie": "canary=1",
        "forwarded": "for=canary",
        "x-forwarded-for": "10.9.8.7, canary",
        "x-forwarded-host": "canary",
        "host": "canary",
        "openai-organization": "canary",
        "openai-project": "canary",
        "openai-beta": "canary",
        "proxy-authorization": "canary",
        "referer": "http://canary/",
        "te": "trailers, canary",
        "user-agent": "canary",
        "x-canary": "canary",
        "x-upstream-url": "http://canary/",
        "x-request-id": "canary",
        "traceparent": "canary",
    }
    assert post(running, GOOD, **given).status_code == 200
    (request,) = fake_openai.requests
    assert "canary" not in str(request.headers) + str(request.body) + request.path


def test_expect_100_continue_is_answered(edge):
    """curl sends it with bodies above a megabyte."""
    assert post(edge, GOOD, expect="100-continue").status_code == 200


def test_an_error_nobody_foresaw_is_a_500_in_openais_form(gateway, fake_openai):
    """Its place is in the log under the request's id; its message, which may hold a text, not."""

    class Broken:
        async def send(self, *_, **__):
            raise RuntimeError("the canary text")

        async def aclose(self):
            pass

    toml = one_model(fake_openai.base_url)
    running = gateway(toml, open_transport=lambda _: Broken())
    answer = post(running, GOOD, x_request_id="the-id")
    said = error(answer)
    assert (answer.status_code, said["type"], said["code"]) == (
        500,
        "server_error",
        "internal_error",
    )
    (line,) = map(json.loads, running.log.splitlines())
    assert (line["event"], line["kind"], line["id"]) == (
        "unforeseen error",
        "RuntimeError",
        "the-id",
    )
    assert "test_edge.py" in line["at"][-1]
    assert "canary" not in running.log + answer.text
    assert running.metric("gateway_requests_total", code="500", operation="embeddings") == 1
