"""Join the runs of a machine: a timeline is a case and its baseline over the runs. Reads records only.

A row that is not `ok` or has no ratio is left out and counted; a run or a row that cannot be read is left out
and named. Library versions stay with each run, for whoever shows it to mark.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bench.history.step_detection import FEWEST_RUNS, Shift, deviation_of, find_all_shifts
from bench.records.csv_file import RECORDS_FILE
from bench.records.frame import load_with_notices
from bench.records.run_folder import stored_folders
from bench.records.schema import SHAPE
from bench.records.text import counted
from bench.report.labels import Record
from bench.timing.intervals import Interval

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LIBRARIES = {"tensorflow": "TensorFlow", "keras": "Keras"}
_NAMES = ("sweep", "case", "baseline", "subject", "cell", "layer", "mode", *SHAPE, "jit_compile")
_RUN = ["machine", "device", "run_id"]
_FIGURES = ("ratio", "ratio_low", "ratio_high", "time", "time_low", "time_high", "baseline_s")
_INTERVAL = 2 * 1.96  # an interval of 95% in standard errors


@dataclass(frozen=True)
class Machine:
    """A machine and a device: only figures of the same are joined."""

    name: str
    device: str

    def __str__(self) -> str:
        return f"{self.name} · {self.device}"


@dataclass(frozen=True)
class Run:
    """A run: its id, its folder's name, when its first case ended (UTC), and what it ran."""

    id: str
    folder: str
    time: datetime
    versions: tuple[str, ...]
    commit: str


@dataclass(frozen=True)
class Point:
    """The figures of a case in a run.

    Attributes:
        ratio: to the baseline, with its 95% interval.
        time: of a call, seconds, with its interquartile range.
        baseline_s: the baseline's, seconds.
    """

    run: Run
    ratio: Interval
    time: Interval
    baseline_s: float


@dataclass(frozen=True, eq=False)
class Timeline:
    """A case and its baseline over the runs.

    Attributes:
        names: what the case is: the columns of `_NAMES`.
        runs: that measured it, in the order in which they were made.
        figures: of each of these runs, runs x `_FIGURES`.
        first_level: the median ratio up to the first shift; of few runs, the first ratio.
        scatter: the ratio's deviation from run to run, relative; nan of few runs.
        ratio_shifts, time_shifts: the level shifts of its ratio and of its time.
    """

    names: Record
    runs: tuple[Run, ...]
    figures: "np.ndarray"
    first_level: float
    scatter: float
    ratio_shifts: tuple[Shift, ...] = ()
    time_shifts: tuple[Shift, ...] = ()

    def of(self, figure: str) -> "np.ndarray":
        """One figure of all runs, by its name in `_FIGURES`."""
        return self.figures[:, _FIGURES.index(figure)]

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """The figures of each run."""
        return tuple(
            Point(run, Interval(*figures[0:3]), Interval(*figures[3:6]), figures[6])
            for run, figures in zip(self.runs, self.figures.tolist(), strict=True)
        )

    @property
    def is_long_enough(self) -> bool:
        """Says whether there are enough runs to look for level shifts."""
        return len(self.runs) >= FEWEST_RUNS


@dataclass(frozen=True)
class History:
    """All runs of a machine, in the order in which they were made.

    Attributes:
        left_out: how many rows were not joined, by the reason.
    """

    machine: Machine
    runs: tuple[Run, ...]
    timelines: tuple[Timeline, ...]
    left_out: Counter[str]


@dataclass(frozen=True)
class Skipped:
    """A run's folder that is left out, or part of it, and why."""

    folder: str
    why: str


def read_histories(results: Path) -> tuple[list[History], list[Skipped]]:
    """The histories of all machines that have runs under `results`, and what is left out of them.

    Raises:
        RecordError: `results` cannot be listed.
    """
    folders = [folder.name for folder in stored_folders(results)]
    if not folders:
        return [], []
    frame, notices = load_with_notices(results)
    skipped = [Skipped(_folder_of(notice, folders, results), notice) for notice in notices]
    names = {run: Path(run).name for run in frame["run"].unique()}
    frame = frame.assign(folder=frame["run"].astype(str).map(names))
    frame, more = _without_nameless(frame, results)
    skipped += more
    histories = []
    for (name, device), rows in frame.groupby(["machine", "device"], observed=True, sort=True):
        history, more = _history(Machine(str(name), str(device)), rows, results)
        histories += [history] if history.runs else []
        skipped += more
    return histories, skipped


def _folder_of(notice: str, folders: Sequence[str], results: Path) -> str:
    """The folder that a notice is about."""
    return next((folder for folder in folders if str(results / folder / RECORDS_FILE) in notice), "")


def _without_nameless(frame: "pd.DataFrame", results: Path) -> tuple["pd.DataFrame", list[Skipped]]:
    """The rows that say what machine and run they are of."""
    nameless = frame[_RUN].isna().any(axis=1)
    counts = frame.loc[nameless, "folder"].value_counts()
    skipped = [
        Skipped(
            str(folder),
            f"{results / str(folder) / RECORDS_FILE}: {counted(count, 'row')} without {', '.join(_RUN)}",
        )
        for folder, count in counts.items()
    ]
    return frame[~nameless], skipped


