"""Intervals: that they hold the true ratio as often as they say, and what they refuse."""

import math
from functools import partial

import numpy as np
import pytest
from scipy.stats import sem, t

from bench.timing.intervals import (
    CONFIDENCE,
    WISHED_HALF_WIDTH,
    Interval,
    drift_of,
    half_width,
    instances_interval,
    processes_interval,
    ratio_interval,
    ratios_for,
    ratios_in_all,
)


def skewed(generator, count: int, ratio: float = 1.0) -> np.ndarray:
    """Ratios of the median `ratio` with a long tail upwards, as times have."""
    return ratio * np.exp(0.03 * (generator.exponential(1, count) - math.log(2)))


def spiked(generator, count: int, ratio: float = 1.0) -> np.ndarray:
    """Ratios of the median `ratio` of two noisy times, each disturbed now and then to a multiple."""

    def times():
        disturbed = generator.random(count) < 0.1
        return 1 + generator.exponential(0.02, count) + disturbed * generator.exponential(1, count)

    return ratio * times() / times()


@pytest.mark.parametrize(
    ("noise", "count"), [(skewed, 6), (skewed, 7), (skewed, 9), (skewed, 15), (spiked, 15), (skewed, 30)]
)
def test_few_ratios_hold_the_true_ratio_in_95_percent(noise, count):
    """The exact interval's coverage is 95.7% (30 ratios) to 98.4% (7); 200 draws scatter by 1.4%."""
    coverage, above, below = coverage_of(noise, count, draws=200)
    assert CONFIDENCE - 0.025 <= coverage < 1
    assert max(above, below) <= 0.05  # 2.5% a side


def test_many_ratios_hold_the_true_ratio_in_95_percent():
    """The bootstrap's coverage at 60 ratios is 94.5% (of 2000 draws); 100 draws scatter by 2.3%."""
    coverage, above, below = coverage_of(skewed, 60, draws=100)
    assert 0.88 <= coverage < 1
    assert max(above, below) <= 0.06


def coverage_of(noise, count: int, draws: int) -> tuple[float, float, float]:
    """The shares of intervals that hold the true ratio, that lie above it and that lie below it."""
    generator = np.random.default_rng(count)
    true = 0.7
    intervals = [ratio_interval(noise(generator, count, true)) for _ in range(draws)]
    above = sum(interval.low > true for interval in intervals) / draws
    below = sum(interval.high < true for interval in intervals) / draws
    return 1 - above - below, above, below


@pytest.mark.parametrize(("count", "low", "high"), [(6, 1, 6), (9, 2, 8), (15, 4, 12), (30, 10, 21)])
def test_few_ratios_give_the_binomial_order_statistics(count, low, high):
    """The k-th smallest and k-th largest, k from tables of the sign test's interval."""
    ratios = np.random.default_rng(0).permutation(count) + 1.0
    assert ratio_interval(ratios) == Interval((count + 1) / 2, low, high)


@pytest.mark.parametrize("count", [6, 30, 60])
@pytest.mark.filterwarnings("error")
def test_constant_ratios_have_an_interval_without_width(count):
    interval = ratio_interval([1.25] * count)
    assert interval == Interval(1.25, 1.25, 1.25)
    assert interval.converged


@pytest.mark.parametrize("count", [9, 60])
def test_the_same_ratios_give_the_same_interval_in_any_scale(count):
    ratios = skewed(np.random.default_rng(3), count)
    one, ten = ratio_interval(ratios), ratio_interval(10 * ratios)
    assert ratio_interval(list(ratios)) == one
    assert (ten.value, ten.low, ten.high) == pytest.approx((10 * one.value, 10 * one.low, 10 * one.high))
    assert one.low <= one.value <= one.high


@pytest.mark.parametrize("count", [15, 60])
def test_one_spoiled_ratio_does_not_move_the_interval_away(count):
    ratios = np.append(skewed(np.random.default_rng(4), count - 1), 1000.0)
    interval = ratio_interval(ratios)
    assert interval.low < 1 < interval.high < 1.1


@pytest.mark.parametrize("ratios", [[], [1.0], [1.0] * 5, np.ones((6, 6))])
def test_too_few_ratios_have_no_interval(ratios):
    with pytest.raises(ValueError, match=f"{np.size(ratios)} ratios: an interval takes at least 6"):
        ratio_interval(ratios)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_ratios_that_are_no_numbers_have_no_interval(bad):
    with pytest.raises(ValueError, match="must be finite"):
        ratio_interval([1.0] * 6 + [bad])


