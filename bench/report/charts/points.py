"""Remember which record a point of a chart is of, so that the page can name it and lead to its case."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from bench.report.labels import Record


@dataclass(frozen=True)
class Point:
    """A point of a figure, as shares of its width, from the left, and of its height, from above."""

    record: Record
    x: float
    y: float


_marked: WeakKeyDictionary[Any, list[tuple[Any, float, float, Record]]] = WeakKeyDictionary()


def mark(axes, x: float, y: float, record: Record, transform=None) -> None:
    """Says that a record's point stands at `x`, `y` of the axes' data, or in another of its transforms."""
    marked = _marked.setdefault(axes.figure, [])
    marked.append((transform or axes.transData, x, y, record))


def points_of(figure) -> list[Point]:
    """The points of a figure, once it is laid out, which writing it to a file does."""
    to_share = figure.transFigure.inverted()
    found = []
    for transform, x, y, record in _marked.get(figure, []):
        across, up = to_share.transform(transform.transform((x, y)))
        if 0 <= across <= 1 and 0 <= up <= 1:
            found.append(Point(record, float(across), float(1 - up)))
    return found
