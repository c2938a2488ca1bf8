"""`Run`: one process's worth of records. Takes one comparison after another all the way to its record."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.backend import runtime
from bench.backend.flops import Flops
from bench.backend.runtime import Answer, Program
from bench.cases.case import Case
from bench.cases.cost_estimate import TooLarge, check_size
from bench.cases.subjects import NotInstalled, Subject, UnsupportedOption, check_installed
from bench.cases.sweeps import SWEEPS, Comparison, Task, runs_apart
from bench.cases.user_cells import broken_contract
from bench.processes.isolated import Apart, nursery
from bench.processes.peer_client import Peers, warmed_up
from bench.processes.worker import DEFAULT_LIMITS, Limits, MemoryLimit, Nursery, TimeLimit, WorkerDied
from bench.proof.problem import Problem, WrongAnswer, prepare
from bench.proof.verify import Proof, prove, verify_again
from bench.records import environment
from bench.records.csv_file import RecordWriter
from bench.records.run_folder import write_environment, write_tasks
from bench.records.schema import KILLED, Value, make_record
from bench.runner.tasks import Repeat, Settings, perform
from bench.timing.blocks import Budget, Leg, Timing, time_call, time_pair, time_queue
from bench.timing.gpu_clocks import Gpu, installed_nvml

Record = dict[str, Value]


@dataclass(frozen=True)
class Proven:
    """A compiled case whose answer has been proven.

    Attributes:
        matmul_peak: `runtime.matmul_peak` of the process that it runs in; None where TensorFlow is not there.
    """

    problem: Problem
    program: Program
    answer: Answer
    proof: Proof
    matmul_peak: Callable[[str, str], float] | None = runtime.matmul_peak


class CompileTimeout(RuntimeError):
    """Tracing and compiling took longer than they may; the message holds the seconds."""


class BrokenContract(AssertionError):
    """A cell that breaks the cell contract; the message says which checks failed."""


class Run:
    """A run: its folder, its environment and its records.

    Args:
        folder: the run's folder, to be made; its name is the run's id. None writes nothing.
        device: `cpu` or `gpu`.
        subjects: every subject that a case may name.
        limits: what a case may take that runs apart.
        guests: what `--cell` and `--baseline` said, for the processes of those cases.
    """

    def __init__(
        self,
        folder: Path | None,
        device: str,
        subjects: Mapping[str, Subject],
        limits: Limits = DEFAULT_LIMITS,
        guests: tuple[tuple[str, ...], str | None] = ((), None),
    ):
        self.folder = folder
        self.device = device
        self.subjects = subjects
        self.limits = limits
        self._guests = guests
        self.records: list[Record] = []
        self._artefacts: list[dict[str, Any]] = []
        self._baselines: dict[Case, Proven] = {}
        self._peers = Peers()
        self._apart: Apart | None = None
        self._nursery: Nursery | None = None
        self._stopped: dict[Case, Case] = {}  # by the case with one timestep: the one that hit the limit
        self._step_flops: dict[Case, Flops | None] = {}
        self._facts = _facts(folder.name if folder else "none", device)
        self._writer = RecordWriter(folder) if folder else None
        self._gpu = Gpu(runtime.gpu_name() if device == "gpu" else None, installed_nvml())
        self._environment = environment.describe(
            runtime=runtime.build_information(), gpu={**runtime.gpu_facts(), **self._gpu.facts()}
        )
        self._write_environment()

    def measure(self, comparison: Comparison, benchmark, budget: Budget) -> Record:
        """Verifies, times and records one comparison, whatever happens; returns its record.

        Args:
            benchmark: pytest-benchmark's fixture; the record's figures go into its `extra_info`.
        """
        names = _names(comparison.sweep, comparison.case, comparison.baseline, self.subjects)
        return self._record(names, lambda: self._figures(comparison, benchmark, budget), benchmark)

    def perform(self, task: Task, settings: Settings, benchmark) -> Record:
        """Proves the layer of a training task, performs the task and records it, whatever happens.

        What is no figure (weights, predictions, texts) goes into the folder's `tasks.json`.
        """
        names = _names(task.sweep, task.case, None, self.subjects)
        return self._record(names, lambda: self._task_figures(task, settings, benchmark), benchmark)

    def _record(self, names: Record, figures: Callable[[], Record], benchmark) -> Record:
        names = {**self._facts, **names}
        in_flight = make_record(**names, **KILLED)
        if self._writer:
            self._writer.begin(in_flight)
        try:
            record = make_record(**names, **figures(), timestamp=environment.timestamp())
        except Exception as error:
            record = make_record(**names, **_outcome(error), timestamp=environment.timestamp())
        except BaseException:  # Ctrl-C, or an exit from inside the case
            self._keep(in_flight)
            raise
        benchmark.has_error = record["status"] != "ok"  # then pytest-benchmark exports no figure either
        self._keep(record)
        benchmark.extra_info.update({name: value for name, value in record.items() if value is not None})
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
        for case in (comparison.case, comparison.baseline):
            check_installed(self.subjects[case.subject])
        self._check_contract(comparison.case)
        subject, baseline = self._pair(comparison)
        program = subject.program
        traces = program.trace_count()
        if not benchmark.enabled:
            benchmark.pedantic(program.run)
            return {"status": "ok"}
        timing, throttled = self._gpu.watch(
            f"{comparison.sweep} {comparison.id}",
            lambda: time_pair(*self._legs(subject, baseline), benchmark.pedantic, budget),
        )
        queued_s = time_queue(program.queue, timing.median_s, budget)
        verify_again(subject.problem, subject.answer, program.answer(), subject.proof)
        return {
            "status": "ok",
            "retraces": program.trace_count() - traces,
            "throttled": throttled,
            "sync_s": runtime.sync_seconds(),
            "queued_s": queued_s,
            "peak_bytes": program.peak_bytes if SWEEPS[comparison.sweep].memory else None,
            **_proof_columns(subject),
            **_program_columns(program),
            **_timing_columns(comparison.case, timing),
            **self._work_columns(subject, timing),
        }

    def _pair(self, comparison: Comparison) -> tuple[Proven, Proven]:
        """The subject and its baseline, proven, in the processes where they belong."""
        case, against = comparison.case, comparison.baseline
        if not runs_apart(comparison):
            baseline = self._baseline(against)
            return self._prove(case, baseline.problem), baseline
        self._check_affordable(comparison)
        apart = self._begin_apart(case)
        peer = self._baseline(against) if self.subjects[against.subject].peer else None
        alike = peer.problem if peer else prepare(self.subjects[against.subject], against)
        # the subject first: how far the memory rises is seen where nothing else has been compiled
        if apart.subject is None:
            apart.subject = self._prove_apart(apart, prepare(self.subjects[case.subject], case, alike))
        return apart.subject, peer or self._prove_apart(apart, alike)

    def _legs(self, subject: Proven, baseline: Proven) -> tuple[Leg, Leg]:
        """The two programs' legs, warmed up where one of them is in a peer's process."""
        programs = subject.program, baseline.program
        peers = [self.subjects[proven.problem.case.subject].peer for proven in (subject, baseline)]
        first, second = map(warmed_up, programs) if any(peers) else (each.time for each in programs)
        return first, second

    def _begin_apart(self, case: Case) -> Apart:
        """The processes of the case: those there are while it is compared with one baseline after another."""
        if self._apart is None or self._apart.case != case or not self._apart.alive:
            self._end_apart()
            if self._nursery is None or not self._nursery.alive:
                self._nursery = nursery(self.device)
            self._apart = Apart(case, self.limits, (self.device, *self._guests), self._nursery)
        return self._apart

    def _end_apart(self) -> None:
        if self._apart is not None:
            self._apart.close()
            self._apart = None

    def _prove_apart(self, apart: Apart, problem: Problem) -> Proven:
        """Proves the problem with a program in a process of its own.

        Raises:
            CompileTimeout: compiling took too long.
            WorkerError: the process took too much memory, or died.
        """
        try:
            return self._proven(problem, apart)
        except TimeLimit as error:
            case = problem.case
            self._stopped[replace(case, timesteps=1)] = case
            raise CompileTimeout(f"{case.id}: tracing, compiling and the first call: {error}") from error

    def _check_affordable(self, comparison: Comparison) -> None:
        """Refuses what is known beforehand to take too much.

        Raises:
            TooLarge: by the estimate of its memory and its time.
            CompileTimeout: the same with fewer timesteps has hit the limit.
        """
        check_size(comparison)
        for case in (comparison.case, comparison.baseline):
            shorter = self._stopped.get(replace(case, timesteps=1))
            if shorter is not None and case.timesteps >= shorter.timesteps:
                raise CompileTimeout(
                    f"{case.id}: not tried; {shorter.id} was stopped by the limit of "
                    f"{self.limits.compile_s:g} s"
                )

    def close(self) -> None:
        """Ends the processes that the run has begun."""
        self._end_apart()
        self._peers.close()
        if self._nursery is not None:
            self._nursery.close()

    def _task_figures(self, task: Task, settings: Settings, benchmark) -> dict[str, Any]:
        case = task.case
        self._check_contract(case)
        proven = self._prove(replace(case, mode="train"))
        result = perform(task.name, case, self.subjects[case.subject], settings, _repeat_in(benchmark))
        self._artefacts.append({"sweep": task.sweep, "case": case.id, **result.artefact})
        if self.folder:
            write_tasks(self.folder, self._artefacts)
        return {
            "status": "ok",
            **_proof_columns(proven),
            "kernel": proven.program.kernel,
            "xla": proven.program.xla,
            **result.figures,
        }

    def _check_contract(self, case: Case) -> None:
        """Somebody's own cell must hold the cell contract before anything else is asked of it."""
        target = self.subjects[case.subject].target
        with runtime.full_precision():
            broken = broken_contract(target) if target else None
        if broken:
            raise BrokenContract(broken)

    def _baseline(self, case: Case) -> Proven:
        """The baseline of a case; compiled and proven once a run, however many cases it serves."""
        if case not in self._baselines:
            self._check_contract(case)
            try:
                self._baselines[case] = self._prove(case)
            except WrongAnswer as error:
                raise WrongAnswer(f"the baseline {case.id}: {error}") from error
        return self._baselines[case]

    def _prove(self, case: Case, alike: Problem | None = None) -> Proven:
        return self._proven(prepare(self.subjects[case.subject], case, alike))

    def _proven(self, problem: Problem, apart: Apart | None = None) -> Proven:
        """Proves the problem with its program: in this process, in a worker, or in the peer's process."""
        peer = self.subjects[problem.case.subject].peer
        if peer is not None:
            peers = self._peers if apart is None else apart.peers
            proven = prove(problem, lambda problem, exact: self._peer_program(peers, peer, problem))
            return Proven(problem, *proven, matmul_peak=None)
        if apart is not None:
            return Proven(problem, *prove(problem, apart.compile_program), matmul_peak=apart.matmul_peak)
        return Proven(problem, *prove(problem))

    def _work_columns(self, proven: Proven, timing: Timing) -> dict[str, Value]:
        """What the case computes, and how fast that is."""
        case, layer = proven.problem.case, proven.problem.layer
        step = _step(case)
        if step not in self._step_flops:
            self._step_flops[step] = runtime.step_flops(layer, case)
        of_step = self._step_flops[step]
        if of_step is None:
            return {}
        flops = float(of_step.total * case.timesteps)
        per_s = flops / timing.median_s
        columns: dict[str, Value] = {"flops": flops, "gflops_per_s": per_s / 1e9}
        if proven.matmul_peak is not None:
            dtype = np.dtype(runtime.float_dtype(layer)).name
            columns["roofline_fraction"] = per_s / proven.matmul_peak(dtype, self.device)
        return columns

    def _peer_program(self, peers: Peers, peer: str, problem: Problem) -> Program:
        """The peer's program; when its process has just started, what it is goes into the environment."""
        program = peers.program(peer, problem)
        known = self._environment.setdefault("peers", {})
        if self.folder and peer not in known:
            known |= peers.environment
            self._write_environment()
        return program


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


