"""`ClusterRun`: a run whose comparisons a cluster measures, used as `bench.runner.run.Run` is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.cases.comparisons import Comparison
from bench.cases.subjects import SUBJECTS
from bench.cluster.admission import ClusterError, check_address
from bench.cluster.shared_writer import process_folders
from bench.cluster.sources import travelling
from bench.cluster.station import Record, Setup
from bench.records import environment
from bench.records.csv_file import RECORDS_FILE, read_records, records_file
from bench.records.run_folder import PROCESSES_FOLDER, stored_folders
from bench.records.schema import RecordError
from bench.timing.blocks import Budget

_PACKAGES = ("tensorflow", "keras", "recurrent-cell-benchmark")


@dataclass(frozen=True)
class Wanted:
    """The cluster that the command line asks for.

    Attributes:
        workers: worker processes to start on this machine; None: none.
        scheduler: the address of a cluster's scheduler; None: none.
        each_machine: whether each hardware key measures all comparisons.
        resume: the folder of a run to go on with; None: a new one.
        processes: how often each comparison is measured, each time in another process of a worker.
    """

    workers: int | None = None
    scheduler: str | None = None
    each_machine: bool = False
    resume: Path | None = None
    processes: int = 1

    def __bool__(self) -> bool:
        return self.workers is not None or self.scheduler is not None

    def check(self) -> None:
        """Raises ClusterError for options that make no sense together."""
        if self.workers is not None and self.scheduler is not None:
            raise ClusterError(
                "--workers starts a cluster here, --scheduler has one elsewhere: give one of them"
            )
        if self.scheduler is not None:
            check_address(self.scheduler)
        for option, given in (("--each-machine", self.each_machine), ("--resume", self.resume)):
            if given and not self:
                raise ClusterError(f"{option} is for a cluster: add --scheduler or --workers")
        if self.each_machine and self.resume:
            raise ClusterError("--resume: continues a run on one kind of machine; leave out --each-machine")


class ClusterRun:
    """A run on a cluster; `folder`, `records`, `subjects`, `measure` and `close` are as `Run` has them.

    Args:
        wanted: the cluster.
        folder: the run's, to be made; with `wanted.resume` that one instead.
        comparisons: all that are to be measured, in their order.
        setup: what a worker's station is made with; the files of user cells are added here.
        budget: what timing a comparison may take.

    Raises:
        ClusterError: there is no such cluster, its workers cannot be used, or the run cannot go on.
        UserCellError: a user's cell cannot travel.
        OSError: the folder cannot be written.
    """

    def __init__(
        self, wanted: Wanted, folder: Path, comparisons: Sequence[Comparison], setup: Setup, budget: Budget
    ):
        from bench.cluster.connect import local_client, remote_client
        from bench.cluster.dispatch import Dispatcher

        wanted.check()
        self.folder, kept = folder, None
        if wanted.resume is not None:
            self.folder, kept = resumed(wanted.resume, comparisons, wanted.processes)
        self.subjects = {**SUBJECTS, **setup.user_cells.subjects}
        files = tuple(travelling(setup.user_cells).items())
        with ExitStack() as stack:
            if wanted.scheduler is None:
                client = stack.enter_context(local_client(wanted.workers or 1))
            else:
                client = stack.enter_context(remote_client(wanted.scheduler))
            self._dispatcher = Dispatcher(
                client,
                self.folder,
                comparisons,
                self.subjects,
                replace(setup, files=files, local_workers=wanted.workers),
                client_versions(),
                budget,
                wanted.workers or 1,
                wanted.each_machine,
                kept,
                processes=wanted.processes,
            )
            stack.callback(self._dispatcher.close)
            self._open = stack.pop_all()

    @property
    def records(self) -> list[Record]:
        """The records that have ended so far, of every hardware key, read from the files."""
        return [record for _, records in self.parts for record in records]

    @property
    def folders(self) -> list[Path]:
        """The folders of the run, one a hardware key."""
        return self._dispatcher.folders

    @property
    def parts(self) -> list[tuple[Path, list[Record]]]:
        """The folders of the run, one a hardware key, each with its records that have ended so far. Of a run
        over processes that are not joined, the folder of each."""
        found = [part for folder in self.folders for part in _parts_of(folder)]
        return [(folder, _ended(read_records(folder))) for folder in found]

    @property
    def warnings(self) -> list[str]:
        """The workers that were left out, and why."""
        return self._dispatcher.warnings

    def measure(self, comparison: Comparison, benchmark, budget: Budget) -> Record:
        """The comparison's record, once it has arrived.

        Raises:
            ClusterError: the scheduler or all workers are lost.
        """
        record = self._dispatcher.measure(comparison)
        benchmark.has_error = record["status"] != "ok"
        benchmark.extra_info.update({name: value for name, value in record.items() if value is not None})
        return record

    def measure_rest(self) -> Iterator[tuple[int, Record]]:
        """The number of the process and the record of what no `measure` asks for, as it arrives: of each
        process but the first.

        Raises:
            ClusterError: the scheduler or all workers are lost.
        """
        return self._dispatcher.measure_rest()

    def close(self) -> None:
        """Leaves the cluster; one that was started for the run ends."""
        self._open.close()


def client_versions() -> dict[str, str | None]:
    """The versions here, which the workers' must be: the packages', and the commit."""
    found = {name: environment.version_of(name) for name in _PACKAGES}
    return {**found, "commit": environment.git_commit()}


def _parts_of(folder: Path) -> list[Path]:
    """The folder itself, or, where its processes are not joined, the folder of each that has begun."""
    if (folder / RECORDS_FILE).exists() or not (folder / PROCESSES_FOLDER).is_dir():
        return [folder]
    return stored_folders(folder / PROCESSES_FOLDER)


def resumed(run: Path, comparisons: Sequence[Comparison], processes: int = 1) -> tuple[Path, list[Record]]:
    """The folder of a run to go on with, and its records that have ended: of several processes, those of all.

    Raises:
        ClusterError: that is no run, or of another number of processes, or it has rows that are not among the
            comparisons.
    """
    _check_processes(run, processes)
    try:
        files = [records_file(folder) for folder in process_folders(run, processes)]
        folder = run if processes > 1 else files[0].parent
        records = [record for file in files for record in read_records(file)]
    except RecordError as error:
        raise ClusterError(f"--resume {run}: is no run: {error}") from None
    wanted = {(each.sweep, each.case.id, each.baseline.id) for each in comparisons}
    others = [
        record for record in records if (record["sweep"], record["case"], record["baseline"]) not in wanted
    ]
    if others:
        raise ClusterError(
            f"--resume {run}: {len(others)} of its rows are not asked for, the first of the sweep "
            f"{others[0]['sweep']}: {others[0]['case']}; give the options that the run was begun with"
        )
    return folder, _ended(records)


def _check_processes(run: Path, processes: int) -> None:
    """Raises ClusterError where a run was begun over another number of processes, or not a cluster's."""
    of_each = run / PROCESSES_FOLDER
    if run.is_dir() and not of_each.is_dir() and processes > 1:
        raise ClusterError(f"--resume {run}: was begun without --processes: leave it out")
    begun = stored_folders(of_each) if of_each.is_dir() else []
    if begun and begun != process_folders(run, len(begun)):
        raise ClusterError(f"--resume {run}: was not begun in a cluster: start a new run")
    if begun and len(begun) != processes:
        raise ClusterError(f"--resume {run}: was begun with --processes={len(begun)}: give the same")


def _ended(records: Iterable[Mapping[str, Any]]) -> list[Record]:
    """The records of cases that have ended; those in flight have no time."""
    return [dict(record) for record in records if record["timestamp"] is not None]
