"""What a key may use of chats: streams hold their place to the end, and are paid by their usage."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.edge import error
from tests.keyed import KEYS, auth, chat, keyed, left, metric
from tests.upstream_behaviours import Hang
from tests.upstream_chat_behaviours import error_event, refuse, stall

CHAT = 'task = "chat"'
PRICED = f"{CHAT}\nprice = {{ input = 1000, output = 2000 }}"
ASK = [{"role": "user", "content": "say something"}]


def usage_of(answer):
    return answer.json()["usage"]["total_tokens"]


def test_requests_of_chats_are_counted_with_all_others(gateway, fake_openai):
    """One limit for the key, whatever it asks for."""
    running = gateway(keyed(fake_openai.base_url, "requests_per_minute = 3", model=CHAT))
    answers = [chat(running, "a"), chat(running, "b", stream=True)]
    answers.append(running.http.get("/v1/models", headers=auth()))
    assert [left(answer) for answer in answers] == [2, 1, 0]
    refused = chat(running, "c", stream=True)
    assert (refused.status_code, error(refused)["code"]) == (429, "rate_limit_exceeded")


def test_a_stream_holds_its_place_until_it_ends(gateway, fake_openai):
    """Not only until its headers; who leaves in the middle gives it back."""
    running = gateway(keyed(fake_openai.base_url, "concurrent_requests = 1", model=CHAT))
    fake = fake_openai.chat
    for leaves in (False, True):
        hang = Hang()
        fake.script(stall(hang, 2))
        body = {"model": "m", "messages": ASK, "stream": True}
        path = "/v1/chat/completions"
        with running.http.stream("POST", path, json=body, headers=auth()) as stream:
            pieces = stream.iter_bytes()
            assert next(pieces)
            assert chat(running, "b").status_code == 429
            if not leaves:
                hang.release()
                assert b"[DONE]" in b"".join(pieces)
        running.wait_until(lambda: chat(running, "b").status_code == 200)
        hang.release()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seed", [None, 1])
def test_chats_are_paid_by_what_they_say_of_their_tokens(stream, seed, gateway, fake_openai):
    """Also a stream whose client did not ask for them; kept answers are free."""
    running = gateway(keyed(fake_openai.base_url, "tokens_per_minute = 100000", model=CHAT))
    fields = {"stream": stream} | ({} if seed is None else {"seed": seed})
    made = chat(running, "hello there", **fields)
    assert made.status_code == 200
    call = fake_openai.chat.calls[0]
    tokens = metric(running, "gateway_key_tokens_total", key="alice")
    assert tokens > 0
    if stream:
        assert json.loads(call.request.raw)["stream_options"]["include_usage"] is True
        assert b'"usage":{' not in made.content.replace(b" ", b"")
    else:
        assert tokens == usage_of(made)
    again = chat(running, "hello there", **fields)
    told = 100_000 - left(again, "tokens")
    paid = tokens * (1 if seed else 2)
    drained = 100_000 / 60 * 5
    assert metric(running, "gateway_key_tokens_total", key="alice") >= paid - 1
    assert told <= metric(running, "gateway_key_tokens_total", key="alice") + 600
    assert told >= tokens - drained


def test_an_answer_whose_length_is_bounded_is_expected_to_be_so_long(gateway, fake_openai):
    """What could be too much is not begun; a guess gives way to a small limit."""
    running = gateway(keyed(fake_openai.base_url, "tokens_per_minute = 300", model=CHAT))
    refused = chat(running, "hello", max_completion_tokens=400)
    assert refused.status_code == 429
    assert error(refused)["message"].startswith("Request too large")
    refused = chat(running, "hello", max_tokens=200, n=2)
    assert error(refused)["message"].startswith("Request too large")
    assert fake_openai.chat.calls == []
    assert chat(running, "hello").status_code == 200
    time.sleep(0.1)
    assert chat(running, "hello", max_tokens=100).status_code == 200


def test_dollars_of_chats_end_with_the_budget(gateway, fake_openai):
    """By both prices; what is kept is told all the same."""
    running = gateway(keyed(fake_openai.base_url, "usd_per_day = 1.5", model=PRICED))
    assert chat(running, "hello", seed=1).status_code == 200
    spent = metric(running, "gateway_key_cost_usd_total", key="alice")
    assert 0 < spent < 0.5
    refused = chat(running, "hello", max_tokens=750)
    assert (refused.status_code, error(refused)["code"]) == (429, "insufficient_quota")
    assert chat(running, "hello", seed=1).status_code == 200
    assert metric(running, "gateway_key_cost_usd_total", key="alice") == spent


def test_a_chat_that_was_refused_upstream_costs_nothing(gateway, fake_openai):
    """By its status, or by an error in the place of the first chunk."""
    running = gateway(keyed(fake_openai.base_url, "tokens_per_minute = 600", model=CHAT))
    fake_openai.chat.script(refuse(400), error_event(0))
    assert chat(running, "hello").status_code == 400
    assert chat(running, "hello", stream=True).status_code >= 400
    time.sleep(0.1)
    assert left(chat(running, "hello", max_tokens=10), "tokens") > 500


def test_answers_of_a_key_at_its_limit_are_made_by_others_who_wait(gateway, fake_openai):
    """One answer for all, paid by who began it; who joined is not failed by the other's limit."""
    running = gateway(keyed(fake_openai.base_url, "tokens_per_minute = 20", model=CHAT))
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            asked = [
                pool.submit(chat, running, f"hello {number}", who, seed=7)
                for who in ("alice", "bob", "bob")
            ]
            assert [one.result().status_code for one in asked[1:]] == [200, 200]


def test_a_chat_of_unknown_price_is_refused_to_a_budget(gateway, fake_openai):
    """A 403 that says what is missing; a model without a task chats without a price."""
    running = gateway(keyed(fake_openai.base_url, "usd_per_day = 1", model="price = 0.02"))
    refused = chat(running, "a")
    assert (refused.status_code, error(refused)["code"]) == (403, "permission_denied")
    assert chat(running, "a", "bob").status_code == 200


def test_the_sdk_reads_the_limits_of_a_stream(gateway, fake_openai):
    """With OpenAI's own client: the headers are there before the first chunk."""
    running = gateway(
        keyed(
            fake_openai.base_url,
            "requests_per_minute = 10\ntokens_per_minute = 5000",
            model=CHAT,
        )
    )
    client = running.sdk(api_key=KEYS["alice"], max_retries=0)
    raw = client.chat.completions.with_raw_response.create(model="m", messages=ASK, stream=True)
    assert raw.headers["x-ratelimit-limit-requests"] == "10"
    assert raw.headers["x-ratelimit-limit-tokens"] == "5000"
    assert int(raw.headers["x-ratelimit-remaining-tokens"]) < 5000
    assert all(chunk.usage is None for chunk in raw.parse())


def test_who_waits_behind_many_at_their_limit_has_his_own_answer(gateway, fake_openai):
    """However often those who begin are refused: bob, who may ask, is answered."""
    running = gateway(keyed(fake_openai.base_url, "tokens_per_minute = 1", model=CHAT))
    with ThreadPoolExecutor(24) as pool:
        for number in range(4):
            asked = [
                pool.submit(chat, running, f"hello {number}", who, seed=7)
                for who in ["alice"] * 20 + ["bob"] * 2
            ]
            assert {one.result().status_code for one in asked[20:]} == {200}
            assert {one.result().status_code for one in asked[:20]} <= {200, 429}
