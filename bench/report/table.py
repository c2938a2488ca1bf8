"""Tables as values: a caption, a header, rows of cells. The page and the READMEs write them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.records.schema import Value
from bench.report import formatting, labels, markdown, quantities, select
from bench.report.labels import Record
from bench.report.markdown import NOTHING
from bench.timing.intervals import Interval

_STRIP_WIDTH, _STRIP_EDGE = 240, 5
_STRIP_FACTORS = (1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0)  # how far a strip goes to either side of 1


@dataclass(frozen=True)
class Strip:
    """A ratio and its interval as a small drawing: positions from 0 to 240; that of a ratio of 1 is `one`."""

    one: float
    low: float
    value: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, what it sorts by where that is another, its title.

    Attributes:
        drawn: the ratio that a strip below the text shows.
        reason: of a case that did not run; the text ends with it.
    """

    text: str
    value: Value = None
    title: str = ""
    drawn: Interval | None = None
    reason: str = ""


@dataclass(frozen=True)
class Table:
    """A table: a caption, the header, and rows of cells; the first `names` columns name the row."""

    caption: str
    header: tuple[str, ...]
    rows: list[list[Cell]]
    names: int = 1

    @property
    def is_drawn(self) -> bool:
        """True where it has a ratio with a strip."""
        return any(cell.drawn for row in self.rows for cell in row)

    @property
    def strip_ends(self) -> tuple[float, float]:
        """The ends of the table's strips: they hold its ratios and 1, and nothing that is not needed."""
        ratios = [cell.drawn.value for row in self.rows for cell in row if cell.drawn]
        below, above = (
            next((factor for factor in _STRIP_FACTORS if most <= factor), _STRIP_FACTORS[-1])
            for most in (1 / min(ratios, default=1), max(ratios, default=1))
        )
        return 1 / below, above


def in_markdown(table: Table) -> str:
    """The table in Markdown, below its caption."""
    rows = [
        [_in_markdown(cell, is_name=number < table.names) for number, cell in enumerate(row)]
        for row in table.rows
    ]
    return "\n\n".join(filter(None, (table.caption, markdown.table(table.header, rows, right=table.names))))


def _in_markdown(cell: Cell, is_name: bool) -> str:
    if cell.reason:
        return f"{cell.text.removesuffix(cell.reason)}`{cell.reason}`"
    return markdown.plain(cell.text) if is_name else cell.text


def listed(
    caption: str, records: Iterable[Record], figures: Mapping[str, Callable[[Record], Cell]]
) -> list[Table]:
    """A table with a row a record: what names it, then its figures; names that are the same everywhere are
    left out. No table where there is no record."""
    rows = list(records)
    if not rows:
        return []
    names = {header: write for header, write in _NAMES.items() if header == "subject" or _varies(rows, write)}
    body = [
        [*(Cell(name(row)) for name in names.values()), *(figure(row) for figure in figures.values())]
        for row in rows
    ]
    return [Table(caption, (*names, *figures), body, names=len(names))]


def crossed(
    caption: str,
    records: Iterable[Record],
    names: Mapping[str, Callable[[Record], str]],
    cells: Callable[[Record], Mapping[str, Cell]],
    columns: Iterable[str] = (),
) -> Table:
    """A row for all records of the same names, whose cells stand in the columns that `cells` says.

    Args:
        names: what names a row, by its header.
        cells: the cells that a record gives its row, by their column; the first record of a row counts.
        columns: the columns in order; left out: as they come.
    """
    rows: dict[tuple[str, ...], dict[str, Cell]] = {}
    for record in records:
        row = rows.setdefault(tuple(name(record) for name in names.values()), {})
        row.update({column: cell for column, cell in cells(record).items() if column not in row})
    header = tuple(columns) or tuple(dict.fromkeys(column for row in rows.values() for column in row))
    return Table(
        caption,
        (*names, *header),
        [
            [*map(Cell, key), *(row.get(column, Cell(NOTHING)) for column in header)]
            for key, row in rows.items()
        ],
        names=len(names),
    )


