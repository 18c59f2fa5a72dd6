"""`/metrics`: the names and labels that dashboards are built on, and a bound on both."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from gateway.backends.transport import Reply
from gateway.engine_counts import EngineCounts
from gateway.errors import (
    RateLimitError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from gateway.metrics.collectors import Metrics
from gateway.metrics.engines import EngineReading
from gateway.metrics.observed import ObservedTransport
from tests import upstream_behaviours as behave
from tests.running import one_model
from tests.scraping import text_of

FAMILIES = {
    ("gateway_requests", "counter", ("code", "model", "operation")),
    ("gateway_request_duration_seconds", "histogram", ("cache", "model", "operation")),
    ("gateway_overhead_seconds", "histogram", ("cache", "operation")),
    ("gateway_requests_in_flight", "gauge", ("operation",)),
    ("gateway_inputs", "counter", ("model", "result")),
    ("gateway_input_tokens", "counter", ("model", "source")),
    ("gateway_upstream_requests", "counter", ("outcome", "upstream")),
    ("gateway_upstream_duration_seconds", "histogram", ("upstream",)),
    ("gateway_cost_usd", "counter", ("kind", "model")),
    ("gateway_cache_operations", "counter", ("operation", "result", "tier")),
    ("gateway_cache_operation_duration_seconds", "histogram", ("operation", "tier")),
    ("gateway_cache_evictions", "counter", ("tier",)),
    ("gateway_store_bytes", "gauge", ("tier",)),
    ("gateway_store_entries", "gauge", ("tier",)),
    ("gateway_store_up", "gauge", ("tier",)),
    ("gateway_cache_bytes", "gauge", ("tier",)),
    ("gateway_cache_entries", "gauge", ("tier",)),
    ("gateway_build_info", "gauge", ("version",)),
    ("gateway_vectors_refused", "counter", ("reason", "upstream")),
    ("gateway_vector_norm", "histogram", ("upstream",)),
    ("gateway_cache_corrupt_entries", "counter", ("tier",)),
    ("gateway_process_resident_bytes", "gauge", ()),
    ("gateway_process_cpu_seconds", "counter", ()),
    ("gateway_process_open_fds", "gauge", ()),
    ("gateway_process_start_time_seconds", "gauge", ()),
    ("gateway_workers", "gauge", ()),
    ("gateway_event_loop_lag_seconds", "histogram", ()),
}


@pytest.fixture
def running(gateway, fake_openai):
    toml = one_model(fake_openai.base_url, model='aliases = ["alias"]')
    return gateway(toml + '[models."text-*"]\nupstreams = ["fake"]')


@pytest.fixture
def lasting(gateway, fake_openai, tmp_path):
    """A gateway with a store, whose vectors cost 10 dollars for a million tokens."""
    cache = f'[cache]\nstore = "sqlite://{tmp_path}/cache.db"'
    return gateway(one_model(fake_openai.base_url, model="price = 10.0", rest=cache))


def test_names_types_and_labels_are_what_dashboards_know(lasting):
    """Renaming one breaks somebody's alert."""
    running = lasting
    running.embed("x")
    running.http.get("/metrics")
    families = {family.name: family for family in running.registry.collect()}
    seen = {
        (f.name, f.type, tuple(sorted({n for s in f.samples for n in s.labels} - {"le"})))
        for f in running.registry.collect()
        if f.samples
    }
    assert FAMILIES <= seen
    assert all(family.documentation for family in families.values())


def test_requests_texts_and_tokens_are_counted(running, fake_openai):
    """By operation, model and code; by where the vector came from."""
    running.embed(["12345678", "b", "b"])
    running.embed("12345678", "alias")
    running.embed("x", "nope")
    running.http.get("/v1/models")
    assert (
        running.metric("gateway_requests_total", operation="embeddings", model="m", code="200") == 2
    )
    assert running.metric("gateway_requests_total", model="other", code="404") == 1
    assert running.metric("gateway_requests_total", operation="models", code="200") == 1
    texts = {
        result: running.metric("gateway_inputs_total", model="m", result=result)
        for result in ("upstream", "duplicate", "memory", "store", "in-flight")
    }
    assert texts == {"upstream": 2, "duplicate": 1, "memory": 1, "store": 0, "in-flight": 0}
    assert running.metric("gateway_input_tokens_total", source="upstream") == 3
    assert running.metric("gateway_input_tokens_total", source="cache") == 1 + 2
    assert running.metric("gateway_request_duration_seconds_count", operation="embeddings") == 3
    assert running.metric("gateway_cache_entries", tier="memory") == 2
    assert running.metric("gateway_cache_bytes", tier="memory") > 2 * 32 * 4


