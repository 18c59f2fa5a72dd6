"""Several upstreams for embeddings: one that fails is stood in for, by its like and nobody else."""

import re
import time
from collections import Counter

import pytest

from gateway.spaces.reference import TEXTS
from tests import upstream_behaviours as behave
from tests.pair import (
    asked,
    free_port,
    log_lines,
    nobody,
    probes,
    right,
    several,
    states,
    told_of,
    until,
)
from tests.upstream import FakeOpenAI, serve, truth


class Another(FakeOpenAI):
    """Has another model behind every name."""

    def vector(self, model, text):
        return truth(f"another {model}", text, self.width)


@pytest.fixture(scope="module")
def fakes():
    """Two upstreams for this module; `pair` has them behave."""
    both = FakeOpenAI(width=32), FakeOpenAI(width=32)
    with serve(both[0]), serve(both[1]):
        yield both


@pytest.fixture
def pair(fakes):
    for fake in fakes:
        fake.forget()
        fake.width, fake.models, fake.key, fake.noise = 32, (), None, 0.0
    return fakes


def ready(running):
    until(running, a="ready", b="ready")
    return running


@pytest.fixture
def running(gateway, pair):
    """A gateway over both, who have been compared."""
    a, b = pair
    return ready(gateway(several(a.base_url, b.base_url, a='timeout = "300ms"')))


async def every_width(exchange):
    """Cut every vector short."""
    for item in exchange.items:
        item.vector = item.vector[:-1]


@pytest.mark.parametrize(
    "behaviour",
    [
        behave.close_before_answer,
        behave.cut_body,
        behave.slow(5),
        behave.rate_limit("30"),
        behave.rate_limit(code="insufficient_quota"),
        behave.status(500),
        behave.status(503),
        behave.status(401),
        behave.redirect,
        behave.html_error,
        behave.broken_json,
        behave.short,
        behave.nan,
        behave.zero,
        behave.wrong_width,
        every_width,
    ],
)
def test_what_the_first_upstream_fails_at_the_second_does(running, pair, behaviour):
    """Within the same request, and the first one is not asked again for it."""
    a, b = pair
    a.script(behaviour)
    assert running.vectors(["x", "y"]) == right(b, "x", "y")
    assert (asked(a), asked(b)) == (["x", "y"], ["x", "y"])
    assert running.metric("gateway_upstream_failovers_total", model="m", to="b") == 1


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_the_clients_mistakes_are_its_own(running, pair, status):
    """Another upstream would say the same."""
    a, b = pair
    a.script(behave.status(status))
    assert running.embed("x").status_code in (400, 404, 413)
    assert (asked(a), asked(b)) == (["x"], [])


def test_an_upstream_that_is_not_there_is_stood_in_for(gateway, pair, tmp_path):
    """Nobody listens there, but it once did: the reference is stored."""
    a, b = pair
    rest = f'[cache]\nstore = "sqlite:///{tmp_path}/cache.db"'
    ready(gateway(several(a.base_url, b.base_url, rest=rest))).vectors("x")
    again = gateway(several(nobody(), b.base_url, rest=rest))
    assert again.vectors("y") == right(b, "y")
    assert states(again) == {"a": "unknown", "b": "ready"}
    assert probes(a) == 1


def test_where_all_fail_the_most_telling_error_is_told(running, pair):
    """When to come back, though the last one said something else; SDKs need not try again else."""
    a, b = pair
    a.script(behave.rate_limit("7"))
    b.always(behave.nan)
    refused = running.embed("x")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    a.always(behave.status(500))
    refused = running.embed("y")
    assert (refused.status_code, refused.headers["x-should-retry"]) == (502, "false")


def test_an_upstream_of_another_space_is_never_used(gateway, pair):
    """Put in by mistake: it is told of in the list of models, once in the log, and as a figure."""
    a, _ = pair
    with serve(Another(width=32)) as served:
        wrong = served.app
        running = gateway(several(a.base_url, wrong.base_url))
        until(running, a="ready", b="out")
        told = told_of(running)["b"]
        assert re.fullmatch(
            r"its vectors are not of the space 's': cosine -?0\.\d{4}", told["reason"]
        )
        assert told["similarity"] < 0.9
        assert running.vectors("x") == right(a, "x")
        a.always(behave.close_before_answer)
        for text in "yz":
            assert running.embed(text).status_code in (502, 503)
        assert (asked(wrong), probes(wrong)) == ([], 1)
        labels = {"space": "s", "upstream": "b", "model": "m"}
        assert running.metric("gateway_space_similarity", **labels) == told["similarity"]
        told_once = log_lines(running, "upstream is left out of its space")
        assert sum('"upstream": "b"' in line for line in told_once) == 1


def test_another_name_upstream_is_another_model(gateway, pair):
    """The name is a member's own, also for the comparison."""
    a, b = pair
    running = gateway(several(a.base_url, b.base_url, model='upstream_model = { b = "other" }'))
    until(running, a="ready", b="out")
    assert {request.body["model"] for request in b.requests} == {"other"}
    assert told_of(running)["b"]["model"] == "other"


def test_another_width_is_another_space(gateway, pair):
    """There is nothing to compare; the figure says 0."""
    a, b = pair
    b.width = 16
    running = gateway(several(a.base_url, b.base_url))
    until(running, a="ready", b="out")
    told = told_of(running)["b"]
    assert told["reason"] == "its vectors have 16 components, and those of the space 32"
    assert running.metric("gateway_space_similarity", upstream="b") == 0


