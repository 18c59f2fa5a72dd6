"""What a key may use of embeddings: requests, tokens, places and dollars; cached ones are free."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from gateway.config import parse
from gateway.errors import ConfigError
from gateway.quota.refusals import duration
from tests.edge import error
from tests.keyed import KEYS, auth, embed, keyed, left, metric
from tests.upstream_behaviours import Hang, slow, status

EIGHT = "12345678" * 4
"""A text of eight tokens, as the fake upstream counts them and the gateway expects."""


def test_requests_of_a_minute_are_counted_and_told(gateway, fake_openai):
    """Hits, misses, mistakes and lists of models alike; then a 429 that says when to come back."""
    running = gateway(keyed(fake_openai.base_url, "requests_per_minute = 5"))
    told = [embed(running, "a"), embed(running, "a"), embed(running, [])]
    told.append(running.http.get("/v1/models", headers=auth()))
    told.append(running.http.get("/v1/models/m", headers=auth()))
    assert [answer.status_code for answer in told] == [200, 200, 400, 200, 200]
    assert [left(answer) for answer in told] == [4, 3, 2, 1, 0]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in told} == {"5"}
    assert told[0].headers["x-ratelimit-reset-requests"] in {"12s", "11.9s"} or told[0].headers[
        "x-ratelimit-reset-requests"
    ].startswith("11.")
    assert "x-ratelimit-limit-tokens" not in told[0].headers, "the upstream's are not ours"
    refused = embed(running, "a")
    said = error(refused)
    assert (refused.status_code, said["code"]) == (429, "rate_limit_exceeded")
    assert (said["type"], left(refused)) == ("rate_limit_error", 0)
    assert "5 requests a minute" in said["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 12
    assert 0 < int(refused.headers["retry-after-ms"]) <= 12_000
    assert embed(running, "a", "bob").status_code == 200
    assert "x-ratelimit-limit-requests" not in embed(running, "a", "bob").headers
    assert metric(running, "gateway_rejected_total", reason="rate") == 1


def test_refused_requests_do_not_count(gateway, fake_openai):
    """Who goes on asking is served as soon as it says so."""
    running = gateway(keyed(fake_openai.base_url, "requests_per_minute = 60"))
    while embed(running, "a").status_code == 200:
        pass
    for _ in range(20):
        refused = embed(running, "a")
        if refused.status_code == 429:
            time.sleep(int(refused.headers["retry-after-ms"]) / 1000 + 0.02)
            assert embed(running, "a").status_code == 200
            return
    raise AssertionError("nothing was refused")


def test_the_sdk_waits_as_it_is_told(gateway, fake_openai):
    """OpenAI's client, with its retries, comes through a limit without an error."""
    running = gateway(keyed(fake_openai.base_url, "requests_per_minute = 120"))
    client = running.sdk(api_key=KEYS["alice"], max_retries=5)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.embeddings.create(model="m", input=f"{n % 3}"), range(124)))
    hasty = running.sdk(api_key=KEYS["alice"], max_retries=0)
    with ThreadPoolExecutor(8) as pool, pytest.raises(openai.RateLimitError):
        list(pool.map(lambda _: hasty.embeddings.create(model="m", input="0"), range(20)))


def test_tokens_are_only_those_that_upstreams_are_asked_for(gateway, fake_openai):
    """A key that has used its tokens up still gets what is cached, with its headers."""
    running = gateway(keyed(fake_openai.base_url, "tokens_per_minute = 20"))
    assert left(embed(running, EIGHT), "tokens") == 12
    assert left(embed(running, EIGHT), "tokens") == 12
    assert left(embed(running, EIGHT + "b"), "tokens") <= 5
    refused = embed(running, EIGHT + "c")
    assert (refused.status_code, error(refused)["code"]) == (429, "rate_limit_exceeded")
    assert "20 tokens a minute" in error(refused)["message"]
    assert embed(running, EIGHT).status_code == 200
    assert embed(running, [EIGHT, EIGHT + "d"]).status_code == 429
    assert embed(running, EIGHT + "c", "bob").status_code == 200
    assert embed(running, EIGHT + "c").status_code == 200, "it is cached now"
    assert fake_openai.calls == 3
    assert metric(running, "gateway_rejected_total", reason="tokens") == 2
    assert metric(running, "gateway_key_tokens_total", key="alice") == 16
    assert metric(running, "gateway_key_tokens_total", key="bob") == 8


