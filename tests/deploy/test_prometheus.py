"""A real Prometheus that scrapes real gateways: it gets what the rules and the board name."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import pytest

from tests.cli.drifting import another_model
from tests.deploy.board_file import questions
from tests.deploy.everyday import Watched
from tests.deploy.prometheus_server import Prometheus, promtool, serve_prometheus
from tests.deploy.rules_files import PROMETHEUS, rules
from tests.processes import GatewayProcess, gateway_process
from tests.redis_server import wait_for
from tests.running import one_model
from tests.test_process import workers
from tests.upstream import FakeOpenAI, serve

RISING = '{__name__=~"gateway_.+_(total|count|sum|bucket)"}'
WINDOW = 4
"""Seconds, with some scrapes in them, over which a rate is taken."""
_NAME = re.compile(r"\b(?:gateway_|job(?:_model)?:)[a-z0-9_:]+")


def named() -> Iterator[str]:
    """Return every series of ours that a rule or a panel names."""
    expressions = [rule["expr"] for file in ("recording.yml", "alerts.yml") for rule in rules(file)]
    expressions += [question.expression for question in questions(interval="1m", window="1m")]
    for expression in expressions:
        yield from _NAME.findall(expression)


def test_every_series_that_a_rule_or_a_panel_names_is_exported(watched: Watched) -> None:
    """A metric that was renamed would leave an alert silent, and a panel empty."""
    recorded = {rule["record"] for rule in rules("recording.yml")}
    lines = watched.day.page().splitlines()
    exported = {re.split(r"[{ ]", line)[0] for line in lines if line[:1] != "#"}
    assert set(named()) - recorded - exported == set()


def test_names_are_as_prometheus_wants_them(watched: Watched) -> None:
    """Units, endings and help, of everything that is ever told: its own linter finds nothing."""
    assert promtool("check", "metrics", read=watched.day.page()) == ""


def test_rules_are_evaluated_and_an_alert_says_what_it_should(watched: Watched) -> None:
    """On an ordinary day an upstream sent vectors that are not finite: that, and no more."""
    groups = watched.prometheus.get("/rules")["groups"]
    evaluated = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in evaluated} == {"ok"}
    firing = watched.prometheus.firing()
    assert firing.keys() == {"GatewayVectorsRefused"}
    told = firing["GatewayVectorsRefused"]["annotations"]
    assert told["summary"] == "openai sends answers that nobody can trust: not_finite"
    assert re.search(r"Within 15 minutes [\d.]+ answers were refused", told["description"])


@pytest.fixture
def upstream() -> Iterator[FakeOpenAI]:
    """An upstream of its own, since it is told to change."""
    fake = FakeOpenAI(width=32)
    with serve(fake):
        yield fake


def test_counters_never_go_down_though_a_worker_is_killed(
    upstream: FakeOpenAI, tmp_path: Path
) -> None:
    """Nor does a rate rise where nobody asks: the new worker counts on where the old one ended."""
    toml = one_model(
        upstream.base_url,
        rest=f"""
            [server]
            workers = 2
            log_format = "json"
            drain_delay = "0s"
            drift_every = "0s"
            [cache]
            store = "sqlite://{tmp_path}/cache.db"
        """,
    )
    with gateway_process(toml) as served, watching(served, tmp_path) as prometheus:
        ask(served, 60)
        wait_for(lambda: counted(prometheus) == 60)
        quiet, victim = time.time(), workers(served.pid)[0]
        os.kill(victim, signal.SIGKILL)
        served.wait_for(lambda: served.events("worker died"), timeout=20, what="no report")
        wait_for(lambda: len(workers(served.pid)) == 2 and victim not in workers(served.pid))
        until = max(time.time(), quiet + WINDOW) + 2
        wait_for(lambda: time.time() > until)
        rates = prometheus.values(f"sum(rate(gateway_inputs_total[{WINDOW}s]))", quiet + WINDOW)
        assert set(rates) == {0.0}
        ask(served, 30)
        os.kill(workers(served.pid)[0], signal.SIGKILL)
        ask(served, 60)
        # What it had counted within its last second is lost, and is no fall.
        wait_for(lambda: counted(prometheus) >= 120)
        rising = prometheus.samples(RISING)
        assert {"gateway_requests_total", "gateway_request_duration_seconds_bucket"} <= {
            labels["__name__"] for labels, _ in rising
        }
        fallen = [
            labels
            for labels, samples in rising
            if [value for _, value in samples] != sorted(value for _, value in samples)
        ]
        assert not fallen


def test_drift_wakes_somebody_and_noise_does_not(upstream: FakeOpenAI, tmp_path: Path) -> None:
    """One model jitters all along; another one jitters, and becomes another in the middle."""
    upstream.noise = 1e-3
    steady = FakeOpenAI(width=32, noise=1e-3)
    with serve(steady):
        toml = one_model(
            upstream.base_url,
            rest=f"""
                [server]
                log_format = "json"
                drain_delay = "0s"
                drift_delay = "0s"
                drift_every = "1s"
                [upstreams.steady]
                kind = "openai"
                base_url = "{steady.base_url}"
                [models.noisy]
                task = "embedding"
                upstreams = ["steady"]
            """,
            model='task = "embedding"',
        )
        with gateway_process(toml) as served, watching(served, tmp_path) as prometheus:
            compared = 'gateway_drift_checks_total{result="noise"} >= 2'
            wait_for(lambda: len(prometheus.query(compared)) == 2)
            noise = prometheus.query("gateway_drift_noise")
            assert {labels["model"] for labels, value in noise if value > 0} == {"m", "noisy"}
            assert "GatewayModelDrifted" not in prometheus.firing()
            upstream.always(another_model)
            wait_for(lambda: "GatewayModelDrifted" in prometheus.firing())
            alert = prometheus.firing()["GatewayModelDrifted"]
            assert alert["annotations"]["summary"].startswith("The model m makes other vectors")
            wait_for(lambda: detected(prometheus) == {"m": 1, "noisy": 0})
            assert "noisy" not in str(prometheus.get("/alerts"))


def watching(served: GatewayProcess, folder: Path) -> AbstractContextManager[Prometheus]:
    """Let a Prometheus with our rules scrape a gateway without keys."""
    files = [PROMETHEUS / name for name in ("recording.yml", "alerts.yml")]
    target = served.address.removeprefix("http://")
    return serve_prometheus(folder / "p", {"gateway": target}, files)


def ask(served: GatewayProcess, times: int) -> None:
    """Ask for so many vectors, each over a connection of its own, so that either worker answers.

    What a worker took that was killed is asked for once more.
    """
    with httpx2.Client(headers={"connection": "close"}, trust_env=False) as client:
        for number in range(times):
            body = {"model": "m", "input": f"text {number}"}
            try:
                answer = client.post(f"{served.base_url}/embeddings", json=body)
            except httpx2.TransportError:
                answer = client.post(f"{served.base_url}/embeddings", json=body)
            assert answer.status_code == 200, answer.text


def detected(prometheus: Prometheus) -> dict[str, float]:
    """Return what Prometheus knows of drift, by model."""
    found = prometheus.query("gateway_drift_detected")
    return {labels["model"]: value for labels, value in found}


def counted(prometheus: Prometheus) -> float:
    """Return how many texts Prometheus knows of."""
    return sum(value for _, value in prometheus.query("sum(gateway_inputs_total)"))
