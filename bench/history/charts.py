"""The charts of a machine's history: one a cell and mode, in it a card for each case.

A card has the ratio to the baseline above and the time of a call below, over the runs. A chart is drawn
again only where its data changed: the digest of what is in it stands in its files.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bench.history.step_detection import FEWEST_RUNS, Shift
from bench.history.timeline import LIBRARIES, History, Machine, Point, Run, Timeline, version_changes
from bench.report import formatting, views
from bench.report.charts import run_charts
from bench.report.charts.files import SUFFIXES, save_figure
from bench.report.charts.run_charts import CHARTS_FOLDER, Style
from bench.report.views import Record
from bench.timing.intervals import Interval

_MARK = "bench history "  # before the digest in a file's metadata
_LONGEST_NAME = 60
_DRAWING = 1  # counts up with each change of this file that changes a chart

# inches
_WIDTH, _COLUMNS = 9.6, 3
_CARD_WIDTH = _WIDTH / _COLUMNS
_EDGE = 0.12
_DPI = 140
_LEFT, _RIGHT = 0.58, 0.6  # of a card's panels
_NAME, _RATIO, _GAP, _TIME, _BELOW = 0.5, 0.92, 0.1, 0.5, 0.34
_CARD_HEIGHT = _NAME + _RATIO + _GAP + _TIME + _BELOW
_HEAD, _LINE = 1.0, 0.18

_NARROWEST = 1.16  # of an axis, high / low: what is steady looks steady
_WIDEST_INTERVAL = 1.25  # beyond the figures, as far as the axis follows it
_TWO_DATES = 1.3  # inches that the first and the last take side by side
_GREY, _GRID = "#606060", "#e4e4e4"
_SLOWER, _FASTER = "#b2182b", "#2166ac"  # told apart by all kinds of colour vision, and by their direction
_VERSION = "#8a6d00"
_DASHED: dict[str, Any] = {"linestyle": (0, (3, 2)), "linewidth": 0.9}
_LEVEL: dict[str, Any] = {"linestyle": "-", "linewidth": 2.2, "alpha": 0.6}
_MANY_RUNS = 40


@dataclass(frozen=True)
class Card:
    """What is drawn of one timeline."""

    name: str
    note: str
    look: Style
    points: tuple[Point, ...]
    ratio_shifts: tuple[Shift, ...]
    time_shifts: tuple[Shift, ...]


@dataclass(frozen=True)
class Chart:
    """All that is drawn of a cell and mode; `stem` is its files' path under the results, without suffix."""

    family: str
    mode: str
    stem: Path
    title: str
    subtitle: str
    cards: tuple[Card, ...]
    footnotes: tuple[str, ...]

    @property
    def shifts(self) -> int:
        """How many level shifts of ratios it shows."""
        return sum(len(card.ratio_shifts) for card in self.cards)


def charts_of(history: History) -> list[Chart]:
    """The charts of a machine, in the order of their cells, then modes.

    A case that was measured once has no history yet; it is drawn where nothing has one.
    """
    repeated = [timeline for timeline in history.timelines if len(timeline.points) > 1]
    groups: dict[tuple[str, str], list[Timeline]] = {}
    for timeline in sorted(repeated or history.timelines, key=lambda each: views.order(each.names)[:2]):
        names = timeline.names
        groups.setdefault((views.family(names), str(names["mode"])), []).append(timeline)
    return [_chart(history, *group, timelines) for group, timelines in groups.items()]


def _chart(history: History, family: str, mode: str, timelines: list[Timeline]) -> Chart:
    shape = Counter(views.shape(timeline.names) for timeline in timelines).most_common(1)[0][0]
    at_shape = next(timeline.names for timeline in timelines if views.shape(timeline.names) == shape)
    return Chart(
        family=family,
        mode=mode,
        stem=machine_folder(history.machine) / f"{slug(family)}-{slug(mode)}",
        title=f"{clean(family)}, {clean(mode)}: ratio and time over the runs",
        subtitle=f"{views.in_words(at_shape)}, where a card names no other · "
        "thin lines: the ratio's 95% interval, the time's interquartile range",
        cards=tuple(
            _card(timeline, at_shape) for timeline in sorted(timelines, key=lambda each: _place(each, shape))
        ),
        footnotes=tuple(_footnotes(history, family, mode, timelines)),
    )


