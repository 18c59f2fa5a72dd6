"""Under load: shares are fair, what waits is bounded, and who leaves takes their texts along."""

import json
import socket
import threading

import pytest

from tests.engine.running_engine import in_background

pytestmark = pytest.mark.engine

LONG = [1, *[270] * 4000]
"""Some hundred milliseconds of work for the slow model."""


def test_a_short_text_does_not_wait_for_a_long_batch(start, models):
    """Somebody's batch of long texts is still going on when one short text is answered."""
    engine = start(models["slow"], contexts=1)
    finished = threading.Event()

    def batch():
        engine.vectors([LONG] * 8)
        finished.set()

    with in_background(batch), engine.new_client() as other:
        engine.wait_for(lambda: engine.health()["busy"])
        answer = other.post("/v1/embeddings", json={"input": ["hello"]})
        assert 200 == answer.status_code
        assert not finished.is_set()


def test_more_than_may_wait_is_a_503_that_says_when_to_come_back(start, models):
    """The queue is bounded by texts; a client is told to retry, in both headers."""
    engine = start(models["slow"], contexts=1, max_queue=3)
    with in_background(lambda: engine.vectors([LONG] * 4)), engine.new_client() as other:
        engine.wait_for(lambda: engine.health()["busy"])
        refused = other.post("/v1/embeddings", json={"input": ["hello"]})
        assert 503 == refused.status_code
        assert "engine_overloaded" == refused.json()["error"]["code"]
        assert int(refused.headers["retry-after"]) >= 1
        assert int(refused.headers["retry-after-ms"]) > 0
    assert 200 == engine.post({"input": ["hello"]}).status_code


def test_a_client_that_leaves_takes_its_waiting_texts_along(start, models):
    """Nobody computes what nobody will read."""
    engine = start(models["slow"], contexts=1)
    body = json.dumps({"input": [LONG] * 50}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket))
        client.sendall(head.encode() + body)
        engine.wait_for(lambda: engine.health()["busy"])
        assert engine.health()["queue_depth"] > 0
    engine.wait_for(lambda: engine.health()["queue_depth"] == 0)
    engine.wait_for(lambda: engine.health()["busy"] == 0)
    assert engine.counts().texts < 50


def test_health_and_counts_tell_what_was_done(start, models):
    """What the gateway shows of an engine."""
    engine = start(models["encoder"], contexts=2, restarts=4)
    answer = engine.ask(["hello world", "dog"])
    health = engine.health()
    expected = {
        "width": 32,
        "context": 128,
        "pooling": "mean",
        "vocab": 85,
        "contexts": 2,
        "threads": 1,
        "architecture": "bert",
        "queue_depth": 0,
        "queue_limit": 16384,
        "busy": 0,
        "restarts": 4,
    }
    assert expected == {name: health[name] for name in expected}
    assert health["engine"].startswith("llama.cpp ")
    assert health["rss_bytes"] > 10_000_000
    counts = engine.counts()
    assert (counts.texts, counts.tokens) == (2, answer["usage"]["total_tokens"])
    assert sum(counts.waits) == 1


def test_memory_does_not_grow_with_requests(start, models):
    """A thousand requests of all sizes leave the process as large as it was."""
    engine = start(models["encoder"], contexts=2)
    texts = ["dog " * size for size in (1, 30, 120)]

    def rounds(count):
        for _ in range(count):
            engine.vectors(texts * 4)
        return engine.health()["rss_bytes"]

    before = rounds(100)
    assert rounds(400) - before < 4 << 20
