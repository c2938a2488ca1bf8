"""Repeat a run in several processes, and join their rows: figures over processes.

A process draws more than its traces do: where its memory lies, in which order its threads began. The
processes take turns as the gate's two revisions do: every second one measures from the last case to the
first, so that whatever changes with time (the machine warms up, a neighbour comes) meets each case alike.
"""

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.gate.repository import CannotMeasure
from bench.gate.session import measure_once
from bench.records.csv_file import write_records
from bench.records.environment import new_run_id
from bench.records.run_folder import PROCESSES_FOLDER, read_run, stored_folders, write_environment
from bench.records.schema import make_record
from bench.timing.intervals import FEWEST_INSTANCES, processes_interval

FOLDER = PROCESSES_FOLDER  # in a run's folder: the runs of its processes, which are a side for the gate
# of the processes' figures; what is not named is the first process's
_JOINED: Mapping[str, Callable[[list], Any]] = {
    **dict.fromkeys(("median_s", "iqr_s", "queued_s", "baseline_median_s", "trace_s", "compile_s"), median),
    "min_s": min,
    "rounds": sum,
    "instances": sum,
    "load": max,
    "stolen": max,
    **dict.fromkeys(("worker", "lost_workers"), lambda names: ", ".join(sorted(_each_of(names)))),
}
REVERSED = "--reversed"  # what every second process is started with


def _each_of(names: Sequence[str]) -> set[str]:
    """The names in columns that hold several."""
    return {name for of_row in names for name in of_row.split(", ")}


def repeat(
    options: Sequence[str],
    processes: int,
    results: Path,
    say: Callable[[str], None],
) -> Path:
    """Runs `pytest` with the options in so many processes, one after another, every second one reversed.

    Args:
        options: pytest's, without `--processes` and `--results`.
        results: where the folder of the whole run is made.
        say: called with what is about to be done.

    Returns:
        the run's folder: the joined records, and in `processes` those of each process.

    Raises:
        CannotMeasure: there are too few processes to tell, or one of them has no run.
    """
    check_count(processes)
    folder = results.resolve() / new_run_id()
    runs = folder / FOLDER
    runs.mkdir(parents=True)
    for number in range(1, processes + 1):
        name, turned = f"process {number} of {processes}", [] if number % 2 else [REVERSED]
        say(f"{name}: pytest {shlex.join([*options, *turned])}")
        running, log = runs / "running", runs / f"{number:02d}.txt"
        command = [sys.executable, "-m", "pytest", *options, *turned, f"--results={running}"]
        measure_once(name, command, Path.cwd(), os.environ, running, runs, log)
    join(folder)
    return folder


def check_count(processes: int) -> None:
    """Raises CannotMeasure for too few processes to tell how far they differ."""
    if processes < FEWEST_INSTANCES:
        raise CannotMeasure(
            f"--processes={processes}: must be {FEWEST_INSTANCES} or more, since fewer do not tell how far "
            "processes differ"
        )


def join(folder: Path) -> list[dict[str, Any]]:
    """Writes the records and the environment of a run over processes from those of its processes.

    Returns:
        the records.

    Raises:
        RecordError: the records of a process cannot be read.
        OSError: the folder cannot be written.
    """
    stored = [read_run(each) for each in stored_folders(folder / FOLDER)]
    records = joined(folder.name, [run.records for run in stored])
    write_records(folder, records)
    write_environment(folder, stored[0].environment)
    return records


def joined(run_id: str, processes: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of all processes, one of each case and baseline, in the order of the first process.

    The ratio is the geometric mean of the processes', with Student's interval over their logarithms
    (`processes_interval`). A row that went wrong in a process is that process's row. A case that too few
    processes came to, since they were stopped, is left out.
    """
    found: dict[tuple, list[Mapping[str, Any]]] = {}
    for records in processes:
        for record in records:
            found.setdefault((record["sweep"], record["case"], record["baseline"]), []).append(record)
    return [make_record(**{**row, "run_id": run_id}) for rows in found.values() if (row := _row(rows))]


def _row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    wrong = next((row for row in rows if row["status"] != "ok"), None)
    if wrong is not None or len(rows) < FEWEST_INSTANCES:
        return {**(wrong or {})}
    values = {name: [row[name] for row in rows if row[name] is not None] for name in _JOINED}
    figures = {name: join(values[name]) for name, join in _JOINED.items() if values[name]}
    ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
    row = {**rows[0], **figures, "processes": len(rows), "timestamp": rows[-1]["timestamp"]}
    return {**row, **_rates(rows[0], figures), **(_over_processes(ratios) if ratios else {})}


def _rates(first: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    """The first process's rates, at the time of all."""
    names = ("sequences_per_s", "timesteps_per_s", "gflops_per_s", "roofline_fraction")
    if not first["median_s"]:
        return {}
    faster = first["median_s"] / figures["median_s"]
    return {name: first[name] * faster for name in names if first[name] is not None}


def _over_processes(ratios: Sequence[float]) -> dict[str, Any]:
    """The columns of the ratio, of each process's ratio."""
    ratio = processes_interval(ratios)
    return {
        "ratio": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "converged": ratio.converged,
        "instance_ratios": " ".join(f"{each:.4f}" for each in sorted(ratios)),
        "instance_spread": None,
        "drift": None,
    }
