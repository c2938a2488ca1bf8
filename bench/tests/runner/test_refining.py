"""What is measured again: which rows, how much, in which order; and how often intervals are right then."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bench.cases.case import Case
from bench.cases.comparisons import Comparison
from bench.runner.refining import Timed, is_enough, next_of, rest_of, spend
from bench.timing.blocks import Blocks, Plan, plain_rounds, summarise, time_planned

CASE = Case("lstm", "builtin", "train", 32, 50, 64, 128)


def timed(spread: float, noise: float = 0.01, instances: int = 8, blocks: int = 4, **takes) -> Timed:
    """A row of calls of 10 ms, whose instances scatter by `spread`, and blocks within them by `noise`."""
    of_ratios = math.sqrt(2) * noise * _scattered(2 * blocks)
    made = [_instance(spread * z, of_ratios) for z in _scattered(instances)]
    return Timed(
        Comparison("any", CASE, CASE), made, **{"pair": None, "prove_s": 1.0, "instance_s": 0.5, **takes}
    )


def _scattered(count: int) -> np.ndarray:
    """Numbers of mean 0 and deviation 1."""
    places = np.arange(count) - (count - 1) / 2
    return places / max(1e-9, places.std(ddof=1)) if count > 1 else places


def _instance(logarithm: float, noise: np.ndarray) -> Blocks:
    ratios = np.exp(logarithm + noise)
    return Blocks(list(0.010 * ratios), [0.010] * len(ratios))


def test_what_is_within_two_percent_or_has_one_trace_is_left_alone():
    narrow = timed(0.0, noise=0.001)
    assert narrow.plan is None and narrow.seconds == math.inf
    alone = timed(0.0, noise=0.1, instances=1, blocks=10, instance_s=None)
    assert alone.plan is None
    assert rest_of({0: narrow, 1: alone}).wide == 1 and rest_of({0: narrow, 1: alone}).within_reach == 0


def test_the_row_that_is_brought_there_in_the_least_time_is_next():
    rows = {0: timed(0.03, prove_s=100.0), 1: timed(0.03), 2: timed(0.0, noise=0.001)}
    assert rows[1].seconds < rows[0].seconds < math.inf
    for urgent in (True, False):
        assert next_of(rows, 1000.0, urgent) == 1
        assert next_of(rows, 0.5, urgent) is None and next_of({}, 1000.0, urgent) is None
    rest = rest_of(rows)
    assert (rest.wide, rest.total, rest.within_reach) == (2, 3, 2)
    assert rest.seconds == pytest.approx(rows[0].seconds + rows[1].seconds)


def test_the_interval_and_the_further_blocks_go_by_the_cases_mode():
    training = timed(0.0, noise=0.05, instances=4)
    case = replace(CASE, mode="infer")
    inference = replace(training, comparison=Comparison("any", case, case))
    assert training.ratio.half_width > inference.ratio.half_width > 0.02
    assert training.seconds > inference.seconds


def test_ratios_that_say_little_have_turns_of_their_own():
    wide, near = timed(0.01, noise=0.15, instances=4, prove_s=100.0), timed(0.03)
    assert wide.is_urgent and not near.is_urgent
    assert near.seconds < wide.seconds < wide.wished_seconds  # which goes to ±5% first
    rows = {0: near, 1: wide}
    assert next_of(rows, 1000.0, urgent=True) == 1
    assert next_of(rows, 1000.0, urgent=False) == 0
    assert next_of(rows, wide.seconds - 1, urgent=True) == 0
    rest = rest_of(rows)
    assert rest.seconds == pytest.approx(near.seconds + wide.wished_seconds)


@pytest.mark.parametrize("urgent", [True, False])
def test_a_turn_that_has_no_row_is_the_others(urgent):
    wide, near = timed(0.01, noise=0.15, instances=4), timed(0.03)
    assert next_of({0: near if urgent else wide}, 1000.0, urgent) == 0


def test_those_that_say_little_have_a_fifth_of_a_given_time():
    wide, near = timed(0.01, noise=0.15, instances=4), timed(0.03)
    rows = {number: wide if number < 50 else near for number in range(100)}
    passed, spent = 0.0, {True: 0.0, False: 0.0}

    def measure(number: int) -> None:
        nonlocal passed
        passed += rows[number].seconds
        spent[rows[number].is_urgent] += rows[number].seconds

    seconds = 20 * (wide.seconds + near.seconds)
    spend(rows, seconds, measure, clock=lambda: passed)
    assert passed <= seconds
    assert abs(4 * spent[True] - spent[False]) < 5 * max(wide.seconds, near.seconds)  # of over 100 s
    assert passed > 100


def test_what_has_come_nearer_waits_for_its_next_turn_and_what_went_wrong_for_none():
    wide, near, narrow = timed(0.01, noise=0.15, instances=4), timed(0.03), timed(0.0, noise=0.001)
    coming = {0: iter([near, narrow]), 1: iter([None])}
    measured = []

    def measure(number: int) -> Timed | None:
        measured.append(number)
        return next(coming[number])

    spend({0: wide, 1: wide}, 1e9, measure)
    assert sorted(measured) == [0, 0, 1]


def test_three_in_five_to_two_percent_and_none_beyond_five_are_enough():
    narrow, near, wide = timed(0.0, noise=0.001), timed(0.03), timed(0.01, noise=0.15, instances=4)
    assert narrow.ratio.converged and not near.ratio.converged and wide.is_urgent
    assert is_enough(dict(enumerate([narrow, narrow, narrow, near, near])))
    assert not is_enough(dict(enumerate([narrow, narrow, near, near])))
    assert not is_enough(dict(enumerate([narrow, narrow, narrow, near, wide])))
    hopeless = replace(wide, instance_s=None)
    assert is_enough(dict(enumerate([narrow, narrow, narrow, near, hopeless])))


@pytest.mark.parametrize(("until_enough", "measured"), [(True, 2), (False, 4)])
def test_a_run_without_a_time_of_its_own_ends_where_enough_is_known(until_enough, measured):
    narrow, near = timed(0.0, noise=0.001), timed(0.03)
    rows = dict(enumerate([narrow, near, near, near, near]))
    asked = []

    def measure(number: int) -> Timed:
        asked.append(number)
        return narrow

    spend(rows, 1e9, measure, until_enough)
    assert len(asked) == measured


def test_a_run_without_a_time_of_its_own_knows_enough_before_it_turns_to_those_that_say_little():
    narrow, near, wide = timed(0.0, noise=0.001), timed(0.03), timed(0.01, noise=0.15, instances=4)
    rows = dict(enumerate([narrow, narrow, near, near, wide]))
    asked = []

    def measure(number: int) -> Timed:
        asked.append(number)
        return narrow

    spend(rows, 1e9, measure, until_enough=True)
    assert asked == [2, 4]
    asked.clear()
    spend(rows, 1e9, measure)
    assert asked[0] == 4


def test_once_enough_is_known_the_time_is_for_those_that_say_little():
    narrow, near = timed(0.0, noise=0.001), timed(0.03, prove_s=0.0, instance_s=0.01)
    wide = timed(0.01, noise=0.15, instances=4)
    assert near.seconds < wide.seconds
    rows = dict(enumerate([narrow, narrow, narrow, near, wide, wide, wide, narrow, narrow, narrow]))
    asked = []

    def measure(number: int) -> Timed:
        asked.append(number)
        return near

    spend(rows, 1e9, measure, until_enough=True)
    assert asked == [4, 5, 6]


def test_a_ratio_that_cannot_become_fair_is_not_urgent():
    assert not timed(0.3).is_urgent and not timed(0.15, instance_s=None).is_urgent


def test_what_no_time_would_help_is_not_tried():
    assert timed(0.3).plan is None


def test_where_instances_scatter_more_than_blocks_each_has_few_blocks():
    """Kalibera and Jones: sqrt(cost of an instance / of a block) * deviation within / between."""
    scattered, alike = timed(0.03, noise=0.002).plan, timed(0.025, noise=0.06).plan
    assert scattered is not None and scattered.blocks == 2
    assert alike is not None and alike.blocks > 5


KEPT = (object(), object())


def test_instances_that_are_still_there_are_timed_on_where_that_is_cheaper():
    noisy = timed(0.0, noise=0.06, instances=4, pair=KEPT)
    assert noisy.plan == replace(noisy.plan, made=0, kept=4)
    assert 4 * noisy.plan.blocks >= 16
    assert noisy.seconds < replace(noisy, pair=None, prove_s=0.0).seconds
    scattered = timed(0.03, noise=0.002, pair=KEPT).plan  # which more blocks of the same would not help
    assert scattered.made >= 2 and scattered.blocks == 2
    cheap, dear = (timed(0.018, 0.06, 5, instance_s=s, pair=KEPT).plan for s in (0.001, 10.0))
    assert cheap.made > dear.made


def test_a_plan_says_what_it_takes():
    plan = Plan(made=2, blocks=4, kept=3)
    assert plan.instances == 5 and plan.seconds(instance_s=0.5, block_s=0.1) == pytest.approx(1.0 + 2.0)


@pytest.mark.parametrize("kept", [None, KEPT])
@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_ratios_that_were_measured_again_still_hold_the_truth_in_95_percent(spread, kept):
    """Which rows are measured again is chosen by their spread, never by their ratio; 1000 scatter by 0.7%."""
    generator = np.random.default_rng(5)

    def blocks_of(speed: float, blocks: int) -> Blocks:
        return _instance(speed, generator.normal(0, 0.03, 2 * blocks))

    held = again = reached = 0
    for _ in range(1000):
        speeds = generator.normal(0, spread, 100)
        row = replace(timed(0.0), instances=[blocks_of(speed, 3) for speed in speeds[:4]], pair=kept)
        found, plan = row.instances, row.plan
        if plan:
            again += 1
            assert plan.kept == (4 if kept else 0)
            on = [each + blocks_of(speed, plan.blocks) for each, speed in zip(found, speeds, strict=False)]
            new = [blocks_of(speed, plan.blocks) for speed in speeds[4 : 4 + plan.made]]
            found = (on if plan.kept else found) + new
        ratio = summarise(found, "train").ratio
        held += ratio.low <= 1 <= ratio.high
        reached += plan is not None and ratio.converged
    assert again > 60
    assert 0.92 <= held / 1000 <= 0.995
    assert reached > again / 2


def test_the_same_blocks_are_timed_without_a_benchmark():
    found = time_planned([(lambda: 2.0, lambda: 1.0)] * 3, 4, plain_rounds)
    assert [blocks.ratios() for blocks in found] == [[2.0] * 8] * 3
    assert [blocks.count for blocks in found] == [4] * 3
