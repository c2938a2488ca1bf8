"""The client's side: submits a run's comparisons to the cluster, and writes the rows as they arrive."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from bench.cases.comparisons import Comparison, names_of
from bench.cases.subjects import Subject
from bench.cluster import station
from bench.cluster.admission import (
    RESOURCE,
    ClusterError,
    by_machine,
    check_cores,
    check_resources,
    check_versions,
    differences,
)
from bench.cluster.shared_writer import SharedWriter, process_folders
from bench.cluster.station import About, Record, Setup
from bench.records import environment
from bench.records.run_folder import read_environment, write_environment
from bench.records.schema import KILLED, RecordError, make_record
from bench.timing.blocks import Budget

_AHEAD = 2  # comparisons a worker that are submitted: the one it measures, and the next
_TICK_S = 0.5  # how often the client looks up where nothing arrives
_LOOK_S = 5.0  # how often it looks who has joined and who has left
_START_S = 120.0  # for the workers to say what they are: each imports TensorFlow
_PATIENCE_S = 120.0  # without any worker, before the run is given up
_MOST_UNSTARTED = 5  # losses of a worker, before the case had started, that a case may see


@dataclass(frozen=True)
class Duties:
    """The functions that run on a worker; another pair stands in for them where the scheduling is tried.

    Attributes:
        introduce: setup -> `About`.
        measure: setup, comparison, budget -> a record, or how the case ended its process.
        peers: what is known of the peers' processes that the worker has started, by module.
    """

    introduce: Callable[[Setup], About] = station.introduce
    measure: Callable[[Setup, Comparison, Budget], Record | str] = station.measure
    peers: Callable[[], Mapping[str, Any]] = station.peers


@dataclass
class _Attempt:
    """A comparison that has been submitted.

    Attributes:
        lost: the names of the workers that were lost while they measured it.
        started_on: the worker that measures it; None before it has started.
        only: the addresses of the workers that may take it.
        since: when it was lost, on the monotonic clock.
        unstarted: how often a worker was lost that had not started it.
    """

    comparison: Comparison
    ledger: "_Ledger"
    lost: tuple[str, ...] = ()
    started_on: str | None = None
    only: frozenset[str] = frozenset()
    since: float = 0.0
    unstarted: int = 0
    future: Any = None


@dataclass
class _Machine:
    """The machines of one hardware key.

    Attributes:
        folder: the run's there.
        processes: the folder of each of its processes; of one process alone the run's.
        admitted: the workers by their addresses.
    """

    folder: Path
    processes: list[Path]
    environment: dict[str, Any]
    admitted: dict[str, About] = field(default_factory=dict)

    def write_environment(self) -> None:
        """Writes what is known of the machines into the folder of each process."""
        for folder in self.processes:
            write_environment(folder, self.environment)


@dataclass
class _Ledger:
    """A process of the run on machines of one hardware key: its folder, and what is left to measure.

    Attributes:
        process: its number, from 1.
        setup: what the stations that measure for it are made with.
        ended: records that nobody has asked for yet, by the comparison's key.
    """

    machine: _Machine
    process: int
    setup: Setup
    writer: SharedWriter
    waiting: deque[Comparison]
    facts: dict[str, Any]
    ended: dict[tuple[str, str], Record] = field(default_factory=dict)


def key_of(comparison: Comparison) -> tuple[str, str]:
    """What a comparison is known by within a run."""
    return comparison.sweep, comparison.id


class Dispatcher:
    """A run on a cluster: its folder, one a hardware key, and its records.

    The workers are asked what they are when it is made, before anything is timed. One that joins later is
    asked too, and left out by name where it is another.

    Args:
        client: connected to the cluster.
        folder: the run's, to be made; with `each_machine` one beside it for each further key, `NAME-2` ….
        comparisons: all that are to be measured, in their order.
        subjects: every subject that a case may name.
        setup: what a worker's station is made with.
        expected: the versions that each worker must have, by name.
        budget: what timing a comparison may take.
        workers: how many to wait for before it begins.
        each_machine: whether each hardware key measures all of them.
        kept: the records of a run that goes on in `folder`; None: it is a new one.
        duties: what runs on a worker.
        processes: how often each comparison is measured, each time in another process of a worker. Every
            second time is from the last comparison to the first, as the processes of `--processes` take
            turns on one machine.

    Raises:
        ClusterError: a worker has other versions, no resource `bench`, cores that another measures on, or
            another machine; or there are too few.
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        client: Client,
        folder: Path,
        comparisons: Sequence[Comparison],
        subjects: Mapping[str, Subject],
        setup: Setup,
        expected: Mapping[str, str | None],
        budget: Budget,
        workers: int = 1,
        each_machine: bool = False,
        kept: Sequence[Mapping[str, Any]] | None = None,
        duties: Duties | None = None,
        processes: int = 1,
    ):
        self.folder, self.subjects = folder, dict(subjects)
        self.warnings: list[str] = []
        self._client, self._setup, self._duties = client, setup, duties or Duties()
        self._expected, self._budget, self._processes = expected, budget, processes
        self._attempts: dict[str, _Attempt] = {}
        self._again: list[_Attempt] = []
        self._introducing: dict[str, Future] = {}
        self._refused: set[str] = set()
        self._arrived: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._looked = self._last_seen = time.monotonic()
        self._numbers = count()
        self._topic = f"bench-{folder.name}-{uuid4().hex[:8]}"
        # a lost worker is ours to record: the scheduler must not start its case again by itself
        self._allowed_failures = _allow_failures(client, 0)
        client.subscribe_topic(self._topic, lambda event: self._arrived.put(("started", event[1])))
        self._machines: dict[str, _Machine] = {}
        self._ledgers: list[_Ledger] = []
        self._open(self._introduced(workers), comparisons, each_machine, kept or (), kept is not None)
        self._top_up()

    @property
    def folders(self) -> list[Path]:
        """The folders of the run, one a hardware key."""
        return [machine.folder for machine in self._machines.values()]

    def measure(self, comparison: Comparison) -> Record:
        """The record of a comparison, once every hardware key has one, of its first process: the first that
        is not ok, if any.

        Raises:
            ClusterError: the scheduler or all workers are lost.
        """
        key, firsts = key_of(comparison), [ledger for ledger in self._ledgers if ledger.process == 1]
        while not all(key in ledger.ended for ledger in firsts):
            self._step()
        records = [ledger.ended.pop(key) for ledger in firsts]
        return next((record for record in records if record["status"] != "ok"), records[0])

    def measure_rest(self) -> Iterator[tuple[int, Record]]:
        """The number of the process and the record, as it arrives, of every other process.

        Raises:
            ClusterError: the scheduler or all workers are lost.
        """
        others = [ledger for ledger in self._ledgers if ledger.process > 1]
        while True:
            for ledger in others:
                while ledger.ended:
                    yield ledger.process, ledger.ended.pop(next(iter(ledger.ended)))
            if not (self._attempts or self._again or any(ledger.waiting for ledger in others)):
                return
            self._step()

    def close(self) -> None:
        """Gives up what is in flight and leaves the cluster as it was; the rows stay as they are."""
        for ledger in self._ledgers:
            ledger.writer.close()
        if self._client.status == "running":
            self._client.cancel([attempt.future for attempt in self._attempts.values()], force=True)
            _allow_failures(self._client, self._allowed_failures)

    # --- before anything is timed ---

    def _introduced(self, wanted: int) -> dict[str, About]:
        """So many workers by address, or all that there are if they are more, asked what they are."""
        deadline = time.monotonic() + _START_S
        found: dict[str, About] = {}
        while True:
            workers = self._workers()
            check_resources(workers.values())
            self._ask(workers.keys() - found.keys())
            found |= self._answers()
            present = {address: about for address, about in found.items() if address in workers}
            if len(workers) >= wanted and len(present) == len(workers):
                break
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{len(present)} of {max(wanted, len(workers))} workers have said what they are within "
                    f"{_START_S:g} s; there must be {wanted}"
                )
            time.sleep(_TICK_S / 5)
        check_versions([*present.values()], self._expected)
        check_cores([*present.values()])
        return present

    def _open(
        self,
        workers: Mapping[str, About],
        comparisons: Sequence[Comparison],
        each_machine: bool,
        kept: Sequence[Mapping[str, Any]],
        goes_on: bool,
    ) -> None:
        """Opens the folders, the first hardware key's in the run's own, and admits the workers."""
        for number, (key, of_key) in enumerate(by_machine([*workers.values()], each_machine).items(), 1):
            folder = self.folder if number == 1 else self.folder.with_name(f"{self.folder.name}-{number}")
            folders = process_folders(folder, self._processes)
            environment = {**of_key[0].environment, **_earlier_workers(folders[0])}
            machine = self._machines[key] = _Machine(folder, folders, environment)
            facts = {
                "machine": key,
                "device": self._setup.device,
                **{name: of_key[0].versions[name] for name in ("tensorflow", "keras", "commit")},
            }
            _check_continues(kept, facts)
            for process, of_process in enumerate(folders, 1):
                run_id = folder.name if of_process == folder else f"{folder.name}-{of_process.name}"
                known = _of_process(kept, process) if self._processes > 1 else kept
                ledger = _Ledger(
                    machine,
                    process,
                    self._setup_of(process),
                    SharedWriter(of_process, known if goes_on else None),
                    deque(comparisons if process % 2 else reversed(comparisons)),
                    {"run_id": run_id, **facts},
                )
                self._keep(ledger, known)
                self._ledgers.append(ledger)
        for address, about in workers.items():
            self._admit(self._machines[about.machine], address, about)

    def _keep(self, ledger: _Ledger, kept: Sequence[Mapping[str, Any]]) -> None:
        """Takes the records of a run that goes on for those of its comparisons."""
        known = {(record["sweep"], record["case"], record["baseline"]): record for record in kept}
        left: deque[Comparison] = deque()
        for comparison in ledger.waiting:
            record = known.get((comparison.sweep, comparison.case.id, comparison.baseline.id))
            if record is None:
                left.append(comparison)
            else:
                ledger.ended[key_of(comparison)] = dict(record)
        ledger.waiting = left

    def _setup_of(self, process: int) -> Setup:
        return replace(self._setup, process=f"{self.folder.name} {process}")

    # --- who is there ---

    def _workers(self) -> dict[str, dict[str, Any]]:
        """What the scheduler knows of each worker, by address."""
        try:
            return dict(self._client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, TimeoutError):
            raise ClusterError(f"the scheduler is lost; {self._how_to_go_on()}") from None

    def _ask(self, workers: Iterable[str]) -> None:
        """Asks each worker that has not been asked what it is."""
        known = {*self._introducing, *self._refused, *self._admitted}
        for address in set(workers) - known:
            self._introducing[address] = self._client.submit(
                self._duties.introduce,
                self._setup_of(1),
                workers=[address],
                resources={RESOURCE: 1},
                pure=False,
            )

    def _answers(self) -> dict[str, About]:
        """What the workers that were asked have said since."""
        found = {}
        for address, future in list(self._introducing.items()):
            if future.status == "finished":
                found[address] = future.result()
            elif future.status == "error" and not isinstance(future.exception(), KilledWorker):
                raise ClusterError(f"worker {address}: {future.exception()}")
            elif future.status not in ("error", "cancelled", "lost"):
                continue
            del self._introducing[address]
        return found

    def _look(self) -> None:
        """Admits who has joined, forgets who has left, and lets others take what only these could."""
        self._looked = time.monotonic()
        workers = self._workers()
        for machine in self._machines.values():
            for address in set(machine.admitted) - set(workers):
                del machine.admitted[address]
        for attempt in list(self._attempts.values()):
            if attempt.started_on is None and not attempt.only & attempt.ledger.machine.admitted.keys():
                self._attempts.pop(attempt.future.key)
                attempt.future.cancel()
                self._again.append(attempt)
        able = {address: each for address, each in workers.items() if each["resources"].get(RESOURCE) == 1}
        self._ask(able)
        for address, about in self._answers().items():
            self._admit_late(address, about)
        if self._admitted:
            self._last_seen = time.monotonic()
        elif time.monotonic() - self._last_seen > _PATIENCE_S:
            raise ClusterError(f"no worker has been there for {_PATIENCE_S:g} s; {self._how_to_go_on()}")

    def _admit_late(self, address: str, about: About) -> None:
        """Admits a worker that has joined, if it is as the others; else says why not, once."""
        wrong = differences(about, self._expected)
        if about.machine not in self._machines:
            wrong.append(f"the machine {about.machine}")
        if wrong:
            self._refused.add(address)
            self.warnings.append(f"left out: worker {about.name}, which has {', '.join(wrong)}")
        else:
            self._admit(self._machines[about.machine], address, about)

    def _admit(self, machine: _Machine, address: str, about: About) -> None:
        machine.admitted[address] = about
        known = machine.environment.setdefault("workers", {})
        known[about.name] = {"host": about.host, "cores": list(about.cores)}
        machine.write_environment()

    @property
    def _admitted(self) -> dict[str, About]:
        machines = self._machines.values()
        return {address: about for machine in machines for address, about in machine.admitted.items()}

    def _how_to_go_on(self) -> str:
        if not self._machines:
            return "nothing has been measured yet"
        if len(self._machines) == 1:
            return f"what arrived is in {self.folder}, and --resume={self.folder} does the rest"
        folders = " and ".join(map(str, self.folders))
        return f"what arrived is in {folders}; with workers of one kind --resume=RUN does the rest of each"

    # --- the comparisons ---

    def _step(self) -> None:
        """Takes what arrives next, for a moment, and submits what is next."""
        try:
            what, found = self._arrived.get(timeout=_TICK_S)
            self._started(*found) if what == "started" else self._ended(found)
        except Empty:
            pass
        if self._client.status != "running":
            raise ClusterError(f"the scheduler is lost; {self._how_to_go_on()}")
        if time.monotonic() - self._looked > _LOOK_S:
            self._look()
        self._top_up()

    def _top_up(self) -> None:
        """Keeps two comparisons a worker submitted, and few records that nobody has asked for."""
        again, self._again = self._again, []
        for attempt in again:
            there = attempt.ledger.machine.admitted
            others = {address for address, about in there.items() if about.name not in attempt.lost}
            if others or (there and time.monotonic() - attempt.since > _LOOK_S):  # there is no other
                self._submit(attempt, others or {*there})
            else:
                self._again.append(attempt)
        for ledger in self._ledgers:  # those of one machine in their order
            machine = ledger.machine
            submitted = sum(attempt.ledger.machine is machine for attempt in self._attempts.values())
            most = _AHEAD * len(machine.admitted)
            while ledger.waiting and submitted < most and len(ledger.ended) < _AHEAD * most + 100:
                self._submit(_Attempt(ledger.waiting.popleft(), ledger), machine.admitted)
                submitted += 1

    def _submit(self, attempt: _Attempt, workers: Iterable[str]) -> None:
        """Submits a comparison to whichever of the workers has time for it first.

        Of the scheduler's own resources it takes `bench` alone; that a worker is admitted it does not know.
        """
        attempt.only, attempt.started_on = frozenset(workers), None
        slim = replace(attempt.comparison, of=replace(attempt.comparison.of, grids=()))
        key = f"{self._topic}-{next(self._numbers)}"
        attempt.future = self._client.submit(
            _task(self._duties, self._topic),
            *(key, attempt.ledger.setup, slim, self._budget),
            key=key,
            workers=sorted(attempt.only),
            resources={RESOURCE: 1},
            priority=-next(self._numbers) if not attempt.lost else 1,
            pure=False,
        )
        self._attempts[key] = attempt
        attempt.future.add_done_callback(lambda future: self._arrived.put(("ended", future)))

    def _started(self, key: str, worker: str) -> None:
        """A worker has begun: from here on the row stands in the file, as killed."""
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.started_on = worker
            attempt.ledger.writer.begin(key_of(attempt.comparison), self._row(attempt, worker, KILLED))

    def _ended(self, future: Future) -> None:
        attempt = self._attempts.pop(str(future.key), None)
        if attempt is None:
            return
        if future.status == "finished":
            worker, found, peers = future.result()
            self._learn(attempt.ledger.machine, worker, peers)
            self._finish(attempt, worker, found)
        elif future.status == "error" and isinstance(error := future.exception(), KilledWorker):
            self._lost(attempt, str(error.last_worker.name))
        elif future.status == "error":
            self._finish(attempt, attempt.started_on, _raised(future.exception()))
        else:  # the scheduler has forgotten it
            self._again.append(attempt)
        future.release()

    def _lost(self, attempt: _Attempt, worker: str) -> None:
        """A worker is lost: the row is killed, and the case submitted once more, elsewhere if that can be."""
        self._look()
        ledger, key, attempt.since = attempt.ledger, key_of(attempt.comparison), time.monotonic()
        if attempt.started_on is None and attempt.unstarted < _MOST_UNSTARTED:
            attempt.unstarted += 1
            self._again.append(attempt)
            return
        attempt.lost += (worker,)
        if len(attempt.lost) > 1:
            message = f"the workers {' and '.join(attempt.lost)} were lost while they measured it"
            self._finish(attempt, None, {"status": "failed", "reason": "killed", "message": message})
            return
        message = f"worker {worker} was lost while it measured it; submitted once more"
        ledger.writer.begin(key, self._row(attempt, worker, {**KILLED, "message": message}))
        self._again.append(attempt)

    def _finish(self, attempt: _Attempt, worker: str | None, found: Record | str) -> None:
        ledger, key = attempt.ledger, key_of(attempt.comparison)
        if isinstance(found, str):  # how the case ended its process
            found = {"status": "failed", "reason": "killed", "message": found}
        record = self._row(attempt, worker, {"timestamp": environment.timestamp(), **found})
        ledger.writer.finish(key, record)
        ledger.ended[key] = record

    def _learn(self, machine: _Machine, worker: str, peers: Mapping[str, Any]) -> None:
        """Keeps what a worker says of its peers; those that are others than the run's, beside its name."""
        known = machine.environment.get("peers", {})
        other = {name: about for name, about in peers.items() if known.get(name, about) != about}
        of_worker = machine.environment["workers"].get(worker, {})
        if not peers.keys() - known.keys() and of_worker.get("peers", {}) == other:
            return
        machine.environment["peers"] = {**peers, **known}
        if other:
            of_worker["peers"] = other
            self.warnings.append(f"worker {worker} has other versions of peers: {', '.join(sorted(other))}")
        machine.write_environment()

    def _row(self, attempt: _Attempt, worker: str | None, figures: Mapping[str, Any]) -> Record:
        """The comparison's record with such figures."""
        comparison = attempt.comparison
        names = names_of(comparison.sweep, comparison.case, comparison.baseline, self.subjects)
        lost = ", ".join(attempt.lost) or None
        of_run = {**attempt.ledger.facts, "worker": worker, "lost_workers": lost}
        return make_record(**{**names, **figures, **of_run})


