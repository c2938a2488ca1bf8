"""Charts of a run, as PNG and SVG, from its records alone. `CHARTS` is the one table.

A cell has one colour in every chart of every run, a layer one line and marker; hollow means XLA. What
failed or was skipped is not drawn but counted under the chart.
"""

import math
import textwrap
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import human, views
from bench.case import MODES
from bench.stats import Interval
from bench.views import Record

CHARTS_FOLDER = "charts"

# Okabe and Ito's palette, told apart by all kinds of colour vision; then what is left of it and Tol's for
# cells that the project does not know
COLOURS = dict(zip(views.FAMILIES, ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#56b4e9"), strict=True))
_SPARE_COLOURS = ("#e69f00", "#332288", "#882255", "#999933", "#44aa99", "#661100", "#6699cc", "#888888")
_SPARE_MARKERS = ("v", "P", "X", "<", ">", "p", "h", "*")
# layer, and whether the cell is Keras' own: line, marker
_LINES = {
    ("builtin", False): ("-", "o"),
    ("rnn", True): ("-.", "^"),
    ("rnn", False): ("--", "s"),
    ("fused", False): (":", "D"),
}

_WIDTH = 9.0  # inches; with _DPI twice the width of a README's column, which dense screens show
_DPI = 170
_LINE_HEIGHT = 0.2  # inches, of small print
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "bench",  # the ids in an SVG, else random
    "svg.fonttype": "path",  # text looks the same where the font is missing
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "text.parse_math": False,  # a cell's name is no formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "errorbar.capsize": 2.5,
}
_GREY = "#606060"
_MODE_NAMES = {"infer": "infer (forward)", "train": "train (forward and gradients)"}


@dataclass(frozen=True)
class Style:
    """How a subject is drawn."""

    colour: str
    line: Any
    marker: str


def style(record: Record) -> Style:
    """The style of the record's subject, by its name alone."""
    cell, layer = views.family(record), str(record["layer"])
    line, marker = _LINES.get((layer, str(record["cell"]).startswith("keras_")), ("-", "d"))
    if cell in COLOURS:
        return Style(COLOURS[cell], line, marker)
    seed = zlib.crc32(cell.encode())
    rest, colour = divmod(seed, len(_SPARE_COLOURS))
    return Style(_SPARE_COLOURS[colour], line, _SPARE_MARKERS[rest % len(_SPARE_MARKERS)])


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
    png, svg = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")
    figure.savefig(png, dpi=_DPI, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


# --- bars: a figure per subject, plain and XLA ---


@dataclass(frozen=True)
class Quantity:
    """What bars show: its interval in a record, the name of the axis, and how a value is written."""

    title: str
    axis: str
    interval: Callable[[Record], Interval | None]
    text: Callable[[float], str]


TIME = Quantity("Wall time of a call", "time of a call (shorter is faster)", views.time_of, human.seconds)
THROUGHPUT = Quantity("Throughput", "sequences / s (longer is faster)", views.throughput_of, human.count)


def _bars(quantity: Quantity, records: Sequence[Record]):
    """Horizontal bars from zero, a panel a mode, a row a subject, a bar each for plain and XLA."""
    base = views.at_base(records)
    drawn = [record for record in base if quantity.interval(record) is not None]
    if not drawn:
        return None
    subjects = {views.label(record): views.family(record) for record in drawn}
    names = list(subjects)
    both = len(_distinct(map(_is_xla, drawn))) > 1
    figure, panels = _figure(
        f"{quantity.title} by subject" + (", plain and XLA" if both else ""),
        f"{_where(drawn[0])} · bar: median, line: interquartile range",
        _footnotes(base, drawn),
        _plain_and_xla(drawn, "bar"),
        drawn,
        height=max(0.48 if both else 0.36, 1.1 / len(subjects)) * len(subjects) + 0.75,
        sharex=True,
    )
    longest = max(quantity.interval(record).high for record in drawn)  # type: ignore[union-attr]
    for mode, axes in panels.items():
        for record in _of_mode(drawn, mode):
            row = names.index(views.label(record)) + both * (0.2 if _is_xla(record) else -0.2)
            _bar(axes, row, 0.36 if both else 0.56, quantity, record, longest)
        axes.set_xlim(0, longest * 1.2)
        _value_axis(axes.xaxis, quantity.text)
        axes.set_xlabel(quantity.axis)
        _rows(axes, names, list(subjects.values()))
    return figure


def _bar(axes, row: float, height: float, quantity: Quantity, record: Record, longest: float) -> None:
    figures, look = quantity.interval(record), style(record)
    assert figures is not None
    axes.barh(
        row,
        figures.value,
        height,
        facecolor="white" if _is_xla(record) else look.colour,
        edgecolor=look.colour,
        linewidth=1.2,
        gid=f"{record['case']}",
    )
    axes.errorbar(figures.value, row, xerr=_error(figures), fmt="none", ecolor="black", elinewidth=1)
    axes.text(figures.high + longest * 0.015, row, quantity.text(figures.value), va="center", fontsize=8)


# --- dots: a ratio and its interval per row, beside a line at 1 ---


@dataclass(frozen=True)
class _Dot:
    """A ratio in a row of a chart of ratios; rows of one group stand together."""

    row: str
    group: str
    record: Record
    ratio: Interval


def _ratios(records: Sequence[Record]):
    """The ratio to the baseline of each subject and mode at the base shape."""
    base = views.at_base(records)
    dots = [
        _Dot(_against(record), views.family(record), record, ratio)
        for record in base
        if (ratio := views.compared(record)) is not None
    ]
    return _dots(
        "Time relative to the baseline, by subject",
        "time / baseline's time: left of 1 is faster",
        dots,
        base,
        row_height=0.5,
    )


def _against(record: Record) -> str:
    """The name of a row that compares; a built-in is compared with itself, which shows the noise."""
    name, baseline = views.label(record), views.baseline_label(record)
    return f"{name}\nvs {'itself (noise)' if name == baseline else baseline}"


def _options(records: Sequence[Record]):
    """What each option costs each subject, against the same subject without it."""
    costs = views.option_costs(records)
    dots = [
        _Dot(
            f"{views.label(cost.record)}: {views.option_name(cost.option)}",
            views.label(cost.record),
            cost.record,
            cost.cost,
        )
        for cost in costs
        if cost.cost is not None
    ]
    return _dots(
        "What an option costs: time with it, relative to without",
        "time with / time without: left of 1 is faster",
        dots,
        [cost.record for cost in costs],
        row_height=0.32,
    )


def _dots(title: str, axis: str, dots: list[_Dot], wanted: Sequence[Record], row_height: float):
    """Dots with their intervals on a logarithmic axis of ratios, a panel a mode."""
    if not dots:
        return None
    drawn = [dot.record for dot in dots]
    groups = {dot.row: dot.group for dot in dots}
    rows = list(groups)
    both = len(_distinct(map(_is_xla, drawn))) > 1
    figure, panels = _figure(
        title,
        f"{_where(drawn[0])} · line: 95% interval",
        _footnotes(wanted, drawn),
        _plain_and_xla(drawn, "dot"),
        drawn,
        height=max(row_height, 1.1 / len(rows)) * len(rows) + 0.75,
        sharex=True,
    )
    for mode, axes in panels.items():
        axes.axvline(1, color="black", linewidth=1)
        for dot in dots:
            if dot.record["mode"] == mode:
                _dot(axes, rows.index(dot.row) + both * (0.2 if _is_xla(dot.record) else -0.2), dot)
        axes.set_xscale("log")
        low, high = _ratio_limits(dots)
        axes.set_xlim(low, high)
        _ticks_at(axes.xaxis, round_values(low, high, most=6), lambda value: f"{value:g}×")
        axes.set_xlabel(axis)
        _rows(axes, rows, list(groups.values()))
    return figure


def _dot(axes, row: float, dot: _Dot) -> None:
    """A dot with its interval, and its value on the side that looks away from the line at 1."""
    look = style(dot.record)
    axes.errorbar(
        dot.ratio.value,
        row,
        xerr=_error(dot.ratio),
        fmt=look.marker,
        markersize=5.5,
        color=look.colour,
        markerfacecolor="white" if _is_xla(dot.record) else look.colour,
        ecolor="black",
        elinewidth=1,
        barsabove=True,
        gid=str(dot.record["case"]),
    )
    faster = dot.ratio.value < 1
    axes.annotate(
        human.ratio(dot.ratio.value),
        (dot.ratio.low if faster else dot.ratio.high, row),
        xytext=(-6 if faster else 6, 0),
        textcoords="offset points",
        ha="right" if faster else "left",
        va="center",
        fontsize=8,
    )


def _ratio_limits(dots: list[_Dot]) -> tuple[float, float]:
    """The ends of the axis: room for all intervals, the line at 1 and the values beside the dots."""
    low, high = min(1, *(dot.ratio.low for dot in dots)), max(1, *(dot.ratio.high for dot in dots))
    room = max(high / low, 1.1)
    return low / room ** (0.25 if low < 1 else 0.05), high * room**0.25


# --- lines: time against a dimension of the shape ---


def _lines(axis: str, records: Sequence[Record]):
    """Wall time against one dimension of the shape, a panel a mode, a line a subject."""
    line = views.along(records, axis)
    drawn = [record for record in line if views.time_of(record) is not None]
    if len(_distinct(record[axis] for record in drawn)) < 2:
        return None
    name = views.AXES[axis]
    figure, panels = _figure(
        f"Wall time of a call against {name}",
        f"{_where(drawn[0], without=axis)} · median and interquartile range · both axes logarithmic",
        _footnotes(line, drawn),
        _subject_handles(drawn),
        drawn,
        height=3.7,
        sharex=True,
        sharey=True,
    )
    for mode, axes in panels.items():
        for key in _distinct(map(views.series, _of_mode(drawn, mode))):
            _line(axes, axis, [record for record in drawn if views.series(record) == key])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(name)
        _ticks_at(axes.xaxis, sorted({int(str(record[axis])) for record in drawn}))
    for axes in panels.values():
        low, high = axes.get_ylim()
        values = round_values(low, high, most=8)
        _ticks_at(axes.yaxis, values, lambda value: human.tick(human.seconds(value)))
        axes.label_outer()
    next(iter(panels.values())).set_ylabel("time of a call")
    return figure


def _line(axes, axis: str, points: list[Record]) -> None:
    look, times = style(points[0]), [views.time_of(point) for point in points]
    axes.errorbar(
        [point[axis] for point in points],
        [time.value for time in times if time],
        yerr=list(zip(*(_error_pair(time) for time in times if time), strict=True)),
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markerfacecolor="white" if _is_xla(points[0]) else look.colour,
        linewidth=1.4,
        markersize=4,
        capsize=4,
        label=_series_name(points[0]),
    )


# --- the page around the panels ---


def _figure(
    title: str,
    subtitle: str,
    footnotes: list[str],
    handles: list[Any],
    drawn: Sequence[Record],
    height: float,
    **shared: bool,
):
    """A figure with its title, legend and footnotes, and a panel (its axes) for each mode that is drawn.

    Title and legend stand above the panels and the footnotes below, in room of their own: nothing covers
    the data. `height` is the panels', in inches.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = _legend_columns(handles)
    legend_height = 0.1 + 0.19 * math.ceil(len(handles) / columns)
    top, bottom = 0.72 + legend_height, 0.12 + _LINE_HEIGHT * len(footnotes)
    total = top + height + bottom
    layout = ConstrainedLayoutEngine(rect=(0, bottom / total, 1, height / total), w_pad=0.08)
    figure = Figure(figsize=(_WIDTH, total), facecolor="white", layout=layout)
    _write(figure, 1 - 0.1 / total, title, fontsize=13, fontweight="bold")
    _write(figure, 1 - 0.4 / total, subtitle, fontsize=9, color=_GREY)
    for number, line in enumerate(footnotes):
        _write(figure, (bottom - 0.03 - number * _LINE_HEIGHT) / total, line, fontsize=8, color=_GREY)
    if handles:
        at = (0.006, 1 - 0.62 / total)
        look: dict[str, Any] = {"frameon": False, "fontsize": 9, "borderaxespad": 0.2, "handlelength": 3}
        figure.legend(handles=handles, ncols=columns, loc="upper left", bbox_to_anchor=at, **look)
    return figure, _panels(figure, drawn, shared)


def _write(figure, height: float, text: str, **look: Any) -> None:
    """A line of text at the figure's left edge, below `height`, a share of the figure's."""
    figure.text(0.012, height, text, ha="left", va="top", **look)


def _panels(figure, drawn: Sequence[Record], shared: dict[str, bool]) -> dict[str, Any]:
    present = _distinct(str(record["mode"]) for record in drawn)
    modes = sorted(present, key=lambda mode: MODES.index(mode) if mode in MODES else len(MODES))
    all_axes = figure.subplots(1, len(modes), squeeze=False, **shared)[0]
    for mode, axes in zip(modes, all_axes, strict=True):
        axes.set_title(_MODE_NAMES.get(mode, mode))
    return dict(zip(modes, all_axes, strict=True))


def _legend_columns(handles: list[Any]) -> int:
    """As many columns as the longest label leaves room for."""
    longest = max((len(handle.get_label()) for handle in handles), default=0)
    return max(1, min(len(handles), int(_WIDTH / (0.85 + 0.07 * longest))))


def _where(record: Record, without: str | None = None) -> str:
    parts = (views.in_words(record, without=without), record["dtype"], record["device"])
    return " · ".join(str(part) for part in parts if part)


def _footnotes(wanted: Sequence[Record], drawn: Sequence[Record]) -> list[str]:
    """What is missing from the chart, and what it was measured on."""
    missing = views.counted_reasons(record for record in wanted if record not in drawn)
    first = drawn[0]
    source = [
        str(first["machine"] or ""),
        f"TensorFlow {first['tensorflow']}" if first["tensorflow"] else "",
        f"Keras {first['keras']}" if first["keras"] else "",
        f"run {first['run_id']}" if first["run_id"] else "",
    ]
    lines = [f"Not drawn: {', '.join(missing)}, of {len(wanted)} cases."] if missing else []
    return [*lines, *textwrap.wrap(" · ".join(filter(None, source)), 130)]


def _rows(axes, names: Sequence[str], groups: Sequence[str]) -> None:
    """Rows from top to bottom, named on the left, the groups of rows apart."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    for row, (above, below) in enumerate(pairwise(groups)):
        if above != below:
            axes.axhline(row + 0.5, color="#d0d0d0", linewidth=0.8, zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.label_outer()


def _value_axis(axis, text: Callable[[float], str]) -> None:
    """A linear axis with units, its ticks few enough to be read."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: human.tick(text(value))))
    axis.grid(True)


def round_values(low: float, high: float, most: int) -> list[float]:
    """Round values for a logarithmic axis, at most `most`: 0.8, 0.9, 1, 1.1 or 0.5, 1, 2, 5, 10."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for step in (10.0**first * digit for digit in (0.05, 0.1, 0.2, 0.5, 1, 2)):
        if high / step - low / step < most:
            return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    ladders = (
        [digit * 10.0**decade for decade in range(first, last + 1) for digit in digits]
        for digits in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,))
    )
    inside = [[value for value in ladder if low <= value <= high] for ladder in ladders]
    return next((values for values in inside if len(values) <= most), inside[-1])


def _ticks_at(axis, values: Sequence[float], text: Callable[[float], str] = str) -> None:
    from matplotlib.ticker import NullLocator

    axis.set_minor_locator(NullLocator())
    axis.set_ticks(values, [text(value) for value in values])
    axis.grid(True)


def _plain_and_xla(drawn: Sequence[Record], kind: str) -> list[Any]:
    """The legend's handles for filled and hollow, where there is XLA."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if not any(map(_is_xla, drawn)):
        return []
    faces = {"plain graph": _GREY, "XLA": "white"}
    if kind == "bar":
        return [Patch(facecolor=face, edgecolor=_GREY, label=name) for name, face in faces.items()]
    return [
        Line2D([], [], marker="o", linestyle="none", color=_GREY, markerfacecolor=face, label=name)
        for name, face in faces.items()
    ]


def _subject_handles(drawn: Sequence[Record]) -> list[Any]:
    """The legend's handles, one a subject (and XLA)."""
    from matplotlib.lines import Line2D

    handles = {}
    for record in drawn:
        look, name = style(record), _series_name(record)
        face = "white" if _is_xla(record) else look.colour
        handles[name] = Line2D(
            [],
            [],
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markerfacecolor=face,
            label=name,
        )
    return list(handles.values())


def _series_name(record: Record) -> str:
    return views.label(record) + (", XLA" if _is_xla(record) else "")


def _is_xla(record: Record) -> bool:
    return bool(record["jit_compile"])


def _of_mode(records: Iterable[Record], mode: str) -> list[Record]:
    return [record for record in records if record["mode"] == mode]


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _error_pair(interval: Interval) -> tuple[float, float]:
    return interval.value - interval.low, interval.high - interval.value


def _error(interval: Interval) -> list[list[float]]:
    """An interval as matplotlib wants it."""
    return [[length] for length in _error_pair(interval)]


CHARTS: dict[str, Callable[[Sequence[Record]], Any]] = {
    "time": lambda records: _bars(TIME, records),
    "throughput": lambda records: _bars(THROUGHPUT, records),
    "ratio": _ratios,
    "options": _options,
    "timesteps": lambda records: _lines("timesteps", records),
    "batch_size": lambda records: _lines("batch_size", records),
    "units": lambda records: _lines("units", records),
}