def test_a_request_of_more_tokens_than_a_minute_has_is_too_large(gateway, fake_openai):
    """It could never be served: the message says so, and nothing is asked or spent."""
    running = gateway(keyed(fake_openai.base_url, "tokens_per_minute = 20"))
    refused = embed(running, [EIGHT + "1", EIGHT + "2", EIGHT + "3"])
    assert refused.status_code == 429
    assert error(refused)["message"].startswith("Request too large")
    assert (fake_openai.calls, left(refused, "tokens")) == (0, 20)


def test_what_an_upstream_did_not_do_is_given_back(gateway, fake_openai):
    """A refusal costs nothing; the next request has all of its tokens."""
    running = gateway(keyed(fake_openai.base_url, "tokens_per_minute = 8"))
    fake_openai.script(status(400))
    assert embed(running, EIGHT).status_code == 400
    assert embed(running, EIGHT).status_code == 200
    assert left(embed(running, EIGHT), "tokens") == 0


def test_what_was_billed_counts_not_what_was_expected(gateway, fake_openai):
    """Ids are counted one by one; bytes are a guess, which the bill replaces."""
    running = gateway(
        keyed(fake_openai.base_url, "tokens_per_minute = 1000", model='token_ids = "native"')
    )
    assert left(embed(running, [list(range(1, 31))]), "tokens") == 970
    assert left(embed(running, "ä" * 30), "tokens") in {955, 956}


def test_places_are_held_while_requests_run(gateway, fake_openai):
    """One more is refused at once, a cached one too; when one has ended the next is served."""
    running = gateway(keyed(fake_openai.base_url, "concurrent_requests = 2"))
    assert embed(running, "kept").status_code == 200
    hang = Hang()
    fake_openai.always(hang)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(embed, running, text) for text in "ab"]
        fake_openai.wait_for_calls(3)
        refused = embed(running, "kept")
        assert (refused.status_code, error(refused)["code"]) == (429, "rate_limit_exceeded")
        assert "2 requests running" in error(refused)["message"]
        assert embed(running, "kept", "bob").status_code == 200
        hang.release()
        assert [one.result().status_code for one in waiting] == [200, 200]
    for _ in range(10):
        assert embed(running, "kept").status_code == 200
    assert metric(running, "gateway_rejected_total", reason="concurrency") == 1


def test_one_after_the_other_is_never_too_many(gateway, fake_openai):
    """A client that waits for each answer may have one place, and ask as fast as it can."""
    running = gateway(keyed(fake_openai.base_url, "concurrent_requests = 1"))
    answers = [embed(running, f"{n % 7}").status_code for n in range(100)]
    assert answers == [200] * 100


PRICED = "price = 1000"
"""US dollars for a million tokens: a text of eight costs 0.008."""


def test_dollars_end_with_the_budget_and_what_is_cached_does_not(gateway, fake_openai):
    """`insufficient_quota`, as OpenAI says it; until the next day of UTC."""
    running = gateway(keyed(fake_openai.base_url, "usd_per_day = 0.02", model=PRICED))
    assert [embed(running, EIGHT + n).status_code for n in "ab"] == [200, 200]
    refused = embed(running, EIGHT + "c")
    assert (refused.status_code, error(refused)["code"]) == (429, "insufficient_quota")
    assert "0.02 US dollars a day" in error(refused)["message"]
    assert int(refused.headers["retry-after"]) >= 1
    assert embed(running, EIGHT + "a").status_code == 200
    assert embed(running, EIGHT + "c", "bob").status_code == 200
    assert metric(running, "gateway_key_cost_usd_total", key="alice") == pytest.approx(0.016)
    assert metric(running, "gateway_rejected_total", reason="budget") == 1


def test_the_upstreams_limits_are_told_to_a_key_without_such(gateway, fake_openai):
    """Dollars and places have no header of OpenAI's; then those of the upstream pass."""
    running = gateway(keyed(fake_openai.base_url, "usd_per_day = 1", model=PRICED))
    assert embed(running, "a").headers["x-ratelimit-limit-requests"] == "3000"


