"""Read the two sides of a comparison: each holds the processes of one revision, a CSV of records each.

All that could make a comparison untrue is refused here, by its name.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from bench.records.files import read_text
from bench.records.frame import load
from bench.records.run_folder import record_files
from bench.records.schema import ImpossibleRow, RecordError, Value

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SESSION_FILE = "session.tsv"
HARDWARE = ("machine", "device", "backend")
VERSIONS = ("tensorflow", "keras")
RATIO, TIME, BASELINE_TIME = FIGURES = ("ratio", "median_s", "baseline_median_s")
Key = tuple[str, str, str]  # sweep, case, baseline: what is compared with its like on the other side
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


@dataclass(frozen=True, eq=False)
class Process:
    """The figures that one process measured.

    Attributes:
        name: its run's id.
        facts: the hardware, the versions and the commit that it ran on.
        keys: of its records.
        figures: of its records, keys x `FIGURES`; nan where one was not taken.
        failures: of the records that are not ok, what they are: `failed (error)`.
        started: when its first case ended.
        file: its CSV; None where it was simulated.
    """

    name: str
    facts: Mapping[str, Value]
    keys: Sequence[Key]
    figures: "np.ndarray"
    failures: Mapping[Key, str] = field(default_factory=dict)
    started: str = ""
    file: Path | None = None

    def has(self, key: Key) -> bool:
        """Says whether it has a record of the case."""
        return key in self._known

    @cached_property
    def _known(self) -> frozenset[Key]:
        return frozenset(self.keys)


@dataclass(frozen=True, eq=False)
class Side:
    """One revision's processes: `baseline` or `current`.

    Attributes:
        revision: what it is called, where whoever measured it knows more than its records.
    """

    name: str
    processes: tuple[Process, ...]
    revision: str = ""

    def fact(self, column: str) -> Value:
        """One of the facts that all its processes share: `machine`, `commit`, ..."""
        return self.processes[0].facts[column]

    @property
    def versions(self) -> tuple[Value, ...]:
        return tuple(self.fact(column) for column in VERSIONS)

    @cached_property
    def _places(self) -> dict[Key, int]:
        """A number for each key that any of its processes has a record of."""
        keys = dict.fromkeys(key for process in self.processes for key in process.keys)
        return {key: place for place, key in enumerate(keys)}

    @property
    def keys(self) -> Iterable[Key]:
        """The cases that any of its processes has a record of, in their order."""
        return self._places.keys()

    @cached_property
    def _all_figures(self) -> "np.ndarray":
        """Keys x processes x `FIGURES`, and behind the last key one that no process has."""
        import numpy as np

        figures = np.full((len(self._places) + 1, len(self.processes), len(FIGURES)), np.nan)
        for number, process in enumerate(self.processes):
            figures[[self._places[key] for key in process.keys], number] = process.figures
        return figures

    def figures(self, keys: Iterable[Key], figure: str) -> "np.ndarray":
        """A figure of these cases, keys x processes; nan where it was not taken."""
        places = [self._places.get(key, -1) for key in keys]
        return self._all_figures[places, :, FIGURES.index(figure)]

    def without(self, key: Key, figure: str) -> str:
        """Why some processes do not have the figure: `2 failed (error), 1 without a row`."""
        taken = self.figures([key], figure)[0]
        reasons = Counter(
            process.failures.get(key, f"without {figure}" if process.has(key) else "without a row")
            for process, value in zip(self.processes, taken, strict=True)
            if value != value
        )
        return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))


def read_side(name: str, paths: Iterable[Path]) -> Side:
    """The processes of a side.

    Args:
        paths: runs' folders, CSVs, and folders that hold runs' folders.

    Raises:
        CannotCompare: where they are not several processes of one revision on one machine.
    """
    processes = tuple(_processes([file for path in paths for file in _files(Path(path))]))
    if not processes:
        raise CannotCompare("no records", f"the {name} has no runs")
    _refuse_twins(processes)
    for column in (*HARDWARE, *VERSIONS, "commit"):
        found = Counter(process.facts[column] for process in processes)
        if len(found) > 1:
            raise CannotCompare("several revisions", f"the {name}'s {column}: {_listed(found)}")
    return Side(name, processes)


def _files(path: Path) -> list[Path]:
    """The CSVs that a path stands for."""
    try:
        return record_files(path)
    except RecordError as error:
        raise CannotCompare("unreadable", str(error)) from error


def _processes(files: Sequence[Path]) -> Iterator[Process]:
    """The process of each CSV; raises CannotCompare where one is not one."""
    known: dict[Key, Key] = {}  # a key is the same object in all processes
    folders = [str(file.parent) for file in files]
    together = len(set(folders)) == len(files)  # then the folder says which file a row is of
    for some in [files] if together else [[file] for file in files]:
        rows = _load(some)
        of_folder = dict(list(rows.groupby("run", observed=True)))
        for file in some:
            if str(file.parent) not in of_folder:
                raise CannotCompare("no records", f"{file}: has no rows")
            yield _process(file, of_folder.pop(str(file.parent)).reset_index(drop=True), known)


def _load(files: Sequence[Path]) -> "pd.DataFrame":
    try:
        return load(files)
    except RecordError as error:
        raise CannotCompare(_cause(error), str(error)) from error


def _cause(error: RecordError) -> str:
    """The cause that a reader's error is."""
    if isinstance(error, ImpossibleRow):
        return "bad row"
    return "schema too new" if "newer version" in str(error) else "unreadable"


