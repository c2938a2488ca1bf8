"""Stored runs: which there are, and what can be used of one. Needs no TensorFlow.

The records decide: a run whose CSV cannot be read is an error. What stands beside them may be missing, and
rows with figures that cannot be are left out; both are said in the run's `notices`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.records import (
    RECORDS_FILE,
    RecordError,
    Value,
    read_environment,
    read_records,
    read_tasks,
    records_file,
)
from bench.views import SHAPE, Record

_NEEDED = ("case", "subject", "layer", "cell", "mode", *SHAPE)
_POSITIVE = (
    *SHAPE,
    *("median_s", "min_s", "baseline_median_s", "ratio", "ratio_low", "ratio_high", "epoch_s"),
    *("characters_per_s", "sequences_per_s", "timesteps_per_s"),
)
_NOT_NEGATIVE = ("iqr_s", "trace_s", "compile_s", "max_abs_error", "tolerance", "peak_bytes")
_BEYOND_BELIEF = 1e12  # of anything: seconds, sequences a second, times as slow


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies on the disk.

    Attributes:
        folder: its folder.
        records: its records, those with impossible figures left out.
        environment: what stands beside them, empty where that cannot be read.
        tasks: what came out of its training tasks.
        notices: what is wrong with the run, a sentence each.
    """

    folder: Path
    records: list[dict[str, Value]]
    environment: dict[str, Any]
    tasks: list[dict[str, Any]]
    notices: list[str]


def run_folders(results: Path) -> list[Path]:
    """The folders of the runs in `results`, oldest first; raises RecordError where there are none."""
    if not results.is_dir():
        raise RecordError(f"{results}: no such folder")
    folders = sorted(file.parent for file in results.glob(f"*/{RECORDS_FILE}"))
    if not folders:
        raise RecordError(f"{results}: no runs in it: `pytest --benchmark-only` makes one")
    return folders


def read_run(path: Path) -> StoredRun:
    """The run of a folder or a CSV; raises RecordError, with file and row, where the CSV cannot be read."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        records = read_records(path)
    notices = [str(warning.message) for warning in caught]
    file = records_file(path)
    sound = [record for record in records if impossible(record) is None]
    if len(sound) < len(records):
        left_out = f"{len(records) - len(sound)} of {len(records)} rows are left out, whose figures cannot be"
        row, what = next((row, what) for row, record in enumerate(records, 2) if (what := impossible(record)))
        notices.append(f"{file}: {left_out}; the first is row {row}: {what}")
    environment = _beside(read_environment, path, dict, notices)
    tasks = _beside(read_tasks, path, list, notices)
    return StoredRun(file.parent, sound, environment, [task for task in tasks if type(task) is dict], notices)


def impossible(record: Record) -> str | None:
    """What of a record cannot be, in words; None where all can."""
    missing = [name for name in _NEEDED if record[name] is None]
    if missing:
        return f"no {missing[0]}"
    for name in _POSITIVE:
        if not _within(record[name], 1 / _BEYOND_BELIEF):
            return f"{name} {record[name]}"
    for name in _NOT_NEGATIVE:
        if not _within(record[name], 0):
            return f"{name} {record[name]}"
    return _impossible_ratio(record)


def _within(value: Value, least: float) -> bool:
    return value is None or least <= float(value) <= _BEYOND_BELIEF


def _impossible_ratio(record: Record) -> str | None:
    ratio, low, high = (record[name] for name in ("ratio", "ratio_low", "ratio_high"))
    if ratio is None and record["median_s"] is None:
        return None
    if ratio is None or low is None or high is None:
        return f"ratio {ratio} with the interval [{low}, {high}]"
    if not float(low) <= float(ratio) <= float(high):
        return f"ratio {ratio} outside of its interval [{low}, {high}]"
    return None


def _beside(read: Callable[[Path], Any], path: Path, kind: type, notices: list[str]) -> Any:
    """What `read` finds beside the records, an empty `kind` and a notice where that is not one."""
    try:
        found = read(path)
    except RecordError as error:
        notices.append(str(error))
        return kind()
    if type(found) is not kind:
        notices.append(f"{path}: what stands beside its records is not what a run writes")
        return kind()
    return found


def sound_runs(folders: Sequence[Path]) -> tuple[list[StoredRun], list[str]]:
    """The runs that can be read, and a line for each notice and for each run that cannot."""
    runs, notices = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except RecordError as error:
            notices.append(f"left out: {error}")
    return runs, [*notices, *(notice for run in runs for notice in run.notices)]
