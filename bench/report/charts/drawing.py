"""The look of charts: styles, the page around the panels, axes and their ticks; not what is drawn.

A cell has one colour in every chart of every run, a layer one line and marker; hollow means XLA. Only where a
chart holds the ways to run one cell, a way has a colour of its own.
"""

import math
import textwrap
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench.records.text import counted
from bench.report import formatting, labels, select
from bench.report.charts import points
from bench.report.labels import Record
from bench.timing.intervals import Interval

# Okabe and Ito's palette, told apart by all kinds of colour vision; then what is left of it and Tol's for
# the other cells, the last for those that the project does not know
COLOURS = {
    **dict(zip(labels.FAMILIES, ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#56b4e9"), strict=True)),
    "peephole_lstm": "#e69f00",
    "janet": "#882255",
    "mgu": "#44aa99",
    "gru_candidate": "#332288",
    "indrnn": "#999933",
}
_SPARE_COLOURS = ("#e69f00", "#332288", "#882255", "#999933", "#44aa99", "#661100", "#6699cc", "#888888")
_SPARE_MARKERS = ("v", "P", "X", "<", ">", "p", "h", "*")
# layer, and whether the cell is Keras' own: line, marker
_LINES = {
    ("builtin", False): ("-", "o"),
    ("rnn", True): ("-.", "^"),
    ("rnn", False): ("--", "s"),
    ("fused", False): (":", "D"),
    ("torch", False): ((0, (5, 1, 1, 1, 1, 1)), "P"),
    ("onnx", False): ((0, (1, 1)), "X"),
    ("keras2", False): ((0, (6, 2)), "v"),
    ("block", False): ((0, (3, 1, 1, 1)), "<"),
    ("keras_jax", False): ((0, (5, 2)), ">"),
    ("keras_jax", True): ((0, (5, 2, 1, 2)), ">"),
    ("keras_torch", False): ((0, (3, 2)), "d"),
    ("keras_torch", True): ((0, (3, 2, 1, 2)), "d"),
    ("static_unroll", False): ((0, (4, 1)), "h"),
    ("dynamic_unroll", False): ((0, (2, 1)), "p"),
    ("static_rnn", False): ((0, (8, 1)), "*"),
    ("dynamic_rnn", False): ((0, (8, 2, 1, 2)), "H"),
}
# what runs the steps of one cell, by layer and whether it is told to unroll: colour, line, marker; what is
# unrolled is solid
_WAYS = {
    ("builtin", False): ("#d55e00", "--", "o"),
    ("builtin", True): ("#882255", "-", "o"),
    ("rnn", False): ("#0072b2", "--", "s"),
    ("rnn", True): ("#aa4499", "-", "s"),
    ("static_unroll", False): ("#009e73", "-", "^"),
    ("dynamic_unroll", False): ("#56b4e9", "--", "v"),
    ("static_rnn", False): ("#e69f00", "-", "P"),
    ("dynamic_rnn", False): ("#332288", "--", "X"),
}

WIDTH = (
    9.0  # inches; with a file's dots an inch twice the width of a README's column, which dense screens show
)
_LINE_HEIGHT = 0.2  # inches, of small print
_LINE_LENGTH = 130  # characters of small print
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
GREY = "#606060"
MODE_NAMES = {"infer": "infer (forward)", "train": "train (forward and gradients)"}


@dataclass(frozen=True)
class Style:
    """The look of a subject; hollow where that is not by XLA."""

    colour: str
    line: Any
    marker: str
    hollow: bool = False


def style(record: Record) -> Style:
    """The style of the record's subject, by its name alone."""
    cell, layer = labels.family(record), record["layer"]
    line, marker = _LINES.get((layer, record["cell"].startswith("keras_")), ("-", "d"))
    if cell in COLOURS:
        return Style(COLOURS[cell], line, marker)
    seed = zlib.crc32(cell.encode())
    rest, colour = divmod(seed, len(_SPARE_COLOURS))
    return Style(_SPARE_COLOURS[colour], line, _SPARE_MARKERS[rest % len(_SPARE_MARKERS)])


def way_style(record: Record) -> Style:
    """The style of a way to run a cell, by its layer and options alone; other options are dotted."""
    options = set(labels.options(record)) - {"xla"}
    layer = record["layer"]
    spare = (_SPARE_COLOURS[zlib.crc32(layer.encode()) % len(_SPARE_COLOURS)], "-.", "h")
    colour, line, marker = _WAYS.get((layer, "unroll" in options), spare)
    return Style(colour, ":", "d") if options - {"unroll"} else Style(colour, line, marker)


def variant_style(drawn: Iterable[Record]) -> Callable[[Record], Style]:
    """The style where a chart holds variants of a subject, told apart by options: the first has the subject's
    own, each other one a line and a marker of its own in the subject's colour."""
    variants: dict[str, dict[tuple[str, ...], int]] = {}
    for record in drawn:
        known = variants.setdefault(record["subject"], {})
        known.setdefault(_variant(record), len(known))

    def look(record: Record) -> Style:
        number = variants[record["subject"]][_variant(record)]
        own = style(record)
        line, mark = _VARIANTS[number % len(_VARIANTS)] or (own.line, own.marker)
        return Style(own.colour, line, mark)

    return look


def _variant(record: Record) -> tuple[str, ...]:
    """The words of the options beside XLA, which a hollow marker says."""
    return tuple(word for word in labels.options(record) if word != "xla")


# of a subject's variants: line, marker; of the first those of the subject
_VARIANTS: tuple[tuple[Any, str] | None, ...] = (
    None,
    ((0, (1, 1)), "*"),
    ("-", "X"),
    ((0, (6, 1, 1, 1)), "P"),
    ((0, (10, 2)), "h"),
)


def is_xla(record: Record) -> bool:
    return bool(record["jit_compile"])


def face(record: Record, look: Style) -> str:
    """The colour within a marker or a bar: hollow means XLA."""
    return "white" if look.hollow or is_xla(record) else look.colour


# --- the page around the panels ---


def page(title: str, subtitle: str, footnotes: list[str], handles: list[Any], height: float):
    """A figure with its title, legend and footnotes, and room for panels.

    Title and legend stand above the panels and the footnotes below, in room of their own: nothing covers
    the data. `height` is the panels', in inches.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns, legend_size = _legend_columns(handles)
    legend_height = 0.1 + 0.19 * math.ceil(len(handles) / columns)
    lines = textwrap.wrap(subtitle, 120)
    above = 0.5 + 0.22 * len(lines)
    top, bottom = above + legend_height, 0.12 + _LINE_HEIGHT * len(footnotes)
    total = top + height + bottom
    layout = ConstrainedLayoutEngine(rect=(0, bottom / total, 1, height / total), w_pad=0.08)
    figure = Figure(figsize=(WIDTH, total), facecolor="white", layout=layout)
    _write(figure, 1 - 0.1 / total, title, fontsize=13, fontweight="bold")
    _write(figure, 1 - 0.4 / total, "\n".join(lines), fontsize=9, color=GREY)
    for number, line in enumerate(footnotes):
        _write(figure, (bottom - 0.03 - number * _LINE_HEIGHT) / total, line, fontsize=8, color=GREY)
    if handles:
        at = (0.006, 1 - (above - 0.1) / total)
        look: dict[str, Any] = {
            "frameon": False,
            "fontsize": legend_size,
            "borderaxespad": 0.2,
            "handlelength": 3,
        }
        figure.legend(handles=handles, ncols=columns, loc="upper left", bbox_to_anchor=at, **look)
    return figure


def _write(figure, height: float, text: str, **look: Any) -> None:
    """Text at the figure's left edge, below `height`, a share of the figure's."""
    figure.text(0.012, height, text, ha="left", va="top", **look)


def mode_panels(figure, drawn: Iterable[Record], **shared: bool) -> dict[str, Any]:
    """A panel (its axes) for each mode that is drawn."""
    modes = select.modes_of(drawn)
    all_axes = figure.subplots(1, len(modes), squeeze=False, **shared)[0]
    for mode, axes in zip(modes, all_axes, strict=True):
        axes.set_title(MODE_NAMES.get(mode, mode))
    return dict(zip(modes, all_axes, strict=True))


def _legend_columns(handles: list[Any]) -> tuple[int, int]:
    """As many columns as the longest label leaves room for, and the size of the letters, smaller where they
    would stand in one long column."""
    longest = max((len(handle.get_label()) for handle in handles), default=0)
    columns = int(WIDTH / (0.85 + 0.07 * longest))
    if columns < 2 and len(handles) > 4:
        return max(1, int(WIDTH / (0.75 + 0.062 * longest))), 8
    return max(1, min(len(handles), columns)), 9


def where(record: Record, without: Iterable[str] = ()) -> str:
    """The record's shape, but for the dimensions `without`, its dtype and its device."""
    parts = (labels.in_words(record, without=without), record["dtype"], record["device"])
    return " · ".join(str(part) for part in parts if part)


def footnotes(wanted: Sequence[Record], drawn: Sequence[Record], *more: str) -> list[str]:
    """Says what is missing from the chart, what else is to be said, and what it was measured on."""
    shown = {id(record) for record in drawn}
    missing = select.counted_reasons(record for record in wanted if id(record) not in shown)
    first = (drawn or wanted)[0]
    source = [
        str(first["machine"] or ""),
        f"TensorFlow {first['tensorflow']}" if first["tensorflow"] else "",
        f"Keras {first['keras']}" if first["keras"] else "",
        f"run {first['run_id']}" if first["run_id"] else "",
    ]
    left_out = [f"Not drawn: {', '.join(missing)}, of {counted(len(wanted), 'case')}."] if missing else []
    lines = [*left_out, *more, " · ".join(filter(None, source))]
    return [part for line in lines for part in textwrap.wrap(line, _LINE_LENGTH)]


# --- axes ---


def value_axis(axis, text: Callable[[float], str]) -> None:
    """A linear axis with units, its ticks few enough to be read."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: formatting.tick(text(value))))
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
    fitting = next((values for values in inside if len(values) <= most), inside[-1])
    return fitting[:: math.ceil(len(fitting) / most)]


def ticks_at(axis, values: Sequence[float], text: Callable[[float], str] = str) -> None:
    """Ticks at these values alone, with a line of the grid each."""
    from matplotlib.ticker import NullLocator

    axis.set_minor_locator(NullLocator())
    axis.set_ticks(values, [text(value) for value in values])
    axis.grid(True)


def log_ticks(axis, most: int, text: Callable[[float], str]) -> None:
    """Round ticks on a logarithmic axis, between its ends."""
    low, high = sorted(axis.get_view_interval())
    ticks_at(axis, round_values(low, high, most), text)


def rows(axes, names: Sequence[str], groups: Sequence[str]) -> None:
    """Rows from top to bottom, named on the left, the groups of rows apart."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    for row, (above, below) in enumerate(pairwise(groups)):
        if above != below:
            axes.axhline(row + 0.5, color="#d0d0d0", linewidth=0.8, zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.label_outer()


def joined(
    axes,
    xs: Sequence[float],
    figures: Sequence[Interval],
    records: Sequence[Record],
    look: Style,
    joined: bool = True,
) -> None:
    """Points of records with their intervals, joined by a line unless told otherwise; the first names it."""
    record = records[0]
    for x, figure, each in zip(xs, figures, records, strict=True):
        points.mark(axes, x, figure.value, each)
    exact = all(figure.low == figure.high for figure in figures)
    axes.errorbar(
        xs,
        [figure.value for figure in figures],
        yerr=None if exact else list(zip(*map(error_pair, figures), strict=True)),
        color=look.colour,
        linestyle=look.line if joined else "none",
        marker=look.marker,
        markerfacecolor=face(record, look),
        linewidth=1.4,
        markersize=4,
        capsize=4 if joined else 2,
        label=labels.series_name(record),
    )


# --- legends ---


def plain_and_xla(drawn: Iterable[Record], kind: str) -> list[Any]:
    """The legend's handles for filled and hollow, where there is XLA; `kind` is bar or dot."""
    from matplotlib.patches import Patch

    if not any(map(is_xla, drawn)):
        return []
    faces = {"plain graph": GREY, "XLA": "white"}
    if kind == "bar":
        return [Patch(facecolor=colour, edgecolor=GREY, label=name) for name, colour in faces.items()]
    return [marker(Style(GREY, "none", "o"), name, colour) for name, colour in faces.items()]


def series_handles(drawn: Iterable[Record], look_of: Callable[[Record], Style] = style) -> list[Any]:
    """The legend's handles, one a subject (and XLA)."""
    handles = {}
    for record in drawn:
        look = look_of(record)
        name = labels.series_name(record)
        handles[name] = marker(look, name, face(record, look))
    return list(handles.values())


def marker(look: Style, name: str, colour: str | None = None):
    """A legend's handle: the line and the marker, filled with `colour`, its own unless given."""
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markerfacecolor=colour or ("white" if look.hollow else look.colour),
        label=name,
    )


def subject_handle(record: Record):
    """The legend's handle of a subject whatever its options: its marker in its colour."""
    look = style(record)
    return marker(Style(look.colour, "none", look.marker), labels.label(record))


# --- helpers ---


def why_none(records: Sequence[Record]) -> str:
    """Says why none of the records has a figure; empty where one has."""
    if any(record["status"] == "ok" for record in records):
        return ""
    return ", ".join(distinct(f"{record['status']}: {record['reason']}" for record in records))


def distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def error_pair(interval: Interval) -> tuple[float, float]:
    """The lengths of an interval to both sides of its figure."""
    return interval.value - interval.low, interval.high - interval.value


def error(interval: Interval) -> list[list[float]]:
    """An interval as matplotlib wants it."""
    return [[length] for length in error_pair(interval)]
