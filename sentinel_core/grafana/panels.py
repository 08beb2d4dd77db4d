"""The house's look: panels as Grafana's SDK builds them, of one datasource, in one palette."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = options.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREY, BLUE, GREEN, ORANGE, RED = "#8e8e8e", "#3274d9", "#56a64b", "#ff9830", "#e02f44"


@dataclass(frozen=True)
class Query:
    """One line of a panel: an expression, and what its series are called."""

    expr: str
    legend: str = "__auto"
    instant: bool = False


def lines(
    title: str,
    queries: Sequence[Query],
    *,
    about: str = "",
    unit: str = "short",
    width: int = 12,
    height: int = 9,
    ends: tuple[float | None, float | None] = (None, None),
    limits: Sequence[tuple[float | None, str]] = (),
) -> timeseries.Panel:
    """Lines over time; `limits` are thresholds drawn as lines, by value and colour."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .line_width(1)
        .show_points(options.VisibilityMode.NEVER)
        .legend(common.VizLegendOptions().show_legend(True).placement(options.LegendPlacement.BOTTOM))
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
        .targets(_targets(queries))
    )
    low, high = ends
    if low is not None:
        panel.axis_soft_min(low)
    if high is not None:
        panel.axis_soft_max(high)
    if limits:
        panel.thresholds(_thresholds(limits))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED))
    return panel


def between(panel: timeseries.Panel, lower: str, upper: str) -> timeseries.Panel:
    """Fill the space between two lines, which are not drawn themselves, by the names of their series."""
    hidden = [("custom.lineWidth", 0), ("color", {"mode": "fixed", "fixedColor": BLUE})]
    panel.override_by_name(lower, _properties([*hidden, ("custom.hideFrom", _FROM_LEGEND)]))
    fill = [("custom.fillBelowTo", lower), ("custom.fillOpacity", 18), ("custom.hideFrom", _FROM_LEGEND)]
    return panel.override_by_name(upper, _properties([*hidden, *fill]))


def coloured(panel: timeseries.Panel, name: str, colour: str, *, dashed: bool = False) -> timeseries.Panel:
    """Draw the series of a name in a colour."""
    properties: list[tuple[str, object]] = [("color", {"mode": "fixed", "fixedColor": colour})]
    if dashed:
        properties.append(("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}))
    return panel.override_by_name(name, _properties(properties))


def number(
    title: str,
    query: Query,
    *,
    about: str = "",
    unit: str = "short",
    width: int = 4,
    limits: Sequence[tuple[float | None, str]] = ((None, GREEN),),
    words: Mapping[str, tuple[str, str]] = {},
) -> stat.Panel:
    """The newest value, large; `words` are texts and colours for values."""
    return (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(4)
        .graph_mode(options.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(limits))
        .mappings(_mappings(words))
        .targets(_targets([query]))
    )


def states(
    title: str, query: Query, words: Mapping[str, tuple[str, str]], *, about: str = "", width: int = 24, height: int = 8
) -> statetimeline.Panel:
    """One bar per series, coloured by value."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .span(width)
        .height(height)
        .fill_opacity(75)
        .line_width(0)
        .row_height(0.85)
        .show_value(options.VisibilityMode.NEVER)
        .legend(common.VizLegendOptions().show_legend(True).placement(options.LegendPlacement.BOTTOM))
        .mappings(_mappings(words))
        .targets(_targets([query]))
    )


def rows(
    title: str,
    queries: Sequence[Query],
    *,
    about: str = "",
    width: int = 24,
    height: int = 9,
    hide: Sequence[str] = (),
    names: Mapping[str, str] = {},
) -> table.Panel:
    """A table of the newest values: a row per label set, a column per label and query (in their order)."""
    renamed = {"Value": "Value", **names}
    organised = {"excludeByName": dict.fromkeys(["Time", "__name__", *hide], True), "renameByName": renamed}
    return (
        table.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .span(width)
        .height(height)
        .filterable(True)
        .targets(_targets(queries, table=True))
        .transformations(
            [
                model.DataTransformerConfig(id_val="merge", options={}),
                model.DataTransformerConfig(id_val="organize", options=organised),
            ]
        )
    )


def variable(
    name: str, label: str, query: str, *, regex: str = "", many: bool = False, hidden: bool = False
) -> dashboard.QueryVariable:
    """A choice that the datasource fills; with `many`, several or all of it."""
    made = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name, "qryType": 5})
        .definition(query)
        .regex(regex)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
    )
    if many:
        made.multi(True).include_all(True).all_value(".*")
        made.current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    if hidden:
        made.hide(model.VariableHide.HIDE_VARIABLE)
    return made


def page(uid: str, title: str, about: str, *, since: str = "now-6h", until: str = "now") -> dashboard.Dashboard:
    """An empty dashboard with links to its sisters."""
    sisters = dashboard.DashboardLink("Sentinel").type(model.DashboardLinkType.DASHBOARDS).tags(["sentinel"])
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["sentinel"])
        .time(since, until)
        .refresh("30s")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(sisters.as_dropdown(True).include_vars(False).keep_time(True))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Sentinel").type("prometheus"))
    )


_FROM_LEGEND = {"legend": True, "tooltip": False, "viz": False}


def _targets(queries: Sequence[Query], table: bool = False) -> list[Builder[Dataquery]]:
    targets: list[Builder[Dataquery]] = []
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend)
        target = target.instant() if table or query.instant else target.range()
        targets.append(target.format(PromQueryFormat.TABLE) if table else target)
    return targets


def _thresholds(limits: Sequence[tuple[float | None, str]]) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=value, color=colour) for value, colour in limits]
    if steps[0].value is not None:
        steps.insert(0, model.Threshold(value=None, color="transparent"))
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _mappings(words: Mapping[str, tuple[str, str]]) -> list[model.ValueMapping]:
    if not words:
        return []
    return [
        model.ValueMap(
            options={
                value: model.ValueMappingResult(text=text, color=colour, index=index)
                for index, (value, (text, colour)) in enumerate(words.items())
            }
        )
    ]


def _properties(values: Sequence[tuple[str, object]]) -> list[model.DynamicConfigValue]:
    return [model.DynamicConfigValue(id_val=name, value=value) for name, value in values]
