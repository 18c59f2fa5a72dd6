"""What the page tells of drift: a model that jitters, one that is steady, one that has changed."""

import time

import pytest
from playwright.sync_api import expect

from tests.cli.drifting import another_model
from tests.console.test_console_live import wait_for
from tests.console.test_console_page import serious
from tests.processes import gateway_process
from tests.upstream import FakeOpenAI, serve

LONG = f"sentence-transformers/{'firm' * 58}"
"""As long as a name may be, with no place to break it."""
CELL = "#models tr:has(code:text-is('%s')) td[data-name=Drift]"
STANDS = """
gateway_drift_distance{model="m"} %s
gateway_drift_noise{model="m"} 1e-07
gateway_drift_detected{model="m"} %s
gateway_drift_last_check_timestamp_seconds{model="m"} %s
gateway_drift_checks_total{model="m",result="noise"} 3
"""


@pytest.fixture
def steady():
    """An upstream that always answers with the same bits."""
    with serve(FakeOpenAI(width=32)) as served:
        yield served.app


def test_noise_is_told_from_another_model(fake_openai, steady, visit):
    """In the table and among the figures, within a round; so does the gauge."""
    fake_openai.noise = 1e-4
    toml = f"""
        [server]
        drift_delay = "0s"
        drift_every = "500ms"
        [upstreams.loose]
        kind = "openai"
        base_url = "{fake_openai.base_url}"
        [upstreams.firm]
        kind = "openai"
        base_url = "{steady.base_url}"
        [models.loose]
        task = "embedding"
        upstreams = ["loose"]
        [models."{LONG}"]
        task = "embedding"
        upstreams = ["firm"]
    """
    with gateway_process(toml) as served:
        page = visit(served.address).page
        loose, firm = page.locator(CELL % "loose"), page.locator(CELL % LONG)
        expect(loose.locator(".chip")).to_have_text("noise", timeout=20_000)
        expect(firm.locator(".chip")).to_have_text("steady", timeout=20_000)
        expect(page.locator("#models-said")).to_contain_text("gateway drift")
        assert page.locator("#facts").get_by_text("Drifted").count() == 0
        steady.always(another_model)
        expect(firm.locator(".chip")).to_have_text("drift", timeout=20_000)
        wait_for(page, "#facts", rf"Drifted\s*{LONG}")
        expect(loose.locator(".chip")).to_have_text("noise")
        for width in (360, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert serious(page) == []
        page.close()  # before the gateway ends, which it would notice


@pytest.mark.parametrize(
    ("distance", "detected", "said"),
    [
        ("0.0", 0, "steady10 min ago"),
        ("2.34e-07", 0, "noise1 \u2212 cos 2.3e-7, 10 min ago"),
        ("0.5678", 1, "drift1 \u2212 cos 0.57, 10 min ago"),
    ],
)
def test_a_verdict_is_told_with_its_figure_and_its_time(page, distance, detected, said):
    """As the gauges have them."""
    show(page, STANDS % (distance, detected, time.time() - 600))
    expect(page.locator(CELL % "m")).to_have_text(said, timeout=20_000)


def test_a_model_that_did_not_answer_is_no_drift(page):
    """Of one that has never been compared it is said; one that was stays what it was."""
    failed = 'gateway_drift_checks_total{model="m",result="failed"} 2\n'
    show(page, failed)
    expect(page.locator(CELL % "m")).to_have_text("not told", timeout=20_000)
    show(page, failed + STANDS % ("0.0", 0, time.time()))
    expect(page.locator(CELL % "m")).to_contain_text("steady", timeout=20_000)


def test_where_nobody_looks_there_is_no_column(page):
    """Nor a word of it; so where all was purged since, whose gauges have become 0."""
    show(page, STANDS % ("0.0", 0, 0) + "gateway_process_resident_bytes 1048576\n")
    wait_for(page, "#facts", r"Memory\s*1\.0 MiB")
    wait_for(page, "#models", "m")
    assert page.locator("#models thead").get_by_text("Drift").count() == 0
    assert page.inner_text("#models-said") == ""


def show(page, metrics: str) -> None:
    """Have the page read these metrics, and no others."""
    page.unroute("**/metrics")
    page.route("**/metrics", lambda route: route.fulfill(body=metrics, content_type="text/plain"))
    page.reload()
