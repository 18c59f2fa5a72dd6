"""Draws the board without Grafana: python deploy/grafana/picture.py URL FILE [--minutes 30].

URL is a Prometheus that scrapes a gateway, FILE a picture. Each panel's own queries are asked and
drawn in its place by matplotlib (extra [dev]): a drawing of the board, not Grafana's rendering.
"""

import json
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from drawing import draw
from matplotlib.figure import Figure
from PIL import Image

BOARD = Path(__file__).with_name("embedding-gateway.json")
POINTS = 240
"""On each line."""


class Source:
    """Answers queries of the board's panels over the time that is drawn."""

    def __init__(self, url: str, *, minutes: float, interval: str, end: float) -> None:
        """`interval` is what rates are taken over, in Prometheus's words; `end` is a Unix time."""
        self._url = url.rstrip("/")
        self._filled = {
            "$__rate_interval": interval,
            "$__range": f"{max(1, round(minutes * 60))}s",
            "$instance": ".*",
            "$model": ".*",
        }
        self.times = (end - minutes * 60, end)

    def ask(self, target: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the series that a panel's query has; raises OSError where Prometheus refuses."""
        query = target["expr"]
        for variable, value in self._filled.items():
            query = query.replace(variable, value)
        start, end = self.times
        path, times = "query_range", {"start": start, "end": end, "step": (end - start) / POINTS}
        if target.get("instant"):
            path, times = "query", {"time": end}
        address = f"{self._url}/api/v1/{path}?{urlencode({'query': query, **times})}"
        with urlopen(address, timeout=30) as answer:  # noqa: S310 - an address of the caller's
            return json.load(answer)["data"]["result"]


def picture(board: dict[str, Any], source: Source) -> Figure:
    """Return the board, drawn."""
    asked = {
        panel["id"]: [(target, source.ask(target)) for target in panel.get("targets", [])]
        for panel in board["panels"]
    }
    return draw(board["panels"], asked, source.times)


def save(figure: Figure, file: Path) -> None:
    """Write the picture; a PNG with few colours, which is a third of its size."""
    figure.savefig(file, dpi=100)
    if file.suffix == ".png":
        with Image.open(file) as drawn:
            drawn.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)


def arguments() -> Namespace:
    """Return what was typed."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="of a Prometheus, e.g. http://127.0.0.1:9090")
    parser.add_argument("file", type=Path, help="to write: .png, .svg or .pdf")
    parser.add_argument("--minutes", type=float, default=30.0, help="to look back")
    parser.add_argument("--interval", default="1m", help="to take rates over; at least 4 scrapes")
    return parser.parse_args()


if __name__ == "__main__":
    typed = arguments()
    asking = Source(typed.url, minutes=typed.minutes, interval=typed.interval, end=time.time())
    save(picture(json.loads(BOARD.read_text()), asking), typed.file)
