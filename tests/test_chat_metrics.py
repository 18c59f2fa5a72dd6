"""Chats counted: answers, tokens, dollars, first chunks, new systems, and calls by their end."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import upstream_behaviours as behave
from tests import upstream_chat_behaviours as chat_behave
from tests.chatting import HELLO, begin, chat, chat_model, said, whole

PRICE = "price = { input = 1.0, output = 2.0 }"
USAGE = {"stream_options": {"include_usage": True}}


@pytest.fixture
def running(gateway, fake_openai):
    return gateway(chat_model(fake_openai.base_url, model=PRICE))


def tokens(running, source):
    """Return the tokens of prompts and of completions that were counted."""
    return [
        running.metric("gateway_chat_tokens_total", model="m", kind=kind, source=source)
        for kind in ("prompt", "completion")
    ]


def told(answer):
    """Return the tokens of an answer, as it tells them itself."""
    usage = whole(answer)["usage"]
    return [usage["prompt_tokens"], usage["completion_tokens"]]


def dollars(counted):
    return (counted[0] * 1.0 + counted[1] * 2.0) / 1e6


@pytest.mark.parametrize("fields", [{}, {"stream": True} | USAGE], ids=["JSON", "stream"])
def test_what_was_made_is_spent_and_what_was_kept_is_saved(running, fields):
    """By the upstream's own count of tokens."""
    made = told(chat(running, seed=1, **fields))
    assert tokens(running, "upstream") == made
    assert tokens(running, "cache") == [0, 0]
    assert told(chat(running, seed=1, **fields)) == made
    chat(running, seed=1)
    assert tokens(running, "upstream") == made
    assert tokens(running, "cache") == [2 * each for each in made]
    assert running.metric("gateway_cost_usd_total", kind="spent") == pytest.approx(dollars(made))
    assert running.metric("gateway_cost_usd_total", kind="saved") == pytest.approx(
        2 * dollars(made)
    )
    assert running.metric("gateway_chat_answers_total", model="m", result="upstream") == 1
    assert running.metric("gateway_chat_answers_total", model="m", result="memory") == 2


@pytest.mark.parametrize("fields", [{}, {"seed": 1}], ids=["relayed", "recorded"])
def test_a_stream_is_counted_though_nobody_asked_for_its_tokens(running, fake_openai, fields):
    """The gateway asks, where they have a price."""
    chat(running, stream=True, **fields)
    assert min(tokens(running, "upstream")) > 0
    assert running.metric("gateway_chat_first_chunk_seconds_count", result="upstream") == 1


def test_what_was_spent_is_counted_although_who_asked_has_left(running, fake_openai):
    """An upstream's bill does not ask who began it: another one reads it to its end."""
    hang = behave.Hang()
    fake_openai.chat.script(chat_behave.stall(hang, 2))
    first = begin(running, seed=1, stream=True)
    hang.reached.result(10)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(chat, running, seed=1)
        running.wait_until(lambda: running.chats_followed == 2)
        first.close()
        running.wait_until(lambda: running.requests_running == 1)
        hang.release()
        made = told(second.result(10))
    assert tokens(running, "upstream") == made
    assert tokens(running, "cache") == made
    assert running.metric("gateway_chat_answers_total", result="in-flight") == 1
    assert running.metric("gateway_new_fingerprints_total") == 1


def test_a_model_without_a_price_costs_nothing(gateway, fake_openai):
    """Its tokens are counted all the same, as far as they are told."""
    running = gateway(chat_model(fake_openai.base_url))
    chat(running)
    chat(running, stream=True)
    assert min(tokens(running, "upstream")) > 0
    assert running.metric("gateway_cost_usd_total") == 0


def test_a_new_fingerprint_is_told_once(gateway, fake_openai, tmp_path):
    """From it on a seed may mean another answer; also a restart does not make it new."""
    rest = f'[cache]\nstore = "sqlite://{tmp_path}/cache.db"'
    running = gateway(chat_model(fake_openai.base_url, rest=rest))
    for fields in ({}, {"stream": True}, {"seed": 1}, {"seed": 1}, {"stream": True, "seed": 2}):
        chat(running, **fields)
    assert running.metric("gateway_new_fingerprints_total", model="m") == 1
    fake_openai.chat.fingerprint = "fp_other"
    chat(running, seed=1)
    assert running.metric("gateway_new_fingerprints_total") == 1
    chat(running, stream=True)
    assert running.metric("gateway_new_fingerprints_total") == 2
    lines = [line for line in running.log.splitlines() if "new fingerprint" in line]
    assert len(lines) == 2
    assert '"fp_other"' in lines[1]
    # Stores are told of it twice a second.
    files = [tmp_path / "cache.db", tmp_path / "cache.db-wal"]
    running.wait_until(lambda: any(b"fp_other" in file.read_bytes() for file in files))
    running.stop()
    running.join()
    later = gateway(chat_model(fake_openai.base_url, rest=rest))
    chat(later)
    assert later.metric("gateway_new_fingerprints_total") == 0


def test_an_upstream_without_fingerprints_has_no_new_one(running, fake_openai):
    """Many servers have none."""
    fake_openai.chat.fingerprint = None
    chat(running)
    chat(running, stream=True)
    assert running.metric("gateway_new_fingerprints_total") == 0
    assert running.log == ""


@pytest.mark.parametrize("fields", [{}, {"seed": 1}], ids=["relayed", "recorded"])
def test_calls_are_counted_by_their_end(running, fake_openai, fields):
    """One that breaks counts twice: it was answered, and then it was not."""
    for behaviour in (chat_behave.cut(3), chat_behave.refuse(400), chat_behave.refuse(500)):
        fake_openai.chat.script(behaviour)
        chat(running, stream=True, **fields)
    chat(running, **fields)
    counted = {
        outcome: running.metric("gateway_upstream_requests_total", outcome=outcome)
        for outcome in ("ok", "connect", "4xx", "5xx")
    }
    assert counted == {"ok": 2, "connect": 1, "4xx": 1, "5xx": 1}
    assert running.metric("gateway_requests_total", operation="chat", code="200") == 2
    assert running.metric("gateway_requests_total", operation="chat", code="400") == 1
    assert running.metric("gateway_requests_total", operation="chat", code="502") == 1


def test_names_that_no_route_knows_are_other(running):
    """Labels come from the config alone."""
    chat(running, model="nope")
    assert (
        running.metric("gateway_requests_total", operation="chat", model="other", code="404") == 1
    )


def test_the_path_without_v1_is_a_chat_too(running):
    """For the metrics as for the client."""
    answer = running.http.post("/chat/completions", json={"model": "m", "messages": HELLO})
    assert said(answer)
    assert running.metric("gateway_requests_total", operation="chat", model="m", code="200") == 1
