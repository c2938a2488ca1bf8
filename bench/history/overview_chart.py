"""The overview of a machine's history: a row a case, a column a run, the change of the ratio in colour."""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from bench.history.canvas import (
    DASHED,
    EDGE,
    FASTER,
    GREY,
    HEAD,
    SLOWER,
    VERSION,
    WIDTH,
    draw_lines,
    legend,
    page,
    write,
)
from bench.history.labels import percent
from bench.history.step_detection import SMALLEST_SHIFT

MOST_ROWS = 800  # more would be thinner than a pixel of a README's column
MOST_RUNS = 120
# of the change, relative; the colours of what lies beyond each: ColorBrewer's RdBu
STEPS = (SMALLEST_SHIFT, 0.10, 0.25)
_SLOWER_COLOURS = ("#f4a582", "#d6604d", SLOWER)
_FASTER_COLOURS = ("#92c5de", "#4393c3", FASTER)
_SAME, _NOT_MEASURED = "#e2e2e2", "#ffffff"

# inches
_LEFT, _LEFT_OF_NAMES, _RIGHT = 1.95, 4.3, 0.9
_TALLEST, _TALLEST_ROW = 8.4, 0.19
_NAMED_ROW = 0.15  # rows that are as tall have names
_LETTERS = 0.13  # the height of a name
_WIDEST_COLUMN = 0.45
_BELOW = 0.32  # the dates


@dataclass(frozen=True)
class Row:
    """A case in the overview.

    Attributes:
        group, part: the sweep that it belongs to, and within it the cell.
        name: what it is called where there is room.
        changes: for each run the ratio's change since the case's first level, relative; nan: not measured.
        mark: what is written beside it, and whether it got slower; empty for most.
    """

    group: str
    part: str
    name: str
    changes: tuple[float, ...]
    mark: str = ""
    slower: bool = False


@dataclass(frozen=True)
class Overview:
    """All that is drawn of a machine's cases; `stem` is its file's path under the results, without suffix.

    Attributes:
        runs: when each run was made.
        versions: the library versions that changed, by the number of the first run with them.
    """

    stem: Path
    title: str
    subtitle: str
    runs: tuple[datetime, ...]
    versions: tuple[tuple[int, str], ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]

    def figure(self):
        """The figure."""
        return _drawn(self)


def most_changed(blocks: Sequence[Hashable], sizes: Sequence[float]) -> list[int]:
    """The places of about `MOST_ROWS` cases: of each few neighbours in a block that of the largest size."""
    together = math.ceil(len(sizes) / MOST_ROWS)
    kept = []
    for _, members in groupby(range(len(sizes)), key=blocks.__getitem__):
        places = list(members)
        for start in range(0, len(places), together):
            kept.append(max(places[start : start + together], key=sizes.__getitem__))
    return kept


def _drawn(overview: Overview):
    height = _rows_height(len(overview.rows))
    figure, canvas = page(overview.title, overview.subtitle, overview.footnotes, height + _BELOW)
    top = figure.get_figheight() - HEAD
    step = height / len(overview.rows)
    left = _LEFT_OF_NAMES if step >= _NAMED_ROW else _LEFT
    column = min((WIDTH - left - _RIGHT) / len(overview.runs), _WIDEST_COLUMN)
    right = left + column * len(overview.runs)
    canvas.imshow(
        _colours(overview.rows),
        extent=(left, right, top - height, top),
        aspect="auto",
        interpolation="nearest",
        zorder=1,
    )
    canvas.set(xlim=(0, WIDTH), ylim=(0, figure.get_figheight()))
    _separate(canvas, overview.rows, top, step, left, right)
    _name_rows(canvas, overview.rows, top, step, left)
    _mark_rows(canvas, overview.rows, top, step, right)
    _mark_versions(canvas, overview.versions, column, left, top, height)
    _date_columns(canvas, overview.runs, column, left, top - height)
    legend(figure, _samples())
    return figure


def _rows_height(rows: int) -> float:
    return min(rows * _TALLEST_ROW, _TALLEST)


def _colours(rows: Sequence[Row]):
    """The picture, rows x runs x RGB."""
    import numpy as np
    from matplotlib.colors import to_rgb

    palette = np.array(
        [to_rgb(name) for name in (*reversed(_FASTER_COLOURS), _SAME, *_SLOWER_COLOURS, _NOT_MEASURED)]
    )
    changes = np.array([row.changes for row in rows])
    edges = [*(-step for step in reversed(STEPS)), *STEPS]
    place = np.digitize(changes, edges)
    return palette[np.where(np.isnan(changes), len(palette) - 1, place)]


