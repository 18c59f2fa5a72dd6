"""What the page tells of the gateway's traffic, health and doors."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from tests.running import one_model
from tests.upstream_behaviours import status

SECRET = "sk-of-the-operator"
KEYS = f"""
    [[keys]]
    name = "ops"
    secret = "{SECRET}"
    admin = true
    [[keys]]
    name = "team"
    secret = "sk-of-a-team"
"""
REFUSALS = ("status of 401", "status of 403")


def wait_for(page, selector: str, words: str) -> None:
    """Return when an element shows words that this pattern is found in."""
    expect(page.locator(selector)).to_contain_text(re.compile(words), timeout=20_000)


def test_it_tells_what_passes_through(fake_openai, gateway, visit):
    """Requests, texts that needed no model, what they saved, each model's and upstream's part."""
    price = "price = 1000000.0"
    running = gateway(one_model(fake_openai.base_url, model=price))
    page = visit(running.address).page
    wait_for(page, "#texts-note", "no texts yet")
    for _ in range(4):
        running.vectors(["twelve bytes", "twelve more!"])
    wait_for(page, "#texts-now", "75 %")
    wait_for(page, "#texts-note", "of 8 texts in all")
    wait_for(page, "#requests-note", ", 4 in all")
    assert page.inner_text("#saved-now") == "$18.00"
    assert page.inner_text("#saved-note") == "for $6.00 spent; 18 tokens not computed again"
    assert page.inner_text("#models td[data-name='Texts so far']") == "8"
    wait_for(page, "#upstreams td[data-name=State]", "ready")
    assert page.inner_text("#upstreams td[data-name='Last error']") == "none"
    assert re.search("memory", page.inner_text("#stores"))
    assert page.inner_text("#version") == f"Embedding gateway {version()}"
    assert page.inner_text("#status") == "ready"


def version() -> str:
    from gateway import __version__

    return __version__


def test_it_tells_what_went_wrong(fake_openai, gateway, visit):
    """Failures of the gateway, mistakes of clients, and how an upstream failed last."""
    running = gateway(one_model(fake_openai.base_url))
    page = visit(running.address).page
    running.vectors(["a good one"])
    wait_for(page, "#upstreams td[data-name=State]", "ready")
    fake_openai.always(status(500))
    assert running.embed(["a bad one"]).status_code >= 500
    assert running.embed(["a text"], model="unknown").status_code == 404
    wait_for(page, "#upstreams td[data-name='Last error']", "5xx, ")
    wait_for(page, "#facts", r"Failed, last minute\s*1")
    wait_for(page, "#facts", r"Clients. mistakes, last minute\s*1")


def test_nobody_elses_texts_are_in_it(fake_openai, gateway, visit):
    """Nor in anything that the page was sent: it knows counts only."""
    running = gateway(one_model(fake_openai.base_url))
    canary = "a text that is nobody's business"
    opened = visit(running.address)
    running.vectors([canary])
    wait_for(opened.page, "#texts-note", "of 1 text in all")
    assert canary not in opened.page.content()
    answers = [request.response() for request in opened.requests]
    assert not any(canary in answer.text() for answer in answers if answer)


def test_a_locked_gateway_is_asked_with_a_key(fake_openai, gateway, visit):
    """The page asks for one, says if it is wrong, and keeps it in this tab: in no cookie or URL."""
    running = gateway(one_model(fake_openai.base_url, rest=KEYS))
    opened = visit(running.address, expects=REFUSALS)
    page = opened.page
    page.wait_for_selector("#key-form")
    assert page.inner_text("#live-said") == "This needs a key."
    give_key(page, "sk-wrong")
    wait_for(page, "#key-said", "does not take this key")
    give_key(page, SECRET)
    page.wait_for_selector("#key", state="hidden")
    opened.run_playground("a text of the operator's")
    assert len(opened.exchanges) == 1
    wait_for(page, "#texts-note", "of 1 text in all")

    assert "$GATEWAY_KEY" in page.text_content("#playground-curl")
    assert "GATEWAY_KEY" in page.text_content("#playground-python")
    assert SECRET not in page.content()
    assert page.context.cookies() == []
    assert not any(SECRET in request.url for request in opened.requests)
    assert page.evaluate("Object.values(localStorage)") == []
    page.reload()
    wait_for(page, "#texts-note", "of 1 text in all")
    page.click("#key-button")
    page.click("#key-forget")
    wait_for(page, "#live-said", "This needs a key.")
    assert page.evaluate("Object.values(sessionStorage)") == []


def test_a_key_that_may_not_see_the_metrics_may_try_the_rest(fake_openai, gateway, visit):
    """What needs `admin = true` says so; the playground works."""
    running = gateway(one_model(fake_openai.base_url, rest=KEYS))
    opened = visit(running.address, expects=REFUSALS)
    give_key(opened.page, "sk-of-a-team")
    wait_for(opened.page, "#live-said", "admin = true")
    assert not opened.page.is_visible("#live-body")
    opened.run_playground("a text of the team's")
    assert len(opened.exchanges) == 1


def give_key(page, secret: str) -> None:
    page.fill("#key-input", secret)
    page.press("#key-input", "Enter")


def test_with_an_admin_listener_each_page_has_its_part(fake_openai, gateway, visit):
    """The live part where the metrics are, the rest where the API is; each names the other."""
    rest = f'[server]\nadmin = "127.0.0.1:9090"\n{KEYS}'
    running = gateway(one_model(fake_openai.base_url, rest=rest))
    admin = visit(running.admin_address, expects=("status of 404",)).page
    public = visit(running.address, expects=("status of 404", *REFUSALS))
    give_key(public.page, SECRET)
    public.run_playground("a text")
    wait_for(public.page, "#live-said", "has \\[server\\] admin")
    assert not public.page.is_visible("#live-body")
    wait_for(admin, "#texts-note", "of 1 text in all")
    wait_for(admin, "#playground-away", "admin listener")
    wait_for(admin, "#repro-away", "admin listener")
    assert not admin.is_visible("#playground-body")
    assert not admin.is_visible("#start-api")
    wait_for(admin, "#upstreams", "fake")
    assert not admin.is_visible("#key")


def test_a_gateway_that_is_gone_is_told_and_found_again(fake_openai, gateway, visit):
    """What was known stays on the page meanwhile."""
    running = gateway(one_model(fake_openai.base_url))
    opened = visit(running.address, expects=("ERR_INTERNET_DISCONNECTED",))
    running.vectors(["a text"])
    wait_for(opened.page, "#texts-note", "of 1 text in all")
    opened.context.set_offline(True)
    wait_for(opened.page, "#status", "not reachable")
    wait_for(opened.page, "#live-said", "cannot be reached")
    assert opened.page.is_visible("#live-body")
    opened.context.set_offline(False)
    wait_for(opened.page, "#status", "ready")
    opened.page.wait_for_selector("#live-said", state="hidden")


def test_quantiles_and_labels_are_read_as_prometheus_writes_them(page):
    """Sums, odd labels, and quantiles as `histogram_quantile` estimates them."""
    registry, rng = CollectorRegistry(), np.random.default_rng(7)
    odd = [
        "plain",
        'with "quotes"',
        "back\\slash",
        "new\nline",
        "brace}",
        "comma, equals=",
        "\N{SNOWMAN}",
    ]
    counter = Counter("gateway_inputs", "Texts.", ["model", "result"], registry=registry)
    for number, name in enumerate(odd):
        counter.labels(name, "memory").inc(number + 0.5)
    bounds = [0.01, 0.1, 1.0, 10.0]
    histogram = Histogram("gateway_seconds", "Time.", buckets=bounds, registry=registry)
    durations = 10 ** rng.uniform(-3, 1.2, 500)
    for duration in durations:
        histogram.observe(duration)
    text = generate_latest(registry).decode()
    found = page.evaluate(
        """async (text) => {
          const { Scrape, quantile } = await import("/console/prometheus.js");
          const scrape = new Scrape(text, "gateway_");
          const buckets = scrape.histograms("seconds", () => "").get("");
          return {
            sum: scrape.sum("inputs_total"), none: scrape.sum("not_there"),
            models: [...scrape.by("inputs_total", "model")],
            quantiles: [0.01, 0.3, 0.5, 0.9, 0.99].map((q) => quantile(q, buckets)),
          };
        }""",
        text,
    )
    assert found["sum"] == sum(range(len(odd))) + 0.5 * len(odd)
    assert found["none"] is None
    assert found["models"] == [[name, n + 0.5] for n, name in enumerate(odd)]
    lowest, *middle, highest = found["quantiles"]
    assert (lowest, highest) == ({"value": 0.01, "bound": "<"}, {"value": 10.0, "bound": ">"})
    for q, ours in zip([0.3, 0.5, 0.9], middle, strict=True):
        assert ours["value"] == pytest.approx(estimated(q, durations, bounds), rel=1e-12)


def estimated(q: float, values: np.ndarray, bounds: list[float]) -> float:
    """Return a quantile as Prometheus' `histogram_quantile` does: evenly spread in its bucket."""
    below = [int((values <= bound).sum()) for bound in bounds]
    return float(np.interp(q * len(values), [0, *below], [0, *bounds]))


