"""Small multiples: panels in rows and columns, figures against one dimension, both axes logarithmic."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report import formatting
from bench.report.charts import drawing
from bench.report.charts.drawing import Style
from bench.report.labels import Record
from bench.timing.intervals import Interval

_MARGIN = 1.25  # beyond the outermost figures of a row of panels, as a factor


@dataclass(frozen=True)
class Point:
    """A figure in a panel; those of one series in one panel are joined.

    Attributes:
        row, column: the panel's.
        series: what its line joins.
        record: names it.
        x: where it stands.
    """

    row: str
    column: str
    series: tuple
    record: Record
    x: float
    figure: Interval


@dataclass(frozen=True)
class Look:
    """The layout of small multiples.

    Attributes:
        x_name: of what the figures stand against.
        texts: how the figures of a row of panels are written.
        style: of a record.
        joined: whether a line joins a series.
        is_faint: whether a point is shown faintly.
        height: of a panel, inches.
    """

    x_name: str
    texts: Mapping[str, Callable[[float], str]]
    style: Callable[[Record], Style] = drawing.style
    joined: bool = True
    is_faint: Callable[[Point], bool] = lambda point: False
    height: float = 1.9


def draw(
    title: str,
    subtitle: str,
    points: Sequence[Point],
    wanted: Sequence[Record],
    look: Look,
    notes: Sequence[str] = (),
    handles: Sequence[Any] = (),
) -> tuple[Any, dict[tuple[str, str], Any]]:
    """The figure, and its panels by row and column.

    Args:
        points: one at least.
        wanted: the records that were to be drawn; what is missing is counted below the chart.
        notes: lines below the chart.
        handles: of the legend, after those of the series.
    """
    rows = [row for row in look.texts if any(point.row == row for point in points)]
    columns = drawing.distinct(point.column for point in points)
    drawn = [point.record for point in points]
    figure = drawing.page(
        title,
        subtitle,
        drawing.footnotes(wanted, drawn, *notes),
        [*drawing.series_handles(drawn, look.style), *handles],
        height=look.height * len(rows) + 0.45,
    )
    all_axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey="row")
    panels = {(row, column): all_axes[r][c] for r, row in enumerate(rows) for c, column in enumerate(columns)}
    for (row, column), axes in panels.items():
        within = [point for point in points if (point.row, point.column) == (row, column)]
        _panel(axes, within, look)
        if row == rows[0]:
            axes.set_title(column)
        if row == rows[-1]:
            axes.set_xlabel(look.x_name)
    for row in rows:
        _share(row, [panels[row, column] for column in columns], points, look)
    return figure, panels


def _panel(axes, points: Sequence[Point], look: Look) -> None:
    for series in drawing.distinct(point.series for point in points):
        of_series = sorted((point for point in points if point.series == series), key=lambda point: point.x)
        first = of_series[0].record
        drawing.joined(
            axes,
            [point.x for point in of_series],
            [point.figure for point in of_series],
            [point.record for point in of_series],
            look.style(first),
            look.joined,
        )
        for point in filter(look.is_faint, of_series):
            axes.plot([point.x], [point.figure.value], marker="x", markersize=9, color="black", linewidth=0)


def _share(row: str, panels: Sequence[Any], points: Sequence[Point], look: Look) -> None:
    """The axes of a row of panels: logarithmic, their ends and ticks, and what they show."""
    of_row = [point for point in points if point.row == row]
    low = min(max(point.figure.low, point.figure.value / 4) for point in of_row)
    high = max(min(point.figure.high, point.figure.value * 4) for point in of_row)
    for axes in panels:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(low / _MARGIN, high * _MARGIN)
        drawing.ticks_at(axes.xaxis, sorted({point.x for point in points}), lambda x: f"{x:g}")
        axes.tick_params(axis="x", labelsize=8)
        drawing.log_ticks(axes.yaxis, 5, lambda value: formatting.tick(look.texts[row](value)))
        axes.label_outer()
    panels[0].set_ylabel(row)
