"""The cases that changed their level, in detail: a card each, its ratio above and its time below."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bench.history.canvas import (
    DASHED,
    EDGE,
    FASTER,
    GREY,
    GRID,
    HEAD,
    SLOWER,
    VERSION,
    WIDTH,
    draw_lines,
    legend,
    page,
    write,
)
from bench.history.labels import changed_versions, clean, percent, version_changes
from bench.history.step_detection import FEWEST_RUNS, Shift
from bench.history.timeline import Point, Run
from bench.report import formatting
from bench.report.charts import run_charts
from bench.report.charts.run_charts import Style
from bench.timing.intervals import Interval

MOST_CARDS = 12

# inches
_COLUMNS = 3
_CARD_WIDTH = WIDTH / _COLUMNS
_LEFT, _RIGHT = 0.58, 0.6  # of a card's panels
_NAME, _RATIO, _GAP, _TIME, _BELOW = 0.5, 0.92, 0.1, 0.5, 0.34
_CARD_HEIGHT = _NAME + _RATIO + _GAP + _TIME + _BELOW

_NARROWEST = 1.16  # of an axis, high / low: what is steady looks steady
_WIDEST_INTERVAL = 1.25  # beyond the figures, as far as the axis follows it
_TWO_DATES = 1.3  # inches that the first and the last take side by side
_LEVEL: dict[str, Any] = {"linestyle": "-", "linewidth": 2.2, "alpha": 0.6}
_MANY_RUNS = 40


@dataclass(frozen=True)
class Card:
    """All that is drawn of one case."""

    name: str
    note: str
    look: Style
    points: tuple[Point, ...]
    ratio_shifts: tuple[Shift, ...]
    time_shifts: tuple[Shift, ...]


@dataclass(frozen=True)
class Details:
    """All that is drawn of the cases that changed; `stem` is the file's path under the results, no suffix."""

    stem: Path
    title: str
    subtitle: str
    cards: tuple[Card, ...]
    footnotes: tuple[str, ...]

    def figure(self):
        """The figure."""
        return _drawn(self)


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
        draw_lines(
            self.canvas, [((self.left, self.y(figure)), (self.left + self.width, self.y(figure)))], **look
        )

    def upright(self, run: float, **look: Any) -> None:
        """A line from the panel's bottom to its top, before a run."""
        x = self.x(run - 0.5)
        draw_lines(self.canvas, [((x, self.bottom), (x, self.top))], **look)


def _drawn(chart: "Details"):
    rows = math.ceil(len(chart.cards) / _COLUMNS)
    figure, canvas = page(chart.title, chart.subtitle, chart.footnotes, rows * _CARD_HEIGHT)
    top = figure.get_figheight() - HEAD
    legend(figure, _samples())
    for number, card in enumerate(chart.cards):
        row, column = divmod(number, _COLUMNS)
        _draw_card(canvas, card, column * _CARD_WIDTH, top - row * _CARD_HEIGHT)
    return figure


def _samples() -> list[Any]:
    from matplotlib.lines import Line2D

    def sample(label: str, **look: Any) -> Line2D:
        return Line2D([], [], **{"color": GREY, "linestyle": "none", **look}, label=label)

    return [
        sample("a run: ratio to the baseline above, time of a call below", marker="o", markersize=4),
        sample("level", **_LEVEL),
        sample("slower from here", marker="^", color=SLOWER),
        sample("faster from here", marker="v", color=FASTER),
        sample("library version changed", color=VERSION, **DASHED),
    ]


def _draw_card(canvas, card: Card, left: float, top: float) -> None:
    write(canvas, left + EDGE, top, card.name, fontsize=9, fontweight="bold")
    write(canvas, left + EDGE, top - 0.155, card.note, fontsize=8, color=GREY)
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
        panel.across(value, color=GRID, linewidth=0.8, zorder=0.5)
        write(
            *(panel.canvas, panel.left - 0.05, panel.y(value), formatting.tick(text(value))),
            ha="right",
            va="center",
            fontsize=7.5,
        )
    draw_lines(
        panel.canvas,
        [((panel.left, panel.bottom), (panel.left + panel.width, panel.bottom))],
        color=GREY,
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
        panel.upright(index, color=VERSION, **DASHED)
    xs = [panel.x(run) for run in range(len(figures))]
    spans = [
        ((x, panel.y(figure.low)), (x, panel.y(figure.high))) for x, figure in zip(xs, figures, strict=True)
    ]
    draw_lines(panel.canvas, spans, color=colour, linewidth=0.8, alpha=0.45)
    draw_lines(
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
    draw_lines(panel.canvas, lines, color=colour, **_LEVEL)
    for shift in shifts:
        _mark_shift(panel, shift)
    _, _, last = levels[-1]
    at = panel.left + panel.width + 0.05
    write(
        panel.canvas, at, panel.y(last), text(last), va="center", fontsize=8, color=colour, fontweight="bold"
    )


def _mark_shift(panel: _Panel, shift: Shift) -> None:
    """A line and a triangle, up where it became slower, with the change, where the figures leave room."""
    slower = shift.change > 0
    colour = SLOWER if slower else FASTER
    panel.upright(shift.at, color=colour, linewidth=0.9)
    write(
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


def _name_versions(panel: _Panel, points: Sequence[Point]) -> None:
    """Names the new versions above the panel, where there is room for it."""
    free = -math.inf
    for index in version_changes(points):
        x = panel.x(index - 0.5)
        text = clean(changed_versions(points[index - 1].run, points[index].run), 32)
        half = len(text) * 0.03
        x_text = min(max(x, panel.left - _LEFT + EDGE + half), panel.left + panel.width + _RIGHT - half)
        if x_text - half >= free:
            write(
                panel.canvas,
                x_text,
                panel.top + 0.02,
                text,
                ha="center",
                va="bottom",
                fontsize=7,
                color=VERSION,
            )
            free = x_text + half + 0.05


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
        write(panel.canvas, x, panel.bottom - 0.04, text, ha=side, fontsize=7.5, color=GREY)
