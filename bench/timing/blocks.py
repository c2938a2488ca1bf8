"""The timing: subject and baseline in disjoint blocks, ABBA and BAAB, each a round of pytest-benchmark.

A case is timed as several *instances*: its two programs are compiled anew, each from a copy of its graph and
with its weights and inputs elsewhere in memory, since TensorFlow draws the speed of a compiled graph, and the
allocator how well a cache holds what it reads. Inference that XLA compiles for a CPU runs
alike each time: there weights and inputs alone are moved. Blocks lie within instances, and the interval of
the ratio is over instances.

A block has two ratios, each of neighbouring calls: what slows the machine down for longer than a call cancels
in them, and what hits one call alone makes one ratio of many far off, which then counts less. The two orders
keep a drift, a burst of two calls, and the second of two calls of one program, which is quicker, from leaning
to one side. In three recordings of layers against themselves, 307 rows, the errors of the ratios were smaller
by 10% in inference and 4% in training than with one ratio a block, of the quicker of its two calls of each
program; 52% and 10% of the rows were known to ±2%, instead of 47% and 8%.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from statistics import median, quantiles

from bench.timing.intervals import (
    FEWEST_BLOCKS,
    FEWEST_INSTANCES,
    WISHED_HALF_WIDTH,
    Interval,
    drift_of,
    half_width,
    instances_interval,
    ratio_interval,
    ratios_for,
    ratios_in_all,
)
from bench.timing.random_effects import RandomEffects

Leg = Callable[[], float]  # runs a program once; the seconds it took
Pair = tuple[Leg, Leg]  # of the subject and of the baseline

PILOT_SHARE = 0.1  # of the allowed time, at most
_QUEUE_SHARE = 0.03  # beyond it
_QUEUE_CALLS = (3, 100)  # at least, at most
_RATIOS_IN_BLOCK = 2
PILOT_BLOCKS = (1, 4)  # at least, for a spread; at most
LEAST_CALLS = 1 + 2 * (PILOT_BLOCKS[0] + FEWEST_BLOCKS)  # of a program that is timed, however slow
LEAST_IN_INSTANCE = 2  # blocks: one of each order; fewer do not tell what differs within an instance
_USUAL_INSTANCES = 4  # at least, where making one takes no longer than the blocks
MOST_INSTANCES = 8  # of a first measurement
# Seconds of compiling that a case may take for its instances, as a multiple of the seconds of its blocks. To
# compile a built-in's two sides takes 0.1 to 0.5 s, and blocks 1 s: so most have 4 instances; inference
# under XLA, which is compiled once on a CPU, has more.
_INSTANCES_SHARE = 0.5
_MOST_INSTANCE_S = 4.0  # seconds of an instance, with blocks of 1 s, beyond which one must do
_MOST_AGAIN = 24  # instances of a row that is measured again: what needs more is too noisy for this


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
    """The times of all legs so far, seconds; a block is two of each, subject and baseline ABBA or BAAB."""

    subject: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """Subject's time / baseline's time of neighbouring calls, two of each block."""
        return [subject / baseline for subject, baseline in zip(self.subject, self.baseline, strict=True)]

    @property
    def count(self) -> int:
        """How many blocks these are."""
        return len(self.subject) // _RATIOS_IN_BLOCK

    def __add__(self, later: "Blocks") -> "Blocks":
        return Blocks(self.subject + later.subject, self.baseline + later.baseline)

    def seconds(self) -> list[float]:
        """The time of each block."""
        calls = [subject + baseline for subject, baseline in zip(self.subject, self.baseline, strict=True)]
        return [first + second for first, second in zip(calls[::2], calls[1::2], strict=True)]


@dataclass(frozen=True)
class Instances:
    """The instances of a case, beside the one that there is.

    Attributes:
        make: their numbers, from 1 on -> the legs of each, compiled and called.
        seconds: about what making one takes.
    """

    make: Callable[[range], Sequence[Pair]]
    seconds: float


@dataclass(frozen=True)
class Timing:
    """The figures of a case, seconds.

    Attributes:
        ratio: subject's time / baseline's time, with its 95% interval.
        rounds: blocks.
        instances: the ratio of each instance, in their order.
        instance_spread: standard deviation between instances, relative to the ratio, without what blocks
            differ by; None where they are too few to tell.
        drift: rank correlation of a block's time and ratio; None where there is none.
    """

    median_s: float
    min_s: float
    iqr_s: float
    baseline_median_s: float
    ratio: Interval
    rounds: int
    instances: tuple[float, ...]
    instance_spread: float | None
    drift: float | None = None


@dataclass(frozen=True)
class Plan:
    """How many instances are timed, and how many blocks of each.

    Attributes:
        made: instances that are still to be made.
        kept: those that there are, and are timed on.
    """

    made: int
    blocks: int
    kept: int = 0

    @property
    def instances(self) -> int:
        return self.made + self.kept

    def seconds(self, instance_s: float, block_s: float) -> float:
        """About what it takes, by the seconds of making an instance and of a block."""
        return self.made * instance_s + self.instances * self.blocks * block_s


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


def plain_rounds(
    target: Callable[[], object], *, setup: Callable[[], object], teardown: Callable[[], object], rounds: int
) -> None:
    """Runs the rounds of `time_pair` where no pytest-benchmark does."""
    for _ in range(rounds):
        setup()
        target()
        teardown()


def time_pair(
    subject: Leg,
    baseline: Leg,
    pedantic: Callable[..., object],
    budget: Budget,
    mode: str,
    more: Instances | None = None,
) -> Timing:
    """Times two programs of a mode against each other, and further instances of them; as `time_instances`."""
    return summarise(time_instances((subject, baseline), pedantic, budget, more), mode)


def time_instances(
    first: Pair, pedantic: Callable[..., object], budget: Budget, more: Instances | None = None
) -> list[Blocks]:
    """The blocks of each instance.

    A pilot of the first instance, which also warms it up, fixes the number of instances and blocks; each
    block is one round of `pedantic`: baseline, subject, subject, baseline, and the next time that the
    instance has its turn the other way round. The instances take turns, block by block, so that a burst of
    other work falls on all of them and not on one.

    Args:
        first: run the programs of the first instance once, to the end, through `time_call`.
        pedantic: pytest-benchmark's `benchmark.pedantic`, or `plain_rounds`.
        more: None: there is only this instance.
    """
    with collector_off():
        plan = plan_for(_pilot(*first, budget), budget, more.seconds if more else None)
    pairs = [first, *(more.make(range(1, plan.instances)) if more else ())]
    return time_planned(pairs, plan.blocks, pedantic)


def time_planned(pairs: Sequence[Pair], blocks: int, pedantic: Callable[..., object]) -> list[Blocks]:
    """So many blocks of each pair, as `time_instances` times them."""
    timed = [Blocks() for _ in pairs]
    coming = turns(len(pairs), blocks)
    at, after = 0, _ORDERS[0][1]
    counts = False

    def call(sides: Sequence[int]) -> None:
        """Calls these sides of the block's instance."""
        for side in sides:
            seconds = pairs[at][side]()
            if counts:
                (timed[at].subject, timed[at].baseline)[side].append(seconds)

    def setup():
        """A round beyond the blocks, for --benchmark-cprofile, does not count."""
        nonlocal at, after, counts
        following = next(coming, None)
        counts = following is not None
        at, (before, after) = following or (0, _ORDERS[0])
        call(before)

    with collector_off():
        pedantic(lambda: call((0,)), setup=setup, teardown=lambda: call(after), rounds=len(pairs) * blocks)
    return timed


