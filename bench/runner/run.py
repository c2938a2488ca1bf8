"""`Run`: one process's worth of records. Takes one comparison after another all the way to its record."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bench.backend import devices, layers
from bench.backend.flops import Flops
from bench.cases.case import Case
from bench.cases.comparisons import Comparison, Task
from bench.cases.cost_estimate import instance_bytes
from bench.cases.subjects import WHOLE, Subject
from bench.cases.user_cells import NO_USER_CELLS, UserCells, loaded
from bench.contract.switches import described
from bench.processes.worker import DEFAULT_LIMITS, Limits, Nursery
from bench.proof.verify import verify_again
from bench.records import environment
from bench.records.csv_file import RecordWriter
from bench.records.run_folder import write_environment, write_tasks
from bench.records.schema import KILLED, Value, make_record
from bench.runner import row
from bench.runner.proving import Proven, Prover
from bench.runner.refining import Rest, Timed, rest_of, spend
from bench.runner.row import Record
from bench.runner.tasks import Repeat, Settings, perform
from bench.timing.blocks import (
    Budget,
    Instances,
    Pair,
    Timing,
    plain_rounds,
    time_call,
    time_instances,
    time_planned,
    time_queue,
)
from bench.timing.gpu_clocks import Gpu, installed_nvml
from bench.timing.machine_state import watch

# Of the machine's memory, for instances that may be timed again; what is not kept is proven anew.
_KEPT_SHARE = 0.25


class Run:
    """A run: its folder, its environment and its records.

    Args:
        folder: the run's folder, to be made; its name is the run's id. None writes nothing.
        device: `cpu` or `gpu`.
        subjects: every subject that a case may name.
        limits: what an isolated case may take.
        user_cells: what the command line brings, for the processes of isolated cases.
        forking: forks workers, and ends with the run; None: one is begun where it is needed.
        rehearsal: whether the records are marked as those of a rehearsal.
    """

    def __init__(
        self,
        folder: Path | None,
        device: str,
        subjects: Mapping[str, Subject],
        limits: Limits = DEFAULT_LIMITS,
        user_cells: UserCells = NO_USER_CELLS,
        forking: Nursery | None = None,
        rehearsal: bool = False,
    ):
        if device == "gpu":
            devices.warm_up(device)
        self.folder = folder
        self.device = device
        self.subjects = subjects
        self.records: list[Record] = []
        self._timed: dict[int, Timed] = {}  # by the number of their record
        self._extra: list[dict[str, Any]] = []  # of each record, what pytest-benchmark writes
        self._most_kept_bytes = _KEPT_SHARE * (environment.memory_bytes() or 2**32)
        self._artefacts: list[dict[str, Any]] = []
        self._prover = Prover(device, subjects, limits, user_cells, forking)
        self._step_flops: dict[Case, Flops | None] = {}
        self._facts = _facts(folder.name if folder else "none", device, rehearsal)
        self._writer = RecordWriter(folder) if folder else None
        self._gpu = Gpu(devices.gpu_name() if device == "gpu" else None, installed_nvml())
        self._environment = environment.describe(
            runtime=devices.build_information(),
            gpu={**devices.gpu_facts(), **self._gpu.facts()},
            switches={**described(), **_switched(user_cells)},
        )
        self._write_environment()

    def measure(self, comparison: Comparison, benchmark, budget: Budget) -> Record:
        """Verifies, times and records one comparison, whatever happens; returns its record.

        Args:
            benchmark: pytest-benchmark's fixture; the record's figures go into its `extra_info`.
        """
        names = row.names_of(comparison.sweep, comparison.case, comparison.baseline, self.subjects)
        record = self._record(names, lambda: self._figures(comparison, benchmark, budget), benchmark)
        if record["status"] != "ok":
            self._timed.pop(len(self.records) - 1, None)
        return record

    def measure_again(
        self,
        seconds: float,
        say: Callable[[Record], None] = lambda record: None,
        until_enough: bool = False,
    ) -> Rest:
        """Times further blocks of the rows whose ratios are wider than ±2%, for so long, as `spend` shares it
        out. Their records are written anew.

        Args:
            say: called with each record that was.
            until_enough: whether it ends sooner where `is_enough` says so.

        Returns:
            what is still wide.
        """

        def measure(number: int) -> Timed | None:
            if not self._time_more(number):
                return None
            say(self.records[number])
            return self._timed[number]

        spend(self._timed, seconds, measure, until_enough)
        return rest_of(self._timed)

    def perform(self, task: Task, settings: Settings, benchmark) -> Record:
        """Proves the layer of a training task, performs the task and records it, whatever happens.

        What is no figure (weights, predictions, texts) goes into the folder's `tasks.json`.
        """
        names = row.names_of(task.sweep, task.case, None, self.subjects)
        return self._record(names, lambda: self._task_figures(task, settings, benchmark), benchmark)

    @property
    def facts(self) -> Mapping[str, Value]:
        """The columns that are the same in all its rows: the machine and the versions."""
        return self._facts

    @property
    def environment(self) -> Mapping[str, Any]:
        """All that is known of where it runs, as it stands beside its CSV."""
        return self._environment

    def close(self) -> None:
        """Ends the processes that the run has begun."""
        self._prover.close()

    def _record(self, names: Record, figures: Callable[[], Record], benchmark) -> Record:
        names = {**self._facts, **names}
        in_flight = make_record(**names, **KILLED)
        if self._writer:
            self._writer.begin(in_flight)
        try:
            record = make_record(**names, **figures(), timestamp=environment.timestamp())
        except Exception as error:
            record = make_record(**names, **row.outcome(error), timestamp=environment.timestamp())
        except BaseException:  # Ctrl-C, or an exit from inside the case
            self._keep(in_flight)
            raise
        benchmark.has_error = record["status"] != "ok"  # then pytest-benchmark exports no figure either
        self._keep(record)
        self._extra.append(benchmark.extra_info)
        _show(record, benchmark.extra_info)
        return record

    def _keep(self, record: Record) -> None:
        if self._writer:
            self._writer.finish(record)
            if self._gpu.clocks:
                self._write_environment()
        self.records.append(record)

    def _write_environment(self) -> None:
        """Writes the environment, and the clocks of the cases so far, where there are any."""
        clocks = {"clocks": self._gpu.clocks} if self._gpu.clocks else {}
        if self.folder:
            write_environment(self.folder, {**self._environment, **clocks})

    def _figures(self, comparison: Comparison, benchmark, budget: Budget) -> dict[str, Any]:
        start = time.monotonic()
        subject, baseline = self._pair(comparison)
        prove_s = time.monotonic() - start
        program = subject.program
        traced = {program.trace_count: program.trace_count()}  # once for those that share what was compiled
        if not benchmark.enabled:
            benchmark.pedantic(program.run)
            return {"status": "ok"}

        def others(numbers: range) -> list[Pair]:
            legs = self._prover.legs_of_more(subject, baseline, numbers)
            for number in numbers:
                trace_count = subject.instance(number).trace_count
                traced.setdefault(trace_count, trace_count())
            return legs

        instance_s = program.again_s + baseline.program.again_s if comparison.retraced else None
        more = None if instance_s is None else Instances(others, instance_s)
        (instances, disturbance), throttled = self._gpu.watch(
            f"{comparison.sweep} {comparison.id}",
            lambda: watch(
                lambda: time_instances(self._prover.legs(subject, baseline), benchmark.pedantic, budget, more)
            ),
        )
        timed = Timed(comparison, instances, (subject, baseline), prove_s, instance_s)
        timing = timed.timing
        self._keep_timed(len(self.records), timed)
        queued_s = time_queue(program.queue, timing.median_s, budget)
        for number in range(len(instances)):
            after = subject.instance(number).answer()
            verify_again(subject.problem, subject.answer, after, subject.proof)
        return {
            "status": "ok",
            "retraces": sum(trace_count() - before for trace_count, before in traced.items()),
            "throttled": throttled,
            **asdict(disturbance),
            "sync_s": devices.sync_seconds(),
            "queued_s": queued_s,
            "peak_bytes": program.peak_bytes if comparison.of.memory else None,
            **row.proof_columns(subject.problem.proof, subject.proof),
            **row.program_columns(program),
            **row.timing_columns(comparison.case, timing),
            **self._work_columns(subject, timing),
        }

    def _time_more(self, number: int) -> bool:
        """Times further blocks of a row; False where that went wrong: the record stays as it was."""
        timed = self._timed[number]
        plan, comparison = timed.plan, timed.comparison
        if plan is None:
            return False
        try:
            if timed.pair is None:
                self._prover.start_anew()
            subject, baseline = timed.pair or self._pair(comparison)
            numbers = range(plan.instances)
            # a subject that was proven anew has new instances; of its baseline, which is kept, the first has
            # been timed
            ahead = 0 if timed.pair or comparison.isolated else 1
            pairs = self._prover.legs_of_more(subject, baseline, numbers, ahead)
            for leg in chain.from_iterable(pairs):
                leg()  # an instance that has waited for minutes runs 5% to 10% slower at first
            blocks = time_planned(pairs, plan.blocks, plain_rounds)
            for each in numbers:
                answer = subject.instance(each).answer()
                verify_again(subject.problem, subject.answer, answer, subject.proof)
        except Exception:  # of a row that has its figures
            return False
        instances = timed.instances
        if plan.kept:
            continued = zip(instances, blocks[: plan.kept], strict=True)
            instances = [earlier + later for earlier, later in continued]
        after = replace(timed, instances=[*instances, *blocks[plan.kept :]])
        self._keep_timed(number, after)
        self.records[number] = row.revised(self.records[number], comparison.case, after.timing)
        _show(self.records[number], self._extra[number])
        if self._writer:
            self._writer.revise(number, self.records[number])
        return True

    def _keep_timed(self, number: int, timed: Timed) -> None:
        """Keeps the row as it waits to be timed again: without its pair where that lives in another process,
        where it need not be timed again, or where too much is kept already."""
        comparison = timed.comparison
        cases = comparison.case, comparison.baseline
        elsewhere = comparison.isolated or any(self.subjects[case.subject].peer for case in cases)
        others = sum(_bytes(each) for other, each in self._timed.items() if each.pair and other != number)
        too_much = others + _bytes(timed) > self._most_kept_bytes
        done = timed.instance_s is None or timed.ratio.converged
        self._timed[number] = replace(timed, pair=None) if elsewhere or done or too_much else timed

    def _pair(self, comparison: Comparison) -> tuple[Proven, Proven]:
        """The two sides, proven; what a peer is whose process has just started goes into the environment."""
        try:
            return self._prover.pair(comparison)
        finally:
            known = self._environment.get("peers", {})
            if self._prover.peers.keys() - known.keys():
                self._environment["peers"] = {**known, **self._prover.peers}
                self._write_environment()

    def _task_figures(self, task: Task, settings: Settings, benchmark) -> dict[str, Any]:
        case = task.case
        self._prover.check_contract(case)
        proven = self._prover.prove(replace(case, mode="train"))
        result = perform(task.name, case, self.subjects[case.subject], settings, _repeat_in(benchmark))
        self._artefacts.append({"sweep": task.sweep, "case": case.id, **result.artefact})
        if self.folder:
            write_tasks(self.folder, self._artefacts)
        return {
            "status": "ok",
            **row.proof_columns(proven.problem.proof, proven.proof),
            "kernel": proven.program.kernel,
            "xla": proven.program.xla,
            **result.figures,
        }

    def _work_columns(self, proven: Proven, timing: Timing) -> dict[str, Value]:
        """The columns of the work: the operations of a call, and their rate."""
        case, layer = proven.problem.case, proven.problem.layer
        step = row.one_step(case)
        if step not in self._step_flops:
            self._step_flops[step] = layers.step_flops(layer, case)
        of_step = self._step_flops[step]
        if of_step is None:
            return {}
        flops = float(of_step.total * case.timesteps)
        per_s = flops / timing.median_s
        columns: dict[str, Value] = {"flops": flops, "gflops_per_s": per_s / 1e9}
        if proven.matmul_peak is not None:
            dtype = np.dtype(layers.float_dtype(layer)).name
            columns["roofline_fraction"] = per_s / proven.matmul_peak(dtype, self.device)
        return columns


def _bytes(timed: Timed) -> int:
    """Bytes that the instances of a row take, about."""
    cases = timed.comparison.case, timed.comparison.baseline
    return len(timed.instances) * sum(map(instance_bytes, cases))


def _show(record: Record, extra: dict[str, Any]) -> None:
    """Puts a record into what pytest-benchmark writes."""
    extra.update({name: value for name, value in record.items() if value is not None})


def _switched(user_cells: UserCells) -> dict[str, Any]:
    """What the files of the user's cells changed for the whole process, which is undone."""
    own = user_cells.subjects.values()
    found = {
        subject.target: loaded(subject.target or "", subject.kwargs, subject.layer == WHOLE).switched
        for subject in own
    }
    undone = {target: list(changes) for target, changes in found.items() if changes}
    return {"undone": undone} if undone else {}


def _facts(run_id: str, device: str, rehearsal: bool) -> dict[str, Value]:
    found = devices.versions()
    gpu = devices.gpu_name() if device == "gpu" else None
    return {
        "run_id": run_id,
        "commit": environment.git_commit(),
        "machine": environment.machine_key(gpu, rehearsal),
        "device": device,
        "backend": "tensorflow",
        "tensorflow": found["tensorflow"],
        "keras": found["keras"],
    }


def _repeat_in(benchmark) -> Repeat:
    """Repeats a task's run as rounds of pytest-benchmark's `pedantic`, on our clock."""

    def repeat(run: Callable[[], object], rounds: int) -> list[float]:
        times: list[float] = []

        def target():
            if len(times) < rounds:  # --benchmark-cprofile asks for one more, which would train on
                times.append(time_call(run))

        benchmark.pedantic(target, rounds=rounds)
        return times

    return repeat
