"""Drift seen from outside: a gateway that listens, an upstream that jitters or changes."""

import time

import pytest

from gateway.config import parse
from gateway.drift.canaries import DRAWS, TEXTS
from tests.cli.drifting import another_model
from tests.redis_server import serve_redis
from tests.running import one_model
from tests.upstream import FakeOpenAI, serve

OFTEN = '[server]\ndrift_every = "1s"\ndrift_delay = "0s"\n'
EMBEDS = 'task = "embedding"\n'


def rounds(running, result, model="m"):
    """Return how often a model was compared with this result."""
    return running.metric("gateway_drift_checks_total", model=model, result=result)


def gauges(running, model="m"):
    """Return what is shown of a model, by the names of the gauges."""
    names = ("distance", "noise", "detected", "last_check_timestamp_seconds")
    return {name: running.metric(f"gateway_drift_{name}", model=model) for name in names}


def drifted(running, count=1):
    """Return once a model was found to have drifted so often."""
    running.wait_until(lambda: rounds(running, "drift") >= count)


def test_noise_is_noise_and_drift_is_drift(fake_openai, gateway):
    """In the metrics, within one round, and the log says it once."""
    fake_openai.noise = 0.01
    running = gateway(one_model(fake_openai.base_url, model=EMBEDS, rest=OFTEN), asks=True)
    running.wait_until(lambda: rounds(running, "noise") >= 2)
    running.wait_until(lambda: gauges(running)["noise"] > 0)
    shown = gauges(running)
    assert 0 < shown["distance"] < 10 * shown["noise"]
    assert shown["detected"] == 0
    assert time.time() - 60 < shown["last_check_timestamp_seconds"] <= time.time()
    fake_openai.always(another_model)
    before = fake_openai.calls
    drifted(running)
    running.wait_until(lambda: gauges(running)["detected"] == 1)
    assert gauges(running)["distance"] > 0.1
    assert fake_openai.calls >= before + 2
    drifted(running, 2)
    assert running.log.count("model has drifted") == 1
    fake_openai.always(None)
    running.wait_until(lambda: gauges(running)["detected"] == 0)
    assert "model is itself again" in running.log
    assert not any(text in running.log for text in TEXTS)
    assert running.metric("gateway_requests_total", operation="embeddings") == 0
    assert running.metric("gateway_inputs_total") == 0
    assert running.metric("gateway_key_tokens_total", key="(drift)") > 0


def test_nobody_is_asked_before_it_is_time(fake_openai, gateway):
    """With the defaults a gateway that runs for some seconds has asked nobody anything."""
    running = gateway(one_model(fake_openai.base_url, model=EMBEDS), asks=True)
    time.sleep(2.5)  # two looks at who is due
    assert fake_openai.calls == 0
    results = {s.labels["result"]: s.value for s in running.samples() if "drift" in s.name}
    assert results == {"steady": 0, "noise": 0, "drift": 0, "failed": 0}


@pytest.mark.parametrize("rest", ["offline = true", 'drift_every = "0s"'])
def test_nobody_is_asked_who_may_not_be(fake_openai, gateway, tmp_path, rest):
    """Offline nothing goes out, whatever else the config says; and never is never."""
    often = OFTEN.replace('drift_every = "1s"', rest) if "every" in rest else f"{OFTEN}{rest}\n"
    store = f'[cache]\nstore = "sqlite://{tmp_path}/cache.db"\n'
    running = gateway(one_model(fake_openai.base_url, model=EMBEDS, rest=often + store), asks=True)
    time.sleep(2.5)
    assert fake_openai.calls == 0
    assert not any("drift" in sample.name for sample in running.samples())


