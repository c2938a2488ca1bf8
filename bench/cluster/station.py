"""A worker's side: a process that measures, pinned to the worker's cores, and what the worker says of itself.

The Dask worker imports no TensorFlow. Its station, a process of its own, does: the worker's threads stay out
of the process that is timed, and a case that ends its process does not end the worker.
"""

import gc
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.cases.comparisons import Comparison
from bench.cases.devices import check_backend_chosen
from bench.cases.subjects import SUBJECTS
from bench.cases.user_cells import NO_USER_CELLS, UserCells
from bench.cluster.sources import Files, unpacked
from bench.processes.worker import DEFAULT_LIMITS, Limits, Worker, WorkerDied
from bench.records import environment
from bench.records.schema import Value
from bench.timing.blocks import Budget

Record = dict[str, Value]


@dataclass(frozen=True)
class Setup:
    """What a station is made with; it travels with every case.

    Attributes:
        device: `cpu` or `gpu`.
        limits: what an isolated case may take; a memory of None is half of the worker's machine.
        user_cells: what the client's command line brought, with its own paths.
        files: the files of these cells, by their place.
        local_workers: of a cluster on one machine, how many workers share its cores; None: a worker has all
            cores that its process may use.
        process: for which process of which run it is: another has a station of its own.
    """

    device: str = "cpu"
    limits: Limits = DEFAULT_LIMITS
    user_cells: UserCells = NO_USER_CELLS
    files: tuple[tuple[str, Files], ...] = ()
    local_workers: int | None = None
    process: str = ""


@dataclass(frozen=True)
class About:
    """What a worker says of itself.

    Attributes:
        name: its name in the cluster.
        host: its machine's name.
        cores: the cores that it measures on.
        machine: the hardware key.
        versions: of what must be the same everywhere, by name; `commit` is the code's.
        environment: as a run's folder has it.
    """

    name: str
    host: str
    cores: tuple[int, ...]
    machine: str
    versions: dict[str, str | None]
    environment: dict[str, Any] = field(default_factory=dict)


def introduce(setup: Setup) -> About:
    """Starts the worker's station and asks it what it is. Runs on a worker."""
    name = worker_name()
    cores = _cores(name, setup)
    found = _station(setup, cores).call("about")
    return About(name, socket.gethostname(), cores, **found)


def measure(setup: Setup, comparison: Comparison, budget: Budget) -> Record | str:
    """Measures one comparison in the worker's station. Runs on a worker.

    Returns:
        Its record, whatever happened; or, where the case ended the station's process, how that ended.
    """
    try:
        return _station(setup, _cores(worker_name(), setup)).call("measure", comparison, budget)
    except WorkerDied as error:
        return str(error)


def peers() -> dict[str, Any]:
    """What is known of the peers whose processes the worker's station has started. Runs on a worker."""
    try:
        return _held[1].call("peers") if _held is not None and _held[1].alive else {}
    except WorkerDied:
        return {}


def worker_name() -> str:
    """This worker's name in the cluster."""
    from distributed import get_worker

    return str(get_worker().name)


def _cores(name: str, setup: Setup) -> tuple[int, ...]:
    """The cores that the worker measures on: all that it may use, or its share of one machine's."""
    usable = _usable_cores()
    if setup.local_workers is None or not name.isdecimal():
        return usable
    share = len(usable) // setup.local_workers
    first = int(name) % setup.local_workers * share
    return usable[first : first + share]


def _usable_cores() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _station(setup: Setup, cores: tuple[int, ...]) -> Worker:
    """The process of the worker; another setup, or one that has ended, gets another."""
    global _held
    if _held is None or _held[0] != setup or not _held[1].alive:
        if _held is not None:
            _held[1].close()
        _drop_dasks_variables()
        user_cells = unpacked(setup.user_cells, dict(setup.files))
        arguments = (setup.device, user_cells, _limits(setup), cores)
        _held = setup, Worker(f"{__name__}:Station", arguments)
    return _held[1]


_held: tuple[Setup, Worker] | None = None


def _drop_dasks_variables() -> None:
    """Forgets the environment variables that Dask gave this worker: with one OpenMP thread, libraries would
    not use the cores that they are to be measured on."""
    import dask.config

    for name, value in dask.config.get("distributed.nanny.pre-spawn-environ", {}).items():
        if os.environ.get(name) == str(value):
            del os.environ[name]


def _limits(setup: Setup) -> Limits:
    share = (environment.memory_bytes() or 0) // 2 // (setup.local_workers or 1)
    return Limits(setup.limits.compile_s, setup.limits.memory_bytes or share or None)


# --- in the station's process ---


class Station:
    """Measures comparisons one after another; the arguments are those of `Run`, and the cores to stay on."""

    def __init__(self, device: str, user_cells: UserCells, limits: Limits, cores: tuple[int, ...]):
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)  # before TensorFlow counts them
        gc.enable()
        from bench.backend import devices
        from bench.runner.run import Run

        check_backend_chosen()
        devices.choose_device(device)
        self._run = Run(None, device, {**SUBJECTS, **user_cells.subjects}, limits, user_cells)

    def about(self) -> dict[str, Any]:
        """The fields of `About` that TensorFlow has to be asked for."""
        facts = self._run.facts
        versions = {name: facts[name] for name in ("tensorflow", "keras", "commit")}
        versions["recurrent-cell-benchmark"] = environment.version_of("recurrent-cell-benchmark")
        return {"machine": facts["machine"], "versions": versions, "environment": self._run.environment}

    def peers(self) -> dict[str, Any]:
        """The versions and threads of the peers' processes that have been started, by module."""
        return self._run.environment.get("peers", {})

    def measure(self, comparison: Comparison, budget: Budget) -> Record:
        """The record of the comparison."""
        record = self._run.measure(comparison, Rounds(), budget)
        self._run.records.clear()
        return record


class Rounds:
    """As much of pytest-benchmark's fixture as a run asks for."""

    enabled = True

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}
        self.has_error = False

    def pedantic(
        self,
        target: Callable[[], object],
        setup: Callable[[], object] = lambda: None,
        teardown: Callable[[], object] = lambda: None,
        rounds: int = 1,
    ) -> None:
        """Calls the three, that many times."""
        for _ in range(rounds):
            setup()
            target()
            teardown()
