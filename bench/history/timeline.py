"""Timelines: the runs of a machine joined, each case and baseline over the runs. Reads records only.

A row that is not `ok`, has no ratio, or cannot be true is left out and counted; a run that cannot be read is
skipped and named. Library versions are kept with each point, for whoever shows it to mark.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import median

from bench.cases.case import shape_id
from bench.history.step_detection import FEWEST_RUNS, Shift, deviation_of, find_shifts
from bench.records.csv_file import RECORDS_FILE, read_records
from bench.records.plausible import impossible
from bench.records.schema import SHAPE, RecordError
from bench.report import labels, quantities
from bench.report.labels import Record
from bench.timing.intervals import Interval

LIBRARIES = {"tensorflow": "TensorFlow", "keras": "Keras"}
_NEEDED = ("case", "baseline", "subject", "cell", "layer", "mode", *SHAPE)
_INTERVAL = 2 * 1.96  # an interval of 95% in standard errors


@dataclass(frozen=True)
class Machine:
    """What must be the same for figures to be joined."""

    name: str
    device: str

    def __str__(self) -> str:
        return f"{self.name} · {self.device}"


@dataclass(frozen=True)
class Run:
    """A run: its id, its folder's name, when its first case ended, and what it ran."""

    id: str
    folder: str
    time: datetime
    versions: tuple[str, ...]
    commit: str


@dataclass(frozen=True)
class Point:
    """What a run says of a case.

    Attributes:
        ratio: to the baseline, with its 95% interval.
        time: of a call, seconds, with its interquartile range.
        baseline_s: the baseline's, seconds.
    """

    run: Run
    ratio: Interval
    time: Interval
    baseline_s: float