@pytest.mark.parametrize(
    ("interval", "converged"),
    [
        (Interval(1.0, 0.981, 1.019), True),
        (Interval(10.0, 9.81, 10.19), True),  # relative to the figure
        (Interval(1.0, 0.979, 1.0), False),
        (Interval(1.0, 1.0, 1.021), False),
        (Interval(0.1, 0.09, 0.11), False),
    ],
)
def test_converged_is_within_two_percent(interval, converged):
    assert interval.converged is converged


def test_ratios_grow_with_the_square_of_the_spread_and_not_with_the_ratio():
    pilot = np.array([-1.0, 0.5, 0.0, 1.0, -0.5, 0.25])
    narrow = ratios_for(np.exp(0.05 * pilot))
    assert ratios_for(np.exp(0.1 * pilot)) == pytest.approx(4 * narrow, abs=4)
    assert ratios_for(7 * np.exp(0.05 * pilot)) == pytest.approx(narrow, abs=1)
    assert ratios_for([1.5, 1.5]) == 0


def test_a_pilot_of_few_ratios_is_trusted_less():
    assert ratios_for([0.98, 1.02]) > 3 * ratios_for([0.98, 1.02, 0.98, 1.02, 0.98, 1.02])


@pytest.mark.parametrize("pilot_ratios", [3, 6])
def test_the_ratios_asked_for_bring_the_wished_interval_more_often_than_not(pilot_ratios):
    spread = 0.03
    generator = np.random.default_rng(5)

    def noise(count):
        return np.exp(generator.normal(0, spread, count))

    pilots = [noise(pilot_ratios) for _ in range(60)]
    counts = [max(ratios_for(pilot), 6) for pilot in pilots]
    converged = sum(ratio_interval(noise(count)).converged for count in counts)
    assert converged > 30
    enough = (1.96 * spread / WISHED_HALF_WIDTH) ** 2  # for the mean, were the spread known
    assert np.median(counts) <= 12 * enough


@pytest.mark.parametrize("pilot", [[], [1.0]])
def test_a_pilot_of_fewer_than_two_ratios_says_nothing(pilot):
    with pytest.raises(ValueError):
        ratios_for(pilot)


# --- instances ---

# The logarithm of the speed that a trace draws, as seen: nothing; 1%; one of two speeds, or of three; and one
# that is drawn by a trace in six.
SPEEDS = {
    "alike": lambda generator, shape: np.zeros(shape),
    "near": lambda generator, shape: generator.normal(0, 0.01, shape),
    "two": lambda generator, shape: generator.choice([0, math.log(1.15)], shape),
    "three": lambda generator, shape: generator.choice(
        [0, math.log(1.12), math.log(1.2)], shape, p=[0.4, 0.4, 0.2]
    ),
    "seldom": lambda generator, shape: generator.choice([0, math.log(1.15)], shape, p=[5 / 6, 1 / 6]),
}
_SAMPLES = 300


def simulated(speeds: str, instances: int, blocks: int, noise: float = 0.02) -> np.ndarray:
    """Ratios of a layer to a second one of itself: samples, instances, blocks.

    Both sides of an instance draw a speed. A block's ratio scatters by `noise`, and one in 25 is disturbed by
    a tenth.
    """
    generator = np.random.default_rng(instances)
    shape = (_SAMPLES, instances, 1)
    drawn = SPEEDS[speeds](generator, shape) - SPEEDS[speeds](generator, shape)
    scatter = generator.normal(0, noise, (_SAMPLES, instances, blocks))
    disturbed = generator.random(scatter.shape) < 0.04
    return np.exp(drawn + scatter + disturbed * generator.normal(0, 0.1, scatter.shape))


