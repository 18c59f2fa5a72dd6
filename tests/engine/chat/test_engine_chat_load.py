"""Under load: one seed, one text; a queue with an end; who leaves takes their context along."""

import json
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from tests.engine.chat.running_chat import PATH, RunningChat, asking
from tests.engine.running_engine import in_background

pytestmark = pytest.mark.engine

BEGINNING = "we went to Mars and the sky was red " * 12
"""More than a chunk, so that much of it is reused."""


@pytest.fixture(scope="module")
def slow(llama, chats, tmp_path_factory) -> Iterator[RunningChat]:
    """An engine that takes its time, one answer after the other; idle between the tests."""
    with RunningChat(chats["slow"], tmp_path_factory.mktemp("s"), contexts=1) as engine:
        yield engine


@contextmanager
def calling(engine, body) -> Iterator[socket.socket]:
    """Send a request by hand; leave when the block ends."""
    data = json.dumps(body).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket))
        client.sendall(head.encode() + data)
        yield client


def idle(engine):
    health = engine.health()
    return not health["busy"] and not health["queue_depth"]


def answers(engine, requests, *, at_once=8):
    """Return the text of each (message, seed), asked by so many clients at a time."""

    def ask(request):
        said, seed = request
        with engine.new_client() as client:
            fields = {"max_tokens": 24, **({} if seed is None else {"seed": seed})}
            response = client.post(PATH, json=asking(said, **fields))
        assert response.status_code == 200, response.text
        return response.json()["choices"][0]["message"]["content"]

    with ThreadPoolExecutor(at_once) as clients:
        return list(clients.map(ask, requests))


def test_a_seeded_answer_is_one_text_whatever_runs_beside_it(start_chat, chats):
    """Two contexts, others' prompts between, reused beginnings or none, and another engine."""
    engine = start_chat(chats["tools"], contexts=2)
    prompts = [f"{BEGINNING}{end}" for end in ("dust", "true", "null")]
    seeded = [(prompt, seed) for prompt in prompts for seed in (1, 2)] * 8
    requests = seeded + [(random.Random(n).choice(prompts), None) for n in range(52)]
    random.Random(3).shuffle(requests)
    texts: dict[tuple[str, int], set[str]] = {}
    for request, text in zip(requests, answers(engine, requests), strict=True):
        if request[1] is not None:
            texts.setdefault(request, set()).add(text)
    assert {1} == {len(found) for found in texts.values()}
    reused = engine.chat(prompts[0], seed=1)["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert reused >= 256
    engine.stop()
    engine.start()
    # Fresh contexts: nothing can be reused for the first prompts they see.
    for (prompt, seed), found in texts.items():
        assert found == {*answers(engine, [(prompt, seed)])}


def test_more_than_may_wait_is_a_503_that_says_when_to_come_back(start_chat, chats):
    """The queue is bounded by requests; those in it are answered in turn."""
    engine = start_chat(chats["endless"], contexts=1, max_queue=1)
    with calling(engine, asking(stream=True)) as first:
        engine.wait_for(lambda: engine.health()["busy"])
        with in_background(lambda: engine.chat(max_tokens=1)) as second:
            engine.wait_for(lambda: engine.health()["queue_depth"])
            with engine.new_client() as other:
                refused = other.post(PATH, json=asking())
            assert (503, "engine_overloaded") == (
                refused.status_code,
                refused.json()["error"]["code"],
            )
            assert int(refused.headers["retry-after"]) >= 1
            assert int(refused.headers["retry-after-ms"]) > 0
            first.close()
    assert "length" == second[0]["choices"][0]["finish_reason"]


def test_those_who_wait_are_served_in_the_order_they_came(slow):
    """First in, first out."""
    done = []
    with ThreadPoolExecutor(4) as clients, calling(slow, asking(stream=True)):
        slow.wait_for(lambda: slow.health()["busy"])
        for number in range(4):

            def ask(number=number):
                with slow.new_client() as client:
                    client.post(PATH, json=asking(max_tokens=20))
                done.append(number)

            clients.submit(ask)
            slow.wait_for(lambda n=number: slow.health()["queue_depth"] == n + 1)
    assert [0, 1, 2, 3] == done


def test_a_client_that_leaves_at_any_point_leaves_nothing_behind(start_chat, chats):
    """In the queue, in the prompt, in the answer, streamed or not: no context stays busy."""
    engine = start_chat(chats["endless"], contexts=2)
    moments = random.Random(5)
    for number in range(50):
        with calling(engine, asking("x" * 1500, stream=number % 2 == 0, n=2)) as client:
            client.settimeout(60)
            if number % 4 == 0:
                client.recv(moments.randrange(1, 4000))
            else:
                time.sleep(moments.random() * 0.03)
    engine.wait_for(lambda: idle(engine))
    assert "length" == engine.chat(max_tokens=2)["choices"][0]["finish_reason"]
    assert idle(engine)


def test_a_prompt_is_not_decoded_to_its_end_for_nobody(slow):
    """Who leaves during a long prompt stops it there."""
    before = slow.counts()
    with calling(slow, asking("x" * 3900)):
        slow.wait_for(slow.at_work)
    slow.wait_for(lambda: idle(slow))
    after = slow.counts()
    assert after.tokens - before.tokens < 3900
    assert after.texts == before.texts


def test_a_reader_who_does_not_read_holds_the_writer_back(start_chat, chats):
    """The answer waits in bounded room; it goes on, whole, when the reader does."""
    engine = start_chat(chats["endless"], contexts=1)
    fields = {"seed": 3, "n": 2, "logprobs": True, "top_logprobs": 20, "max_tokens": 1500}
    with calling(engine, asking(stream=True, **fields)) as client:
        client.settimeout(60)
        engine.wait_for(lambda: engine.counts().tokens > 100)
        count = -1
        while count != (count := engine.counts().tokens):
            time.sleep(0.3)
        assert count < 2000
        assert engine.health()["busy"]
        data = b""
        while b"[DONE]" not in data[-100:]:
            data += client.recv(1 << 16)
    assert 2 * 1500 == data.count(b'"top_logprobs"')


def test_the_loop_answers_while_contexts_are_at_work(slow):
    """Health comes at once though every context decodes."""
    with calling(slow, asking("y" * 3900)):
        slow.wait_for(slow.at_work)
        assert {1} == {slow.health()["busy"] for _ in range(5)}
    slow.wait_for(lambda: idle(slow))


def test_health_tells_what_the_engine_is_and_does(start_chat, chats):
    """What the gateway shows of an engine."""
    engine = start_chat(chats["short"], contexts=2, restarts=3, max_queue=7)
    usage = engine.chat(seed=1, max_tokens=5)["usage"]
    health = engine.health()
    expected = {
        "task": "chat",
        "context": 512,
        "contexts": 2,
        "threads": 1,
        "architecture": "llama",
        "template": "file",
        "queue_depth": 0,
        "queue_limit": 7,
        "busy": 0,
        "restarts": 3,
    }
    assert expected == {name: health[name] for name in expected}
    assert health["engine"].startswith("llama.cpp ")
    assert health["fingerprint"].startswith("fp_")
    assert health["rss_bytes"] > 10_000_000
    counts = engine.counts()
    assert (1, usage["total_tokens"], 1) == (counts.texts, counts.tokens, sum(counts.waits))
    assert 10 == psutil.Process(engine.process.pid).nice() - psutil.Process().nice()
    (ready,) = engine.events("ready")
    assert (512, 2) == (ready["context"], ready["contexts"])
    (sized,) = engine.events("sized")
    assert sized["kv_bytes"] < sized["context_bytes"]
