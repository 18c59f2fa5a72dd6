"""An upstream that is asked for more than it takes, or fails: what clients see meanwhile."""

import threading

import httpx2
import pytest

from tests import upstream_behaviours as behave
from tests.running import one_model

KEYS = """
    [[keys]]
    name = "anna"
    secret = "key-of-anna"
    [[keys]]
    name = "ben"
    secret = "key-of-ben"
    [[keys]]
    name = "watcher"
    secret = "key-of-watcher"
    admin = true
"""
NARROW = "concurrency = 1\nmax_queue = 4\nmax_queue_per_key = 2"
WAITING = "gateway_upstream_queue_depth"


class Asked:
    """Requests under way, each in a thread of its own, by texts; and the order of their ends."""

    def __init__(self, running):
        self._running = running
        self._threads = []
        self.answers = {}

    def ask(self, text, key="any"):
        """Ask, and go on."""

        def post():
            self.answers[text] = httpx2.post(
                f"{self._running.base_url}/embeddings",
                json={"model": "m", "input": text},
                headers={"authorization": f"Bearer {key}"},
                timeout=30,
            )

        thread = threading.Thread(target=post)
        thread.start()
        self._threads.append(thread)

    def all(self):
        """Wait for all of them; return their answers in the order in which they came."""
        for thread in self._threads:
            thread.join()
        return self.answers


def waiting(running, **auth):
    """Return how many calls wait, and how many are on their way."""
    samples = {sample.name: sample.value for sample in running.samples(**auth)}
    return samples[WAITING], samples["gateway_upstream_in_flight"]


def fill(running, fake, count, **auth):
    """Let the upstream hang, and so many requests wait; return what lets all go on, and them."""
    hang = behave.Hang()
    fake.always(hang)
    asked = Asked(running)
    asked.ask("on its way", "key-of-anna")
    hang.reached.result(10)
    for number in range(count):
        asked.ask(f"waiting {number}", "key-of-anna")
        running.wait_until(lambda n=number: waiting(running, **auth) == (n + 1, 1))
    return hang, asked


def test_what_is_too_much_is_refused_at_once(gateway, fake_openai):
    """503 with the time to come back; what is cached, health and metrics are there as ever."""
    running = gateway(one_model(fake_openai.base_url, upstream=NARROW))
    known = running.vectors("known")
    hang, asked = fill(running, fake_openai, 4)
    refused = running.embed("one too many")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (503, "overloaded")
    assert {"retry-after", "retry-after-ms"} <= refused.headers.keys()
    assert "x-should-retry" not in refused.headers
    assert running.metric("gateway_rejected_total", reason="overload") == 1
    assert running.vectors("known") == known
    assert running.http.get("/health/ready").status_code == 200
    hang.release()
    assert all(answer.status_code == 200 for answer in asked.all().values())
    assert len(asked.answers) == 5
    assert waiting(running) == (0, 0)


def test_one_key_leaves_room_for_others_and_its_turn(gateway, fake_openai):
    """Beyond its bound it gets a 429; who comes later with another key is served before it."""
    running = gateway(one_model(fake_openai.base_url, upstream=NARROW, rest=KEYS))
    auth = {"headers": {"authorization": "Bearer key-of-watcher"}}
    hang, asked = fill(running, fake_openai, 2, **auth)
    refused = running.embed("more", headers={"authorization": "Bearer key-of-anna"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (429, "rate_limit_exceeded")
    assert "retry-after-ms" in refused.headers
    asked.ask("of ben", "key-of-ben")
    running.wait_until(lambda: waiting(running, **auth) == (3, 1))
    fake_openai.always(None)
    hang.release()
    answers = asked.all()
    assert [answer.status_code for answer in answers.values()] == [200] * 4
    assert fake_openai.texts == ["on its way", "waiting 0", "of ben", "waiting 1"]
    rejected = [s for s in running.samples(**auth) if s.name == "gateway_rejected_total"]
    assert [(s.labels["reason"], s.value) for s in rejected] == [("concurrency", 1)]


def test_who_leaves_while_waiting_makes_room(gateway, fake_openai):
    """A client that hung up holds nobody up, and its texts are never asked for."""
    running = gateway(one_model(fake_openai.base_url, upstream=NARROW))
    hang, asked = fill(running, fake_openai, 3)
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(
            f"{running.base_url}/embeddings", json={"model": "m", "input": "gone"}, timeout=0.2
        )
    running.wait_until(lambda: waiting(running) == (3, 1))
    hang.release()
    assert all(answer.status_code == 200 for answer in asked.all().values())
    assert "gone" not in fake_openai.texts


def test_an_upstream_that_is_gone_is_left_alone(gateway, fake_openai):
    """After a second of nothing but failures: 503 at once. What is cached is answered."""
    running = gateway(one_model(fake_openai.base_url))
    known = running.vectors("known")
    fake_openai.always(behave.close_before_answer)
    codes = []

    def lost():
        codes.append(running.embed(f"text {len(codes)}").json()["error"]["code"])
        return codes[-1] == "upstream_unavailable"

    running.wait_until(lost)
    assert set(codes[:-1]) == {"upstream_unreachable"}
    assert len(codes) > 5
    before = fake_openai.calls
    refused = running.embed("another")
    assert refused.status_code == 503
    assert 4000 < int(refused.headers["retry-after-ms"]) <= 5000
    assert fake_openai.calls == before
    assert running.vectors("known") == known
    assert running.metric("gateway_upstream_retries_total", upstream="fake", reason="connect") == (
        before - 1 - (len(codes) - 1)
    )


def test_an_upstream_that_fails_half_of_its_calls_is_asked_a_tenth_more(gateway, fake_openai):
    """Not twice: when everybody asks again, it fails even more."""
    running = gateway(one_model(fake_openai.base_url))
    calls = 0

    async def half(exchange):
        nonlocal calls
        calls += 1
        if calls % 2:
            exchange.status = 500

    fake_openai.always(half)
    failed = [running.embed(f"text {n}") for n in range(100)]
    failed = [answer for answer in failed if answer.status_code != 200]
    assert calls <= 100 + 5 + 10 + 1
    assert all(answer.headers["x-should-retry"] == "false" for answer in failed)
    retries = running.metric("gateway_upstream_retries_total", upstream="fake", reason="5xx")
    assert retries == calls - 100


def test_what_the_upstream_may_still_be_asked_is_a_metric(gateway, fake_openai):
    """As it last said so."""
    running = gateway(one_model(fake_openai.base_url))
    running.vectors("a")
    for kind, least in (("requests", 2000), ("tokens", 999000)):
        said = running.metric("gateway_upstream_ratelimit_remaining", upstream="fake", kind=kind)
        assert least <= said <= 999000
