"""Fits of the sweep `scaling`: the time of a call as a + b · timesteps. Reads records only.

a is what a call costs before its first step (launching, the loop's frame), b the work of one step.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.report import views
from bench.report.views import Record
from bench.timing.intervals import Line, line

SWEEP = "scaling"
_POOR = 0.10  # of the time: beyond, a line is not how it grows


@dataclass(frozen=True)
class Fit:
    """A line through the times of one subject at one batch size and width, over the timesteps.

    Attributes:
        points: the records, shortest first, each timed.
        line: seconds, seconds a step.
    """

    points: list[Record]
    line: Line

    @property
    def record(self) -> Record:
        """What names the fit: all of it but the timesteps."""
        return self.points[0]

    @property
    def is_poor(self) -> bool:
        """Whether the line misses a point by more than a tenth, or starts below 0."""
        return self.line.worst > _POOR or self.line.start.value < 0

    @property
    def remark(self) -> str:
        """How well the line fits, in words."""
        off = f"off by at most {self.line.worst:.0%}, at {self.line.worst_x:.0f} timesteps"
        if len(self.points) == 2:
            return "two points alone: no interval"
        below = (
            "; starts below 0: a step costs more in a longer sequence" if self.line.start.value < 0 else ""
        )
        return f"poor: {off}{below}" if self.is_poor else off


def fits(records: Iterable[Record]) -> list[Fit]:
    """A fit for each subject, mode, options, batch size, features and units with two timesteps or more."""
    lines: dict[tuple, list[Record]] = {}
    for record in sorted(views.of_sweep(records, SWEEP), key=_order):
        if views.time_of(record):
            lines.setdefault(key(record), []).append(record)
    return [Fit(points, _line(points)) for points in lines.values() if len(points) > 1]


def key(record: Record) -> tuple:
    """What the points of a fit share."""
    return (*views.series(record), record["batch_size"], record["features"], record["units"])


def _line(points: list[Record]) -> Line:
    times = [time.value for point in points if (time := views.time_of(point))]
    return line([float(str(point["timesteps"])) for point in points], times)


def _order(record: Record) -> tuple:
    mode = str(record["mode"])
    return (mode, views.order(record), record["units"], record["batch_size"], record["timesteps"])