def _facts(run_id: str, device: str) -> dict[str, Value]:
    found = runtime.versions()
    gpu = runtime.gpu_name() if device == "gpu" else None
    return {
        "run_id": run_id,
        "commit": environment.git_commit(),
        "machine": environment.machine_key(gpu),
        "device": device,
        "backend": "tensorflow",
        "tensorflow": found["tensorflow"],
        "keras": found["keras"],
    }


def _names(
    sweep: str, case: Case, baseline: Case | None, subjects: Mapping[str, Subject]
) -> dict[str, Value]:
    """What a record says of its case; an option that is not used has its default, not an empty value."""
    fields = asdict(case)
    if "implementation" not in subjects[case.subject].options:
        fields["implementation"] = None
    elif case.recurrent_dropout:  # takes the gates apart
        fields["implementation"] = 1
    if case.bidirectional and case.merge_mode is None:
        fields["merge_mode"] = "concat"
    return {
        **fields,
        "sweep": sweep,
        "case": case.id,
        "subject": case.subject,
        "baseline": baseline.id if baseline else None,
        "static_timesteps": case.static_timesteps and case.mode != "generate",
    }


def _step(case: Case) -> Case:
    """The case as far as what one step computes depends on it."""
    return replace(
        case,
        timesteps=1,
        unroll=False,
        stateful=False,
        jit_compile=False,
        use_cudnn=None,
        go_backwards=False,
        masked=None,
        zero_output_for_mask=False,
        static_timesteps=True,
        static_batch=True,
        time_major=False,
    )