def _separate(canvas, rows: Sequence[Row], top: float, step: float, left: float, right: float) -> None:
    """Draws a line above each sweep, and a lighter one above each cell."""
    for key, start, colour in (("group", EDGE, GREY), ("part", left - 0.75, "#bdbdbd")):
        starts = [first for _, first, _ in _spans(rows, key)]
        draw_lines(
            canvas,
            [((start, top - at * step), (right, top - at * step)) for at in (*starts, len(rows))],
            color=colour,
            linewidth=0.8 if key == "group" else 0.5,
            zorder=2 if key == "part" else 3,
        )


def _spans(rows: Sequence[Row], key: str) -> Iterator[tuple[str, int, int]]:
    """The name, the first row and the number of rows of each group, or of each part of one."""
    names = attrgetter("group") if key == "group" else attrgetter("group", "part")
    at = 0
    for name, members in groupby(rows, key=names):
        count = len(list(members))
        yield (name if key == "group" else name[1]), at, count
        at += count


def _name_rows(canvas, rows: Sequence[Row], top: float, step: float, left: float) -> None:
    """Names the cases where there is room for each, else the sweeps and the cells."""
    if step >= _NAMED_ROW:
        for at, row in enumerate(rows):
            write(
                *(canvas, left - 0.06, top - (at + 0.5) * step, row.name),
                ha="right",
                va="center",
                fontsize=7,
            )
        return
    for name, at, count in _spans(rows, "group"):
        if count * step >= _LETTERS:
            write(canvas, EDGE, top - at * step - 0.02, name, fontsize=8.5, fontweight="bold")
    for name, at, count in _spans(rows, "part"):
        if count * step >= _LETTERS:
            write(canvas, left - 0.06, top - at * step - 0.015, name, ha="right", fontsize=8)


def _mark_rows(canvas, rows: Sequence[Row], top: float, step: float, right: float) -> None:
    """Writes the marks on the right, none over another, each joined to its row."""
    y_free = math.inf
    for at, row in enumerate(rows):
        if row.mark:
            y_row = top - (at + 0.5) * step
            y = min(y_row, y_free)
            colour = SLOWER if row.slower else FASTER
            draw_lines(canvas, [((right, y_row), (right + 0.12, y))], color=colour, linewidth=0.8)
            write(
                *(canvas, right + 0.15, y, row.mark),
                va="center",
                fontsize=8,
                fontweight="bold",
                color=colour,
            )
            y_free = y - _LETTERS - 0.02


def _mark_versions(
    canvas, versions: Sequence[tuple[int, str]], column: float, left: float, top: float, height: float
) -> None:
    """Draws a line before each run with new library versions, and names them above where there is room."""
    free = -math.inf
    for run, text in versions:
        x = left + run * column
        draw_lines(canvas, [((x, top), (x, top - height))], color=VERSION, zorder=3, **DASHED)
        half = 0.032 * len(text)
        if x - half >= free:
            write(canvas, x, top + 0.02, text, ha="center", va="bottom", fontsize=7, color=VERSION)
            free = x + half + 0.05


def _date_columns(canvas, runs: Sequence[datetime], column: float, left: float, bottom: float) -> None:
    """Writes below the runs when they were made, as many as there is room for: a day once, then the hours."""
    free, day = -math.inf, None
    for number, time in enumerate(runs):
        x = left + (number + 0.5) * column
        if x >= free:
            text = f"{time:%H:%M}" if time.date() == day else f"{time:%m-%d}"
            write(canvas, x, bottom - 0.05, text, ha="center", fontsize=7.5, color=GREY)
            free, day = x + 0.5, time.date()


def _samples() -> list:
    """The legend: a colour a class."""
    from matplotlib.patches import Patch

    def sample(colour: str, label: str) -> Patch:
        return Patch(facecolor=colour, edgecolor="#9a9a9a", linewidth=0.5, label=label)

    return [
        *(sample(colour, f"≤ {percent(-step)}") for colour, step in reversed(_with_steps(_FASTER_COLOURS))),
        sample(_SAME, f"within {percent(STEPS[0]).replace('+', '±')}"),
        *(sample(c, f"≥ {percent(step)}") for c, step in _with_steps(_SLOWER_COLOURS)),
        sample(_NOT_MEASURED, "not measured"),
    ]


def _with_steps(colours: Sequence[str]) -> list[tuple[str, float]]:
    return list(zip(colours, STEPS, strict=True))
