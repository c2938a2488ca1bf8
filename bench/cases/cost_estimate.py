"""Estimates the time and memory of a comparison from its shape: roughly, before anything is made.

Calibrated on two cores with AVX-512 (the committed runs): a call's time comes out within a factor of two.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.cases.case import Case
from bench.cases.subjects import EQUATIONS, SUBJECTS, equation_of
from bench.records.environment import memory_bytes as machine_bytes
from bench.timing.blocks import LEAST_CALLS, PILOT_SHARE, affordable_instances

if TYPE_CHECKING:
    from bench.cases.comparisons import Comparison

_MOST_GATES = 4  # a user's cell is estimated as the largest of ours
_FLOPS_PER_S = {"cpu": 100e9, "gpu": 5e12}
# a step of the loop, whatever its size
_STEP_S = {
    ("cpu", "infer"): 100e-6,
    ("cpu", "train"): 250e-6,
    ("gpu", "infer"): 50e-6,
    ("gpu", "train"): 150e-6,
}
_MOST_MEMORY = 0.75  # of the machine's
_WORKER_S = 1.0  # to fork it, and to warm it up
_PEER_S = 4.0  # its program, and the wait until its threads are still
_PROOF_S = {"infer": 0.6, "train": 1.0}
_COMPILE_S = {"infer": 0.4, "train": 0.8}
_AGAIN = 0.4  # of that, to trace and compile it once more
_XLA_COMPILE_S = {"infer": 0.6, "train": 1.6}
# an unrolled step's share of tracing and compiling, by mode and `jit_compile`
_UNROLLED_STEP_S = {
    ("infer", False): 0.01,
    ("train", False): 0.04,
    ("infer", True): 0.2,
    ("train", True): 1.2,
}


def _gates(case: Case) -> int:
    equation = EQUATIONS.get(equation_of(case.cell))
    return equation.gates if equation else _MOST_GATES


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
    return flops(case) / _FLOPS_PER_S[case.device] + steps * _STEP_S[case.device, mode]


def memory_bytes(case: Case) -> int:
    """Bytes that the case takes at its most: weights, data and what a gradient keeps in the program, and the
    proof's weights in float64 and, for derivatives, complex128."""
    gates, train = _gates(case), case.mode == "train"
    weights = gates * (case.features + case.units) * case.units * _layers(case)
    data = case.batch_size * case.timesteps * (case.features + case.units)
    kept = case.batch_size * case.timesteps * case.units * (2 * gates + 2) * _layers(case) if train else 0
    program = 4 * (weights * (3 if train else 2) + 2 * data + kept)
    proof = weights * (2 * 4 + 8 + (16 if train else 0)) + 4 * data
    return program + proof


def expected_seconds(
    rows: "Iterable[Comparison]", max_time_s: float = 1.0, compile_limit_s: float = 60.0
) -> float:
    """Seconds that the comparisons take, one after another.

    Args:
        max_time_s: pytest-benchmark's `--benchmark-max-time`.
        compile_limit_s: `--compile-limit`: what hits it is not tried again with more timesteps.
    """
    total, stopped = 0.0, set()
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
    seconds = _PROOF_S[case.mode] + compile_s if comparison.first else 0.0
    if comparison.retraced and comparison.first:
        again_s = _AGAIN * compile_s
        seconds += (affordable_instances(again_s, max_time_s) - 1) * again_s
    if comparison.isolated:
        try:
            check_size(comparison)
        except TooLarge:
            return 0.0
        if compile_s >= compile_limit_s:
            return _WORKER_S + compile_limit_s
        seconds += _WORKER_S + _compile_seconds(baseline)
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
    seconds = _COMPILE_S[case.mode]
    if case.unroll or (case.subject in SUBJECTS and SUBJECTS[case.subject].unrolls):
        return seconds + case.timesteps * _UNROLLED_STEP_S[case.mode, case.jit_compile]
    return seconds + (_XLA_COMPILE_S[case.mode] if case.jit_compile else 0)


class TooLarge(ValueError):
    """A comparison that takes more memory or time than there is; the message holds the estimate."""


def check_size(comparison: "Comparison") -> None:
    """Refuses what takes more than three quarters of the machine's memory, or too long for its sweep.

    Raises:
        TooLarge: with the estimate.
    """
    needed = memory_bytes(comparison.case) + memory_bytes(comparison.baseline)
    available = int(_MOST_MEMORY * (machine_bytes() or needed / _MOST_MEMORY))
    seconds, longest_s = timed_seconds(comparison), comparison.of.longest_s
    estimate = f"by the estimate it takes {needed:,} bytes and {seconds:.1f} s for the fewest calls"
    if needed > available:
        raise TooLarge(f"{estimate}; {available:,} bytes are the most")
    if seconds > longest_s:
        raise TooLarge(f"{estimate}; {longest_s:g} s are the most in this sweep")


def timed_seconds(comparison: "Comparison") -> float:
    """Seconds of the fewest calls of a comparison that are timed."""
    return LEAST_CALLS * (call_seconds(comparison.case) + call_seconds(comparison.baseline))
