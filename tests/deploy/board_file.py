"""The board of Grafana as data: its panels, and what they ask with its variables filled in."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
BOARD: dict[str, Any] = json.loads((GRAFANA / "embedding-gateway.json").read_text())
PANELS: list[dict[str, Any]] = [p for p in BOARD["panels"] if p["type"] != "row"]


@dataclass(frozen=True)
class Question:
    """One query of a panel."""

    panel: str
    expression: str


def questions(*, interval: str, window: str) -> Iterator[Question]:
    """Return all queries as Grafana sends them: of all instances and models."""
    filled = {"$__rate_interval": interval, "$__range": window, "$instance": ".*", "$model": ".*"}
    for panel in PANELS:
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in filled.items():
                expression = expression.replace(variable, value)
            yield Question(panel["title"], expression)
