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
from bench.timing.blocks import (
    Blocks,
    Budget,
    Instances,
    Timing,
    plain_rounds,
    summarise,
    time_call,
    time_instances,
    time_planned,
)
from bench.timing.intervals import CONFIDENCE
from bench.timing.machine_state import Finding, disturbances, read_counters, settings
from bench.timing.random_effects import RandomEffects

_SHAPE = (32, 50, 64, 128)
_CASES = tuple(Case("lstm", "builtin", mode, *_SHAPE) for mode in ("infer", "train"))
_USUAL_S = 1.0  # pytest-benchmark's `--benchmark-max-time`
_GATE_PROCESSES = 5
_LOOP_STEPS, _LOOP_BLOCKS = 30_000, 40  # of a fixed loop of 1 to 3 ms, in three series
_STEADY = 0.025  # a ratio of two neighbouring turns of it scatters by less on a machine of one's own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has none."""


def main(args: argparse.Namespace) -> int:
    """Prints what was found; returns 0."""
    print(machine_key())
    before, start = read_counters(with_processes=True), time.monotonic()
    blocks = {case.mode: _against_itself(case) for case in _CASES}
    seconds = time.monotonic() - start
    found = [
        *disturbances(before, read_counters(with_processes=True), seconds),
        _own_speed(block_scatter(_fixed_loop())),
        *settings(),
        Finding("TensorFlow's threads", _threads()),
    ]
    for line in (*_listed(found), "", *_seen(blocks)):
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
            lambda numbers: prover.legs_of_more(subject, baseline, numbers),
            subject.program.again_s + baseline.program.again_s,
        )
        return time_instances(prover.legs(subject, baseline), plain_rounds, Budget(_USUAL_S, 5), more)
    finally:
        prover.close()


def _fixed_loop() -> list[Blocks]:
    """The blocks of a loop of one thread, always the same, against itself."""

    def leg() -> float:
        return time_call(lambda: sum(number * number for number in range(_LOOP_STEPS)))

    return time_planned([(leg, leg)] * 3, _LOOP_BLOCKS, plain_rounds)


def block_scatter(instances: Sequence[Blocks]) -> float:
    """The deviation of a ratio of two neighbouring calls, relative."""
    return RandomEffects([blocks.ratios() for blocks in instances], "infer").within  # in any mode the same


def _own_speed(scatter: float) -> Finding:
    found = f"turns of one fixed loop, of one thread, scatter by {scatter:.1%}"
    advice = (
        "no setting here ends that: neighbours on the same processor, or a clock that changes; take another "
        "hour or machine, or more --budget"
    )
    return Finding("the processor itself", found, advice if scatter > _STEADY else "")


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


def _seen(instances: dict[str, list[Blocks]]) -> Iterator[str]:
    timings = {mode: summarise(blocks, mode) for mode, blocks in instances.items()}
    for mode, timing in timings.items():
        low, high = min(timing.instances), max(timing.instances)
        drawn, blocks = counted(len(timing.instances), "instance"), counted(timing.rounds, "block")
        yield (
            f"{mode}: keras LSTM against itself, {drawn} of {blocks}: "
            f"{timing.ratio.value:.3f}x [{timing.ratio.low:.3f}, {timing.ratio.high:.3f}], instances from "
            f"{low:.3f} to {high:.3f}, turns scatter by {block_scatter(instances[mode]):.1%}"
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
