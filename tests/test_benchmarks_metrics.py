"""The benchmark of metrics compares two gateways that differ in nothing else."""

from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from benchmarks import contenders, metrics
from benchmarks.progress import Say
from benchmarks.rounds import Plan
from benchmarks.servers import Server
from benchmarks.setting import Setting
from benchmarks.upstream import MODEL
from tests.scraping import value


@pytest.fixture
def setting():
    return Setting(Plan(1, 0.2), Say(), with_peers=False, core=None, others=None)


def test_only_one_of_them_counts_requests(tmp_path: Path):
    """Both answer alike, and count what upstreams were asked."""
    with ExitStack() as stack:
        upstream = stack.enter_context(Server(contenders.fake_upstream(), None))
        counted, answers = {}, []
        for name in (metrics.WATCHED, metrics.UNWATCHED):
            contender = metrics._composed(name, f"{upstream.address}/v1", tmp_path)
            server = stack.enter_context(Server(contender, None))
            body = {"model": MODEL, "input": "text", "encoding_format": "base64"}
            for _ in range(2):
                answer = httpx2.post(f"{server.address}/v1/embeddings", json=body)
                assert answer.status_code == 200
            answers.append(answer.content)
            page = httpx2.get(f"{server.address}/metrics").text
            assert value(page, "gateway_upstream_requests_total", outcome="ok") == 1
            counted[name] = value(page, "gateway_requests_total", operation="embeddings")
    assert answers[0] == answers[1]
    assert counted == {metrics.WATCHED: 2, metrics.UNWATCHED: None}


def test_a_scrape_of_many_models_has_every_label(setting: Setting, tmp_path: Path):
    """Its size is within its bound; how long it takes depends on what else runs here."""
    part = metrics.scrape(setting, tmp_path)
    one, two = part.rows
    assert [one[0], two[0]] == ["1", "2"]
    assert all(int(row[1].replace(",", "")) > 7000 for row in part.rows)
    assert all(int(row[2]) < metrics.AT_MOST for row in part.rows)
    assert len(part.lines) == 1
