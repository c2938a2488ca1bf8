"""Find stored runs, and read all that stands in a run's folder. Needs no TensorFlow.

The records decide: a run whose CSV cannot be read is an error. What stands beside them may be missing, and
impossible rows are left out; both are said in the run's `notices`.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.records.csv_file import RECORDS_FILE, read_records, records_file
from bench.records.environment import REHEARSAL
from bench.records.files import read_json, write_whole
from bench.records.plausible import impossible
from bench.records.schema import Record, RecordError
from bench.records.text import counted

ENVIRONMENT_FILE = "environment.json"
TASKS_FILE = "tasks.json"
PROCESSES_FOLDER = "processes"  # in the folder of a run over processes: the run of each


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies on the disk.

    Attributes:
        folder: its folder.
        records: its records, without the impossible ones.
        environment: what stands beside them, empty where that cannot be read.
        tasks: what came out of its training tasks.
        notices: what is wrong with the run, a sentence each.
    """

    folder: Path
    records: list[Record]
    environment: dict[str, Any]
    tasks: list[dict[str, Any]]
    notices: list[str]


def run_folders(results: Path) -> list[Path]:
    """The folders of the runs in `results`, oldest first; raises RecordError where there are none."""
    folders = stored_folders(results)
    if not folders:
        raise RecordError(f"{results}: no runs in it: `pytest --benchmark-only` makes one")
    return folders


def stored_folders(results: Path) -> list[Path]:
    """The folders of the runs in `results`, oldest first, or none.

    A folder that cannot be looked into counts as a run: whoever reads it says why not.

    Raises:
        RecordError: `results` cannot be listed.
    """
    try:
        with os.scandir(results) as entries:
            return sorted(Path(entry.path) for entry in entries if _may_hold_run(entry))
    except FileNotFoundError:
        raise RecordError(f"{results}: no such folder") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{results}: cannot be listed: {error}") from None


def record_files(path: Path) -> list[Path]:
    """The CSVs that a path stands for: a folder of runs, a run's folder, or a CSV.

    Raises:
        RecordError: there are none.
    """
    try:
        is_results = path.is_dir() and not (path / RECORDS_FILE).exists()
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise RecordError(f"{path}: cannot be read: {error}") from None
    return [folder / RECORDS_FILE for folder in run_folders(path)] if is_results else [records_file(path)]


def _may_hold_run(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir() and bool(os.lstat(os.path.join(entry.path, RECORDS_FILE)))
    except FileNotFoundError:
        return False
    except OSError:
        return True


def read_run(path: Path) -> StoredRun:
    """The run of a folder or a CSV; raises RecordError, with file and row, where the CSV cannot be read."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        records = read_records(path)
    notices = [str(warning.message) for warning in caught]
    file = records_file(path)
    wrong = {row: what for row, record in enumerate(records, 2) if (what := impossible(record))}
    if wrong:
        notices.append(left_out(file, wrong, len(records)))
    sound = [record for row, record in enumerate(records, 2) if row not in wrong]
    environment = _beside(read_environment, path, dict, notices)
    tasks = _beside(read_tasks, path, list, notices)
    return StoredRun(file.parent, sound, environment, [task for task in tasks if type(task) is dict], notices)


def left_out(file: Path, wrong: Mapping[int, str], rows: int) -> str:
    """Says that rows of a file are left out: how many, and what is wrong with the first, by its number."""
    first = min(wrong)
    are = f"{len(wrong)} of {counted(rows, 'row')} {'is' if rows == 1 else 'are'}"
    return f"{file}: {are} left out, whose figures cannot be; the first is row {first}: {wrong[first]}"


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


def check_not_mixed(machines: Iterable[tuple[Path, str]]) -> None:
    """Raises RecordError where some of the files are of rehearsals and others of measurements.

    Args:
        machines: of each file the hardware keys of its rows.
    """
    files = {machine.startswith(REHEARSAL): file for file, machine in machines}
    if len(files) == 2:
        raise RecordError(
            f"{files[True]}: is of a rehearsal, whose figures say nothing, and {files[False]} is of a "
            "measurement: the two do not mix"
        )


def write_environment(folder: Path, environment: Mapping[str, Any]) -> None:
    """Writes the run's environment beside its CSV; raises OSError where it cannot."""
    write_whole(folder / ENVIRONMENT_FILE, json.dumps(environment, indent=2, sort_keys=True) + "\n")


def read_environment(path: Path) -> dict[str, Any]:
    """The environment beside a run's CSV; raises RecordError where it cannot be read."""
    return read_json(records_file(path).with_name(ENVIRONMENT_FILE))


def write_tasks(folder: Path, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Writes what came out of the run's training tasks, beside their figures in the CSV.

    Args:
        tasks: for each its `sweep` and `case`, and weights, predictions or texts, fit for JSON.

    Raises:
        OSError: the file cannot be written.
    """
    text = json.dumps(tasks, indent=1, allow_nan=False, ensure_ascii=False)
    write_whole(folder / TASKS_FILE, text + "\n")


def read_tasks(path: Path) -> list[dict[str, Any]]:
    """What came out of a run's training tasks, empty where it had none.

    Raises:
        RecordError: the file cannot be read.
    """
    file = records_file(path).with_name(TASKS_FILE)
    return read_json(file) if os.path.lexists(file) else []
