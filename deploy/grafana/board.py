"""Writes the Grafana board of the gateway: python deploy/grafana/board.py [FILE].

The board is built with Grafana's own library of types (extra [dev]) and kept beside this file,
ready to be imported: whoever changes it runs this again.
"""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from panels import SOURCE
from rows import cache, engines, process, savings, upstreams

BOARD = Path(__file__).with_name("embedding-gateway.json")
PAGE = "https://github.com/embedding-gateway/embedding-gateway/blob/main/docs/operations.md"

ROWS = {
    "What it saves": savings,
    "Models and upstreams": upstreams,
    "Cache": cache,
    "Local models": engines,
    "Process": process,
}


def build() -> Dashboard:
    """Return the board."""
    board = (
        Dashboard("Embedding gateway")
        .uid("embedding-gateway")
        .description("One text, one vector: what that saves, what is slow, and whose fault it is.")
        .tags(["embedding-gateway"])
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            DashboardLink("Operations")
            .type(DashboardLinkType.LINK)
            .url(PAGE)
            .icon("doc")
            .tooltip("What the figures and alerts mean, and what to do")
            .target_blank(True)
        )
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(chosen("instance", "gateway_build_info"))
        .with_variable(chosen("model", 'gateway_requests_total{instance=~"$instance"}'))
    )
    # Numbered, so that a link to a panel holds; by hundreds, so that a new one moves few.
    for place, (title, row) in enumerate(ROWS.items(), 1):
        board.with_row(Row(title).id(100 * place))
        for number, panel in enumerate(row.panels(), 1):
            board.with_panel(panel.id(100 * place + number))
    return board


def chosen(label: str, metric: str) -> QueryVariable:
    """Return a variable: some or all values of a label of a metric."""
    return (
        QueryVariable(label)
        .label(label.capitalize())
        .datasource(SOURCE)
        .query(f"label_values({metric}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def text() -> str:
    """Return the board as Grafana reads it; the same each time."""
    return json.dumps(build().build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if sys.argv[1:] else BOARD).write_text(text())
