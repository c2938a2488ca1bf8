"""The table of all cases of a run, and all that is known of each."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.cases.subjects import SUBJECTS
from bench.cases.sweeps import SWEEPS
from bench.records.schema import COLUMNS, Column, Value
from bench.report import formatting
from bench.report.labels import Record
from bench.report.page import sentences
from bench.report.table import Cell

# of the table of cases; the others can be switched on
SHOWN = (
    *("ratio", "ratio_low", "ratio_high", "median_s", "status"),
    *("mode", "batch_size", "timesteps", "units", "kernel", "compile_s", "epoch_s", "characters_per_s"),
)
_OF_THE_RUN = ("run_id", "commit", "machine", "device", "backend", "tensorflow", "keras")  # not of a case


@dataclass(frozen=True)
class CaseRow:
    """A record in the table of cases, and all that is known of it, which a brief page does not show."""

    anchor: str
    record: Record
    cells: list[Cell]
    command: str = ""
    remark: str = ""
    sentences: Sequence[str] = ()
    facts: Sequence[tuple[Column, str]] = ()
    baseline_anchor: str | None = None


def command(record: Record) -> str:
    """The command that measures the record's case alone."""
    name = record["sweep"]
    full_size = SWEEPS[name].full.items() if name in SWEEPS else ()
    full = bool(full_size) and all(record[field] == value for field, value in full_size)
    in_checkout = record["commit"] is not None
    start = ["pytest", "--benchmark-only"] if in_checkout else ["python", "-m", "bench", "run"]
    in_sweep = [f"--sweep={name}"] if name in SWEEPS else []
    return shlex.join([*start, *(["--full"] if full else []), *in_sweep, f"--case={record['case']}"])


def _remark(record: Record) -> str:
    """Says what the command cannot do alone."""
    if record["subject"] not in SUBJECTS:
        return "A user cell: add the --cell that brought it."
    if record["sweep"] not in SWEEPS:
        return "Of no sweep that is declared here: it is compared with the built-in layer."
    return ""


def columns_of(records: Sequence[Record]) -> list[Column]:
    """The columns of the table of cases, its link aside: those whose values are not all the same."""
    shown = [*SHOWN, *(column.name for column in COLUMNS if column.name not in SHOWN)]
    by_name = {column.name: column for column in COLUMNS if column.name != "case"}
    varied = [name for name in shown if name in by_name and _varies(records, name)]
    always = {"status", "median_s", "ratio"}
    return [by_name[name] for name in shown if name in varied or name in always]


def _varies(records: Sequence[Record], name: str) -> bool:
    return len({record[name] for record in records}) > 1


def case_rows(
    records: Sequence[Record], anchor: str, columns: Sequence[Column], brief: bool = False
) -> list[CaseRow]:
    """The rows of the table of cases, a cell for each column; those of a brief page are no more than that."""
    anchors: dict[Value, str] = {}
    for number, record in enumerate(records, 1):
        anchors.setdefault(record["case"], f"{anchor}-case-{number}")
    return [
        CaseRow(
            f"{anchor}-case-{number}",
            record,
            [Cell(value_text(column, record[column.name]), record[column.name]) for column in columns],
            *(() if brief else _details(record, anchors)),
        )
        for number, record in enumerate(records, 1)
    ]


def _details(record: Record, anchors: Mapping[Value, str]) -> tuple:
    """What a `CaseRow` has beside its cells."""
    return (
        command(record),
        _remark(record),
        list(sentences.of_record(record)),
        list(_facts(record)),
        anchors.get(record["baseline"]),
    )


def _facts(record: Record) -> Iterator[tuple[Column, str]]:
    for column in COLUMNS:
        if column.name not in _OF_THE_RUN and (value := record[column.name]) is not None:
            yield column, value_text(column, value)


def value_text(column: Column, value: Value) -> str:
    """A value of a record as people read it, by the column's unit."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)):
        return value
    if column.unit in _BY_UNIT:
        return _BY_UNIT[column.unit](value)
    if column.kind is int:
        return str(value)
    return formatting.number(value) if value == 0 or abs(value) >= 1e-3 else f"{value:.2e}"


_BY_UNIT: dict[str, Callable[[float], str]] = {
    "s": formatting.seconds,
    "bytes": formatting.memory,
    "1/s": formatting.count,
    "flop": formatting.count,
    "Gflop/s": formatting.number,
    "ratio": formatting.ratio,
}
