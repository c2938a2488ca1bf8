"""Repeat a run in several processes, one after another, and join their rows: figures over processes.

A process draws more than its traces do: where its memory lies, in which order its threads began. The gate
does the same for two revisions, in turns.
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
from bench.records.csv_file import RecordWriter
from bench.records.environment import new_run_id
from bench.records.run_folder import read_run, stored_folders, write_environment
from bench.records.schema import make_record
from bench.timing.intervals import FEWEST_INSTANCES, instances_interval

FOLDER = "processes"  # in a run's folder: the runs of its processes, which are a side for the gate
# of the processes' figures; what is not named is the first process's
_JOINED: Mapping[str, Callable[[list], Any]] = {
    **dict.fromkeys(("median_s", "iqr_s", "queued_s", "baseline_median_s", "trace_s", "compile_s"), median),
    "min_s": min,
    "rounds": sum,
    "instances": sum,
    "load": max,
    "stolen": max,
}


def repeat(
    options: Sequence[str],
    processes: int,
    results: Path,
    say: Callable[[str], None],
) -> Path:
    """Runs `pytest` with the options in so many processes, one after another.

    Args:
        options: pytest's, without `--processes` and `--results`.
        results: where the folder of the whole run is made.
        say: called with what is about to be done.

    Returns:
        the run's folder: the joined records, and in `processes` those of each process.

    Raises:
        CannotMeasure: there are too few processes to tell, or one of them has no run.
    """
    if processes < FEWEST_INSTANCES:
        raise CannotMeasure(
            f"--processes={processes}: must be {FEWEST_INSTANCES} or more, since fewer do not tell how far "
            "processes differ"
        )
    folder = results.resolve() / new_run_id()
    writer, runs = RecordWriter(folder), folder / FOLDER
    for number in range(1, processes + 1):
        name = f"process {number} of {processes}"
        say(f"{name}: pytest {shlex.join(options)}")
        running, log = runs / "running", runs / f"{number:02d}.txt"
        command = [sys.executable, "-m", "pytest", *options, f"--results={running}"]
        measure_once(name, command, Path.cwd(), os.environ, running, runs, log)
    stored = [read_run(each) for each in stored_folders(runs)]
    for record in joined(folder.name, [run.records for run in stored]):
        writer.finish(record)
    write_environment(folder, stored[0].environment)
    return folder


def joined(run_id: str, processes: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of all processes, one of each case and baseline, in the order of the first process.

    The ratio is the geometric mean of the processes', with Student's interval over their logarithms
    (`instances_interval`). A row that went wrong in a process is that process's row.
    """
    found: dict[tuple, list[Mapping[str, Any]]] = {}
    for records in processes:
        for record in records:
            found.setdefault((record["sweep"], record["case"], record["baseline"]), []).append(record)
    return [make_record(**{**_row(rows), "run_id": run_id}) for rows in found.values()]


def _row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    wrong = next((row for row in rows if row["status"] != "ok"), None)
    if wrong is not None:
        return {**wrong}
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
    ratio = instances_interval([[each] for each in ratios])
    return {
        "ratio": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "converged": ratio.converged,
        "instance_ratios": " ".join(f"{each:.4f}" for each in sorted(ratios)),
        "instance_spread": None,
        "drift": None,
    }
