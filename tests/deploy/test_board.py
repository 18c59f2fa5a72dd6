"""The board for Grafana: as its script writes it, well laid out, and no panel is empty."""

import itertools
import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.deploy.board_file import BOARD, GRAFANA, PANELS, questions
from tests.deploy.everyday import Watched
from tests.deploy.rules_files import ROOT, alerts

WIDTH = 24
"""Columns of Grafana's grid."""


def test_the_board_is_what_its_script_writes(tmp_path: Path) -> None:
    """Changed by hand, it would be lost at the next change of the script."""
    subprocess.run([sys.executable, GRAFANA / "board.py", tmp_path / "board.json"], check=True)
    written = (tmp_path / "board.json").read_text()
    assert written == (GRAFANA / "embedding-gateway.json").read_text()


def test_rows_and_variables_are_the_ones_people_look_for() -> None:
    """Five rows, from what is saved down to the process; what is shown can be narrowed."""
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert rows == ["What it saves", "Models and upstreams", "Cache", "Local models", "Process"]
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "instance", "model"]
    used = json.dumps(PANELS)
    assert all(f"${name}" in used or f"${{{name}}}" in used for name in variables)


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    """By a title of its own, a sentence, and names for its lines."""
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    for panel in PANELS:
        assert panel["description"].endswith(".")
        assert panel["type"] == "state-timeline" or panel["fieldConfig"]["defaults"]["unit"]
        names = [target.get("legendFormat") for target in panel["targets"]]
        assert panel["type"] == "stat" or (all(names) and len(set(names)) == len(names))


def test_panels_fill_the_grid_and_do_not_overlap() -> None:
    """Each cell of the grid belongs to one panel, and no line ends early but a row's last one."""
    taken = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= WIDTH
        columns = range(at["x"], at["x"] + at["w"])
        cells = set(itertools.product(columns, range(at["y"], at["y"] + at["h"])))
        assert not cells & taken
        taken |= cells
    assert len(taken) == WIDTH * (1 + max(y for _, y in taken))


def test_every_panel_shows_something(watched: Watched) -> None:
    """Asked of a real Prometheus, that scraped a real gateway on which everything happened."""
    empty = [
        question
        for question in questions(interval="10s", window="5m")
        if not shows(watched, question.expression)
    ]
    assert not empty


def test_the_board_can_be_drawn_without_grafana(watched: Watched, tmp_path: Path) -> None:
    """Every panel has its title and figures in the picture."""
    file = tmp_path / "board.svg"
    script = [sys.executable, GRAFANA / "picture.py", watched.prometheus.address, file]
    subprocess.run([*script, "--minutes", "2", "--interval", "10s"], check=True)
    written = set(re.findall("<!-- (.+?) -->", file.read_text()))
    assert {panel["title"] for panel in PANELS} <= written
    assert {"text-embedding-3-small", "openai 99 %", "200"} <= written
    assert "No data" not in written


def test_variables_offer_what_there_is(watched: Watched) -> None:
    """Names of the config, and nothing that only a client said."""
    offered = {}
    for variable in BOARD["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        assert found
        series = watched.prometheus.query(found[1].replace("$instance", ".*"))
        offered[variable["name"]] = {labels.get(found[2], "") for labels, _ in series}
    assert len(offered["instance"]) == 1
    assert {"text-embedding-3-small", "minilm", "gpt-mini", "other"} <= offered["model"]
    assert "unknown" not in offered["model"]


def test_alerts_speak_of_panels_and_log_lines_that_there_are() -> None:
    """Whoever is woken looks for just these words."""
    titles = {panel["title"] for panel in PANELS}
    source = "".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))
    for name, rule in alerts().items():
        said = re.sub("`[^`]*`", "", rule["annotations"]["description"])
        for words in re.findall('"([^"]+)"', said):
            assert words in titles or f'"{words}' in source, f"{name} speaks of {words}"


def shows(watched: Watched, expression: str) -> bool:
    """Whether a query has had a number at any time so far."""
    values = watched.prometheus.values(expression, time.time() - 120)
    return any(map(math.isfinite, values))
