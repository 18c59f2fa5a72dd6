"""The rules for Prometheus: every alert fires, stays silent, and tells who is woken what to do."""

import re
from pathlib import Path

import pytest

from tests.deploy.prometheus_server import promtool
from tests.deploy.rules_files import CASES, PROMETHEUS, ROOT, alerts, expectations

OPERATIONS = ROOT / "docs" / "operations.md"
ALERTS = sorted(alerts())

_NAMED = re.compile(r'ALERTS\{alertname(=~?)"([^"]+)"')
_LABEL = re.compile(r"\$labels\.(\w+)")
_GROUPING = re.compile(r"\bby \(([^)]*)\)")


def named(expression: str, alert: str) -> bool:
    """Whether an expression over ALERTS looks at an alert."""
    found = _NAMED.match(expression)
    assert found, f"{expression} looks at no alert"
    return bool(re.fullmatch(found[2], alert)) if found[1] == "=~" else found[2] == alert


def test_prometheus_takes_the_config_and_its_rules() -> None:
    """As a whole, and every expression and template in it."""
    said = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert "2 rule files found" in said
    assert f"{len(ALERTS)} rules found" in said


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_alerts_fire_and_stay_silent_as_their_cases_say(file: Path) -> None:
    """Over series that are written out, by Prometheus's own tool."""
    assert "SUCCESS" in promtool("test", "rules", file)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alert: str) -> None:
    """One that cannot fire watches nothing; one that is never silent will be switched off."""
    looks = [samples for expression, samples in expectations() if named(expression, alert)]
    fires = [any(f'alertname="{alert}"' in s["labels"] for s in samples) for samples in looks]
    assert any(fires)
    assert not all(fires)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_is_wrong_and_what_to_do(alert: str) -> None:
    """In one line, in a paragraph, and in a section of the operator's page, which is there."""
    rule = alerts()[alert]
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert len(rule["annotations"]["summary"]) < 100
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page.endswith("/docs/operations.md")
    assert anchor in anchors(OPERATIONS.read_text())


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_tells_only_labels_that_it_has(alert: str) -> None:
    """Prometheus writes nothing in the place of a label that an expression has dropped."""
    rule = alerts()[alert]
    kept = [set(re.split(r",\s*", labels)) for labels in _GROUPING.findall(rule["expr"])]
    if kept:
        told = set(_LABEL.findall(" ".join(rule["annotations"].values())))
        assert told <= set.intersection(*kept) - {"le"}


def anchors(markdown: str) -> set[str]:
    """Return what GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ +(.+?) *$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
