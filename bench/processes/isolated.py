"""Runs a case in its own process, because it may exhaust memory or because its memory is measured.

`Programs` is the worker's side, `Isolated` ours. The problem, and so the proof, stay on our side: what a
worker takes and how its memory rises is the program's alone.
"""

import gc
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import partial
from itertools import count
from typing import Any

from bench.backend import devices, layers, programs
from bench.backend.data import Answer, Data
from bench.backend.programs import Program
from bench.cases.case import Case
from bench.cases.subjects import SUBJECTS, Subject, make_layer
from bench.cases.user_cells import NO_USER_CELLS, UserCells, refused_by_engines
from bench.processes.peer_client import Peers
from bench.processes.worker import Limits, Nursery, Worker, WorkerError
from bench.proof.problem import SEED, Problem, prepare
from bench.proof.verify import prove

_PROOF = 5  # times as long as compiling may a proof take, eager steps of a long sequence
_REMOTE = ("run", "answer", "time", "queue", "trace_count")


class Programs:
    """The worker's side: programs, each by the name that it was compiled under.

    Args:
        device: as `devices.choose_device` takes it.
        user_cells: what the command line brings, so that the same subjects are known.
    """

    def __init__(self, device: str, user_cells: UserCells = NO_USER_CELLS):
        devices.warm_up(devices.choose_device(device))
        self._subjects = {**SUBJECTS, **user_cells.subjects}
        self._programs: dict[str, Program] = {}
        self._exact: set[str] = set()

    def compile(self, name: str, case: Case, data: Data, exact: bool) -> dict[str, Any]:
        """Compiles the case under `name`, in full precision if `exact`.

        Returns:
            The figures of the `Program`, and `peak_bytes`, how far the memory rose.
        """
        rise = devices.memory_mark(case.device)
        layer = layers.built_layer(partial(make_layer, self._subjects[case.subject], case), case, SEED)
        if exact:
            self._exact.add(name)
        with self._precision(name):
            program = programs.compile_program(layer, case, data)
        self._programs[name] = program
        figures = {
            field.name: getattr(program, field.name)
            for field in fields(program)
            if field.name not in (*_REMOTE, "again", "again_s")
        }
        gc.collect()  # by itself it never runs in a worker
        return {**figures, "peak_bytes": rise()}

    def try_out(self, case: Case) -> None:
        """Proves the case, and forgets it: whatever its cell does to a process, it does to this one."""
        prove(prepare(self._subjects[case.subject], case))

    def refusal(self, target: str, kwargs: str) -> str | None:
        """`refused_by_engines` of this process."""
        return refused_by_engines(target, kwargs)

    def run(self, name: str) -> None:
        """Runs the program once."""
        self._programs[name].run()

    def answer(self, name: str) -> Answer:
        """The program's answer, in full precision if it was compiled so: TensorFlow's own products ask for
        the precision whenever they run."""
        with self._precision(name):
            return self._programs[name].answer()

    def _precision(self, name: str) -> AbstractContextManager[None]:
        return devices.full_precision() if name in self._exact else nullcontext()

    def time(self, name: str) -> float:
        """The seconds of one call, timed here."""
        return self._programs[name].time()

    def queue(self, name: str, count: int) -> float:
        """The seconds of that many calls, timed here."""
        return self._programs[name].queue(count)

    def trace_count(self, name: str) -> int:
        """The number of times the program has been traced."""
        return self._programs[name].trace_count()

    def matmul_peak(self, dtype: str, device: str) -> float:
        """`devices.matmul_peak` of this process."""
        return devices.matmul_peak(dtype, device)


def nursery(device: str) -> Nursery | None:
    """Starts what forks workers with `Programs`; None where they use a GPU, which TensorFlow has opened by
    the time it is imported."""
    return Nursery(__name__) if device == "cpu" and sys.platform == "linux" else None


def try_out(
    case: Case, limits: Limits, arguments: tuple[str, UserCells], nursery: Nursery | None = None
) -> None:
    """Proves a case of a user's cell in a process of its own, which it may end.

    Args:
        arguments: those of `Programs`.

    Raises:
        WorkerError: it ended the process, or hit a limit: the proof too has so many times that of compiling.
        Exception: as `prepare` and `prove` raise.
    """
    limit_s = None if limits.compile_s is None else _PROOF * limits.compile_s
    with _worker(limits, arguments, nursery) as worker:
        worker.call("try_out", case, time_limit_s=limit_s)


def refusal(subject: Subject, limits: Limits, arguments: tuple[str, UserCells], nursery: Nursery | None):
    """Says why no engine of `FusedRNN` runs a user's cell; None where one does, or where the cell ends the
    process that it is asked in: what is wrong with it the contract says."""
    with _worker(limits, arguments, nursery) as worker:
        try:
            return worker.call("refusal", subject.target, subject.kwargs, time_limit_s=limits.compile_s)
        except WorkerError:
            return None


def _worker(limits: Limits, arguments: tuple[str, UserCells], nursery: Nursery | None) -> Worker:
    """A process with `Programs`."""
    return Worker(f"{__name__}:Programs", arguments, memory_limit_bytes=limits.memory_bytes, nursery=nursery)


class Isolated:
    """The processes of one case, with which it ends: its programs, and those of what it is compared with.

    They begin before they are needed, and import TensorFlow while this process prepares the problems.

    Args:
        case: whose they are.
        limits: what each may take.
        arguments: those of `Programs`.
        nursery: forks the worker; None: it starts from nothing.

    Attributes:
        subject: what has been made of the case's own program, by whoever uses it.
        peers: the processes of the peers.
    """

    def __init__(
        self,
        case: Case,
        limits: Limits,
        arguments: tuple[str, UserCells],
        nursery: Nursery | None = None,
    ):
        self.case = case
        self.subject: Any = None
        self.peers = Peers(limits=limits)
        self._limits = limits
        self._numbers = count()
        self._worker = _worker(limits, arguments, nursery)

    @property
    def alive(self) -> bool:
        """True while it can be used."""
        return self._worker.alive

    def compile_program(self, problem: Problem, exact: bool) -> Program:
        """The problem's program, compiled in the worker, in full precision if `exact`.

        Raises:
            WorkerError: it hit a limit, or died; it is gone.
        """
        case, call = problem.case, self._worker.call
        name = f"{next(self._numbers)} {case.id}"
        figures = call("compile", name, case, problem.data, exact, time_limit_s=self._limits.compile_s)
        calls: dict[str, Any] = {method: partial(call, method, name) for method in _REMOTE}
        again = partial(self.compile_program, problem, exact)
        return Program(**figures, **calls, again=again, again_s=figures["compile_s"])

    def matmul_peak(self, dtype: str, device: str) -> float:
        """`devices.matmul_peak` in the worker's process."""
        return self._worker.call("matmul_peak", dtype, device)

    def close(self) -> None:
        """Ends the processes."""
        self._worker.close()
        self.peers.close()