@dataclass(frozen=True)
class Timeline:
    """A case and its baseline over the runs; `names` is a record that says what they are."""

    names: Record
    points: tuple[Point, ...]

    @property
    def is_long_enough(self) -> bool:
        """Whether there are enough runs to look for level shifts."""
        return len(self.points) >= FEWEST_RUNS

    @property
    def first_level(self) -> float:
        """The median ratio up to the first shift; the first ratio where the runs are too few for levels."""
        everything = len(self.points) if self.is_long_enough else 1
        first = self.ratio_shifts[0].at if self.ratio_shifts else everything
        return median(point.ratio.value for point in self.points[:first])

    @property
    def scatter(self) -> float:
        """The ratio's deviation from run to run, relative."""
        return float(deviation_of([math.log(point.ratio.value) for point in self.points]))

    @cached_property
    def ratio_shifts(self) -> tuple[Shift, ...]:
        errors = sorted(math.log(point.ratio.high / point.ratio.low) / _INTERVAL for point in self.points)
        return find_shifts([point.ratio.value for point in self.points], errors[len(errors) // 2])

    @cached_property
    def time_shifts(self) -> tuple[Shift, ...]:
        return find_shifts([point.time.value for point in self.points])


@dataclass(frozen=True)
class History:
    """All runs of a machine, in the order in which they were made.

    Attributes:
        left_out: how many rows were not joined, by cell, mode and reason.
    """

    machine: Machine
    runs: tuple[Run, ...]
    timelines: tuple[Timeline, ...]
    left_out: Counter[tuple[str, str, str]]


@dataclass(frozen=True)
class Skipped:
    """A run's folder that is left out, or part of it, and why."""

    folder: str
    why: str


@dataclass
class _Joined:
    """A machine's runs as they are being joined."""

    runs: dict[str, Run] = field(default_factory=dict)
    points: dict[tuple[str, str], list[Point]] = field(default_factory=dict)
    names: dict[tuple[str, str], Record] = field(default_factory=dict)
    left_out: Counter[tuple[str, str, str]] = field(default_factory=Counter)


def read_histories(results: Path) -> tuple[list[History], list[Skipped]]:
    """The histories of all machines that have runs under `results`, and what is left out of them.

    Raises:
        OSError: `results` cannot be listed.
    """
    joined: dict[Machine, _Joined] = {}
    skipped: list[Skipped] = []
    for folder in sorted(path for path in results.iterdir() if (path / RECORDS_FILE).exists()):
        skipped += [Skipped(folder.name, why) for why in _join(folder, joined)]
    histories = [_history(machine, found) for machine, found in joined.items() if found.runs]
    return sorted(histories, key=lambda history: (history.machine.name, history.machine.device)), skipped


def _join(folder: Path, joined: dict[Machine, _Joined]) -> Iterator[str]:
    """Adds the runs of a folder; what is left out is said."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            records = read_records(folder)
    except RecordError as error:
        yield str(error)
        return
    yield from (str(warning.message) for warning in caught)
    runs: dict[tuple[Machine, str], list[Record]] = {}
    nameless = 0
    for record in records:
        if record["machine"] is None or record["device"] is None or record["run_id"] is None:
            nameless += 1
            continue
        machine = Machine(str(record["machine"]), str(record["device"]))
        runs.setdefault((machine, str(record["run_id"])), []).append(record)
    if nameless:
        yield f"{folder / RECORDS_FILE}: {nameless} rows without a machine, a device or a run"
    for (machine, run_id), rows in runs.items():
        into = joined.setdefault(machine, _Joined())
        if why := _why_not(rows, into.runs.get(run_id)):
            yield f"{folder / RECORDS_FILE}: run {run_id!r}: {why}"
        else:
            _add(into, _run(folder, rows), rows)


def _why_not(rows: Sequence[Record], twin: Run | None) -> str:
    if twin is not None:
        return f"is in {twin.folder} too"
    return "" if any(map(_time, rows)) else "no row says when it was made"


def _run(folder: Path, rows: Sequence[Record]) -> Run:
    return Run(
        id=str(rows[0]["run_id"]),
        folder=folder.name,
        time=min(filter(None, map(_time, rows))),
        versions=tuple(str(rows[0][name] or "unknown") for name in LIBRARIES),
        commit=str(rows[0]["commit"] or ""),
    )


def _time(record: Record) -> datetime | None:
    """When the row was made, UTC; None where that cannot be read."""
    try:
        time = datetime.fromisoformat(str(record["timestamp"]))
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _add(joined: _Joined, run: Run, rows: Sequence[Record]) -> None:
    joined.runs[run.id] = run
    seen = set()
    for record in rows:
        key = (str(record["case"]), str(record["baseline"]))
        reason = _left_out(record) or ("measured in another sweep too" if key in seen else None)
        if reason:
            joined.left_out[labels.family(record), str(record["mode"]), reason] += 1
            continue
        seen.add(key)
        joined.points.setdefault(key, []).append(_point(run, record))
        joined.names.setdefault(key, record)


def _left_out(record: Record) -> str | None:
    """Why a row is not joined."""
    if record["status"] != "ok":
        return f"{record['status']} ({record['reason']})"
    if record["ratio"] is None:
        return "without a ratio"
    if not _names_its_case(record):
        return "that contradict their case's id"
    if impossible(record) or any(record[name] is None for name in ("min_s", "median_s", "baseline_median_s")):
        return "with impossible figures"
    return None


def _names_its_case(record: Record) -> bool:
    """Whether the case's id and baseline are there and say what the record's columns say."""
    if any(record[name] is None for name in _NEEDED):
        return False
    subject = f"{record['cell']}-{record['layer']}"
    return record["subject"] == subject and f"{record['case']}-".startswith(
        f"{record['mode']}-{subject}-{shape_id(record)}-"
    )


def _point(run: Run, record: Record) -> Point:
    time = quantities.time_of(record)
    assert time is not None and isinstance(record["baseline_median_s"], float)
    return Point(run, quantities.ratio_of(record), time, record["baseline_median_s"])


def _history(machine: Machine, joined: _Joined) -> History:
    timelines = [
        Timeline(joined.names[key], tuple(sorted(points, key=lambda point: _order(point.run))))
        for key, points in joined.points.items()
    ]
    return History(
        machine,
        tuple(sorted(joined.runs.values(), key=_order)),
        tuple(sorted(timelines, key=_name)),
        joined.left_out,
    )


def _order(run: Run) -> tuple[datetime, str]:
    return run.time, run.id


def _name(timeline: Timeline) -> tuple[str, str]:
    return str(timeline.names["case"]), str(timeline.names["baseline"])
