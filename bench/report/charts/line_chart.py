"""Charts of lines: a call's time against one dimension of the shape, a panel a mode, a line a subject."""

from collections.abc import Sequence

from bench.report import formatting, labels, quantities, select
from bench.report.charts import drawing
from bench.report.labels import Record


def draw(axis: str, records: Sequence[Record]):
    """Wall time against one dimension of the shape, a panel a mode, a line a subject."""
    line = select.along(records, axis)
    timed = select.framed(record for record in line if quantities.time_of(record) is not None)
    if timed[axis].nunique() < 2:
        return None
    drawn = timed["record"].tolist()
    name = labels.AXES[axis]
    at = drawing.where(drawn[0], without=(axis,))
    figure = drawing.page(
        f"Wall time of a call against {name}",
        f"{at} · median and interquartile range · both axes logarithmic",
        drawing.footnotes(line, drawn),
        drawing.series_handles(drawn),
        height=3.7,
    )
    panels = drawing.mode_panels(figure, drawn, sharex=True, sharey=True)
    for (mode, _), of_line in timed.groupby(["mode", "series"], sort=False):
        _line(panels[mode], axis, of_line["record"].tolist())
    for axes in panels.values():
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(name)
        drawing.ticks_at(axes.xaxis, sorted(timed[axis].unique().tolist()))
    for axes in panels.values():
        drawing.log_ticks(axes.yaxis, 8, lambda value: formatting.tick(formatting.seconds(value)))
        axes.label_outer()
    next(iter(panels.values())).set_ylabel("time of a call")
    return figure


def _line(axes, axis: str, records: list[Record]) -> None:
    times = [time for record in records if (time := quantities.time_of(record))]
    xs = [record[axis] for record in records]
    drawing.joined(axes, xs, times, records, drawing.style(records[0]))
