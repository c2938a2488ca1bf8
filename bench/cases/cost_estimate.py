"""Estimates the time and memory of a comparison from its shape: roughly, before anything is made.

Calibrated on two cores with AVX-512 and on an H100 (the committed runs): a call's time comes out within a
factor of two.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.cases import cudnn
from bench.cases.case import Case
from bench.cases.subjects import EQUATIONS, SUBJECTS, equation_of
from bench.records.environment import memory_bytes as machine_bytes
from bench.timing.blocks import LEAST_CALLS, PILOT_SHARE, affordable_instances
from bench.timing.gpu_clocks import gpu_bytes

if TYPE_CHECKING:
    from bench.cases.comparisons import Comparison

_GATES_OF_OTHERS = 4  # a user's cell is estimated as an LSTM
# of a GPU half of it in one large product, half a step's, which reads its weights from the card's memory
_FLOPS_PER_S = {"cpu": 100e9, "gpu": 80e12}
# before the first step: on a GPU what a call launches once, and waits for
_CALL_S = {
    ("cpu", "infer"): 0.0,
    ("cpu", "train"): 0.0,
    ("gpu", "infer"): 0.8e-3,
    ("gpu", "train"): 1.5e-3,
}
# a step of the loop, whatever its size; on a GPU TensorFlow launches each operation of a plain one
_STEP_S = {
    ("cpu", "infer"): 100e-6,
    ("cpu", "train"): 250e-6,
    ("gpu", "infer"): 300e-6,
    ("gpu", "train"): 700e-6,
}
_COMPILED_STEP_S = {"infer": 20e-6, "train": 50e-6}  # on a GPU: cuDNN's, XLA's
_UNROLLED_CALL = 0.4  # of the time of a loop's step, one of an unrolled graph: on a GPU
_MOST_MEMORY = 0.75  # of the machine's, and of the GPU's
_START_S = {"cpu": 0.0, "gpu": 20.0}  # of a session: CUDA, cuDNN and XLA are loaded
# on a CPU to fork it, and to warm it up; on a GPU it starts from nothing, and opens the GPU
_WORKER_S = {"cpu": 1.0, "gpu": 10.0}
_PEER_S = 4.0  # its program, and the wait until its threads are still
_PROOF_S = {"infer": 0.3, "train": 0.5}
_COMPILE_S = {
    ("cpu", "infer"): 0.3,
    ("cpu", "train"): 0.6,
    ("gpu", "infer"): 0.15,
    ("gpu", "train"): 0.4,
}
_AGAIN = 0.3  # of that, to compile it once more
# on a GPU XLA tries several kernels for each product
_XLA_COMPILE_S = {
    ("cpu", "infer"): 0.4,
    ("cpu", "train"): 1.2,
    ("gpu", "infer"): 0.8,
    ("gpu", "train"): 3.5,
}
_STEP_BYTES = (200_000, 400_000)  # of what is compiled of an unrolled step, without and with its gradient
_LOOPS_STEPS = 5  # a loop takes as much as so many of these
_COMPILED = {"cpu": 1, "gpu": 2}  # programs of a case: on a GPU the proven one, and its twin in TF32
# an unrolled step's share of tracing and compiling, by mode and `jit_compile`
_UNROLLED_STEP_S = {
    ("infer", False): 0.01,
    ("train", False): 0.04,
    ("infer", True): 0.2,
    ("train", True): 1.2,
}


def _gates(case: Case) -> int:
    equation = EQUATIONS.get(equation_of(case.cell))
    return equation.gates if equation else _GATES_OF_OTHERS


def _layers(case: Case) -> int:
    return case.depth * (2 if case.bidirectional else 1)


def flops(case: Case) -> float:
    """Floating point operations of a call: those of its products, by the closed formula."""
    width = case.units + (case.features if case.input_product else 0)
    forward = 2.0 * _gates(case) * width * case.units * case.batch_size * case.timesteps * _layers(case)
    return 3 * forward if case.mode == "train" else forward


def call_seconds(case: Case) -> float:
    """Seconds of a call."""
    mode = "infer" if case.mode == "infer" else "train"
    steps = case.timesteps * _layers(case)
    is_compiled = case.device == "gpu" and (case.jit_compile or cudnn.can_run(case))
    step_s = _COMPILED_STEP_S[mode] if is_compiled else _STEP_S[case.device, mode]
    if case.device == "gpu" and not is_compiled and case.unroll:
        step_s *= _UNROLLED_CALL
    return _CALL_S[case.device, mode] + flops(case) / _FLOPS_PER_S[case.device] + steps * step_s


def memory_bytes(case: Case) -> int:
    """Bytes that the case takes of the machine at its most: its program's, and the proof's weights in float64
    and, for derivatives, complex128."""
    proof = _weights(case) * (2 * 4 + 8 + (16 if case.mode == "train" else 0)) + 4 * _data(case)
    return program_bytes(case) + proof


def program_bytes(case: Case) -> int:
    """Bytes that the case's program takes where it computes: weights, data and what a gradient keeps."""
    gates, train = _gates(case), case.mode == "train"
    kept = case.batch_size * case.timesteps * case.units * (2 * gates + 2) * _layers(case) if train else 0
    return 4 * (_weights(case) * (3 if train else 2) + 2 * _data(case) + kept)


