"""The parts of a record: the case, the proof, the program, the timing, and what went wrong."""

from dataclasses import asdict, replace

from bench.backend import devices, kernels
from bench.backend.programs import Program
from bench.cases.case import Case
from bench.cases.comparisons import names_of as names_of
from bench.cases.cost_estimate import TooLarge
from bench.cases.subjects import NotInstalled, UnsupportedOption
from bench.contract.report import BrokenContract
from bench.processes.worker import MemoryLimit, TimeLimit, WorkerDied
from bench.proof.problem import WrongAnswer
from bench.proof.verify import Proof
from bench.records.environment import timestamp
from bench.records.schema import Value, make_record
from bench.runner.proving import CompileTimeout
from bench.timing.blocks import Timing

Record = dict[str, Value]


def one_step(case: Case) -> Case:
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


def outcome(error: Exception) -> Record:
    """The columns of a case that did not come to its figures."""
    if isinstance(error, UnsupportedOption):
        return {"status": "skipped", "reason": error.reason, "message": str(error)}
    for kind, (status, reason) in _OUTCOMES.items():
        if isinstance(error, kind):
            return {"status": status, "reason": reason, "message": str(error)}
    reason = "out_of_memory" if devices.is_out_of_memory(error) else "error"
    return {"status": "failed", "reason": reason, "message": f"{type(error).__name__}: {error}"}


# the status and the reason of what is foreseen
_OUTCOMES: dict[type[Exception], tuple[str, str]] = {
    NotInstalled: ("skipped", "not_installed"),
    devices.NoDevice: ("skipped", "no_device"),
    CompileTimeout: ("skipped", "compile_timeout"),
    TooLarge: ("skipped", "too_large"),
    kernels.KernelMissed: ("failed", "kernel"),
    MemoryLimit: ("failed", "out_of_memory"),
    TimeLimit: ("failed", "killed"),
    WorkerDied: ("failed", "killed"),
    WrongAnswer: ("failed", "wrong_answer"),
    BrokenContract: ("failed", "contract"),
}


def proof_columns(kind: str, proof: Proof) -> Record:
    """The columns of a proof; `kind` is `Problem.proof`."""
    return {"proof": kind, **asdict(proof)}


def program_columns(program: Program) -> Record:
    """The columns of a program: what runs, and what making it took."""
    return {
        "kernel": program.kernel,
        "xla": program.xla,
        "fallback": program.fallback,
        "trace_s": program.trace_s,
        "compile_s": program.compile_s,
        "graph_nodes": program.graph_nodes,
    }


def revised(record: Record, case: Case, timing: Timing) -> Record:
    """The record with the columns of a timing of more instances, just made; rates follow the time."""
    slower = timing.median_s / (record["median_s"] or timing.median_s)
    rates = {name: record[name] / slower for name in ("gflops_per_s", "roofline_fraction") if record[name]}
    return make_record(**{**record, **timing_columns(case, timing), **rates, "timestamp": timestamp()})


def timing_columns(case: Case, timing: Timing) -> Record:
    """The columns of a timing: the times of a call, seconds, and the ratio to the baseline's."""
    return {
        "median_s": timing.median_s,
        "min_s": timing.min_s,
        "iqr_s": timing.iqr_s,
        "baseline_median_s": timing.baseline_median_s,
        "rounds": timing.rounds,
        "drift": timing.drift,
        "instances": len(timing.instances),
        "instance_spread": timing.instance_spread,
        "instance_ratios": " ".join(f"{ratio:.4f}" for ratio in sorted(timing.instances)),
        "ratio": timing.ratio.value,
        "ratio_low": timing.ratio.low,
        "ratio_high": timing.ratio.high,
        "converged": timing.ratio.converged,
        "sequences_per_s": case.batch_size / timing.median_s,
        "timesteps_per_s": case.batch_size * case.timesteps / timing.median_s,
    }