def _place(timeline: Timeline, usual: tuple) -> tuple:
    """Sorts cards: by subject, the usual shape first, then the shapes by what is another in them."""
    names, shape = timeline.names, views.shape(timeline.names)
    others = tuple(value != usual_value for value, usual_value in zip(shape, usual, strict=True))
    options = views.options(names)
    return (
        *views.order(names),
        others,
        len(options),
        options,
        shape,
        str(names["case"]),
        str(names["baseline"]),
    )


def _card(timeline: Timeline, at_shape: Record) -> Card:
    names = timeline.names
    return Card(
        clean(views.label(names)),
        clean(card_note(names, at_shape)),
        run_charts.style(names),
        timeline.points,
        timeline.ratio_shifts,
        timeline.time_shifts,
    )


def card_note(names: Record, at_shape: Record) -> str:
    """What a card says below its name: the baseline, the options, and where the shape is another."""
    return " · ".join((f"vs {baseline_name(names)}", *_differences(names, at_shape)))


def baseline_name(names: Record) -> str:
    """What people call what the case is compared with."""
    if names["case"] == names["baseline"]:
        return "itself (noise)"
    baseline = views.baseline_label(names)
    if str(names["baseline"]).endswith("-xla") and not names["jit_compile"]:
        baseline += " under XLA"
    return f"plain {baseline}" if baseline == views.label(names) else baseline


def _differences(names: Record, at_shape: Record) -> Iterator[str]:
    """The case's options, and what is another in its shape."""
    yield from ("XLA" if word == "xla" else views.option_name(word) for word in views.options(names))
    pairs = zip(views.in_words(names).split(" · "), views.in_words(at_shape).split(" · "), strict=True)
    others = [words for words, usual in pairs if words != usual]
    if len(others) > 1:  # in words they would not fit
        yield views.short_shape(names, [name for name in views.SHAPE if names[name] != at_shape[name]])
    else:
        yield from others


def _footnotes(history: History, family: str, mode: str, timelines: list[Timeline]) -> Iterator[str]:
    short = sum(not timeline.is_long_enough for timeline in timelines)
    if short:
        yield (
            f"{short} of {len(timelines)} cases have too few runs to tell a shift: it takes {FEWEST_RUNS}."
        )
    once = sum(
        (views.family(timeline.names), timeline.names["mode"]) == (family, mode)
        for timeline in history.timelines
    ) - len(timelines)
    if once:
        yield f"Not drawn: {once} measured once."
    reasons = [
        f"{count} {reason}"
        for (of_family, of_mode, reason), count in sorted(history.left_out.items())
        if (of_family, of_mode) == (family, mode)
    ]
    if reasons:
        yield f"Rows not drawn: {', '.join(reasons)}."
    yield clean(str(history.machine), 140)


def machine_folder(machine: Machine) -> Path:
    """Where a machine's charts stand under the results."""
    return Path(CHARTS_FOLDER) / slug(str(machine))


def slug(text: str) -> str:
    """A text as the name of a file: its letters and digits, and a digest where that is not all of it."""
    if re.fullmatch(r"[a-z0-9_]{1,40}", text):
        return text
    words = re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    return f"{words}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".strip("-")


def clean(text: str, longest: int = _LONGEST_NAME) -> str:
    """A text from a record as a line of a chart holds it."""
    visible = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return visible if len(visible) <= longest else visible[: longest - 1] + "…"


# --- files ---


def draw(results: Path, wanted: Iterable[Chart]) -> list[Path]:
    """Draws the charts whose files do not hold their data yet; returns the files written."""
    import matplotlib

    written = []
    for chart in wanted:
        files = [results / f"{chart.stem}{suffix}" for suffix in SUFFIXES]
        mark = _mark(chart)
        if any(_mark_in(file) != mark for file in files):
            with matplotlib.rc_context(run_charts.SETTINGS):
                _save(_drawn(chart), files, mark)
            written += files
    return written


