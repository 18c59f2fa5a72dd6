"""Clients that take their time: who comes on, however slowly, is served; who does not, is not."""

import json
import socket
import ssl
import time
from contextlib import suppress

import pytest

from tests import upstream_behaviours as behave
from tests.backends.sockets import make_authority
from tests.edge import GOOD
from tests.running import Running, one_model

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
LENGTH = b"content-length: %d\r\n\r\n"
HANGS = 15.0
"""Seconds after which a test has hung."""


@pytest.fixture(scope="module")
def quick(served_openai, module_gateway) -> Running:
    """A gateway without much patience."""
    served_openai.forget()
    served_openai.width = 32
    rest = '[server]\nheader_timeout = "400ms"\nbody_timeout = "400ms"\nmax_body = "256KiB"'
    return module_gateway(one_model(served_openai.base_url, rest=rest))


def connect(running: Running) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", running.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(HANGS)
    return connection


def rest_of(connection: socket.socket) -> bytes:
    """Return what comes until the gateway closes; TimeoutError if it does not."""
    received = b""
    with suppress(ConnectionError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def drip(connection: socket.socket, data: bytes, pause: float) -> bytes:
    """Send bytes one after the other until the gateway answers; return what it says."""
    connection.settimeout(pause)
    for byte in data:
        with suppress(TimeoutError, ConnectionError):
            connection.sendall(bytes([byte]))
            if received := connection.recv(65536):
                connection.settimeout(HANGS)
                return received + rest_of(connection)
    connection.settimeout(HANGS)
    return rest_of(connection)


def flood(connection: socket.socket) -> None:
    """Send on and on; raises ConnectionError once the gateway has closed."""
    end = time.monotonic() + HANGS
    while time.monotonic() < end:
        connection.sendall(b"x" * 10_000)
        time.sleep(0.01)


def refusal(received: bytes) -> tuple[int, dict]:
    """Return the status and the error of the only answer in what was received."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]


def test_who_says_nothing_is_told_nothing(quick):
    """A port scan, or a browser that connects ahead: closed, without an answer to no question."""
    with connect(quick) as connection:
        assert rest_of(connection) == b""


@pytest.mark.parametrize("before", [b"", b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"])
def test_a_head_has_its_time_from_the_connection_or_its_first_byte(quick, before):
    """Byte by byte does not make it longer; the first request of a connection is like the next."""
    with connect(quick) as connection:
        if before:
            connection.sendall(before)
            assert connection.recv(65536).endswith(b'{"status":"live"}')
            time.sleep(0.6)  # longer than a head may take: a connection may wait for its next
        status, error = refusal(drip(connection, HEAD, 0.05))
    assert (status, error["code"]) == (408, "request_timeout")
    assert "The headers took longer than 0.4 seconds." in error["message"]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (LENGTH % 5000, b'{"model":"m","input":"'),
        (b"transfer-encoding: chunked\r\n\r\n", b"1\r\n{\r\n1\r\n"),
        (b"transfer-encoding: chunked\r\n\r\n1;", b"extension"),
        (b"transfer-encoding: chunked\r\n\r\n0\r\n", b"trailer: x"),
        (b"expect: 100-continue\r\n" + LENGTH % 5000, b""),
    ],
)
def test_a_body_that_hardly_comes_is_a_408(quick, head, body):
    """Byte by byte, or not at all; however it is framed. The request that waited is called off."""
    with connect(quick) as connection:
        connection.sendall(HEAD + head)
        received = drip(connection, body, 0.1)
    status, error = refusal(received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
    assert (status, error["code"]) == (408, "request_timeout")
    assert "of the body came" in error["message"]
    quick.wait_until(lambda: quick.requests_running == 0)


def test_who_is_slow_and_honest_is_served(quick):
    """A few kilobytes a second, for longer than anything may take that does not come on."""
    body = GOOD + b" " * 6000
    with connect(quick) as connection:
        connection.sendall(HEAD + LENGTH % len(body))
        for start in range(0, len(body), 400):
            connection.sendall(body[start : start + 400])
            time.sleep(0.1)  # this is the slowness
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_what_the_gateway_does_not_read_is_not_held_against_its_client(gateway, fake_openai):
    """While another has the room that a large body needs, this one is not read, and not slow."""
    rest = '[server]\nbody_timeout = "500ms"\nmax_body = "200KiB"'
    running = gateway(one_model(fake_openai.base_url, rest=rest))
    large = GOOD + b" " * 180_000
    with connect(running) as first, connect(running) as second:
        first.sendall(HEAD + LENGTH % len(large) + large[:100_000])
        running.wait_until(lambda: running.requests_running == 1)
        second.sendall(HEAD + LENGTH % len(large) + large)
        sent = 100_000
        while sent < 110_000:  # for two seconds quick enough, while the second can only wait
            time.sleep(0.2)
            first.sendall(large[sent : sent + 1000])
            sent += 1000
        first.sendall(large[sent:])
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert second.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_slow_head_behind_a_slow_answer_ends_the_connection_after_the_answer(
    gateway, fake_openai
):
    """What was asked before is still answered, and as the last thing."""
    hang = behave.Hang()
    fake_openai.script(hang)
    rest = '[server]\nheader_timeout = "300ms"'
    running = gateway(one_model(fake_openai.base_url, rest=rest))
    with connect(running) as connection:
        connection.sendall(HEAD + LENGTH % len(GOOD) + GOOD + b"GET /he")
        hang.reached.result(10)
        running.wait_until(
            lambda: running.metric("gateway_rejected_total", reason="slow_client") > 0
        )
        hang.release()
        received = rest_of(connection)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in received


def test_an_answer_before_the_body_leaves_the_connection_as_it_is_if_the_body_still_comes(quick):
    """What is left of a body is read for a while, and the next request is the next request."""
    large = HEAD.replace(b"application/json", b"text/plain") + LENGTH % 100_000
    with connect(quick) as connection:
        connection.sendall(large + b"x" * 50_000)
        assert b" 415 " in connection.recv(65536)
        connection.sendall(b"x" * 50_000 + HEAD + LENGTH % len(GOOD) + GOOD)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_body_without_end_is_read_for_a_while_and_not_for_ever(quick):
    """Its 413 comes at once; then the connection is closed in the midst of it."""
    with connect(quick) as connection:
        connection.sendall(HEAD + b"content-length: 999999999999\r\n\r\n")
        assert b" 413 " in connection.recv(65536)
        with pytest.raises(ConnectionError):
            flood(connection)


def test_what_is_refused_can_be_read_by_who_still_sends(quick):
    """A socket that is closed with something unread takes back what it has sent: so it is read."""
    with connect(quick) as connection:
        connection.sendall(HEAD + b"x: " + b"a" * 900_000)
        status, error = refusal(rest_of(connection))
    assert (status, error["code"]) == (431, "headers_too_large")


def test_each_is_counted_by_its_reason(gateway, fake_openai):
    """At the connection and behind it."""
    rest = '[server]\nheader_timeout = "200ms"\nbody_timeout = "200ms"'
    running = gateway(one_model(fake_openai.base_url, rest=rest))
    for raw in (
        b"GET",
        HEAD + LENGTH % 9,
        HEAD + b"x: " + b"a" * 70_000,
        b"x\r\n\r\n",
        b"GET / HTT",
    ):
        with connect(running) as connection:
            connection.sendall(raw)
            rest_of(connection)
    with connect(running) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        rest_of(connection)
    running.http.post("/v1/embeddings", content=b"{")
    running.http.post("/v1/embeddings", content=b"[" * 100_000)
    running.http.post("/v1/embeddings", content=b"x", headers={"content-type": "text/plain"})
    running.http.get("/nothing")

    def count(reason: str) -> float:
        return running.metric("gateway_rejected_total", reason=reason)

    assert count("slow_client") == 3
    assert (count("header_size"), count("host"), count("http")) == (1, 1, 1)
    assert (count("media_type"), count("unknown")) == (1, 1)
    assert count("schema") + count("depth") == 2


def test_tls_that_is_never_set_up_ends(monkeypatch, tmp_path, gateway, fake_openai):
    """A connection that does not begin to speak TLS has its time as well."""
    monkeypatch.setattr("gateway.edge.server.HANDSHAKE", 0.3)
    ca, chain, key = make_authority(tmp_path)
    rest = f'[server]\ntls_cert = "{chain}"\ntls_key = "{key}"'
    running = gateway(one_model(fake_openai.base_url, rest=rest))
    with connect(running) as connection:
        assert rest_of(connection) == b""
    context = ssl.create_default_context(cafile=ca)
    with connect(running) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
        tls.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert tls.recv(65536).startswith(b"HTTP/1.1 200 ")