def test_a_model_that_refuses(fake_openai, gateway):
    """Hits are answered, new texts get a 503 that no client repeats; after a reload all goes on."""
    often = one_model(fake_openai.base_url, model=EMBEDS, rest=OFTEN)
    refuse = often + 'drift = "refuse"\n'
    running = gateway(refuse, asks=True)
    kept = running.vectors(["kept"])
    running.wait_until(lambda: rounds(running, "steady") >= 1)
    fake_openai.always(another_model)
    drifted(running)
    assert running.vectors(["kept"]) == kept
    for answer in (
        running.embed(["new"]),
        running.embed(["kept", "new"]),
        running.embed(["kept"], headers={"cache-control": "no-cache"}),
    ):
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "model_drifted"
        assert answer.headers["x-should-retry"] == "false"
    assert set(fake_openai.texts) == {"kept", *TEXTS}
    assert running.embed(list(TEXTS), headers={"cache-control": "no-store"}).status_code == 200
    # Nothing of a drifted model is kept for a tenant that has nothing to compare it with.
    assert running.embed(list(TEXTS), headers={"cache-control": "no-cache"}).status_code == 503
    assert running.metric("gateway_rejected_total", reason="drift") == 4
    running.reload(parse(often, source=None, environ={}, base_dir=running.directory))
    assert running.embed(["new"]).status_code == 200
    running.reload(parse(refuse, source=None, environ={}, base_dir=running.directory))
    assert running.embed(["newer"]).status_code == 503


def test_a_reload_asks_for_nothing_that_is_known(fake_openai, gateway):
    """The kept draws and the times go over to the next config; so it is where a model was new."""
    seldom = OFTEN.replace("1s", "6h")
    toml = one_model(fake_openai.base_url, model=EMBEDS, rest=seldom)
    running = gateway(toml, asks=True)
    running.wait_until(lambda: rounds(running, "steady") == 1)
    assert fake_openai.calls == DRAWS + 1
    more = toml + f'[models.n]\nupstreams = ["fake"]\n{EMBEDS}'
    running.reload(parse(more, source=None, environ={}, base_dir=running.directory))
    running.wait_until(lambda: rounds(running, "steady", "n") == 1)
    assert rounds(running, "steady") == 1
    assert fake_openai.calls == 2 * (DRAWS + 1)


def test_a_restart_remembers(fake_openai, gateway, tmp_path):
    """The change happens while no gateway runs, and is found by the next one."""
    store = f'[cache]\nstore = "sqlite://{tmp_path}/cache.db"\n'
    toml = one_model(fake_openai.base_url, model=EMBEDS, rest=OFTEN + store)
    running = gateway(toml, asks=True)
    running.wait_until(lambda: rounds(running, "steady") == 1)
    running.stop()
    running.join()
    fake_openai.always(another_model)
    again = gateway(toml, asks=True)
    drifted(again)
    assert rounds(again, "steady") == 0


def test_a_space_is_watched_like_any_model(fake_openai, gateway):
    """Whoever of several upstreams answers; and nobody before it is known that they agree."""
    second = FakeOpenAI(width=32)
    with serve(second):
        other = f'[upstreams.other]\nkind = "openai"\nbase_url = "{second.base_url}"\n'
        more = f'{EMBEDS}space = "s"\n'
        toml = one_model(fake_openai.base_url, rest=OFTEN + other, model=more)
        running = gateway(toml.replace('["fake"]', '["fake", "other"]'), asks=True)
        running.wait_until(lambda: rounds(running, "steady") >= 1)
        assert rounds(running, "failed") == 0
        fake_openai.always(another_model)
        drifted(running)
        running.stop()
        running.join()


def test_replicas_begin_one_generation(fake_openai, gateway, tmp_path):
    """Over one real Redis both find out, one begins it, and both give the same new vector."""
    with serve_redis(tmp_path / "redis") as redis:
        store = f'[cache]\nstore = "{redis.url}"\n'
        toml = one_model(fake_openai.base_url, model=EMBEDS, rest=OFTEN + store)
        replicas = [gateway(toml + 'drift = "generation"\n', asks=True) for _ in range(2)]
        for each in replicas:
            each.wait_until(lambda each=each: rounds(each, "steady") >= 1)
            before = each.vectors(["text"])
        fake_openai.always(another_model)
        for each in replicas:
            each.wait_until(lambda each=each: each.vectors(["text"]) != before)
        steady = [rounds(each, "steady") for each in replicas]
        for each, count in zip(replicas, steady, strict=True):
            each.wait_until(lambda each=each, count=count: rounds(each, "steady") > count)
        assert sum(each.log.count("new generation") for each in replicas) == 1
        one, other = (each.vectors(["text"]) for each in replicas)
        assert one == other != before
        for each in replicas:
            each.stop()
            each.join()