def _raised(error: BaseException | None) -> Record:
    """The columns of a case whose worker could not even begin with it."""
    return {"status": "failed", "reason": "error", "message": f"{type(error).__name__}: {error}"}


def _of_process(kept: Sequence[Mapping[str, Any]], process: int) -> list[Mapping[str, Any]]:
    """The records of a process, by the end of their `run_id`."""
    return [record for record in kept if record["run_id"].rpartition("-")[2] == f"{process:02d}"]


def _check_continues(kept: Sequence[Mapping[str, Any]] | None, facts: Mapping[str, Any]) -> None:
    """Raises ClusterError where the records of a run that goes on are of another machine or other code."""
    for record in kept or ():
        for name in ("machine", "device", "tensorflow", "keras", "commit"):
            if record[name] != facts[name]:
                raise ClusterError(
                    f"--resume: the run has {name} {record[name]}, the workers {facts[name]}: start a new run"
                )


def _earlier_workers(folder: Path) -> dict[str, Any]:
    """The workers that have measured rows of a run that goes on, and its peers, by its environment."""
    try:
        earlier = read_environment(folder)
        return {name: earlier[name] for name in ("workers", "peers") if name in earlier}
    except (RecordError, TypeError):
        return {}


# What runs on the scheduler travels by value, as it is defined within a function: the scheduler need not have
# this project.


def _allow_failures(client: Client, count: int) -> int:
    """Sets how often the scheduler starts a task of a lost worker again; returns how often it did."""

    def change(dask_scheduler, count=count):
        before, dask_scheduler.allowed_failures = dask_scheduler.allowed_failures, count
        return before

    return client.run_on_scheduler(change)


def _task(duties: Duties, topic: str) -> Callable[..., Any]:
    """What a worker is given to do: says that it has begun; returns its name, what `measure` does, and what
    it knows of its peers."""
    measure, peers = duties.measure, duties.peers

    def comparison(key, setup, comparison, budget):
        from distributed import get_worker

        worker = get_worker()
        worker.log_event(topic, (key, str(worker.name)))
        return str(worker.name), measure(setup, comparison, budget), peers()

    return comparison