def remove_old(results: Path, machines: Iterable[Machine], wanted: Iterable[Chart]) -> list[Path]:
    """Removes the machines' charts whose data are gone, of those that `draw` has written."""
    kept = {results / f"{chart.stem}{suffix}" for chart in wanted for suffix in SUFFIXES}
    found = (file for machine in machines for file in sorted((results / machine_folder(machine)).glob("*.*")))
    old = [file for file in found if file not in kept and file.suffix in SUFFIXES and _mark_in(file)]
    for file in old:
        file.unlink()
    return old


def _mark(chart: Chart) -> str:
    content = repr((_DRAWING, chart, run_charts.SETTINGS, _DPI)).encode()
    return _MARK + hashlib.sha256(content).hexdigest()


def _mark_in(file: Path) -> str | None:
    """The mark in a chart's file; it stands at the beginning."""
    try:
        with open(file, "rb") as opened:
            found = re.search(rb"%s[0-9a-f]{64}" % _MARK.encode(), opened.read(4096))
    except OSError:
        return None
    return found[0].decode() if found else None


def _save(figure, files: Iterable[Path], mark: str) -> None:
    """Writes the figure, with the mark in each file."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, file, dpi=_DPI, Description=mark)


# --- drawing ---
#
# A chart is drawn in inches, on one canvas: axes of matplotlib's own for every panel take five times as long.


@dataclass(frozen=True)
class _Panel:
    """A part of a card: where it stands, in inches, and the ends of its logarithmic axis."""

    canvas: Any
    left: float
    bottom: float
    height: float
    runs: int
    low: float
    high: float

    width = _CARD_WIDTH - _LEFT - _RIGHT

    @property
    def top(self) -> float:
        return self.bottom + self.height

    def x(self, run: float) -> float:
        return self.left + self.width * (run + 0.6) / (max(self.runs, FEWEST_RUNS) + 0.2)

    def y(self, figure: float) -> float:
        share = math.log(figure / self.low) / math.log(self.high / self.low)
        return self.bottom + self.height * min(max(share, 0), 1)

    def across(self, figure: float, **look: Any) -> None:
        """A line from left to right."""
        _draw_lines(
            self.canvas, [((self.left, self.y(figure)), (self.left + self.width, self.y(figure)))], **look
        )

    def upright(self, run: float, **look: Any) -> None:
        """A line from the panel's bottom to its top, before a run."""
        x = self.x(run - 0.5)
        _draw_lines(self.canvas, [((x, self.bottom), (x, self.top))], **look)


