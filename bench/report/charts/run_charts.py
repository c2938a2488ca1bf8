"""Charts of a run, as PNG and SVG, from its records alone. `CHARTS` is the one table.

How they look is said in `bench.report.charts.drawing`. What failed or was skipped is not drawn but counted
under the chart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import formatting, views
from bench.report.charts import dot_chart, drawing, sweep_charts
from bench.report.charts.drawing import SETTINGS, Style, round_values, style
from bench.report.charts.files import SUFFIXES, save_figure
from bench.report.views import Record
from bench.timing.intervals import Interval

__all__ = ["CHARTS", "CHARTS_FOLDER", "SETTINGS", "Style", "draw", "round_values", "style"]

CHARTS_FOLDER = "charts"
_DPI = 170


def draw(run_folder: Path, records: Sequence[Record]) -> list[Path]:
    """Draws every chart that the records have something for into `<run_folder>/charts/`.

    Returns:
        the files written, a PNG and an SVG a chart.
    """
    import matplotlib

    folder = Path(run_folder) / CHARTS_FOLDER
    written = []
    with matplotlib.rc_context(SETTINGS):
        for name, make in CHARTS.items():
            figure = make(records)
            if figure is not None:
                folder.mkdir(exist_ok=True)
                written += _save(figure, folder / name)
    return written


def _save(figure, stem: Path) -> list[Path]:
    """Writes a figure as PNG and SVG, the same bytes for the same figure."""
    files = [stem.with_name(f"{stem.name}{suffix}") for suffix in SUFFIXES]
    for file in files:
        save_figure(figure, file, dpi=_DPI)
    return files


# --- bars: a figure per subject, plain and XLA ---


@dataclass(frozen=True)
class Quantity:
    """What bars show: its interval in a record, the name of the axis, and how a value is written."""

    title: str
    axis: str
    interval: Callable[[Record], Interval | None]
    text: Callable[[float], str]


TIME = Quantity(
    "Wall time of a call", "time of a call (shorter is faster)", views.time_of, formatting.seconds
)
THROUGHPUT = Quantity("Throughput", "sequences / s (longer is faster)", views.throughput_of, formatting.count)


def _bars(quantity: Quantity, records: Sequence[Record]):
    """Horizontal bars from zero, a panel a mode, a row a subject, a bar each for plain and XLA."""
    base = views.at_base(views.of_any_sweep(records))
    drawn = [record for record in base if quantity.interval(record) is not None]
    if not drawn:
        return None
    subjects = {views.label(record): views.family(record) for record in drawn}
    names = list(subjects)
    both = len(drawing.distinct(map(drawing.is_xla, drawn))) > 1
    figure = drawing.page(
        f"{quantity.title} by subject" + (", plain and XLA" if both else ""),
        f"{drawing.where(drawn[0])} · bar: median, line: interquartile range",
        drawing.footnotes(base, drawn),
        drawing.plain_and_xla(drawn, "bar"),
        height=max(0.48 if both else 0.36, 1.1 / len(subjects)) * len(subjects) + 0.75,
    )
    longest = max(quantity.interval(record).high for record in drawn)  # type: ignore[union-attr]
    for mode, axes in drawing.mode_panels(figure, drawn, sharex=True).items():
        for record in drawing.of_mode(drawn, mode):
            row = names.index(views.label(record)) + both * (0.2 if drawing.is_xla(record) else -0.2)
            _bar(axes, row, 0.36 if both else 0.56, quantity, record, longest)
        axes.set_xlim(0, longest * 1.2)
        drawing.value_axis(axes.xaxis, quantity.text)
        axes.set_xlabel(quantity.axis)
        drawing.rows(axes, names, list(subjects.values()))
    return figure


def _bar(axes, row: float, height: float, quantity: Quantity, record: Record, longest: float) -> None:
    figures, look = quantity.interval(record), style(record)
    assert figures is not None
    axes.barh(
        row,
        figures.value,
        height,
        facecolor=drawing.face(record, look),
        edgecolor=look.colour,
        linewidth=1.2,
        gid=f"{record['case']}",
    )
    axes.errorbar(figures.value, row, xerr=drawing.error(figures), fmt="none", ecolor="black", elinewidth=1)
    axes.text(figures.high + longest * 0.015, row, quantity.text(figures.value), va="center", fontsize=8)


# --- ratios ---


def _ratios(records: Sequence[Record]):
    """The ratio to the baseline of each subject and mode at the base shape."""
    base = views.at_base(views.of_any_sweep(records))
    return sweep_charts.beside_baseline("Time relative to the baseline, by subject", base)


def _options(records: Sequence[Record]):
    """What each option costs each subject, against the same subject without it."""
    costs = views.option_costs(views.of_any_sweep(records))
    known = [
        dot_chart.Dot(
            f"{views.label(cost.record)}: {views.option_name(cost.option)}",
            views.label(cost.record),
            cost.record,
            cost.cost,
        )
        for cost in costs
        if cost.cost is not None
    ]
    return dot_chart.draw(
        "What an option costs: time with it, relative to without",
        f"{drawing.where(costs[0].record)} · line: 95% interval" if costs else "",
        "time with / time without: left of 1 is faster",
        known,
        [cost.record for cost in costs],
        dot_chart.Look(row_height=0.32),
    )


# --- lines: time against a dimension of the shape ---


def _lines(axis: str, records: Sequence[Record]):
    """Wall time against one dimension of the shape, a panel a mode, a line a subject."""
    line = views.along(views.of_any_sweep(records), axis)
    drawn = [record for record in line if views.time_of(record) is not None]
    if len(drawing.distinct(record[axis] for record in drawn)) < 2:
        return None
    name = views.AXES[axis]
    at = drawing.where(drawn[0], without=(axis,))
    figure = drawing.page(
        f"Wall time of a call against {name}",
        f"{at} · median and interquartile range · both axes logarithmic",
        drawing.footnotes(line, drawn),
        drawing.series_handles(drawn),
        height=3.7,
    )
    panels = drawing.mode_panels(figure, drawn, sharex=True, sharey=True)
    for mode, axes in panels.items():
        for key in drawing.distinct(map(views.series, drawing.of_mode(drawn, mode))):
            _line(axes, axis, [record for record in drawn if views.series(record) == key])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(name)
        drawing.ticks_at(axes.xaxis, sorted({int(str(record[axis])) for record in drawn}))
    for axes in panels.values():
        drawing.log_ticks(axes.yaxis, 8, lambda value: formatting.tick(formatting.seconds(value)))
        axes.label_outer()
    next(iter(panels.values())).set_ylabel("time of a call")
    return figure


def _line(axes, axis: str, points: list[Record]) -> None:
    times = [time for point in points if (time := views.time_of(point))]
    drawing.joined(axes, [float(str(point[axis])) for point in points], times, points[0], style(points[0]))


CHARTS: dict[str, Callable[[Sequence[Record]], Any]] = {
    "time": lambda records: _bars(TIME, records),
    "throughput": lambda records: _bars(THROUGHPUT, records),
    "ratio": _ratios,
    "options": _options,
    "timesteps": lambda records: _lines("timesteps", records),
    "batch_size": lambda records: _lines("batch_size", records),
    "units": lambda records: _lines("units", records),
    **sweep_charts.CHARTS,
}