def test_who_begins_a_call_pays_and_others_are_not_failed_for_it(gateway, fake_openai):
    """Alice's budget is spent; bob, who waits for the same text, has it made for himself."""
    running = gateway(
        keyed(fake_openai.base_url, "tokens_per_minute = 8", model='cache = "always"')
    )
    fake_openai.always(slow(0.3))
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(embed, running, EIGHT)
        fake_openai.wait_for_calls(1)
        joined = [pool.submit(embed, running, EIGHT, "bob") for _ in range(3)]
        assert [one.result().status_code for one in (first, *joined)] == [200] * 4
        assert fake_openai.calls == 1
        # Now alice has nothing left: whoever begins, bob's are answered.
        for number in range(5):
            asked = [
                pool.submit(embed, running, f"{EIGHT}{number}", who) for who in ("alice", "bob")
            ]
            assert asked[1].result().status_code == 200
            assert asked[0].result().status_code in {200, 429}
    assert metric(running, "gateway_key_tokens_total", key="alice") == 8


def test_a_model_of_unknown_price_is_refused_to_a_budget(gateway, fake_openai):
    """Where only a pattern says that it is served: a 403 that says what is missing."""
    running = gateway(
        keyed(fake_openai.base_url, "usd_per_day = 1", model=PRICED)
        + '[models."x-*"]\ntask = "embedding"\nupstreams = ["fake"]'
    )
    refused = embed(running, "a", model="x-1")
    assert (refused.status_code, error(refused)["code"]) == (403, "permission_denied")
    assert "needs a price" in error(refused)["message"]
    assert embed(running, "a", "bob", model="x-1").status_code == 200
    assert embed(running, "a", model="x-1").status_code == 200, "what is cached costs nothing"


def test_a_model_without_a_price_beside_a_budget_is_an_error_of_the_config():
    """Unless the key may not use it, or nothing is asked for it."""
    store = '[cache]\nstore = "sqlite:///nowhere/cache.db"'
    toml = keyed("http://127.0.0.1:1/v1", "usd_per_day = 1")
    with pytest.raises(ConfigError, match='what "m" costs is not known'):
        parse(toml, source=None, environ={}, base_dir=Path("/"))
    for fine in (
        toml.replace("usd_per_day = 1", 'usd_per_day = 1\nmodels = ["n"]'),
        keyed("http://127.0.0.1:1/v1", "usd_per_day = 1", rest=store, model="offline = true"),
        keyed("http://127.0.0.1:1/v1", "usd_per_day = 1", model="price = 0"),
    ):
        parse(fine, source=None, environ={}, base_dir=Path("/"))


def test_workers_without_a_store_are_warned_of():
    """They could not count together: each has its part, and the config says so beforehand."""
    rest = '[server]\nworkers = 4\n[cache]\nmemory = "0"'
    toml = keyed("http://127.0.0.1:1/v1", "requests_per_minute = 40", rest=rest)
    config = parse(toml, source=None, environ={}, base_dir=Path("/"))
    assert any("count together what keys use" in warning for warning in config.warnings)


def test_a_new_config_goes_on_counting_under_its_own_limits(gateway, fake_openai):
    """What was used counts; the new limit holds at once; who lost his limits has none."""
    running = gateway(keyed(fake_openai.base_url, "requests_per_minute = 100"))
    for _ in range(10):
        embed(running, "a")

    def reload(limits):
        toml = keyed(fake_openai.base_url, limits)
        running.reload(parse(toml, source=None, environ={}, base_dir=Path("/")))

    reload("requests_per_minute = 15")
    assert left(embed(running, "a")) in {4, 5, 6}
    reload("requests_per_minute = 5")
    assert embed(running, "a").status_code == 429
    reload("")
    assert "x-ratelimit-limit-requests" not in embed(running, "a").headers


def test_the_upstreams_request_id_is_told(gateway, fake_openai):
    """Of an answer that one was asked for; a cached one has none."""
    running = gateway(keyed(fake_openai.base_url, ""))
    made, kept = embed(running, "a"), embed(running, "a")
    assert made.headers["x-upstream-request-id"].startswith("req_")
    assert "x-upstream-request-id" not in kept.headers


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0s"), (-1, "0s"), (0.0001, "1ms"), (0.017, "17ms"), (1, "1s"), (8.64, "8.64s"),
        (59.9999, "1m0s"), (60, "1m0s"), (360, "6m0s"), (61.5, "1m1.5s"), (3600.5, "1h0m0.5s"),
        (86_400, "24h0m0s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_openai_does(seconds, told):
    """As Go writes them, to the millisecond."""
    assert duration(seconds) == told