def test_rises_survive_a_restart_and_a_new_label(page):
    """A counter that fell began again at 0; one that is new rose from there."""
    before = 'gateway_inputs_total{model="m",result="memory"} 10\n'
    after = 'gateway_inputs_total{model="m",result="memory"} 3\n' + before.replace(
        "memory", "store"
    )
    found = page.evaluate(
        """async ([before, after]) => {
          const { Ring, read } = await import("/console/readings.js");
          const ring = new Ring(300_000);
          ring.push(read(before, 0));
          ring.push(read(after, 4_000));
          const { seconds, texts } = ring.lately(60);
          for (let at = 5_000; at < 900_000; at += 1_000) ring.push(read(after, at));
          return [seconds, [...texts], ring.readings.length, ring.lately(60).seconds];
        }""",
        [before, after],
    )
    assert found == [4, [["memory", 3], ["store", 10]], 301, 60]


def test_figures_that_are_rare_find_their_place(page):
    """What takes a fault, several workers or a local model to be told."""
    more = """
gateway_requests_in_flight{operation="embeddings"} 3
gateway_circuit_state{upstream="fake"} 2
gateway_rejected_total{reason="rate"} %d
gateway_upstream_failovers_total{model="m",from="a",to="b"} 2
gateway_config_reloads_total{result="refused"} 1
gateway_config_last_reload_success 0
gateway_request_duration_seconds_bucket{operation="embeddings",model="m",cache="hit",le="0.0005"} 9
gateway_request_duration_seconds_bucket{operation="embeddings",model="m",cache="hit",le="+Inf"} 10
gateway_upstream_requests_total{upstream="fake",outcome="ok"} 1
gateway_vectors_refused_total{upstream="fake",reason="zero"} 3
gateway_vectors_refused_total{upstream="fake",reason="width"} 0
gateway_overhead_seconds_bucket{operation="embeddings",cache="hit",le="0.0005"} 0
gateway_overhead_seconds_bucket{operation="embeddings",cache="hit",le="0.001"} %d
gateway_overhead_seconds_bucket{operation="embeddings",cache="hit",le="+Inf"} %d
gateway_event_loop_lag_seconds_bucket{le="0.1"} 0
gateway_event_loop_lag_seconds_bucket{le="0.5"} %d
gateway_event_loop_lag_seconds_bucket{le="+Inf"} %d
gateway_process_resident_bytes 104857600
gateway_workers 2
"""
    count = iter(range(1, 1000))

    def answer(route) -> None:
        route.fulfill(body=more.replace("%d", str(next(count))), content_type="text/plain")

    page.route("**/metrics", answer)
    page.reload()
    wait_for(page, "#facts", r"In flight\s*3")
    wait_for(page, "#facts", r"Turned away, last minute\s*rate 1")
    wait_for(page, "#facts", r"Failovers\s*2")
    wait_for(page, "#facts", r"Config reloads\s*1, the last one refused")
    wait_for(page, "#facts", r"Vectors refused\s*zero 3(?!,)")
    wait_for(page, "#facts", r"The gateway.s own time, p99\s*1 ms")
    wait_for(page, "#facts", r"Event loop late, p99\s*496 ms")
    wait_for(page, "#facts", r"Workers\s*2")
    wait_for(page, "#facts", r"Memory\s*100 MiB")
    wait_for(page, "#latency-chart", "cached, p99")
    wait_for(page, "#upstreams td[data-name=State]", "open")
