"""The kinds of panels on the board, in the one way in which this board draws each."""

from collections.abc import Mapping
from typing import Any

from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    ScaleDistributionConfig,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.statetimeline import Panel as StateTimeline
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

Queries = Mapping[str, str]
"""PromQL by what its series are called; `{{label}}` in a name is the value of a label."""

State = tuple[str, str]
"""What a number means, and its colour."""
Panel = TimeSeries | Stat | StateTimeline

GOOD, FAIR, BAD = "green", "orange", "red"


def graph(
    title: str, text: str, unit: str, queries: Queries, *, stacked: bool = False, log: bool = False
) -> TimeSeries:
    """Return lines over time, three panels to a line of the board."""
    panel = _asking(TimeSeries(), title, text, queries).unit(unit).span(8).height(7)
    panel.line_width(1).fill_opacity(40 if stacked else 8).show_points(VisibilityMode.NEVER)
    panel.tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    panel.legend(
        VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    if stacked:
        panel.stacking(StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if log:
        panel.scale_distribution(ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10))
    else:
        panel.axis_soft_min(0)
    return panel


def number(
    title: str, text: str, unit: str, query: str, *, limits: Mapping[float, str] | None = None
) -> Stat:
    """Return one large number, six to a line; `limits` say from which value on it has a colour."""
    steps = [Threshold(color=GOOD), *(Threshold(v, c) for v, c in (limits or {}).items())]
    asked = Dataquery().ref_id("A").datasource(SOURCE).expr(query).instant()
    panel = Stat().title(title).description(text).datasource(SOURCE).with_target(asked)
    panel.unit(unit).span(4).height(4)
    panel.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    panel.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    return panel.graph_mode(BigValueGraphMode.NONE)


def states(title: str, text: str, queries: Queries, words: Mapping[int, State]) -> StateTimeline:
    """Return bands over time whose colours say what a gauge means."""
    results = {
        str(value): ValueMappingResult(text=text, color=color, index=place)
        for place, (value, (text, color)) in enumerate(words.items())
    }
    panel = _asking(StateTimeline(), title, text, queries).span(8).height(7)
    panel.mappings([ValueMap(options=results)]).show_value(VisibilityMode.NEVER)
    return panel.color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))


def _asking(panel: Any, title: str, text: str, queries: Queries) -> Any:
    panel.title(title).description(text).datasource(SOURCE)
    for place, (name, query) in enumerate(queries.items()):
        asked = Dataquery().ref_id(chr(ord("A") + place)).datasource(SOURCE).expr(query).range()
        panel.with_target(asked.legend_format(name))
    return panel