def instance_bytes(case: Case) -> int:
    """Bytes that one more instance of the case's program keeps: weights, data and what is compiled of it."""
    data = 4 * (_weights(case) + (2 if case.mode == "train" else 1) * _data(case))
    steps = case.timesteps if case.unroll else _LOOPS_STEPS
    return data + (0 if case.compiles_alike else steps * _layers(case) * _STEP_BYTES[case.mode != "infer"])


def _weights(case: Case) -> int:
    return _gates(case) * (case.features + case.units) * case.units * _layers(case)


def _data(case: Case) -> int:
    return case.batch_size * case.timesteps * (case.features + case.units)


def expected_seconds(
    rows: "Iterable[Comparison]", max_time_s: float = 1.0, compile_limit_s: float = 60.0
) -> float:
    """Seconds that the comparisons take, one after another.

    Args:
        max_time_s: pytest-benchmark's `--benchmark-max-time`.
        compile_limit_s: `--compile-limit`: what hits it is not tried again with more timesteps.
    """
    rows = list(rows)
    total, stopped = max((_START_S[row.case.device] for row in rows), default=0.0), set()
    for row in rows:
        one_step = replace(row.case, timesteps=1)
        if one_step in stopped:
            continue
        total += comparison_seconds(row, max_time_s, compile_limit_s)
        if row.isolated and _compile_seconds(row.case) >= compile_limit_s:
            stopped.add(one_step)
    return total


def comparison_seconds(
    comparison: "Comparison", max_time_s: float = 1.0, compile_limit_s: float = 60.0
) -> float:
    """Seconds that a comparison takes altogether; one that is too large takes none."""
    case, baseline = comparison.case, comparison.baseline
    compile_s = _compile_seconds(case)
    seconds = _PROOF_S[case.mode] + _COMPILED[case.device] * compile_s if comparison.first else 0.0
    if comparison.retraced and comparison.first:
        alike = case.compiles_alike and not comparison.isolated
        again_s = 0.0 if alike else _AGAIN * compile_s
        seconds += (affordable_instances(again_s, max_time_s) - 1) * again_s
    if comparison.isolated:
        try:
            check_size(comparison)
        except TooLarge:
            return 0.0
        if compile_s >= compile_limit_s:
            return _WORKER_S[case.device] + compile_limit_s
        seconds += _WORKER_S[case.device] + _COMPILED[case.device] * _compile_seconds(baseline)
    if any(each.subject in SUBJECTS and SUBJECTS[each.subject].peer for each in (case, baseline)):
        seconds += _PEER_S
    return seconds + max((1 + PILOT_SHARE) * max_time_s, timed_seconds(comparison))


_LEAST_MAX_TIME = 0.1  # of that of a case that has all the time that it wants


def affordable_max_time(
    rows: "Sequence[Comparison]", budget_s: float, max_time_s: float, compile_limit_s: float
) -> float:
    """The seconds of a case's blocks with which all comparisons take `budget_s` by the estimate, `max_time_s`
    at most."""
    least, most = _LEAST_MAX_TIME * max_time_s, max_time_s
    for _ in range(_STEPS):
        if expected_seconds(rows, most, compile_limit_s) <= budget_s:
            return most
        most = max(least, most / 1.25)
    return most


_STEPS = 11  # from the most to the least: 1.25 to this power is more than their quotient


def _compile_seconds(case: Case) -> float:
    way = case.device, case.mode
    seconds = _COMPILE_S[way]
    if case.unroll or (case.subject in SUBJECTS and SUBJECTS[case.subject].unrolls):
        return seconds + case.timesteps * _UNROLLED_STEP_S[case.mode, case.jit_compile]
    return seconds + (_XLA_COMPILE_S[way] if case.jit_compile else 0)


class TooLarge(ValueError):
    """A comparison that takes more memory or time than there is; the message holds the estimate."""


def check_size(comparison: "Comparison") -> None:
    """Refuses what takes more than three quarters of the machine's memory, or of the GPU's where it computes
    there, or too long for its sweep. A memory whose size is unknown refuses nothing.

    Raises:
        TooLarge: with the estimate.
    """
    cases = (comparison.case, comparison.baseline)
    seconds, longest_s = timed_seconds(comparison), comparison.of.longest_s
    for where, size, needed in _memories(comparison.case.device, cases):
        available = None if size is None else int(_MOST_MEMORY * size)
        estimate = (
            f"by the estimate it takes {needed:,} bytes{where} and {seconds:.1f} s for the fewest calls"
        )
        if available is not None and needed > available:
            raise TooLarge(f"{estimate}; {available:,} bytes are the most")
    if seconds > longest_s:
        raise TooLarge(f"{estimate}; {longest_s:g} s are the most in this sweep")


def _memories(device: str, cases: "tuple[Case, Case]") -> list[tuple[str, int | None, int]]:
    """Of each memory: where it is, its bytes, and those that the cases take of it."""
    machine = ("", machine_bytes(), sum(map(memory_bytes, cases)))
    if device == "cpu":
        return [machine]
    return [(" of the GPU", gpu_bytes(), sum(map(program_bytes, cases))), machine]


def timed_seconds(comparison: "Comparison") -> float:
    """Seconds of the fewest calls of a comparison that are timed."""
    return LEAST_CALLS * (call_seconds(comparison.case) + call_seconds(comparison.baseline))
