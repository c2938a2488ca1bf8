"""Stored runs: which there are, and what can be used of one. Needs no TensorFlow.

The records decide: a run whose CSV cannot be read is an error. What stands beside them may be missing, and
rows with figures that cannot be are left out; both are said in the run's `notices`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.records.schema import (
    RECORDS_FILE,
    RecordError,
    Value,
    impossible,
    read_environment,
    read_records,
    read_tasks,
    records_file,
)


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
