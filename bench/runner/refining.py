"""Decide which ratios are measured again, and for how long: the time goes where it brings most within ±2%."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from bench.cases.comparisons import Comparison
from bench.runner.proving import Proven
from bench.timing.blocks import Blocks, Plan, plan_again, summarise


@dataclass(frozen=True)
class Timed:
    """A row that was timed, and what measuring it again takes.

    Attributes:
        instances: the blocks of each instance.
        pair: the two, proven, without the instances that were timed; None where they must be proven again.
        prove_s: seconds of that.
        instance_s: seconds of making an instance of the two; None where there can be one alone.
    """

    comparison: Comparison
    instances: list[Blocks]
    pair: tuple[Proven, Proven] | None
    prove_s: float
    instance_s: float | None

    @cached_property
    def is_wide(self) -> bool:
        """Whether the interval of the ratio is wider than ±2%."""
        return not summarise(self.instances).ratio.converged

    @cached_property
    def plan(self) -> Plan | None:
        """The further instances that bring the ratio within ±2%; None where it is, or cannot be brought."""
        if self.instance_s is None or not self.is_wide:
            return None
        return plan_again(self.instances, self.instance_s)

    @cached_property
    def seconds(self) -> float:
        """About what that takes; infinite where it cannot be had."""
        plan = self.plan
        if plan is None or self.instance_s is None:
            return math.inf
        block_s = median(seconds for blocks in self.instances for seconds in blocks.seconds())
        prove_s = 0.0 if self.pair else self.prove_s
        return prove_s + plan.instances * (self.instance_s + plan.blocks * block_s)


def next_of(timed: Mapping[int, Timed], seconds: float) -> int | None:
    """The row that is brought within ±2% in the least time; None where there is none in so many seconds."""
    needs = {number: each.seconds for number, each in timed.items()}
    number = min(needs, key=needs.__getitem__, default=None)
    return number if number is not None and needs[number] <= seconds else None


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
    wide = [each for each in timed.values() if each.is_wide]
    needs = [seconds for each in wide if math.isfinite(seconds := each.seconds)]
    return Rest(len(wide), len(timed), len(needs), sum(needs))
