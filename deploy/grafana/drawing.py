"""How `picture` draws the kinds of panels that the board has, much as Grafana does."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, MultipleLocator, NullLocator
from units import told

Panel = Mapping[str, Any]
Asked = Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]
"""The queries of a panel, each with its series as Prometheus answered."""

COLUMN, UNIT = 0.64, 0.32
"""Inches of a cell of Grafana's grid, which has 24 columns."""
GAP = 0.06
COLOURS = (
    "#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1",
    "#ba43a9", "#705da0", "#508642", "#cca300", "#447ebc", "#c15c17",
)  # fmt: skip
NAMED = {"green": "#56a64b", "orange": "#ff780a", "red": "#e02f44"}
INK, FAINT = "#24292e", "#6e7072"
WIDTH_IN_LETTERS = 84
"""How wide a graph is for the names below it, of which there are two lines at most."""


class Line(NamedTuple):
    """A series over time; NaN where there is nothing."""

    name: str
    times: list[datetime]
    values: np.ndarray


class Canvas:
    """The figure, in inches from the top left."""

    def __init__(self, height: int, times: tuple[float, float]) -> None:
        """`height` is in units of the grid, `times` are Unix times."""
        self.times = [datetime.fromtimestamp(at).astimezone() for at in times]
        self._size = (24 * COLUMN, height * UNIT)
        self.figure = Figure(figsize=self._size, facecolor="#f4f5f5")

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        """Write words."""
        wide, high = self._size
        self.figure.text(x / wide, 1 - y / high, words, **({"va": "top", "color": INK} | style))

    def frame(self, panel: Panel) -> tuple[float, float, float, float]:
        """Draw the frame and title of a panel; return left, top, width and height."""
        at, (wide, high) = panel["gridPos"], self._size
        x, y = at["x"] * COLUMN + GAP, at["y"] * UNIT + GAP
        w, h = at["w"] * COLUMN - 2 * GAP, at["h"] * UNIT - 2 * GAP
        corner = (x / wide, 1 - (y + h) / high)
        style = {"facecolor": "white", "edgecolor": "#d8d9da", "zorder": -1}
        self.figure.add_artist(Rectangle(corner, w / wide, h / high, **style))
        self.text(x + 0.1, y + 0.08, panel["title"], size=8.5, weight="bold")
        return x, y, w, h

    def axes(self, panel: Panel) -> Axes:
        """Return axes over time in the frame of a panel, with room for names below."""
        x, y, w, h = self.frame(panel)
        wide, high = self._size
        left, bottom = x + 0.62, y + h - 0.58
        place = (left / wide, 1 - bottom / high, (w - 0.75) / wide, (h - 0.95) / high)
        axes = self.figure.add_axes(place)
        zone = self.times[0].tzinfo
        axes.set_xlim(*self.times)
        axes.xaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=6, tz=zone))
        short = self.times[1] - self.times[0] < timedelta(minutes=20)
        axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S" if short else "%H:%M", tz=zone))
        axes.tick_params(length=0, labelsize=6.5, labelcolor=FAINT, pad=2)
        axes.tick_params(axis="x", pad=5)
        axes.grid(visible=True, color="#ececed", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        return axes


def draw(panels: Sequence[Panel], asked: Mapping[int, Asked], times: tuple[float, float]) -> Figure:
    """Return all panels at their places."""
    canvas = Canvas(max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels), times)
    kinds = {"row": _row, "stat": _number, "timeseries": _graph, "state-timeline": _states}
    for panel in panels:
        kinds[panel["type"]](canvas, panel, asked[panel["id"]])
    return canvas.figure


def _row(canvas: Canvas, panel: Panel, _: Asked) -> None:
    at = panel["gridPos"]
    canvas.text(GAP, (at["y"] + 0.15) * UNIT, f"⌄  {panel['title']}", size=10.5, weight="bold")