Order = tuple[tuple[int, ...], tuple[int, ...]]
# the sides that a block calls before and after the call that is pytest-benchmark's, the subject's; 0 is the
# subject, 1 the baseline: BSSB, SBBS
_ORDERS: tuple[Order, Order] = (((1,), (0, 1)), ((0, 1, 1), ()))


def turns(instances: int, blocks: int) -> Iterator[tuple[int, Order]]:
    """The instance of each block, and the order of its calls: all instances have one block in turn, then all
    the next one."""
    for block in range(blocks):
        for number in range(instances):
            yield number, _ORDERS[block % 2]


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
    wished = math.ceil(ratios_for(pilot.ratios()) / _RATIOS_IN_BLOCK)
    return max(min(wished, allowed), budget.min_rounds, FEWEST_BLOCKS)


def plan_for(pilot: Blocks, budget: Budget, instance_s: float | None) -> Plan:
    """How many instances, and how many blocks of each.

    In a given time the mean over instances is known best with
    sqrt(seconds of an instance / seconds of a block) · (deviation within / deviation between instances)
    blocks in each (Kalibera and Jones 2013, "Rigorous benchmarking in reasonable time"). The deviation
    between is not known before there are instances: usually it is a fifth of that within, or less, and few
    instances are optimal. So there are as many as their share of the time allows, and the blocks that the
    deviation within asks for are spread over them.

    Args:
        instance_s: the seconds of making an instance; None: there is one.
    """
    blocks, instances = rounds_for(pilot, budget), affordable_instances(instance_s, budget.max_time_s)
    block_s = median(pilot.seconds())
    instances = min(instances, max(_USUAL_INSTANCES, int(budget.max_time_s / (LEAST_IN_INSTANCE * block_s))))
    each = _even(blocks / instances)
    enough = instances * each >= max(budget.min_rounds, FEWEST_BLOCKS)
    return Plan(instances, each if enough else each + 2)


