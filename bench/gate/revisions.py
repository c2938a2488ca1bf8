"""Sides: the processes of one revision, read from its runs, and whether two sides can be compared.

A process is what one CSV holds. All that could make a comparison untrue is refused here, by its name.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

from bench.records.csv_file import RECORDS_FILE, read_records, records_file
from bench.records.schema import RecordError, Value
from bench.report.labels import Record

SESSION_FILE = "session.tsv"
HARDWARE = ("machine", "device", "backend")
VERSIONS = ("tensorflow", "keras")
Key = tuple[str, str, str]  # sweep, case, baseline: what is compared with its like on the other side
_POSITIVE = ("median_s", "baseline_median_s", "ratio")
_PLAUSIBLE = (1e-12, 1e12)  # what a time in seconds or a ratio of times may be
_NAMED = 3  # of many names, at most

# why two sides cannot be compared
CAUSES: dict[str, str] = {
    "unreadable": "a file cannot be read or is not a file of records",
    "schema too new": "a file has columns that this version does not know",
    "no records": "a file or a side has no records",
    "bad row": "a row's figure cannot be one",
    "several runs in a file": "a file holds the rows of more than one process",
    "a process twice": "the same process stands there twice, or on both sides",
    "several revisions": "a side's processes ran different commits, library versions or hardware",
    "different hardware": "the two sides ran on different hardware",
    "other library versions": "the sides' library versions differ, and they were not measured in one session",
    "no common case": "no case was timed on both sides",
    "too few processes": "the differences between so few processes say nothing, at any size",
    "no pinned baseline": "this machine has no pinned baseline",
    "cannot write": "a file cannot be written",
}


class CannotCompare(ValueError):
    """Two sides that cannot be compared; `cause` is one of `CAUSES`."""

    def __init__(self, cause: str, details: str):
        super().__init__(f"{cause}: {details}")
        assert cause in CAUSES, cause
        self.cause = cause


@dataclass(frozen=True)
class Process:
    """What one process measured.

    Attributes:
        name: its run's id.
        file: its CSV; None where it was simulated.
        rows: its records.
    """

    name: str
    rows: Mapping[Key, Record]
    file: Path | None = None

    def fact(self, column: str) -> Value:
        """What the process's records say of what they all ran on."""
        return next(iter(self.rows.values()))[column]

    @property
    def started(self) -> str:
        """When its first case ended."""
        return min(str(row["timestamp"] or "") for row in self.rows.values())


@dataclass(frozen=True)
class Side:
    """One revision's processes: `baseline` or `current`."""

    name: str
    processes: tuple[Process, ...]

    def fact(self, column: str) -> Value:
        """What all its processes ran on."""
        return self.processes[0].fact(column)

    @property
    def versions(self) -> tuple[Value, ...]:
        return tuple(self.fact(column) for column in VERSIONS)

    @cached_property
    def keys(self) -> list[Key]:
        """What any of its processes has a row of, in their order."""
        return list(dict.fromkeys(key for process in self.processes for key in process.rows))

    def figures(self, key: Key, figure: str) -> list[float]:
        """The figure of each process that has it."""
        rows = (process.rows.get(key) for process in self.processes)
        found = (row[figure] for row in rows if row is not None and row["status"] == "ok")
        return [float(value) for value in found if isinstance(value, (int, float))]

    def without(self, key: Key, figure: str) -> str:
        """Why some processes do not have the figure: `2 failed (error), 1 without a row`."""
        reasons = Counter(_why_without(process.rows.get(key), figure) for process in self.processes)
        return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()) if reason)


def _why_without(row: Record | None, figure: str) -> str:
    if row is None:
        return "without a row"
    if row["status"] != "ok":
        return f"{row['status']} ({row['reason']})"
    return "" if row[figure] is not None else f"without {figure}"


def read_side(name: str, paths: Iterable[Path]) -> Side:
    """The processes of a side.

    Args:
        paths: runs' folders, CSVs, and folders that hold runs' folders.

    Raises:
        CannotCompare: where they are not several processes of one revision on one machine.
    """
    processes = tuple(read_process(file) for path in paths for file in _files(Path(path)))
    if not processes:
        raise CannotCompare("no records", f"the {name} has no runs")
    _refuse_twins(processes)
    for column in (*HARDWARE, *VERSIONS, "commit"):
        found = Counter(process.fact(column) for process in processes)
        if len(found) > 1:
            raise CannotCompare("several revisions", f"the {name}'s {column}: {_listed(found)}")
    return Side(name, processes)


