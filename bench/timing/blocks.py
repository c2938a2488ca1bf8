"""The timing: subject and baseline in alternating, disjoint ABBA blocks, each a round of pytest-benchmark."""

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles

from bench.timing.intervals import FEWEST_BLOCKS, Interval, blocks_for, ratio_interval

Leg = Callable[[], float]  # runs a program once; the seconds it took

PILOT_SHARE = 0.25  # of the allowed time, at most
_QUEUE_SHARE = 0.1  # beyond it
_QUEUE_CALLS = (3, 100)  # at least, at most
PILOT_BLOCKS = (2, 6)  # at least, for a spread; at most
LEAST_CALLS = 1 + 2 * (PILOT_BLOCKS[0] + FEWEST_BLOCKS)  # of a program that is timed, however slow


class BrokenClock(RuntimeError):
    """The clock stands still, goes backwards or says no number; nothing can be timed."""


@dataclass(frozen=True)
class Budget:
    """What pytest-benchmark's options allow.

    Attributes:
        max_time_s: seconds for the blocks of a case, all four legs, beyond which only the fewest are timed.
        min_rounds: the fewest blocks.
    """

    max_time_s: float
    min_rounds: int


@dataclass
class Blocks:
    """The times of all legs so far, seconds; a block is two of each, subject and baseline ABBA."""

    subject: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """Subject's time / baseline's time of each block."""
        pairs = zip(_by_two(self.subject), _by_two(self.baseline), strict=True)
        return [subject / baseline for subject, baseline in pairs]

    def seconds(self) -> list[float]:
        """The time of each block."""
        pairs = zip(_by_two(self.subject), _by_two(self.baseline), strict=True)
        return [subject + baseline for subject, baseline in pairs]


def _by_two(times: list[float]) -> list[float]:
    return [first + second for first, second in zip(times[::2], times[1::2], strict=True)]


@dataclass(frozen=True)
class Timing:
    """The figures of a case, seconds.

    Attributes:
        ratio: subject's time / baseline's time, with its 95% interval.
        rounds: blocks.
    """

    median_s: float
    min_s: float
    iqr_s: float
    baseline_median_s: float
    ratio: Interval
    rounds: int


def time_call(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call. Every leg goes through here, in whichever process its program is.

    Raises:
        BrokenClock: they are none.
    """
    start = clock()
    run()
    seconds = clock() - start
    if not 0 < seconds < math.inf:
        raise BrokenClock(f"the clock does not go: a call took {seconds} s by it")
    return seconds


def time_pair(
    subject: Leg,
    baseline: Leg,
    pedantic: Callable[..., object],
    budget: Budget,
) -> Timing:
    """Times two programs against each other.

    A pilot, which also warms both up, fixes the number of blocks; each block is one round of `pedantic`:
    baseline, subject, subject, baseline.

    Args:
        subject, baseline: run the program once, to the end, through `time_call`.
        pedantic: pytest-benchmark's `benchmark.pedantic`.
    """
    with collector_off():
        rounds = rounds_for(_pilot(subject, baseline, budget), budget)
        blocks = Blocks()

        def leg(times: list[float], time_once: Leg) -> None:
            seconds = time_once()
            if len(times) < 2 * rounds:  # beyond: calls of --benchmark-cprofile, under its profiler
                times.append(seconds)

        def teardown():
            leg(blocks.subject, subject)
            leg(blocks.baseline, baseline)

        pedantic(
            lambda: leg(blocks.subject, subject),
            setup=lambda: leg(blocks.baseline, baseline),
            teardown=teardown,
            rounds=rounds,
        )
    return summarise(blocks)


def time_queue(queue: Callable[[int], float], call_s: float, budget: Budget) -> float:
    """Seconds of a call in a queue of calls that are awaited once, at its end.

    Args:
        queue: runs the program that many times; the seconds of all.
        call_s: about the seconds of a call, by which the queue is as long as its share of the time allows.
    """
    least, most = _QUEUE_CALLS
    count = max(least, min(most, int(_QUEUE_SHARE * budget.max_time_s / call_s)))
    with collector_off():
        return queue(count) / count


def rounds_for(pilot: Blocks, budget: Budget) -> int:
    """The number of blocks: enough for the wished interval, at most what the time allows, and at least
    `min_rounds` and what an interval takes."""
    allowed = int(budget.max_time_s / median(pilot.seconds()))
    return max(min(blocks_for(pilot.ratios()), allowed), budget.min_rounds, FEWEST_BLOCKS)


def summarise(blocks: Blocks) -> Timing:
    """The figures of the blocks, `FEWEST_BLOCKS` at least."""
    first, _, third = quantiles(blocks.subject, n=4, method="inclusive")
    return Timing(
        median_s=median(blocks.subject),
        min_s=min(blocks.subject),
        iqr_s=third - first,
        baseline_median_s=median(blocks.baseline),
        ratio=ratio_interval(blocks.ratios()),
        rounds=len(blocks.ratios()),
    )


def _pilot(subject: Leg, baseline: Leg, budget: Budget) -> Blocks:
    blocks = Blocks()
    least, most = PILOT_BLOCKS
    for time_once in (baseline, subject):  # the first call after compiling is the slowest
        time_once()
    while len(blocks.ratios()) < most:
        blocks.baseline.append(baseline())
        blocks.subject.extend(subject() for _ in range(2))
        blocks.baseline.append(baseline())
        if len(blocks.ratios()) >= least and sum(blocks.seconds()) > PILOT_SHARE * budget.max_time_s:
            break
    return blocks


@contextmanager
def collector_off() -> Iterator[None]:
    """Python's garbage collector would strike some legs and not others."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