def _even(blocks: float) -> int:
    """About so many blocks of an instance: as many of one order as of the other."""
    return max(LEAST_IN_INSTANCE, 2 * round(blocks / 2))


def affordable_instances(instance_s: float | None, max_time_s: float) -> int:
    """How many instances a case has at first, of which making one takes so long; None: there is one."""
    if instance_s is None or instance_s > _MOST_INSTANCE_S * max_time_s:
        return 1
    affordable = 1 + int(_INSTANCES_SHARE * max_time_s / max(instance_s, 1e-9))
    least = _USUAL_INSTANCES if instance_s <= max_time_s else FEWEST_INSTANCES
    return max(least, min(MOST_INSTANCES, affordable))


def plan_again(
    instances: Sequence[Blocks],
    mode: str,
    ratio: Interval,
    instance_s: float,
    continued: bool,
    wished: float = WISHED_HALF_WIDTH,
) -> Plan | None:
    """The cheapest way to make the interval of the ratio as narrow as wished: more blocks, of instances that
    there are and of new ones.

    The deviations are those that these instances tell. None where they are too few to tell, or where it takes
    too many.

    Args:
        mode: of their case.
        ratio: theirs, with its interval.
        instance_s: the seconds of making an instance.
        continued: whether these instances are still there, and can have further blocks.
        wished: half of the interval, relative.
    """
    there = len(instances)
    if there < FEWEST_INSTANCES:
        return None
    found = RandomEffects([blocks.ratios() for blocks in instances], mode)
    timed = sum(map(len, found.instances))
    # few instances leave open how far they differ, so that the interval is wider than by their deviations
    wider = ratio.half_width / half_width(mode, found.between, found.within, there, timed)
    aim = wished / max(1.0, wider)
    block_s = median(chain.from_iterable(blocks.seconds() for blocks in instances))
    kept = there if continued else 0
    plans = []
    for made in range(0 if continued else 1, _MOST_AGAIN - there + 1):
        ratios = ratios_in_all(mode, found.between, found.within, there + made, aim)
        if ratios is not None:
            blocks = (ratios - timed) / (made + kept) / _RATIOS_IN_BLOCK
            plans.append(Plan(made, max(LEAST_IN_INSTANCE, 2 * math.ceil(blocks / 2)), kept))
    return min(plans, key=lambda plan: plan.seconds(instance_s, block_s), default=None)


def summarise(instances: Sequence[Blocks], mode: str) -> Timing:
    """The figures of the blocks of each instance, `FEWEST_BLOCKS` at least in all, of a case in this mode."""
    subject = list(chain.from_iterable(blocks.subject for blocks in instances))
    first, _, third = quantiles(subject, n=4, method="inclusive")
    ratios = [blocks.ratios() for blocks in instances]
    effects = RandomEffects(ratios, mode) if len(ratios) >= FEWEST_INSTANCES else None
    if effects:
        of_instances, ratio = [*map(math.exp, effects.means)], instances_interval(ratios, mode)
    else:
        of_instances, ratio = [*map(median, ratios)], ratio_interval(list(chain.from_iterable(ratios)))
    return Timing(
        median_s=median(subject),
        min_s=min(subject),
        iqr_s=third - first,
        baseline_median_s=median(chain.from_iterable(blocks.baseline for blocks in instances)),
        ratio=ratio,
        rounds=sum(blocks.count for blocks in instances),
        instances=tuple(of_instances),
        instance_spread=effects.between if effects else None,
        drift=drift_of(ratios),
    )


def _pilot(subject: Leg, baseline: Leg, budget: Budget) -> Blocks:
    blocks = Blocks()
    least, most = PILOT_BLOCKS
    for time_once in (baseline, subject):  # the first call after compiling is the slowest
        time_once()
    while blocks.count < most:
        blocks.baseline.append(baseline())
        blocks.subject.extend(subject() for _ in range(2))
        blocks.baseline.append(baseline())
        if blocks.count >= least and sum(blocks.seconds()) > PILOT_SHARE * budget.max_time_s:
            break
    return blocks


@contextmanager
def collector_off() -> Iterator[None]:
    """Python's garbage collector would strike some legs and not others.

    Nothing is collected beforehand: with TensorFlow and Keras that is half a million objects and a third of a
    second, each time, and it makes no call quicker.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
