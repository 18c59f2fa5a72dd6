"""Drift in whole gateways: several workers, of whom one asks, and engines that rest."""

import signal
import time

import httpx2
import psutil

from gateway.drift.canaries import DRAWS
from tests.cli.drifting import another_model
from tests.heavy import kills
from tests.processes import LOCAL, gateway_process
from tests.running import one_model
from tests.scraping import value
from tests.test_metrics_workers import scrape, workers

EMBEDS = 'task = "embedding"\n'
QUIET = 2.5
"""Seconds: two looks at who is due."""


def config(place, base_url, every, policy="warn"):
    """Return the config of two workers over one store."""
    rest = (
        f'[server]\nworkers = 2\ndrift_every = "{every}"\ndrift_delay = "0s"\nlog_format = "json"\n'
        f'[cache]\nstore = "sqlite://{place}/cache.db"\n'
    )
    return one_model(base_url, rest=rest, model=f'{EMBEDS}drift = "{policy}"\n')


def embed(served, text, model="m"):
    """Ask for a vector on a connection of its own, so that any worker may answer."""
    body = {"model": model, "input": text}
    return httpx2.post(f"{served.base_url}/embeddings", json=body, timeout=60, trust_env=False)


def checks(served, result, model="m"):
    """Return how often a model was compared with this result."""
    return value(scrape(served), "gateway_drift_checks_total", model=model, result=result)


def until(true, seconds=30.0):
    """Return when something is true; raise TimeoutError."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)


def test_one_worker_asks_and_all_know(fake_openai, tmp_path):
    """All refuse what one found out; where the workers die others know it, and one asks again."""
    with gateway_process(config(tmp_path, fake_openai.base_url, "6h", "refuse")) as served:
        until(lambda: checks(served, "steady") == 1)
        time.sleep(QUIET)
        assert fake_openai.calls == DRAWS + 1
        served.reload(config(tmp_path, fake_openai.base_url, "1s", "refuse"))
        assert embed(served, "kept").status_code == 200
        fake_openai.always(another_model)
        (drifted,) = served.wait_for(
            lambda: served.events("model has drifted"), timeout=30, what="drift"
        )
        assert (drifted["model"], drifted["policy"], drifted["worker"]) == ("m", "refuse", 0)
        time.sleep(QUIET)
        assert {embed(served, f"new {number}").status_code for number in range(20)} == {503}
        assert {embed(served, "kept").status_code for _ in range(20)} == {200}
        before = workers(served)
        for worker in before:
            worker.send_signal(signal.SIGKILL)
        psutil.wait_procs(before, 10)
        until(lambda: len(workers(served)) == 2)
        counted = checks(served, "drift")
        until(lambda: checks(served, "drift") > counted)
        assert {embed(served, f"newer {number}").status_code for number in range(20)} == {503}
        assert served.events("model is itself again") == []
        assert len(served.events("model has drifted")) == 1


RESTING = LOCAL.replace(
    'model = "builtin:all-minilm-l6-v2"',
    'model = "builtin:all-minilm-l6-v2"\nload = "first-use"\nidle = "2s"',
)


def test_an_engine_at_rest_is_neither_woken_nor_kept_awake():
    """Nobody loads it for this; it is asked when it is there, and goes to rest in its time."""
    toml = '[server]\ndrift_every = "1s"\ndrift_delay = "0s"\nlog_format = "json"\n' + RESTING
    with gateway_process(toml) as served:
        time.sleep(QUIET)
        assert kills.engines(served.pid) == []
        assert embed(served, "wake up", "minilm").status_code == 200
        (engine,) = kills.engines(served.pid)
        until(lambda: checks(served, "steady", "all-minilm-l6-v2") == 1)
        psutil.Process(engine).wait(20)
        time.sleep(QUIET)
        assert kills.engines(served.pid) == []
        assert embed(served, "wake up again", "minilm").status_code == 200
        until(lambda: checks(served, "steady", "all-minilm-l6-v2") == 2)