@pytest.mark.parametrize(
    ("mode", "speeds"), [*(("train", speeds) for speeds in SPEEDS), ("infer", "alike"), ("infer", "near")]
)
@pytest.mark.parametrize(("instances", "blocks"), [(4, 10), (6, 3)])
def test_intervals_over_instances_hold_the_layers_ratio(mode, speeds, instances, blocks):
    """In 90% or more, at worst where instances run at three speeds; 300 samples scatter by 1.3%."""
    found = [instances_interval(sample, mode) for sample in simulated(speeds, instances, blocks)]
    covered = sum(each.low <= 1 <= each.high for each in found) / _SAMPLES
    assert covered >= 0.89
    if speeds in ("two", "three"):  # each block as if it were a trace of its own
        assert _over_blocks(speeds, instances, blocks) < covered - 0.02


@pytest.mark.parametrize("speeds", ["alike", "near"])
def test_intervals_over_few_instances_are_narrower_than_students(speeds):
    samples = simulated(speeds, 4, 10)[:100]
    widths = [
        (found.high / found.low - 1, student.high / student.low - 1)
        for sample in samples
        for found, student in [
            (instances_interval(sample, "infer"), processes_interval(np.median(sample, 1)))
        ]
    ]
    found, student = np.median(widths, axis=0)
    assert found < 0.85 * student


def test_a_ratio_that_is_far_off_does_not_widen_the_interval():
    samples = [list(each) for each in simulated("alike", 4, 10)[0]]
    before = instances_interval(samples, "infer")
    samples[0][0] = 30.0
    after = instances_interval(samples, "infer")
    assert after.value == pytest.approx(before.value, rel=0.01)
    assert after.high / after.low == pytest.approx(before.high / before.low, rel=0.02)


def test_instances_of_more_blocks_count_more_where_instances_are_alike():
    generator = np.random.default_rng(2)
    many, few = np.exp(generator.normal(0, 0.05, 200)), np.exp(generator.normal(0.04, 0.05, 4))
    found = instances_interval([many, few, few], "infer")
    assert abs(found.value - 1) < 0.015 < np.mean(few) - 1


def test_instances_of_training_are_expected_to_differ_more():
    for sample in simulated("alike", 4, 10)[:20]:
        training, inference = (instances_interval(sample, mode) for mode in ("train", "infer"))
        assert training.low < inference.low < inference.high < training.high
    assert half_width("train", 0.0, 0.02, 4, 40) > half_width("infer", 0.0, 0.02, 4, 40)
    assert ratios_in_all("train", 0.0, 0.05, 4, 0.02) > ratios_in_all("infer", 0.0, 0.05, 4, 0.02)
    many = simulated("near", 40, 10)[0]  # which say themselves how far they differ
    training, inference = (instances_interval(many, mode) for mode in ("train", "infer"))
    assert training.half_width == pytest.approx(inference.half_width, rel=0.05)


def test_the_interval_of_processes_is_students():
    found = processes_interval([0.9, 1.0, 1.1])
    logarithms = np.log([0.9, 1.0, 1.1])
    low, high = t.interval(0.95, 2, np.mean(logarithms), sem(logarithms))
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))


@pytest.mark.parametrize("interval", [partial(instances_interval, mode="infer"), processes_interval])
def test_fewer_than_three_have_no_interval(interval):
    with pytest.raises(ValueError, match="2, and an interval takes at least 3"):
        interval([[1.0, 1.0], [1.0, 1.0]])


def _over_blocks(speeds: str, instances: int, blocks: int) -> float:
    """The share that holds 1 of intervals that count every block as if it were a trace of its own."""
    samples = simulated(speeds, instances, blocks)[:200].reshape(200, -1)
    return (
        sum(each.low <= 1 <= each.high for each in (ratio_interval(list(sample)) for sample in samples)) / 200
    )


# --- drift ---


def test_a_ratio_that_moves_while_it_is_measured_drifts():
    generator = np.random.default_rng(0)
    instances = [np.exp(generator.normal(0, 0.01, 12) + np.linspace(0, 0.05, 12) + n) for n in range(4)]
    assert (drift_of([list(each) for each in instances]) or 0) > 0.5
    assert (drift_of([list(each[::-1]) for each in instances]) or 0) < -0.5


def test_instances_that_differ_do_not_drift():
    """Nor does noise, but for one row in a thousand."""
    generator = np.random.default_rng(0)
    samples = [[list(np.exp(generator.normal(n / 9, 0.02, 5))) for n in range(6)] for _ in range(300)]
    assert sum(drift_of(sample) is not None for sample in samples) <= 3
    assert drift_of([[1.0] * 6]) is None and drift_of([[1.0], [2.0]]) is None