def _drawn(chart: Chart):
    """The figure of a chart."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(chart.cards) / _COLUMNS)
    below = 0.12 + _LINE * len(chart.footnotes)
    height = _HEAD + rows * _CARD_HEIGHT + below
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    canvas = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(0, height))
    canvas.set_axis_off()
    _write(canvas, _EDGE, height - 0.1, chart.title, fontsize=13, fontweight="bold")
    _write(canvas, _EDGE, height - 0.4, chart.subtitle, fontsize=9, color=_GREY)
    _legend(figure, height)
    for number, line in enumerate(chart.footnotes):
        _write(canvas, _EDGE, below - 0.02 - number * _LINE, line, fontsize=8, color=_GREY)
    for number, card in enumerate(chart.cards):
        row, column = divmod(number, _COLUMNS)
        _draw_card(canvas, card, column * _CARD_WIDTH, height - _HEAD - row * _CARD_HEIGHT)
    return figure


def _write(canvas, x: float, y: float, text: str, ha: str = "left", va: str = "top", **look: Any) -> None:
    canvas.text(x, y, text, ha=ha, va=va, **look)


def _draw_lines(canvas, lines: Iterable[tuple[tuple[float, float], ...]], **look: Any) -> None:
    """Lines of one look, as one path, between points in inches."""
    from matplotlib.lines import Line2D

    points = [point for line in lines for point in (*line, (math.nan, math.nan))]
    canvas.add_artist(Line2D(*zip(*points, strict=True), **{"solid_capstyle": "butt", **look}))


def _legend(figure, height: float) -> None:
    from matplotlib.lines import Line2D

    def sample(label: str, **look: Any) -> Line2D:
        return Line2D([], [], **{"color": _GREY, "linestyle": "none", **look}, label=label)

    handles = [
        sample("a run: ratio to the baseline above, time of a call below", marker="o", markersize=4),
        sample("level", **_LEVEL),
        sample("slower from here", marker="^", color=_SLOWER),
        sample("faster from here", marker="v", color=_FASTER),
        sample("library version changed", color=_VERSION, **_DASHED),
    ]
    figure.legend(
        handles=handles,
        ncols=len(handles),
        loc="upper left",
        bbox_to_anchor=(0.004, 1 - 0.58 / height),
        frameon=False,
        fontsize=8.5,
        handlelength=1.8,
        handletextpad=0.4,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def _draw_card(canvas, card: Card, left: float, top: float) -> None:
    _write(canvas, left + _EDGE, top, card.name, fontsize=9, fontweight="bold")
    _write(canvas, left + _EDGE, top - 0.155, card.note, fontsize=8, color=_GREY)
    ratios, times = [point.ratio for point in card.points], [point.time for point in card.points]
    above = _panel(canvas, left, top - _NAME - _RATIO, _RATIO, ratios)
    below = _panel(canvas, left, above.bottom - _GAP - _TIME, _TIME, times)
    _draw_axis(above, formatting.ratio, most=5)
    _draw_axis(below, formatting.seconds, most=4)
    if above.low < 1 < above.high:
        above.across(1, color="black", linewidth=0.8)
    _draw_figures(above, card, ratios, card.ratio_shifts, formatting.ratio)
    _draw_figures(below, card, times, card.time_shifts, formatting.seconds)
    _name_versions(above, card.points)
    _draw_dates(below, [point.run for point in card.points])


def _panel(canvas, left: float, bottom: float, height: float, figures: Sequence[Interval]) -> _Panel:
    """A panel whose axis holds all figures and what is not too wide of their intervals, and the marks."""
    values = [figure.value for figure in figures]
    low = max(min(figure.low for figure in figures), min(values) / _WIDEST_INTERVAL)
    high = min(max(figure.high for figure in figures), max(values) * _WIDEST_INTERVAL)
    room = (max(high / low, _NARROWEST) ** 1.3 / (high / low)) ** 0.5
    return _Panel(canvas, left + _LEFT, bottom, height, len(figures), low / room, high * room)


def _draw_axis(panel: _Panel, text: Callable[[float], str], most: int) -> None:
    """Grid lines at round values, named on the left."""
    for value in run_charts.round_values(panel.low, panel.high, most):
        panel.across(value, color=_GRID, linewidth=0.8, zorder=0.5)
        _write(
            *(panel.canvas, panel.left - 0.05, panel.y(value), formatting.tick(text(value))),
            ha="right",
            va="center",
            fontsize=7.5,
        )
    _draw_lines(
        panel.canvas,
        [((panel.left, panel.bottom), (panel.left + panel.width, panel.bottom))],
        color=_GREY,
        linewidth=0.8,
    )


def _draw_figures(
    panel: _Panel,
    card: Card,
    figures: Sequence[Interval],
    shifts: Sequence[Shift],
    text: Callable[[float], str],
) -> None:
    """The runs' figures with their intervals, the levels, and the marks of what changed."""
    changes, colour = version_changes(card.points), card.look.colour
    for index in changes:
        panel.upright(index, color=_VERSION, **_DASHED)
    xs = [panel.x(run) for run in range(len(figures))]
    spans = [
        ((x, panel.y(figure.low)), (x, panel.y(figure.high))) for x, figure in zip(xs, figures, strict=True)
    ]
    _draw_lines(panel.canvas, spans, color=colour, linewidth=0.8, alpha=0.45)
    _draw_lines(
        panel.canvas,
        [((x, panel.y(figure.value)),) for x, figure in zip(xs, figures, strict=True)],
        color=colour,
        linestyle="none",
        marker="o",
        markersize=3.4 if len(figures) <= _MANY_RUNS else 2.2,
        markeredgewidth=0,
    )
    levels = [
        (start, end, median(figure.value for figure in figures[start:end]))
        for start, end in pairwise(sorted({0, len(figures), *changes, *(shift.at for shift in shifts)}))
    ]
    lines = [
        ((panel.x(start - 0.4), panel.y(level)), (panel.x(end - 0.6), panel.y(level)))
        for start, end, level in levels
    ]
    _draw_lines(panel.canvas, lines, color=colour, **_LEVEL)
    for shift in shifts:
        _mark_shift(panel, shift)
    _, _, last = levels[-1]
    at = panel.left + panel.width + 0.05
    _write(
        panel.canvas, at, panel.y(last), text(last), va="center", fontsize=8, color=colour, fontweight="bold"
    )