def _process(file: Path, rows: "pd.DataFrame", known: dict[Key, Key]) -> Process:
    """The one process of a CSV's rows; raises CannotCompare where they are not of one.

    Args:
        known: the keys of other processes.
    """
    _check_rows(file, rows)
    keys = [known.setdefault(key, key) for key in _keys(rows)]
    bad = rows[rows["status"] != "ok"]
    words = bad["status"].astype(str) + " (" + bad["reason"].astype(str) + ")"
    return Process(
        name=str(rows["run_id"].iloc[0]),
        facts={name: _said(rows[name])[0] or None for name in (*HARDWARE, *VERSIONS, "commit")},
        keys=keys,
        figures=rows[list(FIGURES)].to_numpy(dtype=float),
        failures=dict(zip((keys[place] for place in bad.index), words, strict=True)),
        started=min(_said(rows["timestamp"])),
        file=file,
    )


def _said(column: "pd.Series") -> list[str]:
    """The texts of a column, empty where there is none."""
    return column.astype(object).where(column.notna(), "").astype(str).tolist()


def _keys(rows: "pd.DataFrame") -> Iterator[Key]:
    return zip(*(_said(rows[name]) for name in ("sweep", "case", "baseline")), strict=True)


def _check_rows(file: Path, rows: "pd.DataFrame") -> None:
    """Raises CannotCompare, with file and row, where the rows are not those of one process."""
    runs = set(_said(rows["run_id"]))
    if len(runs) > 1:
        raise CannotCompare("several runs in a file", f"{file}: {_listed(runs)}")
    ratio = rows["ratio"].notna()
    problems = [
        *(
            (rows[name].isna(), f"{name} is empty")
            for name in ("run_id", "sweep", "case", *HARDWARE, *VERSIONS)
        ),
        *(
            (_differs(rows[name]), f"{name} is not that of row 2")
            for name in (*HARDWARE, *VERSIONS, "commit")
        ),
        (ratio & rows[[TIME, BASELINE_TIME]].isna().any(axis=1), "a ratio without the times it is of"),
    ]
    for is_bad, problem in problems:
        if is_bad.any():
            row = int(is_bad.to_numpy().argmax()) + 2  # the header is row 1
            raise CannotCompare("bad row", f"{file}, row {row}: {problem}")


def _differs(column: "pd.Series") -> "pd.Series":
    texts = column.astype(object).where(column.notna(), "")
    return texts != texts.iloc[0]


def check_comparable(baseline: Side, current: Side) -> None:
    """Raises CannotCompare where the sides ran on different hardware, or share a process."""
    _refuse_twins((*baseline.processes, *current.processes))
    for column in HARDWARE:
        before, after = baseline.fact(column), current.fact(column)
        if before != after:
            raise CannotCompare("different hardware", f"{column}: baseline {before}, current {after}")


def _refuse_twins(processes: Sequence[Process]) -> None:
    """The same process counted twice would look like agreement between two."""
    files: dict[str, list[Path | None]] = {}
    for process in processes:
        files.setdefault(process.name, []).append(process.file)
    twins = {name: found for name, found in files.items() if len(found) > 1}
    if twins:
        name, found = min(twins.items())
        more = f"; and so do {len(twins) - 1} more" if len(twins) > 1 else ""
        raise CannotCompare("a process twice", f"run {name} {_twice(found)}{more}")


def _twice(files: Sequence[Path | None]) -> str:
    """Says where the rows of one run stand, and why that counts once."""
    first, second = map(str, files[:2])
    if first == second:
        return f"is named twice: {first}"
    return f"stands in {first} and in {second}: a copy is no second process, and no run is its own baseline"


def alternated(baseline: Side, current: Side) -> bool:
    """Says whether the sides' processes took turns in one session, as `gate --measure` records it.

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
        lines = read_text(file).splitlines()
    except RecordError as error:
        raise CannotCompare("unreadable", str(error)) from error
    return [run for _, _, run in (line.partition("\t") for line in lines)]


def _listed(names: Iterable[object]) -> str:
    names = sorted(str(name) for name in names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