def _outcome(error: Exception) -> dict[str, Value]:
    """What the record says of a case that did not come to its figures."""
    if isinstance(error, UnsupportedOption):
        return {"status": "skipped", "reason": error.reason, "message": str(error)}
    for kind, (status, reason) in _OUTCOMES.items():
        if isinstance(error, kind):
            return {"status": status, "reason": reason, "message": str(error)}
    reason = "out_of_memory" if runtime.is_out_of_memory(error) else "error"
    return {"status": "failed", "reason": reason, "message": f"{type(error).__name__}: {error}"}


# the status and the reason of what is foreseen
_OUTCOMES: dict[type[Exception], tuple[str, str]] = {
    NotInstalled: ("skipped", "not_installed"),
    runtime.NoDevice: ("skipped", "no_device"),
    CompileTimeout: ("skipped", "compile_timeout"),
    TooLarge: ("skipped", "too_large"),
    runtime.KernelMissed: ("failed", "kernel"),
    MemoryLimit: ("failed", "out_of_memory"),
    WorkerDied: ("failed", "killed"),
    WrongAnswer: ("failed", "wrong_answer"),
    BrokenContract: ("failed", "contract"),
}


def _proof_columns(proven: Proven) -> dict[str, Value]:
    return {"proof": proven.problem.proof, **asdict(proven.proof)}


def _program_columns(program: Program) -> dict[str, Value]:
    return {
        "kernel": program.kernel,
        "xla": program.xla,
        "fallback": program.fallback,
        "trace_s": program.trace_s,
        "compile_s": program.compile_s,
        "graph_nodes": program.graph_nodes,
    }


def _timing_columns(case: Case, timing: Timing) -> dict[str, Value]:
    return {
        "median_s": timing.median_s,
        "min_s": timing.min_s,
        "iqr_s": timing.iqr_s,
        "baseline_median_s": timing.baseline_median_s,
        "rounds": timing.rounds,
        "ratio": timing.ratio.value,
        "ratio_low": timing.ratio.low,
        "ratio_high": timing.ratio.high,
        "converged": timing.ratio.converged,
        "sequences_per_s": case.batch_size / timing.median_s,
        "timesteps_per_s": case.batch_size * case.timesteps / timing.median_s,
    }