def test_money_is_counted_where_a_price_is_known(lasting):
    """What upstreams were paid, and what was not paid as it was there."""
    lasting.embed(["12345678", "1234"])
    lasting.embed(["12345678", "12345678"])
    dollars = {
        kind: lasting.metric("gateway_cost_usd_total", model="m", kind=kind)
        for kind in ("spent", "saved")
    }
    assert dollars == {"spent": pytest.approx(3e-5), "saved": pytest.approx(4e-5)}


def test_what_was_paid_is_counted_whoever_gets_it(gateway, fake_openai):
    """Of a request that fails too: the upstream computed a part of it before."""
    upstream = "max_batch = 2\nconcurrency = 1"
    running = gateway(one_model(fake_openai.base_url, upstream=upstream, model="price = 10.0"))
    fake_openai.script(behave.well, behave.status(400))
    texts = ["1234", "5678", "abcd", "efgh"]
    assert running.embed(texts).status_code == 400
    assert running.metric("gateway_input_tokens_total", source="upstream") == 2
    assert running.embed(texts).status_code == 200
    assert running.metric("gateway_input_tokens_total", source="upstream") == 4
    assert running.metric("gateway_cost_usd_total", kind="spent") == pytest.approx(4e-5)
    assert running.metric("gateway_cost_usd_total", kind="saved") == pytest.approx(2e-5)


def test_a_store_is_counted_by_what_it_does_and_holds(lasting):
    """Each operation with its result and time; entries and bytes, and that it can be read."""
    lasting.embed(["a", "b"])
    lasting.embed("a")
    for operation, times in (("get", 1), ("add", 1)):
        labels = {"tier": "sqlite", "operation": operation}
        assert lasting.metric("gateway_cache_operations_total", result="ok", **labels) == times
        assert lasting.metric("gateway_cache_operation_duration_seconds_count", **labels) == times
    assert lasting.metric("gateway_store_up", tier="sqlite") == 1
    assert lasting.metric("gateway_store_entries", tier="sqlite") == 2
    assert lasting.metric("gateway_store_bytes", tier="sqlite") > 2 * 32 * 4


def test_a_form_made_later_is_counted(running):
    """The memory that an entry takes grows with the forms it is asked for in."""
    running.embed("x", encoding_format="base64")
    first = running.metric("gateway_cache_bytes")
    running.embed("x", encoding_format="float")
    grown = running.metric("gateway_cache_bytes")
    running.embed("x", encoding_format="float")
    assert first + 32 * 5 < grown == running.metric("gateway_cache_bytes")


@pytest.mark.parametrize(
    ("behaviour", "outcome", "calls"),
    [
        (behave.well, "ok", 1),
        (behave.status(400), "4xx", 1),
        (behave.status(500), "5xx", 3),
        (behave.redirect, "3xx", 1),
        (behave.rate_limit("0"), "429", 3),
        (behave.close_before_answer, "connect", 3),
        (behave.broken_json, "ok", 1),
    ],
)
def test_every_call_to_an_upstream_has_an_outcome(running, fake_openai, behaviour, outcome, calls):
    """Each retry is a call of its own, with a duration."""
    fake_openai.always(behaviour)
    running.embed("x")
    assert running.metric("gateway_upstream_requests_total") == calls
    assert (
        running.metric("gateway_upstream_requests_total", upstream="fake", outcome=outcome) == calls
    )
    assert running.metric("gateway_upstream_duration_seconds_count", upstream="fake") == calls


