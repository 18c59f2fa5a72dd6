"""What a request took, what the cache did for it, whose time it was, and what runs now."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from config_texts import parse

from tests import upstream_behaviours as behave
from tests.chatting import chat, chat_model
from tests.running import one_model

WAIT = 0.4


@pytest.fixture
def running(gateway, fake_openai):
    more = '[models.off]\nupstreams = ["fake"]\ncache = "off"'
    return gateway(one_model(fake_openai.base_url) + more)


def durations(running, **labels):
    """Return how many requests were counted, by what the cache did for them."""
    counted = {}
    for sample in running.samples():
        if sample.name == "gateway_request_duration_seconds_count" and (
            labels.items() <= sample.labels.items()
        ):
            cache = sample.labels["cache"]
            counted[cache] = counted.get(cache, 0) + sample.value
    return {cache: count for cache, count in counted.items() if count}


def overhead(running, cache, operation="embeddings"):
    """Return the requests and the seconds that the gateway itself took for them."""
    labels = {"cache": cache, "operation": operation}
    return tuple(
        running.metric(f"gateway_overhead_seconds_{what}", **labels) for what in ("count", "sum")
    )


def test_durations_are_told_by_what_the_cache_did(running):
    """Hit, partial, miss, and bypass by the model's wish or the request's; errors have none."""
    running.embed("a")
    running.embed(["a", "b"])
    for _ in range(3):
        running.embed(["a", "b", "b"])
    running.embed("a", headers={"cache-control": "no-cache"})
    running.embed("c", headers={"cache-control": "no-store"})
    running.embed("a", "off")
    running.embed("")
    running.embed("a", "nope")
    running.embed("z", headers={"cache-control": "only-if-cached"})
    assert durations(running, model="m") == {
        "miss": 1, "partial": 1, "hit": 3, "bypass": 2, "": 2,
    }  # fmt: skip
    assert durations(running, model="off") == {"bypass": 1}
    assert durations(running, operation="embeddings", model="other") == {"": 1}
    assert running.metric("gateway_rejected_total", reason="not_cached") == 1
    told = {cache: overhead(running, cache)[0] for cache in ("hit", "partial", "miss", "bypass")}
    assert told == {"hit": 3, "partial": 1, "miss": 1, "bypass": 3}
    assert overhead(running, "")[0] == 0


def test_time_in_an_upstream_is_not_the_gateways(gateway, fake_openai):
    """One call, calls in parts at the same time and in turn, and others' calls that are joined."""
    running = gateway(one_model(fake_openai.base_url, upstream="max_batch = 1\nconcurrency = 2"))
    fake_openai.always(behave.slow(WAIT))
    with ThreadPoolExecutor(3) as pool:
        # Four calls, two at a time; and who comes later waits for the same.
        first = pool.submit(running.embed, ["a", "b", "c", "d"])
        fake_openai.wait_for_calls(2)
        joined = [pool.submit(running.embed, ["a", "d"]) for _ in range(2)]
        assert {one.result().status_code for one in [first, *joined]} == {200}
    assert fake_openai.calls == 4
    total = running.metric("gateway_request_duration_seconds_sum", model="m")
    assert total > 3 * 2 * WAIT * 0.9
    requests, seconds = overhead(running, "miss")
    assert requests == 3
    assert seconds < WAIT


@pytest.mark.parametrize("fields", [{}, {"seed": 1}], ids=["relayed", "recorded"])
@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
def test_time_until_a_chat_begins_is_the_upstreams(gateway, fake_openai, fields, stream):
    """To the first byte; how long a stream goes on then is nobody's overhead."""
    running = gateway(chat_model(fake_openai.base_url))
    fake_openai.chat.always(slow_chat)
    assert chat(running, stream=stream, **fields).status_code == 200
    cache = "miss" if fields else "bypass"
    requests, seconds = overhead(running, cache, "chat")
    assert requests == 1
    assert seconds < WAIT
    assert running.metric("gateway_request_duration_seconds_sum", operation="chat") > WAIT
    if fields:
        assert chat(running, stream=stream, **fields).status_code == 200
        assert overhead(running, "hit", "chat")[0] == 1


def test_what_runs_now_is_told(running, fake_openai):
    """From a request's begin to its end, however it ends; whoever scrapes is one."""
    assert running.metric("gateway_requests_in_flight", operation="metrics") == 1
    hang = behave.Hang()
    fake_openai.always(hang)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(running.embed, f"text {number}") for number in range(3)]
        fake_openai.wait_for_calls(3)
        assert running.metric("gateway_requests_in_flight", operation="embeddings") == 3
        hang.release()
        for one in asked:
            one.result()
    assert running.metric("gateway_requests_in_flight", operation="embeddings") == 0
    named = {
        sample.labels["operation"]
        for sample in running.samples()
        if sample.name == "gateway_requests_in_flight"
    }
    assert named == {"embeddings", "chat", "models", "health", "metrics", "other"}


def test_a_model_by_its_name_is_asked_of_models(running):
    """Any id is one operation; its name is in no label."""
    running.http.get("/v1/models/m")
    running.http.get("/v1/models/any/other")
    running.http.get("/v1/nothing")
    assert running.metric("gateway_requests_total", operation="models", code="200") == 1
    assert running.metric("gateway_requests_total", operation="models", code="404") == 1
    assert running.metric("gateway_requests_total", operation="other", code="404") == 1


def test_what_came_in_before_a_reload_has_its_labels(gateway, fake_openai):
    """Requests are tallied some at a time, and models may have other names then."""
    toml = one_model(fake_openai.base_url)
    running = gateway(toml)
    running.embed("x")
    running.reload(parse(toml.replace("[models.m]", "[models.n]")))
    running.embed("x", "n")
    for model in ("m", "n"):
        assert running.metric("gateway_requests_total", model=model, code="200") == 1
        assert running.metric("gateway_inputs_total", model=model) == 1


def test_no_request_is_lost_between_scrapes(running):
    """More than are tallied at a time."""
    for _ in range(600):
        running.embed("x")
    assert running.metric("gateway_requests_total", model="m", code="200") == 600
    assert running.metric("gateway_inputs_total", model="m", result="memory") == 599
    assert durations(running, model="m") == {"miss": 1, "hit": 599}


async def slow_chat(exchange):
    """Begin after a while."""
    await asyncio.sleep(WAIT)
