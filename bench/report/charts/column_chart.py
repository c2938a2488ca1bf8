"""Charts of columns: ratios in groups of a few columns, a panel a mode, one above the other; a line at 1."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report import select
from bench.report.charts import drawing, points
from bench.report.labels import Record
from bench.timing.intervals import Interval

Kinds = Mapping[str, Mapping[str, Any]]  # the arguments of matplotlib's `bar`, by kind

_ROOM = 0.25  # of a group's width, between two groups


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        group: what stands together.
        kind: which of the group's columns it is.
        record: names it.
        figure: its height, and the ends of its line.
    """

    group: str
    kind: str
    record: Record
    figure: Interval


def draw(
    title: str,
    subtitle: str,
    axis: str,
    columns: Sequence[Column],
    kinds: Kinds,
    wanted: Sequence[Record],
    text: Callable[[float], str],
    notes: Sequence[str] = (),
):
    """The figure, or None where there is no column.

    Args:
        axis: what the heights are.
        kinds: how each kind of column looks, in order.
        wanted: the records that were to be drawn; what is missing is counted below the chart.
        text: how a height is written.
        notes: lines below the chart.
    """
    from matplotlib.patches import Patch

    if not columns:
        return None
    drawn = [column.record for column in columns]
    present = [kind for kind in kinds if any(column.kind == kind for column in columns)]
    modes = select.modes_of(drawn)
    figure = drawing.page(
        title,
        subtitle,
        drawing.footnotes(wanted, drawn, *notes),
        [Patch(label=kind, **kinds[kind]) for kind in present],
        height=1.95 * len(modes) + 0.3,
    )
    groups = drawing.distinct(column.group for column in columns)
    for mode, axes in zip(modes, figure.subplots(len(modes), 1, squeeze=False)[:, 0], strict=True):
        axes.set_title(drawing.MODE_NAMES.get(mode, mode))
        _panel(
            axes,
            [each for each in columns if each.record["mode"] == mode],
            groups,
            {kind: kinds[kind] for kind in present},
        )
        axes.set_ylabel(axis)
        drawing.value_axis(axes.yaxis, text)
    return figure


def _panel(axes, columns: Sequence[Column], groups: Sequence[str], kinds: Kinds) -> None:
    """A mode's columns; those of a group stand close together, whether or not it has every kind."""
    order = list(kinds)
    width = (1 - _ROOM) / len(order)
    highest = max(column.figure.high for column in columns)
    for place, group in enumerate(groups):
        of_group = sorted((c for c in columns if c.group == group), key=lambda c: order.index(c.kind))
        left = place - width * (len(of_group) - 1) / 2
        for number, column in enumerate(of_group):
            _column(axes, left + number * width, width * 0.86, column, kinds[column.kind])
    axes.axhline(1, color="black", linewidth=1)
    axes.set_xticks(range(len(groups)), groups, fontsize=9)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_ylim(0, highest * 1.15)


def _column(axes, x: float, width: float, column: Column, look: Mapping[str, Any]) -> None:
    figure = column.figure
    points.mark(axes, x, figure.value, column.record)
    axes.bar(x, figure.value, width, gid=column.record["case"], **look)
    axes.errorbar(x, figure.value, yerr=drawing.error(figure), fmt="none", ecolor="black", elinewidth=1)
    axes.annotate(
        f"{figure.value:.1f}",
        (x, figure.high),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )
