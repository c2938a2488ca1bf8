"""Asks a user's cell the contract in a worker with limits, so that whatever the cell does each check ends.

A check that ends its process, or runs out of time or memory, is a result like any other; a fresh worker
goes on with the next check. TensorFlow is not imported here, only in the workers.
"""

import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.cases.devices import NO_GPU
from bench.cases.subjects import BACKENDS as OTHER_BACKENDS
from bench.contract.load_cell import Target, TargetError
from bench.contract.report import (
    ENDED,
    NO_EXIT,
    OUT_OF_MEMORY,
    OUT_OF_TIME,
    CheckResult,
    ContractReport,
    short_path,
)
from bench.processes.worker import MemoryLimit, Nursery, TimeLimit, Worker, WorkerDied, WorkerError
from bench.records.environment import memory_bytes

CHECK_S = 30.0  # a check takes 0.3 s on two cores, the slowest 3 s
_GRACE_S = 1.0  # after the limit, for writing where the check was
_MEMORY = 2 << 30  # a worker takes a third of it
_SERVICE = "bench.processes.contract_service"
BACKENDS = ("tensorflow", *(backend.name for backend in OTHER_BACKENDS.values()))
_ON_THE_CPU = {"JAX_PLATFORMS": "cpu", "KERAS_TORCH_DEVICE": "cpu"}

# how a check ends whose worker is gone: (status, what to change)
_ENDS: dict[type[WorkerError], tuple[str, str]] = {
    TimeLimit: (OUT_OF_TIME, "end every loop: by the number of steps, not by a value that may never come"),
    MemoryLimit: (
        OUT_OF_MEMORY,
        "keep nothing from call to call; let shapes follow from units and inputs",
    ),
    WorkerDied: (ENDED, NO_EXIT + ", and no access to raw memory"),
}


@dataclass(frozen=True)
class UserCell:
    """A user's cell, and the sizes that it is asked at.

    Attributes:
        target: `package.module:Name` or `path/to/file.py:Name`.
        kwargs: its arguments beside units.
        units: what it is made with.
        features: the size of one step of the inputs, or its shape; None: a small one that is not `units`.
        whole: whether it is a whole layer, which is asked the lighter contract.
        factory: what makes it where the target names nothing: a class or function of this process alone.
        backend: the back end of Keras that it is asked on, one of `BACKENDS`; a nursery has the first.
    """

    target: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    units: int = 16
    features: int | tuple[int, ...] | None = None
    whole: bool = False
    factory: Target | None = None
    backend: str = "tensorflow"


