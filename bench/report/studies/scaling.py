"""Study of the sweep `scaling`: how does time grow with batch, timesteps and units?

A call's time is fitted as a + b · timesteps: a is what a call costs before its first step (launching, the
loop's frame), b the work of one step.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.records.text import counted
from bench.report import formatting, labels, quantities, select, table
from bench.report.charts import drawing, grid_chart
from bench.report.charts.grid_chart import Point
from bench.report.labels import Record
from bench.report.markdown import NOTHING
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Cell, Table
from bench.timing.intervals import Interval, Line, line

SWEEP = "scaling"


# --- the fits ---


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
        """The record that names the fit; its timesteps aside."""
        return self.points[0]

    @property
    def is_poor(self) -> bool:
        """True where the line misses a point by more than a tenth, or starts below 0."""
        return self.line.worst > _POOR or self.line.start.value < 0

    @property
    def remark(self) -> str:
        """Says how well the line fits."""
        off = f"off by at most {self.line.worst:.0%}, at {self.line.worst_x:.0f} timesteps"
        if len(self.points) == 2:
            return "two points alone: no interval"
        below = (
            "; starts below 0: a step costs more in a longer sequence" if self.line.start.value < 0 else ""
        )
        return f"poor: {off}{below}" if self.is_poor else off


def fits(records: Iterable[Record]) -> list[Fit]:
    """A fit for each subject, mode, options, batch size, features and units with two timesteps or more."""
    frame = select.framed(records)
    timed = frame[frame["median_s"].notna()].sort_values(
        ["mode", "order", "units", "batch_size", "timesteps"], kind="stable"
    )
    lines = timed.groupby(["series", "batch_size", "features", "units"], sort=False)
    return [
        Fit(points["record"].tolist(), line(points["timesteps"].tolist(), points["median_s"].tolist()))
        for _, points in lines
        if len(points) > 1
    ]


# --- tables ---


def fit_tables(records: Records) -> list[Table]:
    """The fits: one table to read, a column a batch size, and one with every interval."""
    known = fits(records)
    return [_fits_by_batch(known), _fits_in_full(known)] if known else []


def fit_by_batch(records: Records) -> list[Table]:
    """The first of the tables of `scaling`."""
    return fit_tables(records)[:1]


def _fits_by_batch(known: Sequence[Fit]) -> Table:
    batches = sorted({fit.record["batch_size"] for fit in known})
    found = {(_row_of(fit), fit.record["batch_size"]): fit for fit in known}
    rows = [
        [*map(Cell, row), *(_fit_cell(found.get((row, batch))) for batch in batches)]
        for row in dict.fromkeys(map(_row_of, known))
    ]
    header = ("subject", "mode", "units", *(f"batch {batch}" for batch in batches))
    caption = (
        "Time of a call as a + b · timesteps: a, what a call costs before its first step, and b, the work of "
        "one step. ≠: poor, the line misses a point by more than 10% or starts below 0."
    )
    return Table(caption, header, rows, names=3)


def _row_of(fit: Fit) -> tuple[str, str, str]:
    subject = ", ".join((labels.label(fit.record), *map(labels.option_name, labels.options(fit.record))))
    return subject, fit.record["mode"], str(fit.record["units"])


def _fit_cell(fit: Fit | None) -> Cell:
    if fit is None:
        return Cell(NOTHING)
    start, slope = (formatting.seconds(each.value) for each in (fit.line.start, fit.line.slope))
    return Cell(f"{'≠ ' * fit.is_poor}{start} + {slope} · t", fit.line.slope.value, fit.remark)


def _fits_in_full(known: Sequence[Fit]) -> Table:
    rows = [
        [
            *map(Cell, _row_of(fit)),
            Cell(str(fit.record["batch_size"]), fit.record["batch_size"]),
            _seconds(fit.line.start),
            _seconds(fit.line.slope),
            Cell(fit.remark),
        ]
        for fit in known
    ]
    header = ("subject", "mode", "units", "batch", "a, a call", "b, a step", "how well it fits")
    features = counted(known[0].record["features"], "feature")
    caption = f"Time of a call as a + b · timesteps, with 95% intervals, at {features}."
    return Table(caption, header, rows, names=4)


def _seconds(value: Interval) -> Cell:
    low, high = formatting.seconds(value.low), formatting.seconds(value.high)
    between = "" if value.low == value.high else f" [{low}, {high}]"
    return Cell(f"{formatting.seconds(value.value)}{between}", value.value)


# --- charts ---


def _times_chart(records: Records):
    """Times against timesteps, a row a mode and width, a column a batch size; the lines are the fits."""
    swept = records
    points = _surface(swept, quantities.time_of)
    if not points:
        return None
    known = fits(swept)
    poor = [fit for fit in known if fit.is_poor]
    figure, panels = grid_chart.draw(
        "How time grows with batch, timesteps and units",
        f"{_at_features(swept[0])} · points: median time of a call · lines: the fit a + b · timesteps · "
        "all axes logarithmic",
        points,
        swept,
        grid_chart.Look("timesteps", _every_row(points, formatting.seconds), joined=False, height=1.55),
        notes=_poor_words(poor, known),
    )
    for fit in known:
        place = _place(fit.record)
        look = drawing.style(fit.record)
        steps = [record["timesteps"] for record in fit.points]
        xs = [steps[0] * (steps[-1] / steps[0]) ** (n / 30) for n in range(31)]
        above = [(x, fit.line.at(x)) for x in xs if fit.line.at(x) > 0]
        panels[place].plot(*zip(*above, strict=True), color=look.colour, linewidth=1.1, linestyle=look.line)
    return figure


def _poor_words(poor: Sequence[Fit], known: Sequence[Fit]) -> list[str]:
    if not poor:
        return [f"{counted(len(known), 'fit')}, all within 10% of the points."] if known else []
    worst = max(poor, key=lambda fit: fit.line.worst)
    place = f"{labels.series_name(worst.record)}, {worst.record['mode']}, batch {worst.record['batch_size']}"
    are = f"{len(poor)} of {counted(len(known), 'fit')} {'is' if len(known) == 1 else 'are'} poor"
    return [
        f"{are}: off by more than 10%, or starting below 0; the worst is {place}, "
        f"{counted(worst.record['units'], 'unit')}: {worst.line.worst:.0%} at {worst.line.worst_x:.0f} steps."
    ]


def _memory_chart(records: Records):
    """Peak memory against timesteps, as `scaling` has the times."""
    swept = records
    points = _surface(swept, lambda record: quantities.exactly(record, "peak_bytes"))
    if not points:
        return None
    figure, _ = grid_chart.draw(
        "How memory grows with batch, timesteps and units",
        f"{_at_features(swept[0])} · peak memory of a case, in a process of its own · all axes logarithmic",
        points,
        swept,
        grid_chart.Look("timesteps", _every_row(points, formatting.memory), height=1.55),
    )
    return figure


def _fit_chart(records: Records):
    """The time before the first step, and that of a step, against the batch size."""
    known = fits(records)
    points = [
        Point(
            row,
            counted(fit.record["units"], "unit"),
            select.series(fit.record),
            fit.record,
            _batch(fit),
            figure,
        )
        for fit in known
        for row, figure in _parts(fit)
    ]
    if not points:
        return None
    poor = {id(fit.record) for fit in known if fit.is_poor}
    rows = [f"{mode}\n{part}" for mode in select.modes_of(fit.record for fit in known) for part in _PARTS]
    figure, _ = grid_chart.draw(
        "Overhead of a call and work of a step",
        f"{_at_features(known[0].record)} · a call's time fitted as a + b · timesteps, 95% intervals · "
        "crossed out: poor, and its a not drawn",
        points,
        [],
        grid_chart.Look(
            "batch size",
            dict.fromkeys(rows, formatting.seconds),
            is_faint=lambda point: id(point.record) in poor,
            height=1.75,
        ),
        notes=_poor_words([fit for fit in known if fit.is_poor], known),
    )
    return figure


_PARTS = ("a: before the first step", "b: a step")


def _parts(fit: Fit) -> list[tuple[str, Interval]]:
    """The parts of a fit to draw; where a line is not how time grows, its start says nothing."""
    rows = [f"{fit.record['mode']}\n{part}" for part in _PARTS]
    drawn = list(zip(rows, (fit.line.start, fit.line.slope), strict=True))
    return drawn[1:] if fit.is_poor else drawn


def _batch(fit: Fit) -> float:
    return fit.record["batch_size"]


def _surface(records: Iterable[Record], figure_of: Callable[[Record], Interval | None]) -> list[Point]:
    ordered = sorted(records, key=lambda record: (labels.order(record), record["batch_size"]))
    found = [
        Point(*_place(record), select.series(record), record, record["timesteps"], figure)
        for record in ordered
        if (figure := figure_of(record)) is not None
    ]
    return sorted(found, key=lambda point: point.record["batch_size"])


def _place(record: Record) -> tuple[str, str]:
    return f"{record['mode']}\n{counted(record['units'], 'unit')}", f"batch {record['batch_size']}"


def _every_row(points: Sequence[Point], text: Callable[[float], str]) -> dict[str, Callable[[float], str]]:
    rows = {point.row: point.record for point in points}
    ordered = sorted(rows, key=lambda row: (str(rows[row]["mode"]), int(str(rows[row]["units"]))))
    return dict.fromkeys(ordered, text)


def _at_features(record: Record) -> str:
    return drawing.where(record, without=("batch_size", "timesteps", "units"))


STUDY = Study(
    without="The run has no fit: measure the sweep `scaling`.",
    sweeps=(SWEEP,),
    charts=(
        Chart(
            "scaling",
            "How does time grow with batch, timesteps and units?",
            _times_chart,
            fit_by_batch,
        ),
        Chart(
            "scaling_fit",
            "What does a call cost before its first step, and what does a step cost?",
            _fit_chart,
            lambda records: fit_tables(records)[1:],
        ),
        Chart("scaling_memory", "How does memory grow?", _memory_chart, table.peak_memory),
    ),
    blocks={"scaling_fit": fit_by_batch},
)