def _mark_shift(panel: _Panel, shift: Shift) -> None:
    """A line and a triangle, up where it became slower, with the change, where the figures leave room."""
    slower = shift.change > 0
    colour = _SLOWER if slower else _FASTER
    panel.upright(shift.at, color=colour, linewidth=0.9)
    _write(
        panel.canvas,
        panel.x(shift.at - 0.5) + 0.03,
        panel.bottom + 0.03 if slower else panel.top - 0.01,
        f"{'▲' if slower else '▼'} {percent(shift.change)}",
        va="bottom" if slower else "top",
        fontsize=7.5,
        fontweight="bold",
        color=colour,
        zorder=4,
        bbox={"facecolor": "white", "alpha": 0.75, "pad": 0.5, "linewidth": 0},
    )


def percent(change: float) -> str:
    """A relative change: +15%, −4%, ±0%."""
    text = f"{change:+.0%}"
    return "±0%" if text in ("+0%", "-0%") else text.replace("-", "−")


def _name_versions(panel: _Panel, points: Sequence[Point]) -> None:
    """Names the new versions above the panel, where there is room for it."""
    free = -math.inf
    for index in version_changes(points):
        x = panel.x(index - 0.5)
        text = clean(changed_versions(points[index - 1].run, points[index].run), 32)
        half = len(text) * 0.03
        x_text = min(max(x, panel.left - _LEFT + _EDGE + half), panel.left + panel.width + _RIGHT - half)
        if x_text - half >= free:
            _write(
                panel.canvas,
                x_text,
                panel.top + 0.02,
                text,
                ha="center",
                va="bottom",
                fontsize=7,
                color=_VERSION,
            )
            free = x_text + half + 0.05


def changed_versions(before: Run, after: Run) -> str:
    """The libraries that are not the same, with their new versions."""
    pairs = zip(LIBRARIES.values(), before.versions, after.versions, strict=True)
    return ", ".join(f"{name} {new}" for name, old, new in pairs if old != new)


def _draw_dates(panel: _Panel, runs: Sequence[Run]) -> None:
    """The first and the last run's date: with the time of day if they share it, with the year if not that."""
    first, last = runs[0].time, runs[-1].time
    one_year = "%m-%d" if first.year == last.year else "%Y-%m-%d"
    form = "%m-%d %H:%M" if first.date() == last.date() else one_year
    room = panel.x(len(runs) - 0.5) - panel.x(-0.5)
    sides = {0: "left", len(runs) - 1: "right"} if room > _TWO_DATES else {0: "left"}
    for run, side in sides.items():
        x = panel.x(run + (-0.5 if side == "left" else 0.5))
        text = f"{runs[run].time:{form}}"
        _write(panel.canvas, x, panel.bottom - 0.04, text, ha=side, fontsize=7.5, color=_GREY)
