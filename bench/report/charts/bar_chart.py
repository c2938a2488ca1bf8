"""Charts of bars: a quantity a subject at the base shape, plain and XLA."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.report import labels, select
from bench.report.charts import drawing, points
from bench.report.labels import Record
from bench.timing.intervals import Interval


@dataclass(frozen=True)
class Quantity:
    """A quantity that bars show: its interval in a record, the axis' name, and a value's text."""

    title: str
    axis: str
    interval: Callable[[Record], Interval | None]
    text: Callable[[float], str]


def draw(quantity: Quantity, records: Sequence[Record]):
    """Horizontal bars from zero, a panel a mode, a row a subject, a bar each for plain and XLA."""
    base = select.at_base(records)
    drawn = [record for record in base if quantity.interval(record) is not None]
    if not drawn:
        return None
    subjects = {labels.label(record): labels.family(record) for record in drawn}
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
    panels = drawing.mode_panels(figure, drawn, sharex=True)
    for record in drawn:
        row = names.index(labels.label(record)) + both * (0.2 if drawing.is_xla(record) else -0.2)
        _bar(panels[record["mode"]], row, 0.36 if both else 0.56, quantity, record, longest)
    for axes in panels.values():
        axes.set_xlim(0, longest * 1.2)
        drawing.value_axis(axes.xaxis, quantity.text)
        axes.set_xlabel(quantity.axis)
        drawing.rows(axes, names, list(subjects.values()))
    return figure


def _bar(axes, row: float, height: float, quantity: Quantity, record: Record, longest: float) -> None:
    figures, look = quantity.interval(record), drawing.style(record)
    assert figures is not None
    points.mark(axes, figures.value, row, record)
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