@dataclass(frozen=True)
class ContractLimits:
    """What the contract's worker may take.

    Attributes:
        check_s: seconds of one check, or of loading the cell.
        memory_bytes: resident size; by default 2 GiB, or half of the machine's memory if that is less.
    """

    check_s: float = CHECK_S
    memory_bytes: int = field(default_factory=lambda: min(_MEMORY, (memory_bytes() or 2 * _MEMORY) // 2))


def contract_nursery() -> AbstractContextManager[Nursery | None]:
    """Forks the contract's workers from a process that has imported TensorFlow once, and ends with a `with`
    block; None where no process can be forked."""
    return Nursery(_SERVICE, NO_GPU) if sys.platform == "linux" else nullcontext()


def load_apart(cell: UserCell, nursery: Nursery | None = None, limits: ContractLimits | None = None) -> None:
    """Loads the cell's target in a worker and forgets it.

    Raises:
        TargetError: it cannot be loaded, or its file ends the process, or runs out of time or memory.
    """
    with tempfile.TemporaryDirectory() as folder, _Session(cell, nursery, limits, folder) as session:
        session.checks  # noqa: B018 - loads


def check_here(cell: UserCell) -> ContractReport:
    """Asks a cell of this process every check, here: no other process can make it.

    Raises:
        TargetError: the constructor raises.
    """
    from bench.contract.check_cell import check_cell

    assert cell.factory is not None
    return check_cell(cell.factory, cell.units, cell.features)


def check_apart(
    cell: UserCell, nursery: Nursery | None = None, limits: ContractLimits | None = None
) -> ContractReport:
    """Asks the cell every check in a worker.

    Args:
        nursery: forks the workers, and has imported TensorFlow; None: they start from nothing.

    Raises:
        TargetError: as `load_apart`, or the constructor raises.
    """
    found: dict[str, CheckResult] = {}
    with tempfile.TemporaryDirectory() as folder, _Session(cell, nursery, limits, folder) as session:
        for name, question in session.checks:
            found[name] = session.ask(name, question, found)
    return ContractReport(cell.target, tuple(found.values()))


class Verdicts:
    """What the contract says of the user's cells of a run, each asked once.

    A cell that cannot take a step at the contract's small sizes is asked at those of its case: its features
    may have to be its units, or be so many.
    """

    def __init__(self) -> None:
        self._reports: dict[tuple[Any, ...], ContractReport] = {}

    def broken(self, cell: UserCell, features: int, units: int, nursery: Nursery | None) -> str | None:
        """What is wrong with the cell, in a sentence; None if the contract holds.

        Args:
            features, units: those of the case.

        Raises:
            TargetError: as `check_apart`.
        """
        report = self._report(cell, nursery)
        if cell.features is None and any(result.name in _FIRST for result in report.failed):
            report = self._report(replace(cell, features=features, units=units), nursery)
        if report.ok:
            return None
        found = "; ".join(f"{result.name}: {result.text}" for result in report.failed)
        return f"{len(report.failed)} of the contract's checks failed: {found}"

    def _report(self, cell: UserCell, nursery: Nursery | None) -> ContractReport:
        key = (cell.target, repr(cell.kwargs), cell.units, cell.features, cell.whole, cell.factory)
        if key not in self._reports:
            self._reports[key] = check_here(cell) if cell.factory else check_apart(cell, nursery)
        return self._reports[key]


_FIRST = (
    "build",
    "initial_state_shapes",
    "call",
    "sequences",
)  # the checks that first build the cell and take a step


def _whole(place: str) -> str:
    """A file's whole path; a text that can be no path as it is."""
    try:
        return str(Path(place).expanduser().resolve())
    except (OSError, ValueError, RuntimeError):
        return place


class _Session:
    """The cell in one worker after another."""

    def __init__(
        self, cell: UserCell, nursery: Nursery | None, limits: ContractLimits | None, folder: str
    ) -> None:
        self._cell, self._nursery, self._limits = cell, nursery, limits or ContractLimits()
        self._trace = Path(folder) / "trace"
        self._worker: Worker | None = None
        self._file = _whole(cell.target.rpartition(":")[0])

    @cached_property
    def checks(self) -> list[tuple[str, str]]:
        """(name, question) of every check; loads the cell."""
        try:
            _, checks = self._loaded()
        except tuple(_ENDS) as error:
            status, _ = _ENDS[type(error)]
            where = self._where()
            message = f"{self._cell.target} {status} while it was loaded: {self._words(error)}{where}"
            raise TargetError(message) from error
        return checks

    def ask(self, name: str, question: str, found: Mapping[str, CheckResult]) -> CheckResult:
        """Asks one check, whatever becomes of the worker."""
        limit_s = self._limits.check_s
        try:
            worker, _ = self._loaded()
            return worker.call("ask", name, dict(found), limit_s, time_limit_s=limit_s + _GRACE_S)
        except tuple(_ENDS) as error:
            status, change = _ENDS[type(error)]
            return CheckResult(name, status, self._words(error), change + self._where(), question)

    def _loaded(self) -> tuple[Worker, list[tuple[str, str]]]:
        """A worker that has loaded the cell: the one there is, or a fresh one."""
        if self._worker is None or not self._worker.alive:
            self._worker = Worker(
                f"{_SERVICE}:ContractService",
                (str(self._trace),),
                {**NO_GPU, **_ON_THE_CPU, "KERAS_BACKEND": self._cell.backend},
                self._limits.memory_bytes,
                self._nursery if self._cell.backend == "tensorflow" else None,
            )
            cell = self._cell
            limit_s = self._limits.check_s
            file, self._checks = self._worker.call(
                *("load", cell.target, cell.kwargs, cell.units, cell.features, cell.whole, limit_s),
                time_limit_s=limit_s + _GRACE_S,
            )
            self._file = file or self._file
        return self._worker, self._checks

    def _words(self, error: WorkerError) -> str:
        """What happened to the worker, in a few words."""
        if isinstance(error, WorkerDied):
            return error.cause
        if isinstance(error, MemoryLimit):
            return f"more than {self._limits.memory_bytes >> 20:,} MiB"
        return f"more than {self._limits.check_s:g} s"

    def _where(self) -> str:
        """` (file:line)` of the user's line that ran last, by Python's traceback; "" where there is none."""
        trace = self._trace.read_text(errors="replace") if self._trace.exists() else ""
        for file, line in re.findall(r'File "(.+)", line (\d+)', trace):
            if file == self._file:
                return f" ({short_path(file)}:{line})"
        return ""

    def __enter__(self) -> "_Session":
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.close()
