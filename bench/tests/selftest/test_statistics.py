"""The statistics of error rates: shares over clusters, the sign test, the false alarms of suites."""

import numpy as np
import pytest

from bench.selftest.statistics import Draws, clustered_share, suite_alarms


def test_a_share_of_independent_trials_has_the_exact_interval():
    interval = clustered_share([5] * 10, [10] * 10)
    assert interval.value == 0.5
    assert clustered_share([0] * 10, [30] * 10).high == pytest.approx(0.0122, abs=1e-4)
    assert clustered_share([30] * 10, [30] * 10).low == pytest.approx(0.9878, abs=1e-4)
    assert clustered_share([0, 0], [500, 500], independent=100).high == pytest.approx(0.0362, abs=1e-4)


def test_trials_that_go_together_say_less():
    alike = clustered_share([9, 10, 10, 9, 10, 9, 10, 9], [10] * 8)
    together = clustered_share([10, 10, 10, 10, 10, 10, 10, 6], [10] * 8)
    assert alike.value == together.value == 0.95
    assert together.low < alike.low < 0.95 < alike.high < together.high


def test_the_interval_of_a_clustered_share_holds_the_truth():
    """Clusters whose own shares scatter around 0.9: of 400 intervals 95%, give or take, hold it."""
    generator = np.random.default_rng(0)
    held = naive = 0
    for _ in range(400):
        own = generator.beta(18, 2, 15)
        hits = generator.binomial(20, own)
        interval = clustered_share(hits, [20] * 15)
        held += interval.low <= 0.9 <= interval.high
        naive += abs(interval.value - 0.9) <= 1.96 * (0.9 * 0.1 / 300) ** 0.5
    assert held >= 370 > naive


def uniform_draws(generator, stretches: int = 3, beyond: bool = True) -> list[Draws]:
    return [Draws(generator.uniform(size=200), [beyond] * 200) for _ in range(stretches)]


def test_a_suite_of_p_values_as_they_should_be_has_few_alarms():
    """The correction keeps 5% where all p-values are uniform, and a threshold that none is beyond keeps 0."""
    generator = np.random.default_rng(1)
    series = [uniform_draws(generator) for _ in range(10)]
    alarms = suite_alarms(series, rows=40, suites=2000, independent=6000)
    assert 0.01 < alarms.value < 0.12 and alarms.low < 0.05 < alarms.high
    within = suite_alarms(
        [uniform_draws(generator, beyond=False) for _ in range(10)], rows=40, suites=2000, independent=6000
    )
    assert within.value == within.low == 0 and within.high == pytest.approx(0.0243, abs=1e-3)  # of 150


def test_a_suite_with_one_wrong_stretch_has_alarms_and_a_wide_interval():
    generator = np.random.default_rng(2)
    series = [uniform_draws(generator, beyond=False) for _ in range(9)]
    series.append([*uniform_draws(generator, 2, beyond=False), Draws([1e-9] * 200, [True] * 200)])
    alarms = suite_alarms(series, rows=10, suites=2000, independent=6000)
    assert alarms.value == pytest.approx(1 / 3, abs=0.05)
    assert alarms.low < 0.05 and alarms.high > 0.6