def test_names_of_clients_choosing_add_no_series(running):
    """A thousand model names, paths, methods and ids: not one more line to scrape."""

    def everything(number):
        running.embed("x", f"text-{number}")
        running.embed("x", f"nope-{number}")
        if number % 10 == 0:
            running.http.get(f"/nothing/{number}", headers={"x-request-id": str(number)})
            running.http.request(f"METHOD{number}", f"/v1/models/text-{number}")
            running.http.get(f"/v1/models/text-{number}")

    everything(0)
    running.samples()  # the first scrape is counted, too
    everything(0)
    before = {(sample.name, *sample.labels.items()) for sample in running.samples()}
    for number in range(1, 501):
        everything(number)
    after = {(sample.name, *sample.labels.items()) for sample in running.samples()}
    assert after == before


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UpstreamConnectError("m"), "connect"),
        (UpstreamTimeoutError("m"), "timeout"),
        (UpstreamError("m"), "bad_answer"),
        (RateLimitError("m"), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
def test_failures_of_a_transport_are_outcomes_and_go_on(error, outcome):
    """The watcher sees them and changes nothing; it closes what it watches."""

    class Failing:
        closed = False

        async def send(self, *_, **__):
            raise error

        async def aclose(self):
            self.closed = True

    async def scene():
        metrics = Metrics(CollectorRegistry(), str)
        inner = Failing()
        watched = ObservedTransport(inner, metrics, "up", iter([1.0, 3.5]).__next__)
        with pytest.raises(type(error)):
            await watched.send("POST", "http://x", {}, None, timeout=1)
        await watched.aclose()
        assert inner.closed
        return text_of(metrics)

    page = asyncio.run(scene())
    assert f'gateway_upstream_requests_total{{outcome="{outcome}",upstream="up"}} 1.0' in page
    assert 'gateway_upstream_duration_seconds_sum{upstream="up"} 2.5' in page


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"),
        (204, "ok"),
        (302, "3xx"),
        (404, "4xx"),
        (429, "429"),
        (500, "5xx"),
        (599, "5xx"),
    ],
)
def test_statuses_are_grouped(status, outcome):
    """Few outcomes, whatever an upstream makes up."""

    class Answering:
        async def send(self, *_, **__):
            return Reply(status, {}, b"")

    metrics = Metrics(CollectorRegistry(), str)
    watched = ObservedTransport(Answering(), metrics, "up", lambda: 0.0)
    asyncio.run(watched.send("GET", "http://x", {}, None, timeout=1))
    assert f'outcome="{outcome}",upstream="up"}} 1.0' in text_of(metrics)


def test_engines_tell_their_figures_and_a_stopped_one_is_at_rest():
    """What it says of itself is gone when it does not answer; what it has done stays."""
    metrics = Metrics(CollectorRegistry(), str)
    done = EngineCounts(9, 70, 0.5, (3, *(0,) * 13, 1, 0))
    said = {"queue_depth": 3, "busy": 2, "rss_bytes": 4096}
    metrics.engines.take([EngineReading("minilm", 1, done, said)])
    engine = 'engine="minilm"'
    running = text_of(metrics)
    for line in (
        f"queue_depth{{{engine}}} 3.0", f"contexts_busy{{{engine}}} 2.0",
        f"resident_bytes{{{engine}}} 4096.0", f"restarts_total{{{engine}}} 1.0",
        f"texts_total{{{engine}}} 9.0", f"tokens_total{{{engine}}} 70.0",
        f"queue_wait_seconds_sum{{{engine}}} 0.5", f"queue_wait_seconds_count{{{engine}}} 4.0",
        f'queue_wait_seconds_bucket{{{engine},le="0.001"}} 3.0',
        f'queue_wait_seconds_bucket{{{engine},le="30.0"}} 3.0',
        f'queue_wait_seconds_bucket{{{engine},le="60.0"}} 4.0',
        f'queue_wait_seconds_bucket{{{engine},le="+Inf"}} 4.0',
    ):  # fmt: skip
        assert f"gateway_engine_{line}\n" in running
    metrics.engines.take([EngineReading("minilm", 2, done, None)])
    stopped = text_of(metrics)
    assert f"gateway_engine_queue_depth{{{engine}}} 0.0" in stopped
    assert f"gateway_engine_restarts_total{{{engine}}} 2.0" in stopped
    assert f"gateway_engine_texts_total{{{engine}}} 9.0" in stopped
    metrics.engines.take([])
    assert "gateway_engine" not in text_of(metrics)
