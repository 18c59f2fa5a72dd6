"""docs/operations.md speaks of metrics, log lines and questions that there are."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from gateway.metrics.collectors import Metrics
from gateway.reasons import Fault
from tests.deploy.prometheus_server import promtool
from tests.docs.pages import Block, blocks, manual, page
from tests.processes import ROOT

PAGE = page("docs/operations.md")
PARTS = ("_bucket", "_sum", "_count")
NOT_METRICS = {"gateway_check", "gateway_config_"}
"""What is called so and is none, or the beginning of several."""


def exported() -> dict[str, tuple[str, ...]]:
    """Return what a gateway tells Prometheus, with its labels."""
    registry = CollectorRegistry()
    Metrics(registry, str)
    labels = {
        family.name: tuple(getattr(collector, "_labelnames", ()))
        for collector in registry._collector_to_names
        for family in collector.collect()
    }
    counters = {family.name for family in registry.collect() if family.type == "counter"}
    return {f"{name}_total" if name in counters else name: of for name, of in labels.items()}


def listed() -> dict[str, tuple[str, ...]]:
    """Return the metrics of the page's tables, with their labels."""
    tables = [table[1:] for table in PAGE.tables if table[0][:2] == ["metric", "labels"]]
    rows = [row for table in tables for row in table]
    return {name.strip("`"): tuple(re.findall(r"\w+", labels)) for name, labels, _ in rows}


def test_every_metric_is_listed() -> None:
    """Each that there is stands in a table, and no other does."""
    there = exported().keys()
    assert there - listed().keys() == set()
    assert listed().keys() - there == set()


def test_the_labels_are_right() -> None:
    """As far as a collector knows them before anything has happened."""
    known = {name: labels for name, labels in exported().items() if labels}
    assert len(known) > 30
    told = listed()
    assert {name: set(told[name]) for name in known} == {n: set(of) for n, of in known.items()}


def test_every_metric_that_is_named_is_one() -> None:
    """On all pages of the manual, in tables, sentences and questions."""
    there = exported().keys()
    for one in manual():
        named = set(re.findall(r"\bgateway_[a-z_]+", one.text)) - NOT_METRICS
        assert [name for name in sorted(named) if plain(name) not in there] == [], one.name


def plain(name: str) -> str:
    """Return a metric's name without what a histogram's series have at their ends."""
    for part in PARTS:
        name = name.removesuffix(part)
    return name


def test_the_reasons_for_refused_vectors_are_listed() -> None:
    """All of the closed set."""
    [row] = [row for table in PAGE.tables for row in table if "vectors_refused" in row[0]]
    assert set(Fault.__args__) <= set(re.findall(r"\w+", row[2]))  # type: ignore[attr-defined]


def test_every_log_line_is_one() -> None:
    """What the page says that the log says, some module says."""
    [table] = [table for table in PAGE.tables if table[0][0].startswith("line")]
    lines = [line for row in table[1:] for line in re.findall("`([^`]+)`", row[0])]
    assert len(lines) > 15
    code = "".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))
    assert [line for line in lines if f'"{line}"' not in code] == []


def expressions() -> Iterator[tuple[Block, str]]:
    """Return the questions to Prometheus, each with its block."""
    for block in blocks("promql"):
        for part in block.text.split("\n\n"):
            lines = [line for line in part.splitlines() if not line.startswith("#")]
            yield block, "\n".join(lines)


def test_every_question_can_be_asked(tmp_path: Path) -> None:
    """Prometheus understands each of them."""
    asked = [{"record": f"a:{i}", "expr": text} for i, (_, text) in enumerate(expressions())]
    assert asked
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "page", "rules": asked}]}))
    promtool("check", "rules", rules)


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_is_yaml(block: Block, tmp_path: Path) -> None:
    """Each of these blocks can be read, by Prometheus too where it is for it."""
    assert yaml.safe_load(block.text)
    if "scrape_configs" in block.text:
        (tmp_path / "prometheus.yml").write_text(block.text)
        promtool("check", "config", tmp_path / "prometheus.yml")