def _files(path: Path) -> list[Path]:
    """The CSVs that a path stands for."""
    inside = sorted(path.glob(f"*/{RECORDS_FILE}")) if path.is_dir() else []
    return [path] if (path / RECORDS_FILE).exists() or not inside else inside


def read_process(path: Path) -> Process:
    """The one process of a run's folder or CSV; raises CannotCompare where it is not one."""
    try:
        file = records_file(path)
        with warnings.catch_warnings():  # a file that was cut: no verdict from what is left of it
            warnings.simplefilter("error", UserWarning)
            records = read_records(file)
    except UserWarning as warning:
        raise CannotCompare("unreadable", str(warning)) from warning
    except (RecordError, OSError, ValueError) as error:
        cause = "schema too new" if "newer version" in str(error) else "unreadable"
        raise CannotCompare(cause, str(error)) from error
    if not records:
        raise CannotCompare("no records", f"{file}: has no rows")
    _check_rows(file, records)
    rows = {(str(row["sweep"]), str(row["case"]), str(row["baseline"] or "")): row for row in records}
    return Process(str(records[0]["run_id"]), rows, file)


def _check_rows(file: Path, records: Sequence[Record]) -> None:
    runs = {row["run_id"] for row in records}
    if len(runs) > 1:
        raise CannotCompare("several runs in a file", f"{file}: {_listed(runs)}")
    for number, row in enumerate(records, start=2):  # the header is row 1
        for column in ("run_id", "sweep", "case", *HARDWARE, *VERSIONS):
            if row[column] is None:
                raise CannotCompare("bad row", f"{file}, row {number}: {column} is empty")
        for column in (*HARDWARE, *VERSIONS, "commit"):
            if row[column] != records[0][column]:
                raise CannotCompare("bad row", f"{file}, row {number}: {column} is not that of row 2")
        for column in _POSITIVE:
            value, (least, most) = row[column], _PLAUSIBLE
            if isinstance(value, float) and not least <= value <= most:
                raise CannotCompare("bad row", f"{file}, row {number}: {column}: {value} cannot be")
        if row["ratio"] is not None and (row["median_s"] is None or row["baseline_median_s"] is None):
            raise CannotCompare("bad row", f"{file}, row {number}: a ratio without the times it is of")


def check_comparable(baseline: Side, current: Side) -> None:
    """Raises CannotCompare where the sides ran on different hardware, or share a process."""
    _refuse_twins((*baseline.processes, *current.processes))
    for column in HARDWARE:
        before, after = baseline.fact(column), current.fact(column)
        if before != after:
            raise CannotCompare("different hardware", f"{column}: baseline {before}, current {after}")


def _refuse_twins(processes: Sequence[Process]) -> None:
    """The same process counted twice would look like agreement between two."""
    twins = [name for name, count in Counter(process.name for process in processes).items() if count > 1]
    if twins:
        raise CannotCompare("a process twice", _listed(twins))


def alternated(baseline: Side, current: Side) -> bool:
    """Whether the sides' processes took turns in one session, as `ci/gate.sh` records it.

    The session is a file beside the sides' folders, a line a process in their order: side, tab, run. Turns
    are taken where never more than two processes of one side follow each other, and one side has at most one
    more than the other.
    """
    files = {_session_file(process) for side in (baseline, current) for process in side.processes}
    (file, *others) = files
    if others or file is None or not file.is_file():
        return False
    of_side = {process.name: side.name for side in (baseline, current) for process in side.processes}
    listed = _listed_runs(file)
    turns = [of_side[name] for name in listed if name in of_side]
    longest = max((len(list(group)) for _, group in groupby(turns)), default=0)
    counts = Counter(turns)
    uneven = abs(counts[baseline.name] - counts[current.name])
    return len(turns) == len(of_side) and longest <= 2 and uneven <= 1


def _session_file(process: Process) -> Path | None:
    return process.file.resolve().parent.parent.parent / SESSION_FILE if process.file else None


def _listed_runs(file: Path) -> list[str]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CannotCompare("unreadable", f"{file}: {error}") from error
    return [run for _, _, run in (line.partition("\t") for line in lines)]


def _listed(names: Iterable[object]) -> str:
    names = sorted(str(name) for name in names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