def _number(canvas: Canvas, panel: Panel, asked: Asked) -> None:
    x, y, w, h = canvas.frame(panel)
    defaults = panel["fieldConfig"]["defaults"]
    series = [one for _, answer in asked for one in answer]
    value = float(series[0]["value"][1]) if series else math.nan
    steps = [step for step in defaults["thresholds"]["steps"] if value >= (step["value"] or 0)]
    words = told(defaults["unit"], value) if math.isfinite(value) else "No data"
    style = {"ha": "center", "va": "center", "size": 19 if len(words) < 12 else 13}
    colour = NAMED[steps[-1]["color"]] if steps else FAINT
    canvas.text(x + w / 2, y + h * 0.6, words, color=colour, **style)


def _graph(canvas: Canvas, panel: Panel, asked: Asked) -> None:
    axes = canvas.axes(panel)
    lines = _lines(asked)
    defaults = panel["fieldConfig"]["defaults"]
    base: Any = 0.0
    for line, colour in zip(lines, cycle(COLOURS), strict=False):
        values = line.values
        if "stacking" in defaults["custom"]:
            values = base + np.nan_to_num(values)
            axes.fill_between(line.times, base, values, color=colour, alpha=0.4, linewidth=0)
            base = values
            values = np.where(line.values > 0, values, math.nan)
        axes.plot(line.times, values, color=colour, linewidth=1.1, label=line.name)
    if "scaleDistribution" in defaults["custom"]:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        _from_zero(axes, binary=defaults["unit"] == "bytes")
    axes.yaxis.set_major_formatter(lambda value, _: told(defaults["unit"], value))
    # Where there is no room for all names, those of the highest lines say most.
    drawn = sorted(axes.get_lines(), key=_height)
    _names(axes, drawn, [str(line.get_label()) for line in drawn])


def _height(line: Line2D) -> float:
    return -float(np.max(np.nan_to_num(line.get_ydata())))


def _from_zero(axes: Axes, *, binary: bool) -> None:
    top = max(axes.get_ylim()[1], 0.0)
    flat = all(not np.nan_to_num(line.get_ydata()).any() for line in axes.get_lines())
    axes.set_ylim(0.0, 1.0 if flat else top)
    step = 2.0 ** math.ceil(math.log2(top / 4)) if binary and top else None
    axes.yaxis.set_major_locator(MultipleLocator(step) if step else MaxNLocator(5))


def _states(canvas: Canvas, panel: Panel, asked: Asked) -> None:
    axes = canvas.axes(panel)
    words = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    lines = _lines(asked)
    for place, line in enumerate(lines):
        for value, meaning in words.items():
            upper = np.where(line.values == float(value), place + 0.4, np.nan)
            colour = NAMED[meaning["color"]]
            axes.fill_between(line.times, place - 0.4, upper, color=colour, alpha=0.75, linewidth=0)
        axes.annotate(line.name, (line.times[0], place), (4, 0), textcoords="offset points",
                      size=7, color=INK, va="center")  # fmt: skip
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_yticks([])
    axes.grid(visible=False)
    handles = [Patch(color=NAMED[meaning["color"]]) for meaning in words.values()]
    _names(axes, handles, [meaning["text"] for meaning in words.values()])


def _lines(asked: Asked) -> list[Line]:
    """Return all series that have a value, over the same times."""
    found = [(target, series) for target, answer in asked for series in answer]
    times = sorted({at for _, series in found for at, _ in series["values"]})
    dates = [datetime.fromtimestamp(at).astimezone() for at in times]
    lines = []
    for target, series in found:
        there = {at: float(value) for at, value in series["values"]}
        values = np.array([there.get(at, math.nan) for at in times])
        if np.isfinite(values).any():
            lines.append(Line(_name(target["legendFormat"], series["metric"]), dates, values))
    return lines


def _name(form: str, labels: Mapping[str, str]) -> str:
    filled = re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), form)
    return filled.strip() or "(none)"


def _names(axes: Axes, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    longest = max(map(len, labels), default=1)
    columns = max(1, min(4, WIDTH_IN_LETTERS // (longest + 6)))
    axes.legend(
        handles[: 2 * columns],
        labels[: 2 * columns],
        loc="upper left",
        bbox_to_anchor=(-0.12, -0.1),
        ncols=columns,
        columnspacing=1.0,
        labelspacing=0.25,
        handlelength=1.0,
        fontsize=6.5,
        labelcolor=INK,
        frameon=False,
    )
