"""Decide which ratios are measured again, and for how long.

A run that ends by itself brings three in five of its ratios within ±2% first, and then those that are wider
than ±5%, which say little. Where its time is given, a fifth of it goes to these, and the rest where it brings
most within ±2%; what one part has no use for is the other's. All of it for the wide ones left three in ten of
a layer against itself within ±2% on a noisy machine, and none of it every seventieth more than 5% off.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from bench.cases.comparisons import Comparison
from bench.runner.proving import Proven
from bench.timing.blocks import Blocks, Plan, Timing, plan_again, summarise
from bench.timing.intervals import ENOUGH_KNOWN, LARGEST_HALF_WIDTH, WISHED_HALF_WIDTH, Interval

_URGENT_SHARE = 1 / 5  # of a given time, for those wider than ±5%


@dataclass(frozen=True)
class Timed:
    """A row that was timed, and what measuring it again takes.

    Attributes:
        instances: the blocks of each instance.
        pair: the two, proven, with the instances that were timed; None where they must be proven again.
        prove_s: seconds of that.
        instance_s: seconds of making an instance of the two; None where there can be one alone.
    """

    comparison: Comparison
    instances: list[Blocks]
    pair: tuple[Proven, Proven] | None
    prove_s: float
    instance_s: float | None

    @cached_property
    def timing(self) -> Timing:
        return summarise(self.instances, self.comparison.case.mode)

    @property
    def ratio(self) -> Interval:
        return self.timing.ratio

    @cached_property
    def is_urgent(self) -> bool:
        """Whether the ratio is wider than ±5%, and can be brought there."""
        return not self.ratio.is_within(LARGEST_HALF_WIDTH) and self._to(LARGEST_HALF_WIDTH) is not None

    @cached_property
    def plan(self) -> Plan | None:
        """The further blocks that bring the ratio within ±5%, or once it is there within ±2%; None where it
        is, or cannot be brought."""
        return self._to(LARGEST_HALF_WIDTH if self.is_urgent else WISHED_HALF_WIDTH)

    @cached_property
    def seconds(self) -> float:
        """About what that takes; infinite where it cannot be had."""
        return self._seconds(self.plan)

    @cached_property
    def wished_seconds(self) -> float:
        """About what it takes to bring the ratio within ±2%; infinite where it cannot be had."""
        return self._seconds(self._to(WISHED_HALF_WIDTH))

    def _to(self, half_width: float) -> Plan | None:
        if self.instance_s is None or self.ratio.is_within(half_width):
            return None
        mode, continued = self.comparison.case.mode, self.pair is not None
        return plan_again(self.instances, mode, self.ratio, self.instance_s, continued, half_width)

    def _seconds(self, plan: Plan | None) -> float:
        if plan is None or self.instance_s is None:
            return math.inf
        block_s = median(seconds for blocks in self.instances for seconds in blocks.seconds())
        return (0.0 if self.pair else self.prove_s) + plan.seconds(self.instance_s, block_s)


def next_of(timed: Mapping[int, Timed], seconds: float, urgent: bool) -> int | None:
    """The row that is measured again, or None where none takes so few seconds.

    Args:
        urgent: whether it is the turn of those that are urgent, or of the others; where there are none it is
            one of all. It is the one that takes the least time.
    """
    needs = {number: each.seconds for number, each in timed.items() if each.seconds <= seconds}
    return min(needs, key=lambda number: (timed[number].is_urgent != urgent, needs[number]), default=None)


def is_enough(timed: Mapping[int, Timed]) -> bool:
    """Whether three in five of the ratios are known to ±2%, and none is wider than ±5% that could be brought
    there."""
    return enough_known(timed) and not any(each.is_urgent for each in timed.values())


def enough_known(timed: Mapping[int, Timed]) -> bool:
    """Whether three in five of the ratios are known to ±2%."""
    return sum(each.ratio.converged for each in timed.values()) >= ENOUGH_KNOWN * len(timed)


def spend(
    timed: Mapping[int, Timed],
    seconds: float,
    measure: Callable[[int], Timed | None],
    until_enough: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Measures rows again, one after another, for so long.

    Args:
        measure: measures that row again; None where it went wrong, and is not tried another time.
        until_enough: whether it ends sooner where `is_enough` says so.
    """
    timed, waiting = dict(timed), dict(timed)
    spent = {True: 0.0, False: 0.0}  # by whether the row was urgent
    begun = now = clock()
    while not (until_enough and is_enough(timed)):
        if until_enough:
            urgent = enough_known(timed)
        else:
            urgent = spent[True] <= _URGENT_SHARE * sum(spent.values())
        number = next_of(waiting, begun + seconds - now, urgent)
        if number is None:
            return
        before, start = waiting.pop(number), now
        after = measure(number)
        now = clock()
        spent[before.is_urgent] += now - start
        if after is not None:
            timed[number] = waiting[number] = after


@dataclass(frozen=True)
class Rest:
    """The ratios that are still wider than ±2%.

    Attributes:
        wide, total: how many, of how many.
        within_reach: how many of them more time would bring there.
        seconds: how much.
    """

    wide: int
    total: int
    within_reach: int
    seconds: float


def rest_of(timed: Mapping[int, Timed]) -> Rest:
    """Says what of the rows is still wide, and what it would take."""
    wide = [each for each in timed.values() if not each.ratio.converged]
    needs = [seconds for each in wide if math.isfinite(seconds := each.wished_seconds)]
    return Rest(len(wide), len(timed), len(needs), sum(needs))
