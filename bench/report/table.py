"""Tables as values: a caption, a header, rows of cells. The page and the READMEs write them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.records.schema import Value
from bench.report import formatting, markdown, views
from bench.report.markdown import NOTHING
from bench.report.views import Record
from bench.timing.intervals import Interval

_LINE_AT_ONE, _STRIP_WIDTH, _STRIP_FACTOR = 60, 120, 4  # a strip goes from a quarter to four times


@dataclass(frozen=True)
class Strip:
    """A ratio and its interval as a small drawing: positions from 0 to 120, the line at 1 in the middle."""

    low: float
    value: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, what it sorts by where that is another, the title, the strip beside it.

    Attributes:
        reason: of a case that did not run; the text ends with it.
    """

    text: str
    value: Value = None
    title: str = ""
    strip: Strip | None = None
    reason: str = ""


@dataclass(frozen=True)
class Table:
    """A table: a caption, the header, and rows of cells; the first `names` columns name the row."""

    caption: str
    header: tuple[str, ...]
    rows: list[list[Cell]]
    names: int = 1


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
) -> Table | None:
    """A row a record: what names it, then its figures; names that are the same everywhere are left out."""
    rows = list(records)
    if not rows:
        return None
    names = {header: write for header, write in _NAMES.items() if header == "subject" or _varies(rows, write)}
    return Table(
        caption,
        (*names, *figures),
        [
            [*(Cell(name(row)) for name in names.values()), *(figure(row) for figure in figures.values())]
            for row in rows
        ],
        names=len(names),
    )


def _varies(records: Sequence[Record], write: Callable[[Record], str]) -> bool:
    return len({write(record) for record in records}) > 1


def options_in_words(record: Record) -> str:
    """The options that are not the default, as one writes them in Python."""
    return ", ".join(map(views.option_name, views.options(record))) or NOTHING


def shape_in_numbers(record: Record) -> str:
    return " · ".join(str(size) for size in views.shape(record))


SHAPE_HEADER = "batch · timesteps · features · units"
_NAMES: dict[str, Callable[[Record], str]] = {
    "subject": views.label,
    "mode": lambda record: str(record["mode"]),
    "options": options_in_words,
    SHAPE_HEADER: shape_in_numbers,
}


# --- cells ---


def time(record: Record | None) -> Cell:
    """The median time of a call."""
    return figure(record, views.time_of, formatting.seconds)


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
    compared = views.compared(record)
    return interval(compared) if compared else why_not(record)


def interval(value: Interval) -> Cell:
    """A ratio with its interval, and the strip beside it."""
    return Cell(ratio_text(value), value.value, strip=strip(value))


def faster(times: Interval) -> Cell:
    """How many times faster, with its interval."""
    return Cell(ratio_text(times), times.value)


def why_not(record: Record) -> Cell:
    """Why a record has no figure."""
    if record["status"] == "ok":
        return Cell(NOTHING)
    reason = str(record["reason"])
    return Cell(f"{record['status']}: {reason}", title=str(record["message"] or ""), reason=reason)


def ratio_text(ratio: Interval) -> str:
    return f"{formatting.ratio(ratio.value)} {formatting.interval(ratio.low, ratio.high)}"


def strip(ratio: Interval) -> Strip:
    """The small drawing of a ratio, on a logarithmic axis whose ends hold what lies beyond."""

    def position(value: float) -> float:
        share = math.log(value) / math.log(_STRIP_FACTOR)
        return round(_LINE_AT_ONE + max(-1.0, min(1.0, share)) * (_STRIP_WIDTH / 2 - 4), 1)

    verdict = "faster" if ratio.high < 1 else "slower" if ratio.low > 1 else "alike"
    return Strip(position(ratio.low), position(ratio.value), position(ratio.high), verdict)
