"""A gateway that is told to end: it says so, takes what still comes, and ends what runs well."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests import upstream_behaviours as behave
from tests import upstream_chat_behaviours as chat_behave
from tests.chatting import HELLO
from tests.processes import GatewayProcess, gateway_process
from tests.running import one_model
from tests.upstream import FakeOpenAI, serve


@pytest.fixture(scope="module")
def served_upstream() -> Iterator[FakeOpenAI]:
    with serve(FakeOpenAI(width=32)) as served:
        yield served.app


@pytest.fixture
def upstream(served_upstream: FakeOpenAI) -> FakeOpenAI:
    served_upstream.forget()
    return served_upstream


def toml(upstream: FakeOpenAI, delay: str, timeout: str, more: str = "") -> str:
    server = f'[server]\ndrain_delay = "{delay}"\ndrain_timeout = "{timeout}"\n{more}'
    return one_model(upstream.base_url, rest=server)


def embed(client: httpx2.Client, text: str) -> httpx2.Response:
    return client.post("embeddings", json={"model": "m", "input": text})


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def test_new_work_is_taken_while_it_says_that_it_leaves(upstream: FakeOpenAI):
    """Readiness is 503 at once; who is answered is told to come back over another connection."""
    with (
        gateway_process(toml(upstream, "3s", "30s")) as served,
        httpx2.Client(base_url=served.base_url, trust_env=False) as client,
    ):
        assert "connection" not in embed(client, "before").headers
        os.kill(served.pid, signal.SIGTERM)
        served.next_event("stopping", 0)
        ready = httpx2.get(f"{served.address}/health/ready", trust_env=False)
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        for number in range(3):
            answer = embed(client, f"new {number}")
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        page = httpx2.get(f"{served.address}/metrics", trust_env=False).text
        assert "gateway_draining 1.0" in page
        served.ends_well()


def test_what_runs_is_ended_well(upstream: FakeOpenAI, pool: ThreadPoolExecutor):
    """An answer that takes its time, and a stream, come to their ends after the listener closed."""
    hang, stall = behave.Hang(), behave.Hang()
    upstream.script(hang)
    upstream.chat.script(chat_behave.stall(stall, 2))
    with gateway_process(toml(upstream, "0s", "30s")) as served:
        with httpx2.Client(base_url=served.base_url, trust_env=False, timeout=30) as client:
            waiting = pool.submit(embed, client, "slow")
            streaming = pool.submit(stream, served)
            hang.reached.result(10)
            stall.reached.result(10)
            os.kill(served.pid, signal.SIGTERM)
            refused(served)
            hang.release()
            stall.release()
            assert waiting.result(10).status_code == 200
            assert streaming.result(10).endswith("data: [DONE]\n\n")
        served.ends_well()


def test_at_the_deadline_streams_get_an_error_and_others_a_503(
    upstream: FakeOpenAI, pool: ThreadPoolExecutor
):
    """Nobody is left with half an answer that looks whole, and it ends with 0 all the same."""
    hang, stall = behave.Hang(), behave.Hang()
    upstream.script(hang)
    upstream.chat.script(chat_behave.stall(stall, 2))
    with gateway_process(toml(upstream, "0s", "1s")) as served:
        with httpx2.Client(base_url=served.base_url, trust_env=False, timeout=30) as client:
            waiting = pool.submit(embed, client, "never")
            streaming = pool.submit(stream, served)
            hang.reached.result(10)
            stall.reached.result(10)
            os.kill(served.pid, signal.SIGTERM)
            answer = waiting.result(20)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "shutting_down"
            *_, last = streaming.result(20).strip().split("\n\n")
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
        served.ends_well()
        assert not served.events("unforeseen error")


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_does_not_wait(upstream: FakeOpenAI, workers: int):
    """SIGINT closes the listener at once; with workers as without."""
    more = f"workers = {workers}\n[cache]\nmemory = 0\n"
    with gateway_process(toml(upstream, "10m", "30s", more)) as served:
        began = time.monotonic()
        os.kill(served.pid, signal.SIGINT)
        served.ends_well()
        assert time.monotonic() - began < 60
        assert not served.events("stopping")


def test_workers_are_seen_out(upstream: FakeOpenAI, pool: ThreadPoolExecutor):
    """Each as one alone would be; what still runs is told of until it has ended."""
    stall = behave.Hang()
    upstream.chat.script(chat_behave.stall(stall, 2))
    more = "workers = 2\n[cache]\nmemory = 0\n"
    with gateway_process(toml(upstream, "0s", "30s", more)) as served:
        streaming = pool.submit(stream, served)
        stall.reached.result(10)
        os.kill(served.pid, signal.SIGTERM)
        line = served.next_event("requests still run", 0)
        assert line["running"] == 1
        stall.release()
        assert streaming.result(10).endswith("data: [DONE]\n\n")
        served.ends_well()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_ends_it_at_once(
    upstream: FakeOpenAI, pool: ThreadPoolExecutor, workers: int
):
    """Whatever runs, and in all workers; the exit code says that it did not end well."""
    stall = behave.Hang()
    upstream.chat.script(chat_behave.stall(stall, 2))
    more = f"workers = {workers}\n[cache]\nmemory = 0\n"

    def stop_twice() -> None:
        with gateway_process(toml(upstream, "10m", "10m", more)) as served:
            streaming = pool.submit(stream, served)
            stall.reached.result(10)
            for _ in range(2):
                os.kill(served.pid, signal.SIGTERM)
                time.sleep(0.5)
            assert served.process.wait(10) == 1
            assert isinstance(streaming.exception(10), httpx2.TransportError)
            assert not list(served.temporary.iterdir())

    with pytest.raises(AssertionError, match="did not end well"):
        stop_twice()


def stream(served: GatewayProcess) -> str:
    """Return all of a stream that is read to its end."""
    body = {"model": "m", "messages": HELLO, "stream": True}
    url = f"{served.base_url}/chat/completions"
    return httpx2.post(url, json=body, trust_env=False, timeout=60).text


def refused(served: GatewayProcess) -> None:
    """Return when nobody listens any more."""
    port = int(served.address.rpartition(":")[2])
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.02)
    raise AssertionError("it still listens")
