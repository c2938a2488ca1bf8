"""A page to draw on in inches: its title, its footnotes, and text and lines between points.

One canvas holds a whole chart: axes of matplotlib's own for every panel take five times as long.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

WIDTH = 9.6  # inches
EDGE = 0.12  # inches, left and right
HEAD = 1.0  # inches, of title, subtitle and legend
LINE = 0.18  # inches, of a footnote
GREY, GRID = "#606060", "#e4e4e4"
# told apart by all kinds of colour vision, and by the triangles' direction
SLOWER, FASTER = "#b2182b", "#2166ac"
VERSION = "#8a6d00"
DASHED: dict[str, Any] = {"linestyle": (0, (3, 2)), "linewidth": 0.9}


def foot(footnotes: Sequence[str]) -> float:
    """The height of the footnotes, inches."""
    return 0.12 + LINE * len(footnotes)


def page(title: str, subtitle: str, footnotes: Sequence[str], height: float):
    """A figure and its canvas, whose units are inches.

    Args:
        height: of what is drawn between the head and the footnotes, inches.
    """
    from matplotlib.figure import Figure

    below = foot(footnotes)
    total = HEAD + height + below
    figure = Figure(figsize=(WIDTH, total), facecolor="white")
    canvas = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, total))
    canvas.set_axis_off()
    write(canvas, EDGE, total - 0.1, title, fontsize=13, fontweight="bold")
    write(canvas, EDGE, total - 0.4, subtitle, fontsize=9, color=GREY)
    for number, line in enumerate(footnotes):
        write(canvas, EDGE, below - 0.02 - number * LINE, line, fontsize=8, color=GREY)
    return figure, canvas


def legend(figure, handles: Sequence[Any]) -> None:
    """A legend below the subtitle, in one line."""
    figure.legend(
        handles=handles,
        ncols=len(handles),
        loc="upper left",
        bbox_to_anchor=(0.004, 1 - 0.58 / figure.get_figheight()),
        frameon=False,
        fontsize=8.5,
        handlelength=1.6,
        handletextpad=0.4,
        columnspacing=1.3,
        borderaxespad=0.2,
    )


def write(canvas, x: float, y: float, text: str, ha: str = "left", va: str = "top", **look: Any) -> None:
    """Writes a text at a point."""
    canvas.text(x, y, text, ha=ha, va=va, **look)


def draw_lines(canvas, lines: Iterable[tuple[tuple[float, float], ...]], **look: Any) -> None:
    """Draws lines of one look, as one path."""
    from matplotlib.lines import Line2D

    points = [point for line in lines for point in (*line, (math.nan, math.nan))]
    if points:
        canvas.add_artist(Line2D(*zip(*points, strict=True), **{"solid_capstyle": "butt", **look}))