def test_vectors_that_differ_a_little_are_of_one_space(gateway, pair):
    """No upstream says the same twice; the first answer that is stored is everybody's."""
    a, b = pair
    a.noise = b.noise = 0.005
    running = ready(gateway(several(a.base_url, b.base_url)))
    assert 0.99 < told_of(running)["b"]["similarity"] < 1
    a.script(behave.status(500))
    (first,), (second,) = running.vectors("x"), running.vectors("x")
    assert first == second


def test_at_the_very_first_start_nobody_stands_in_for_the_first(gateway, pair, tmp_path):
    """There is nothing to compare with: 503, but what is stored is answered (promise P9)."""
    a, b = pair
    rest = f'[cache]\nstore = "sqlite:///{tmp_path}/cache.db"'
    gateway(several(a.base_url, rest=rest)).vectors("kept")
    running = gateway(several(nobody(), b.base_url, rest=rest))
    refused = running.embed("x")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_unavailable")
    assert int(refused.headers["retry-after-ms"]) > 0
    assert running.vectors("kept") == right(a, "kept")
    assert (asked(b), probes(b)) == ([], 0)


def test_a_first_upstream_that_comes_gives_the_reference(gateway, pair):
    """Nothing has to be started again."""
    _, b = pair
    port = free_port()
    running = gateway(several(f"http://127.0.0.1:{port}/v1", b.base_url))
    assert running.embed("x").status_code == 503
    with serve(FakeOpenAI(width=32), port=port) as served:
        ready(running)
        assert running.vectors("x") == right(served.app, "x")
        assert asked(b) == []


@pytest.mark.parametrize("kind", [FakeOpenAI, Another])
def test_an_upstream_that_comes_back_is_compared_before_it_is_asked_again(gateway, pair, kind):
    """Its circuit opened while it was away: another server may stand there now."""
    _, b = pair
    port = free_port()
    with serve(FakeOpenAI(width=32), port=port) as served:
        running = ready(gateway(several(served.app.base_url, b.base_url)))
    for number in range(6):
        assert running.vectors(f"x{number}") == right(b, f"x{number}")
    assert states(running)["a"] == "open"
    assert running.metric("gateway_circuit_state", upstream="a") == 2
    with serve(kind(width=32), port=port) as served:
        until(running, a="out" if kind is Another else "ready")
        assert asked(served.app) == []
        assert running.vectors("y") == right(b, "y")
        assert asked(served.app) == ([] if kind is Another else ["y"])
        running.wait_until(lambda: log_lines(running, "upstream is back"))
        assert running.metric("gateway_circuit_state", upstream="a") == 0
    assert len(log_lines(running, "upstream fails")) == 1


def test_weights_share_the_requests_out(gateway, pair):
    """Three to one; more than five sigma off would be a defect."""
    a, b = pair
    model = "weights = { a = 3, b = 1 }"
    running = ready(gateway(several(a.base_url, b.base_url, model=model)))
    for number in range(400):
        running.vectors(f"x{number}")
    shares = Counter(a=len(asked(a)), b=len(asked(b)))
    assert shares.total() == 400
    assert abs(shares["a"] - 300) <= 5 * (400 * 0.75 * 0.25) ** 0.5


def test_without_a_weight_an_upstream_waits_for_the_others_to_fail(gateway, pair):
    """First in the list, and last in turn."""
    a, b = pair
    running = ready(gateway(several(a.base_url, b.base_url, model="weights = { b = 1 }")))
    for number in range(20):
        running.vectors(f"x{number}")
    assert (len(asked(a)), len(asked(b))) == (0, 20)
    b.script(behave.status(500))
    running.vectors("y")
    assert asked(a) == ["y"]


def test_models_of_one_space_are_compared_though_each_has_one_upstream(gateway, pair):
    """They share vectors: one that makes others would spoil what is kept of all."""
    a, b = pair
    b.width = 16
    running = gateway(
        several(a.base_url, b.base_url).replace('upstreams = ["a", "b"]', 'upstreams = ["a"]')
        + '[models.n]\ntask = "embedding"\nspace = "s"\nupstreams = ["b"]\n'
    )
    until(running, "n", b="out")
    assert running.vectors("x") == right(a, "x")
    assert running.vectors("x", "n") == right(a, "x"), "what is kept is the space's"
    refused = running.embed("y", "n")
    assert (refused.status_code, asked(b)) == (503, [])
    assert "b: its vectors have 16 components" in refused.json()["error"]["message"]


def test_nobody_is_compared_where_nothing_is_asked(gateway, pair, tmp_path):
    """Offline means offline."""
    a, b = pair
    rest = f'[server]\noffline = true\n[cache]\nstore = "sqlite:///{tmp_path}/cache.db"'
    running = gateway(several(a.base_url, b.base_url, rest=rest))
    assert running.embed("x").status_code == 504
    assert not a.requests
    assert not b.requests


def test_the_time_of_a_request_is_one(gateway, pair):
    """What the first one takes of it the second has no more."""
    a, b = pair
    rest = '[server]\nrequest_timeout = "500ms"'
    running = ready(gateway(several(a.base_url, b.base_url, rest=rest)))
    hang = behave.Hang()
    a.script(hang)
    began = time.monotonic()
    assert running.embed("x").status_code == 504
    assert time.monotonic() - began < 5
    assert asked(b) == []
    hang.release()


def test_texts_are_split_as_the_most_careful_upstream_wants(gateway, pair):
    """So that any of them can take any part."""
    a, b = pair
    running = gateway(several(a.base_url, b.base_url, b="max_batch = 2"))
    ready(running).vectors(["u", "v", "w"])
    inputs = [request.body["input"] for request in a.requests]
    assert [len(texts) for texts in inputs if texts[0] not in TEXTS] == [2, 1]
