"""`python -m bench doctor`: what disturbs measuring on this machine, and what a run can see here."""

import argparse
import math
import time
from collections.abc import Iterator, Sequence

from bench.cases.case import Case
from bench.cases.comparisons import Comparison
from bench.cases.subjects import SUBJECTS
from bench.gate.verdicts import THRESHOLD
from bench.records.environment import machine_key
from bench.records.text import counted
from bench.timing.blocks import Blocks, Budget, Instances, Timing, plain_rounds, summarise, time_instances
from bench.timing.intervals import CONFIDENCE
from bench.timing.machine_state import Finding, disturbances, read_counters, settings

_SHAPE = (32, 50, 64, 128)
_CASES = tuple(Case("lstm", "builtin", mode, *_SHAPE) for mode in ("infer", "train"))
_USUAL_S = 1.0  # pytest-benchmark's `--benchmark-max-time`
_GATE_PROCESSES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has none."""


def main(args: argparse.Namespace) -> int:
    """Prints what was found; returns 0."""
    print(machine_key())
    before, start = read_counters(with_processes=True), time.monotonic()
    timings = {case.mode: summarise(_against_itself(case)) for case in _CASES}
    seconds = time.monotonic() - start
    found = [
        *disturbances(before, read_counters(with_processes=True), seconds),
        *settings(),
        Finding("TensorFlow's threads", _threads()),
    ]
    for line in (*_listed(found), "", *_seen(timings)):
        print(line)
    return 0


def _against_itself(case: Case) -> list[Blocks]:
    """The blocks of a built-in against a second instance of itself, as a run times it."""
    from bench.backend import devices
    from bench.runner.proving import Prover

    prover = Prover(devices.choose_device("cpu"), SUBJECTS)
    try:
        subject, baseline = prover.pair(Comparison("doctor", case, case))
        more = Instances(
            lambda number: prover.legs(subject, baseline, number),
            subject.program.again_s + baseline.program.again_s,
        )
        return time_instances(prover.legs(subject, baseline), plain_rounds, Budget(_USUAL_S, 5), more)
    finally:
        prover.close()


def _threads() -> str:
    import tensorflow as tf

    threading = tf.config.threading
    counts = {
        "within an operation": threading.get_intra_op_parallelism_threads(),
        "between operations": threading.get_inter_op_parallelism_threads(),
    }
    return ", ".join(f"{count or 'as many as cores'} {what}" for what, count in counts.items())


def _listed(found: Sequence[Finding]) -> Iterator[str]:
    width = max(len(finding.name) for finding in found)
    for finding in found:
        yield f"{'!' if finding.advice else ' '} {finding.name:<{width}}  {finding.found}"
        if finding.advice:
            yield f"  {'':<{width}}  {finding.advice}"


def _seen(timings: dict[str, Timing]) -> Iterator[str]:
    for mode, timing in timings.items():
        low, high = min(timing.instances), max(timing.instances)
        instances, blocks = counted(len(timing.instances), "instance"), counted(timing.rounds, "block")
        yield (
            f"{mode}: keras LSTM against itself, {instances} of {blocks}: "
            f"{timing.ratio.value:.3f}x [{timing.ratio.low:.3f}, {timing.ratio.high:.3f}], instances from "
            f"{low:.3f} to {high:.3f}"
        )
    widest = max(timings.values(), key=lambda timing: timing.ratio.high / timing.ratio.low)
    half = math.sqrt(widest.ratio.high / widest.ratio.low) - 1
    yield f"A run sees differences from ±{half:.1%} on; more --budget makes that less."
    yield (
        f"The gate, with {_GATE_PROCESSES} processes a side, sees a case that became slower by "
        f"{gate_sees(widest):.0%}."
    )


def gate_sees(timing: Timing, processes: int = _GATE_PROCESSES) -> float:
    """The least slowdown whose whole interval lies beyond the gate's threshold, relative.

    Each process has one figure, over as many instances as the timing; of two sides of so many processes
    Student's interval of their difference.
    """
    from scipy.stats import t

    deviation = math.sqrt(sum(math.log(ratio / timing.ratio.value) ** 2 for ratio in timing.instances))
    deviation /= math.sqrt(max(1, len(timing.instances) - 1) * len(timing.instances))
    degrees = 2 * processes - 2
    half = float(t.ppf((1 + CONFIDENCE) / 2, degrees)) * deviation * math.sqrt(2 / processes)
    return (1 + THRESHOLD) * math.exp(half) - 1
