"""Clients that leave, requests that run out of time, and those who waited with them."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx2
import numpy as np
import pytest

from tests import upstream_behaviours as behave
from tests.running import one_model


@pytest.fixture
def running(gateway, fake_openai):
    return gateway(one_model(fake_openai.base_url))


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as made:
        yield made


def right(fake, text):
    full = fake.vector("m", text).astype(np.float64)
    return (full / np.linalg.norm(full)).astype(np.float32).astype(np.float64).tolist()


def begin(running, body):
    """Send a request over a socket of its own; closing it is leaving."""
    connection = socket.create_connection(("127.0.0.1", running.port))
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
def test_a_client_that_leaves_ends_its_upstream_call(running, fake_openai, reset):
    """Nobody waits for the answer, so nobody pays for it; the text is free to be asked anew."""
    hang = behave.Hang()
    fake_openai.script(hang)
    connection = begin(running, b'{"model":"m","input":"x"}')
    hang.reached.result(10)
    if reset:
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()
    hang.abandoned.result(10)
    running.wait_until(lambda: running.requests_running == 0)
    assert running.vectors("x") == [right(fake_openai, "x")]
    assert running.metric("gateway_requests_total", code="499") == 1
    assert running.metric("gateway_upstream_requests_total", outcome="cancelled") == 1


def test_an_sdk_that_gives_up_ends_its_upstream_call(running, fake_openai):
    """The timeout of a client is a leaving like any other."""
    hang = behave.Hang()
    fake_openai.script(hang)
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            f"{running.base_url}/embeddings", json={"model": "m", "input": "x"}, timeout=0.2
        )
    hang.abandoned.result(10)


def test_those_who_joined_get_their_answer_when_the_first_one_leaves(running, fake_openai, pool):
    """A call goes on as long as somebody waits for it, for the whole batch it carries."""
    hang = behave.Hang()
    fake_openai.script(hang)
    first = begin(running, b'{"model":"m","input":["a","b","c"]}')
    hang.reached.result(10)
    joined = [pool.submit(running.vectors, ["b"]) for _ in range(3)]
    running.wait_until(lambda: running.requests_running == 4)
    first.close()
    running.wait_until(lambda: running.requests_running == 3)
    hang.release()
    assert [answer.result(10) for answer in joined] == [[right(fake_openai, "b")]] * 3
    assert not hang.abandoned.done()
    assert running.vectors(["a", "c"]) == [right(fake_openai, "a"), right(fake_openai, "c")]
    assert fake_openai.calls == 1


def test_a_client_that_leaves_while_it_sends_is_forgotten(running):
    """Half a body is no request; the worker is free for the next."""
    connection = socket.create_connection(("127.0.0.1", running.port))
    connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{")
    running.wait_until(lambda: running.requests_running == 1)
    connection.close()
    running.wait_until(lambda: running.requests_running == 0)
    assert running.embed("x").status_code == 200
    assert running.metric("gateway_requests_total", code="499") == 1
    assert running.log == ""


def test_a_client_that_leaves_with_requests_behind_the_running_one_is_forgotten(
    running, fake_openai
):
    """Of several requests on one connection the one that runs is called off, without a word."""
    hang = behave.Hang()
    fake_openai.script(hang)
    body = b'{"model":"m","input":"x"}'
    post = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    live = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", running.port))
    connection.sendall(live + post + body + live)
    hang.reached.result(10)
    connection.close()
    hang.abandoned.result(10)
    running.wait_until(lambda: running.requests_running == 0)
    assert running.embed("x").status_code == 200
    assert running.log == ""


def test_a_client_that_does_not_read_is_left(gateway, fake_openai):
    """With the buffers full for a while: its request must not hold what others wait for."""
    rest = '[server]\nbody_timeout = "200ms"'
    running = gateway(one_model(fake_openai.base_url, rest=rest))
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", running.port))
    body = b'{"model":"m","input":%b}' % json.dumps([f"{n}" for n in range(2048)]).encode()
    request = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
    with connection:
        connection.settimeout(1)
        with suppress(OSError):
            for _ in range(40):
                connection.sendall(request % (len(body), body))
        running.wait_until(lambda: running.connections == 0)
    assert running.embed("x").status_code == 200


def test_a_connection_serves_request_after_request(running, fake_openai):
    """Sent without waiting for answers, they are answered one after the other."""
    bodies = [b'{"model":"m","input":"%d"}' % n for n in range(5)]
    requests = b"".join(
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(b), b)
        for b in bodies
    )
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.settimeout(10)
        connection.sendall(requests)
        received = b""
        while received.count(b'"usage"') < 5:
            received += connection.recv(65536)
    assert received.count(b"HTTP/1.1 200 OK") == 5
    assert fake_openai.texts == ["0", "1", "2", "3", "4"]


def test_a_request_has_its_own_time(gateway, fake_openai):
    """After request_timeout it is a 504 of OpenAI's form, and the upstream call is called off."""
    hang = behave.Hang()
    fake_openai.script(hang)
    running = gateway(one_model(fake_openai.base_url, rest='[server]\nrequest_timeout = "300ms"'))
    began = time.monotonic()
    refused = running.embed("x")
    assert 0.25 < time.monotonic() - began < 5
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (504, "upstream_timeout")
    hang.abandoned.result(10)
    assert running.vectors("x") == [right(fake_openai, "x")]


def test_an_attempt_has_the_upstreams_time_and_is_not_tried_again(gateway, fake_openai):
    """A slow answer would be slow again, and may be billed."""
    hang = behave.Hang()
    fake_openai.always(hang)
    running = gateway(one_model(fake_openai.base_url, upstream='timeout = "200ms"'))
    refused = running.embed("x")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (504, "upstream_timeout")
    assert fake_openai.calls == 1
    assert running.metric("gateway_upstream_requests_total", outcome="timeout") == 1


def test_a_bad_text_of_one_client_does_not_fail_another(running, fake_openai, pool):
    """B joined A's batch for a good text; the upstream refuses A's batch; B is asked for alone."""
    hang = behave.Hang()
    fake_openai.script(behave.together(hang, behave.status(400)))
    first = pool.submit(running.embed, ["good", "bad"])
    hang.reached.result(10)
    second = pool.submit(running.vectors, ["good"])
    running.wait_until(lambda: running.requests_running == 2)
    hang.release()
    assert first.result(10).status_code == 400
    assert second.result(10) == [right(fake_openai, "good")]
    assert fake_openai.texts == ["good", "bad", "good"]


def test_a_gateway_that_stops_lets_running_requests_end(running, fake_openai, pool):
    """What was begun is answered; then the connections to upstreams are closed."""
    hang = behave.Hang()
    fake_openai.script(hang)
    answer = pool.submit(running.vectors, ["x"])
    hang.reached.result(10)
    for server in running.servers:
        server.should_exit = True
    hang.release()
    assert answer.result(10) == [right(fake_openai, "x")]
    running.join()