def _history(machine: Machine, frame: "pd.DataFrame", results: Path) -> tuple[History, list[Skipped]]:
    """A machine's rows joined."""
    import pandas as pd

    runs, skipped = _runs(frame, results)
    places = pd.DataFrame(
        [(run.id, run.folder, place) for place, run in enumerate(runs)], columns=["run_id", "folder", "place"]
    )
    frame = frame.astype({"run_id": str}).merge(places, on=["run_id", "folder"])
    reasons = _reasons(frame)
    rows = frame[reasons == ""].sort_values(["case", "baseline", "place"])
    left_out = Counter(reasons[reasons != ""].tolist())
    return History(machine, runs, tuple(_timelines(rows, runs)), left_out), skipped


def _runs(frame: "pd.DataFrame", results: Path) -> tuple[tuple[Run, ...], list[Skipped]]:
    """The runs in the order in which they were made; of two with the same id the one in the first folder."""
    import pandas as pd

    times = pd.to_datetime(frame["timestamp"].astype(str), format="ISO8601", utc=True, errors="coerce")
    found: dict[str, Run] = {}
    skipped = []
    for (folder, run_id), rows in frame.assign(time=times).groupby(["folder", "run_id"], observed=True):
        where = f"{results / str(folder) / RECORDS_FILE}: run {run_id!r}"
        if run_id in found:
            skipped.append(Skipped(str(folder), f"{where}: is in {found[run_id].folder} too"))
        elif rows["time"].isna().all():
            skipped.append(Skipped(str(folder), f"{where}: no row says when it was made"))
        else:
            found[run_id] = _run(str(run_id), str(folder), rows)
    return tuple(sorted(found.values(), key=lambda run: (run.time, run.id))), skipped


def _run(run_id: str, folder: str, rows: "pd.DataFrame") -> Run:
    first = rows.iloc[0]
    said = {name: "" if first.isna()[name] else str(first[name]) for name in (*LIBRARIES, "commit")}
    return Run(
        id=run_id,
        folder=folder,
        time=rows["time"].min().to_pydatetime(),
        versions=tuple(said[name] or "unknown" for name in LIBRARIES),
        commit=said["commit"],
    )


def _reasons(frame: "pd.DataFrame") -> "pd.Series":
    """Says why each row is not joined; empty where it is."""
    import pandas as pd

    not_ok = frame["status"].astype(str) + " (" + frame["reason"].astype(str) + ")"
    reasons = pd.Series("", index=frame.index).mask(frame["status"] != "ok", not_ok)
    for reason, is_so in (
        ("without a ratio", frame["ratio"].isna()),
        ("without a baseline", frame["baseline"].isna()),
    ):
        reasons = reasons.mask((reasons == "") & is_so, reason)
    sound = frame[reasons == ""]
    again = sound.duplicated(["place", "case", "baseline"])
    reasons.loc[again.index[again]] = "measured in another sweep too"
    return reasons


def _timelines(rows: "pd.DataFrame", runs: Sequence[Run]) -> Iterator[Timeline]:
    """The timelines of rows that are sorted by case, baseline and run."""
    import numpy as np

    if rows.empty:  # a run may have nothing but failures
        return
    figures, places = _figures(rows), rows["place"].to_numpy()
    same = rows[["case", "baseline"]].astype(str).to_numpy()
    starts = np.flatnonzero(np.r_[True, (same[1:] != same[:-1]).any(axis=1)])
    ends = np.append(starts[1:], len(rows))
    names = rows.iloc[starts][list(_NAMES)].astype(object).to_dict("records")
    levels = _levels(figures, starts, ends)
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        measured = tuple(runs[place] for place in places[start:end])
        yield Timeline(names[number], measured, figures[start:end], *levels[number])


def _figures(rows: "pd.DataFrame") -> "np.ndarray":
    """The figures of all rows, rows x `_FIGURES`; the time's ends are half the interquartile range away, and
    not below the shortest."""
    half = rows["iqr_s"].fillna(0) / 2
    least = rows[["min_s", "median_s"]].min(axis=1)
    return rows.assign(
        time=rows["median_s"],
        time_low=(rows["median_s"] - half).clip(lower=least),
        time_high=rows["median_s"] + half,
        baseline_s=rows["baseline_median_s"],
    )[list(_FIGURES)].to_numpy(dtype=float)


_Levels = tuple[float, float, tuple[Shift, ...], tuple[Shift, ...]]


def _levels(figures: "np.ndarray", starts: "np.ndarray", ends: "np.ndarray") -> list[_Levels]:
    """The first level, the scatter and the shifts of the ratio, and the shifts of the time, of each timeline.

    Timelines of one length are looked at together.
    """
    import numpy as np

    found: list[_Levels] = [(ratio, math.nan, (), ()) for ratio in figures[starts, 0].tolist()]
    lengths = ends - starts
    for length in np.unique(lengths[lengths >= FEWEST_RUNS]):
        members = np.flatnonzero(lengths == length)
        series = figures[starts[members][:, None] + np.arange(length)]
        ratio, low, high, time = (series[:, :, number] for number in range(4))
        errors = np.median(np.log(high / low) / _INTERVAL, axis=1)
        medians, scatters = np.median(ratio, axis=1).tolist(), deviation_of(np.log(ratio)).tolist()
        shifts = zip(find_all_shifts(ratio, errors), find_all_shifts(time), strict=True)
        for member, middle, scatter, (of_ratio, of_time) in zip(
            members, medians, scatters, shifts, strict=True
        ):
            found[member] = (of_ratio[0].before if of_ratio else middle, scatter, of_ratio, of_time)
    return found
