"""`Run`: one process's worth of records. Takes one comparison after another all the way to its record."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import environment, runtime
from bench.case import Case
from bench.guests import broken_contract
from bench.measure import Budget, Timing, time_call, time_pair
from bench.problem import Problem, WrongAnswer, prepare
from bench.records import KILLED, RecordWriter, Value, make_record, write_environment, write_tasks
from bench.runtime import Answer, Program
from bench.subjects import Subject, UnsupportedOption
from bench.sweeps import Comparison, Task
from bench.tasks import Repeat, Settings, perform
from bench.verify import Proof, verify, verify_again

Record = dict[str, Value]


@dataclass(frozen=True)
class Proven:
    """A compiled case whose answer has been proven."""

    problem: Problem
    program: Program
    answer: Answer
    proof: Proof


class BrokenContract(AssertionError):
    """A cell that breaks the cell contract; the message says which checks failed."""


class Run:
    """A run: its folder, its environment and its records.

    Args:
        folder: the run's folder, to be made; its name is the run's id. None writes nothing.
        device: `cpu` or `gpu`.
        subjects: every subject that a case may name.
    """

    def __init__(self, folder: Path | None, device: str, subjects: Mapping[str, Subject]):
        self.folder = folder
        self.device = device
        self.subjects = subjects
        self.records: list[Record] = []
        self._artefacts: list[dict[str, Any]] = []
        self._baselines: dict[Case, Proven] = {}
        self._facts = _facts(folder.name if folder else "none", device)
        self._writer = RecordWriter(folder) if folder else None
        if folder:
            write_environment(folder, environment.describe(runtime=runtime.build_information()))

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
        self.records.append(record)

    def _figures(self, comparison: Comparison, benchmark, budget: Budget) -> dict[str, Any]:
        self._check_contract(comparison.case)
        baseline = self._baseline(comparison.baseline)
        subject = self._prove(comparison.case, baseline.problem)
        traces = subject.program.trace_count()
        if not benchmark.enabled:
            benchmark.pedantic(subject.program.run)
            return {"status": "ok"}
        timing = time_pair(subject.program.run, baseline.program.run, benchmark.pedantic, budget)
        verify_again(subject.problem, subject.answer, subject.program.answer(), subject.proof)
        return {
            "status": "ok",
            "retraces": subject.program.trace_count() - traces,
            "sync_s": runtime.sync_seconds(),
            **_proof_columns(subject),
            **_program_columns(subject.program),
            **_timing_columns(comparison.case, timing),
        }

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
        problem = prepare(self.subjects[case.subject], case, alike)
        program = runtime.compile_program(problem.layer, case, problem.data)
        answer = program.answer()
        return Proven(problem, program, answer, verify(problem, answer))


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
    fields = asdict(case)
    if "implementation" not in subjects[case.subject].options:
        fields["implementation"] = None
    return {
        **fields,
        "sweep": sweep,
        "case": case.id,
        "subject": case.subject,
        "baseline": baseline.id if baseline else None,
        "bidirectional": False,
        "depth": 1,
        "static_timesteps": case.mode != "generate",
        "static_batch": True,
        "time_major": False,
    }


def _outcome(error: Exception) -> dict[str, Value]:
    """What the record says of a case that did not come to its figures."""
    if isinstance(error, UnsupportedOption):
        return {"status": "skipped", "reason": "unsupported", "message": str(error)}
    if isinstance(error, WrongAnswer):
        return {"status": "failed", "reason": "wrong_answer", "message": str(error)}
    if isinstance(error, BrokenContract):
        return {"status": "failed", "reason": "contract", "message": str(error)}
    reason = "out_of_memory" if runtime.is_out_of_memory(error) else "error"
    return {"status": "failed", "reason": reason, "message": f"{type(error).__name__}: {error}"}


def _proof_columns(proven: Proven) -> dict[str, Value]:
    return {"proof": proven.problem.proof, **asdict(proven.proof)}


def _program_columns(program: Program) -> dict[str, Value]:
    return {
        "kernel": program.kernel,
        "xla": program.xla,
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
