"""What is measured again: which rows, how much, in which order; and how often intervals are right then."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bench.cases.case import Case
from bench.cases.comparisons import Comparison
from bench.runner.refining import Timed, next_of, rest_of
from bench.timing.blocks import Blocks, plain_rounds, summarise, time_planned

CASE = Case("lstm", "builtin", "train", 32, 50, 64, 128)


def timed(spread: float, noise: float = 0.01, instances: int = 8, blocks: int = 4, **takes) -> Timed:
    """A row of calls of 10 ms, whose instances scatter by `spread`, and blocks within them by `noise`."""
    made = [_instance(spread * z, noise * _scattered(blocks)) for z in _scattered(instances)]
    return Timed(
        Comparison("any", CASE, CASE), made, **{"pair": None, "prove_s": 1.0, "instance_s": 0.5, **takes}
    )


def _scattered(count: int) -> np.ndarray:
    """Numbers of mean 0 and deviation 1."""
    places = np.arange(count) - (count - 1) / 2
    return places / max(1e-9, places.std(ddof=1)) if count > 1 else places


def _instance(logarithm: float, noise: np.ndarray) -> Blocks:
    ratios = np.exp(logarithm + noise)
    return Blocks(list(np.repeat(0.010 * ratios, 2)), [0.010] * (2 * len(ratios)))


def test_what_is_within_two_percent_or_has_one_trace_is_left_alone():
    narrow = timed(0.0, noise=0.001)
    assert narrow.plan is None and narrow.seconds == math.inf
    alone = timed(0.0, noise=0.1, instances=1, blocks=10, instance_s=None)
    assert alone.plan is None
    assert rest_of({0: narrow, 1: alone}).wide == 1 and rest_of({0: narrow, 1: alone}).within_reach == 0


def test_the_row_that_is_brought_there_in_the_least_time_is_next():
    rows = {0: timed(0.03, prove_s=100.0), 1: timed(0.03), 2: timed(0.0, noise=0.001)}
    assert rows[1].seconds < rows[0].seconds < math.inf
    assert next_of(rows, 1000.0) == 1
    assert next_of(rows, 0.5) is None and next_of({}, 1000.0) is None
    rest = rest_of(rows)
    assert (rest.wide, rest.total, rest.within_reach) == (2, 3, 2)
    assert rest.seconds == pytest.approx(rows[0].seconds + rows[1].seconds)


def test_a_ratio_that_says_little_comes_first_though_others_take_less_time():
    wide, near = timed(0.01, noise=0.2, instances=4, prove_s=100.0), timed(0.03)
    assert wide.is_urgent and not near.is_urgent
    assert near.seconds < wide.seconds < wide.wished_seconds  # which goes to ±8% first
    assert next_of({0: near, 1: wide}, 1000.0) == 1
    assert next_of({0: near, 1: wide}, wide.seconds - 1) == 0
    rest = rest_of({0: near, 1: wide})
    assert rest.seconds == pytest.approx(near.seconds + wide.wished_seconds)


def test_a_ratio_that_cannot_become_fair_is_not_urgent():
    assert not timed(0.3).is_urgent and not timed(0.15, instance_s=None).is_urgent


def test_what_no_time_would_help_is_not_tried():
    assert timed(0.3).plan is None


def test_where_instances_scatter_more_than_blocks_each_has_few_blocks():
    """Kalibera and Jones: sqrt(cost of an instance / of a block) * deviation within / between."""
    scattered, alike = timed(0.03, noise=0.002).plan, timed(0.025, noise=0.06).plan
    assert scattered is not None and scattered.blocks == 2
    assert alike is not None and alike.blocks > 5


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_ratios_that_were_measured_again_still_hold_the_truth_in_95_percent(spread):
    """Which rows are measured again is chosen by their spread, never by their ratio; 500 scatter by 1%."""
    generator = np.random.default_rng(5)

    def drawn(instances: int, blocks: int) -> list[Blocks]:
        return [
            _instance(generator.normal(0, spread), generator.normal(0, 0.02, blocks))
            for _ in range(instances)
        ]

    held = again = reached = 0
    for _ in range(500):
        row = replace(timed(0.0), instances=drawn(4, 3))
        plan = row.plan
        again += plan is not None
        found = row.instances + (drawn(plan.instances, plan.blocks) if plan else [])
        ratio = summarise(found).ratio
        held += ratio.low <= 1 <= ratio.high
        reached += plan is not None and ratio.converged
    assert again > 50
    assert 0.92 <= held / 500 <= 0.995
    assert reached > again / 2


def test_the_same_blocks_are_timed_without_a_benchmark():
    found = time_planned([(lambda: 2.0, lambda: 1.0)] * 3, 4, plain_rounds)
    assert [blocks.ratios() for blocks in found] == [[2.0] * 4] * 3
