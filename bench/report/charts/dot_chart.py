"""Charts of dots: a figure and its interval in a row, on a logarithmic axis, a panel a mode."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.report import formatting
from bench.report.charts import drawing, points
from bench.report.charts.drawing import Style
from bench.report.labels import Record
from bench.timing.intervals import Interval

Row = tuple[str, str]  # its group, and its name within it

_HEADING = 0.26  # inches
_ROOM = 0.1  # inches, between the lanes of one row and of the next
_FAINT = 0.35  # opacity of a ratio whose interval is wider than what it finds


@dataclass(frozen=True)
class Dot:
    """A figure in a row; rows of one group stand together.

    Attributes:
        lane: of the row's lanes, from above.
    """

    row: str
    group: str
    record: Record
    figure: Interval
    lane: int = 0


@dataclass(frozen=True)
class Look:
    """The layout of a chart of dots.

    Attributes:
        row_height, lane_height: inches; a row is as high as its lanes at least.
        headings: whether the groups' names stand above their rows; else a line parts the groups.
        text: how a figure is written.
        centre: the figure that all are compared with, with a line of its own; None: there is none.
        labelled: whether the figure stands next to its dot.
        most: the end of the axis; a figure beyond it is an arrow there, and its value. None: none is.
        band: what noise is, a panel's shaded range.
        size, label_size: of a marker and of a row's name, points.
        style: of a record.
    """

    row_height: float
    lane_height: float = 0.2
    headings: bool = False
    text: Callable[[float], str] = formatting.ratio
    tick: Callable[[float], str] = lambda value: f"{value:g}×"
    centre: float | None = 1.0
    labelled: bool = True
    most: float | None = None
    band: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    size: float = 5.5
    label_size: float = 10
    style: Callable[[Record], Style] = drawing.style


@dataclass(frozen=True)
class _Places:
    """Places of rows and headings, in inches from above."""

    rows: dict[Row, tuple[float, float]]
    lanes: dict[Row, int]
    headings: dict[str, float]
    breaks: list[float]
    end: float

    def of(self, dot: Dot, lane_height: float) -> float:
        """The place of a dot."""
        row = (dot.group, dot.row)
        top, bottom = self.rows[row]
        return (top + bottom) / 2 + lane_height * (dot.lane - (self.lanes[row] - 1) / 2)

    def middle(self, row: Row) -> float:
        return sum(self.rows[row]) / 2


def draw(
    title: str,
    subtitle: str,
    axis: str,
    dots: Sequence[Dot],
    wanted: Sequence[Record],
    look: Look,
    *,
    handles: Sequence[Any] | None = None,
    rows: Sequence[Row] = (),
    at_the_end: Mapping[tuple[str, Row], str] | None = None,
    at_the_start: Mapping[tuple[str, Row], str] | None = None,
    crosses: Sequence[Dot] = (),
    notes: Sequence[str] = (),
):
    """The figure, or None where there is no dot.

    Args:
        wanted: the records that were to be drawn; what is missing is counted below the chart.
        handles: the legend's; left out: filled and hollow, where there is XLA.
        rows: all rows in order; left out: those that have a dot, as they come.
        at_the_end: texts at the right end of a row, by mode and row.
        at_the_start: texts at the left end of a row that has no dot, by mode and row.
        crosses: what has no figure, marked at the left end of its lane.
        notes: lines below the chart.
    """
    if not dots:
        return None
    drawn = [dot.record for dot in dots]
    ordered = list(rows) or drawing.distinct((dot.group, dot.row) for dot in dots)
    places = _places(ordered, [*dots, *crosses], look)
    figure = drawing.page(
        title,
        subtitle,
        drawing.footnotes(wanted, drawn, *notes),
        list(drawing.plain_and_xla(drawn, "dot") if handles is None else handles),
        height=places.end + 0.75,
    )
    low, high = _limits(dots, look)
    for mode, axes in drawing.mode_panels(figure, [*drawn, *wanted], sharex=True).items():
        _panel(axes, look, places, low, high)
        axes.set_xlabel(axis)
        if mode in look.band:
            axes.axvspan(*look.band[mode], color="#d4d4d4", zorder=0.5, linewidth=0)
        for dot in _of_mode(dots, mode):
            _dot(axes, places.of(dot, look.lane_height), dot, look)
        for dot in _of_mode(crosses, mode):
            _cross(axes, places.of(dot, look.lane_height), dot, look)
        for texts, x, shift in ((at_the_end or {}, 1, 4), (at_the_start or {}, 0.03, 4)):
            for (of_mode, row), text in texts.items():
                if text and of_mode == mode:
                    _text(axes, x, shift, places.middle(row), text)
    return figure


def _of_mode(dots: Sequence[Dot], mode: str) -> list[Dot]:
    return [dot for dot in dots if dot.record["mode"] == mode]


def _places(rows: Sequence[Row], dots: Sequence[Dot], look: Look) -> _Places:
    lanes = dict.fromkeys(rows, 1)
    for dot in dots:
        row = (dot.group, dot.row)
        lanes[row] = max(lanes[row], dot.lane + 1)
    least = max(look.row_height, 1.1 / len(rows))
    places: dict[Row, tuple[float, float]] = {}
    headings: dict[str, float] = {}
    breaks: list[float] = []
    y = 0.0
    for above, row in zip([None, *rows], rows, strict=False):
        if above is None or above[0] != row[0]:
            breaks += [y] if above else []
            if look.headings:
                headings[row[0]] = y + _HEADING / 2
                y += _HEADING
        height = max(least, _ROOM + look.lane_height * lanes[row])
        places[row] = (y, y + height)
        y += height
    return _Places(places, lanes, headings, breaks, y)


def _panel(axes, look: Look, places: _Places, low: float, high: float) -> None:
    if look.centre is not None:
        axes.axvline(look.centre, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    drawing.ticks_at(axes.xaxis, drawing.round_values(low, high, most=6), look.tick)
    axes.tick_params(axis="x", labelsize=10 if look.labelled else 8.5)
    labels = [*((places.middle(row), row[1]) for row in places.rows)]
    labels += [(y, name) for name, y in places.headings.items()]
    axes.set_yticks([y for y, _ in labels], [name for _, name in labels])
    for label in axes.get_yticklabels()[len(places.rows) :]:
        label.set_fontweight("bold")
    axes.set_ylim(places.end, 0)
    for y in places.breaks:
        axes.axhline(y, color="#d0d0d0", linewidth=0.8, zorder=0)
    if look.headings:
        for top, bottom in [*places.rows.values()][1::2]:
            axes.axhspan(top, bottom, color="#f5f5f5", zorder=0, linewidth=0)
    axes.tick_params(axis="y", length=0, labelsize=look.label_size)
    axes.label_outer()


def _dot(axes, y: float, dot: Dot, look: Look) -> None:
    """A dot with its interval, and its value on the side that looks away from the centre."""
    style = look.style(dot.record)
    points.mark(axes, min(dot.figure.value, look.most or dot.figure.value), y, dot.record)
    if look.most is not None and dot.figure.value > look.most:
        _arrow(axes, y, dot, look)
        return
    axes.errorbar(
        dot.figure.value,
        y,
        xerr=drawing.error(dot.figure) if dot.figure.low < dot.figure.high else None,
        fmt=style.marker,
        markersize=look.size,
        color=style.colour,
        markerfacecolor=drawing.face(dot.record, style),
        ecolor="black",
        elinewidth=1 if look.labelled else 0.7,
        capsize=2.5 if look.labelled else 0,
        barsabove=look.labelled,
        alpha=_FAINT if dot.figure.is_vague else None,
        gid=dot.record["case"],
    )
    if not look.labelled:
        return
    left = look.centre is not None and dot.figure.value < look.centre
    axes.annotate(
        look.text(dot.figure.value),
        (dot.figure.low if left else dot.figure.high, y),
        xytext=(-6 if left else 6, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        fontsize=8,
    )


def _arrow(axes, y: float, dot: Dot, look: Look) -> None:
    """Draws what lies beyond the axis: an arrow at its end, and the value."""
    axes.annotate(
        f"{look.text(dot.figure.value)} ▸",
        (1, y),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=8,
        color=look.style(dot.record).colour,
        gid=dot.record["case"],
    )


def _cross(axes, y: float, dot: Dot, look: Look) -> None:
    points.mark(axes, 0.015, y, dot.record, axes.get_yaxis_transform())
    axes.plot(
        [0.015],
        [y],
        "x",
        markersize=look.size - 0.5,
        color=look.style(dot.record).colour,
        transform=axes.get_yaxis_transform(),
        gid=f"missing {dot.record['case']}",
    )


def _text(axes, x: float, shift: float, y: float, text: str) -> None:
    """A text in a row, from `x`, a share of the panel's width, `shift` points to the right of it."""
    axes.annotate(
        text,
        (x, y),
        xycoords=("axes fraction", "data"),
        xytext=(shift, 0),
        textcoords="offset points",
        ha="left",
        va="center",
        fontsize=8,
        color=drawing.GREY,
    )


def _limits(dots: Sequence[Dot], look: Look) -> tuple[float, float]:
    """The ends of the axis: room for all intervals, the centre and the values next to the dots."""
    centre = [] if look.centre is None else [look.centre]
    low = min(*centre, *(dot.figure.low for dot in dots), dots[0].figure.low)
    high = max(*centre, *(dot.figure.high for dot in dots), dots[0].figure.high)
    high = min(high, look.most or high)
    room = max(high / low, 1.1)
    if not look.labelled:
        return low / room**0.04, high * room**0.04
    left = look.centre is not None and low < look.centre
    return low / room ** (0.3 if left else 0.05), high * room**0.3
