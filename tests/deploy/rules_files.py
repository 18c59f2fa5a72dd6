"""The files of rules for Prometheus, and their cases, as data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
CASES = sorted((Path(__file__).parent / "rules").glob("*.yml"))
"""Unit tests of promtool, one file for each group of alerts."""


def rules(file: str) -> list[dict[str, Any]]:
    """Return all rules of a file, in order."""
    groups = yaml.safe_load((PROMETHEUS / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by name."""
    return {rule["alert"]: rule for rule in rules("alerts.yml")}


def expectations() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Return, for every expression that a case looks at, the samples that it expects."""
    for file in CASES:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for look in case["promql_expr_test"]:
                yield look["expr"], look.get("exp_samples", [])
