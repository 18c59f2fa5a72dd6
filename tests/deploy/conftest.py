"""A gateway after some hours of an ordinary day, and a Prometheus that has watched it."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.deploy.everyday import ADMIN, Watched, day
from tests.deploy.prometheus_server import Prometheus, serve_prometheus
from tests.deploy.rules_files import PROMETHEUS
from tests.redis_server import wait_for
from tests.upstream import FakeOpenAI, serve

HOURS = 3


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Let the hours pass, each seen by Prometheus before the next."""
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is missing (extra [local])")
    folder = tmp_path_factory.mktemp("watched")
    rules = [PROMETHEUS / name for name in ("recording.yml", "alerts.yml")]
    openai, azure = FakeOpenAI(width=32), FakeOpenAI(width=32)
    with serve(openai), serve(azure), day(openai, azure, folder) as running:
        target = running.served.address.removeprefix("http://")
        with serve_prometheus(folder / "p", {"gateway": target}, rules, key=ADMIN) as prometheus:
            for _ in range(HOURS):
                running.hour()
                wait_for(lambda: counted(prometheus) == running.client.answered)
            yield Watched(running, prometheus)


def counted(prometheus: Prometheus) -> float:
    """Return how many requests Prometheus knows of."""
    found = prometheus.query('sum(gateway_requests_total{operation=~"embeddings|chat"})')
    return found[0][1] if found else 0.0