def _varies(records: Sequence[Record], write: Callable[[Record], str]) -> bool:
    return len({write(record) for record in records}) > 1


SHAPE_HEADER = "batch · timesteps · features · units"
_NAMES: dict[str, Callable[[Record], str]] = {
    "subject": labels.label,
    "mode": lambda record: record["mode"],
    "options": labels.options_in_words,
    SHAPE_HEADER: labels.shape_in_numbers,
}


# --- cells ---


def time(record: Record | None) -> Cell:
    """The median time of a call."""
    return figure(record, quantities.time_of, formatting.seconds)


def figure(
    record: Record | None, value_of: Callable[[Record], Interval | None], write: Callable[[float], str]
) -> Cell:
    """A figure without its interval; why it is not there; nothing where there is no record."""
    if record is None:
        return Cell(NOTHING)
    found = value_of(record)
    return Cell(write(found.value), found.value) if found else why_not(record)


def ratio(record: Record | None) -> Cell:
    """The ratio to the baseline."""
    if record is None:
        return Cell(NOTHING)
    compared = quantities.compared(record)
    return interval(compared) if compared else why_not(record)


def interval(value: Interval) -> Cell:
    """A ratio with its interval, which is drawn below it."""
    return Cell(ratio_text(value), value.value, drawn=value)


def faster(times: Interval) -> Cell:
    """Makes the cell of a gain in speed, with its interval."""
    return Cell(ratio_text(times), times.value)


def why_not(record: Record) -> Cell:
    """Makes the cell that says why a record has no figure."""
    if record["status"] == "ok":
        return Cell(NOTHING)
    reason = str(record["reason"])
    return Cell(f"{record['status']}: {reason}", title=record["message"] or "", reason=reason)


def ratio_text(ratio: Interval) -> str:
    """A ratio and its interval; of one that is wider than what it finds, the ends alone."""
    if ratio.is_vague:
        return f"{formatting.ratio(ratio.low).removesuffix('×')} to {formatting.ratio(ratio.high)}"
    return f"{formatting.ratio(ratio.value)} {formatting.interval(ratio.low, ratio.high)}"


def strip(ratio: Interval, ends: tuple[float, float]) -> Strip:
    """The small drawing of a ratio, on a logarithmic axis between two ratios; they hold what lies beyond."""
    first, last = map(math.log, ends)

    def position(value: float) -> float:
        share = (math.log(value) - first) / (last - first)
        return round(_STRIP_EDGE + max(0.0, min(1.0, share)) * (_STRIP_WIDTH - 2 * _STRIP_EDGE), 1)

    verdict = "faster" if ratio.high < 1 else "slower" if ratio.low > 1 else "same"
    low, value, high = map(position, (ratio.low, ratio.value, ratio.high))
    return Strip(position(1), low, value, high, verdict)


def exact(name: str, write: Callable[[float], str]) -> Callable[[Record], Cell]:
    """Makes the cell of a column's figure, which has no interval."""
    return lambda record: figure(record, lambda each: quantities.exactly(each, name), write)


# --- what several studies show of a record ---


def _share(value: float) -> str:
    return f"{value:.1%}"


RATES: dict[str, Callable[[Record], Cell]] = {
    "GFLOP/s": exact("gflops_per_s", formatting.number),
    "of the peak": exact("roofline_fraction", _share),
    "kernel": lambda record: Cell(record["kernel"] or NOTHING),
}
PAIR: dict[str, Callable[[Record], Cell]] = {
    "time": time,
    "baseline": lambda record: Cell(labels.baseline_name(record)),
    "ratio": ratio,
}


def peak_memory(records: Iterable[Record]) -> list[Table]:
    """The cases whose peak memory was taken."""
    taken = select.sorted_by(record for record in records if record["peak_bytes"] is not None)
    figures = {"peak": exact("peak_bytes", formatting.memory)}
    return listed("Peak memory of a case, in a process of its own.", taken, figures)
