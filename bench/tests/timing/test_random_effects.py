"""What blocks that other work hit, and instances of another speed, do to the ratio."""

import math
from statistics import fmean, median

import numpy as np
import pytest

from bench.timing.random_effects import RandomEffects


def test_blocks_that_are_far_off_move_the_ratio_less_than_the_median_of_each_instance():
    """200 rows of four instances with four blocks each; the noise has the tails of Student's t of two."""
    generator = np.random.default_rng(1)
    errors, of_medians = [], []
    for _ in range(200):
        logarithms = 0.03 * generator.standard_t(2, (4, 4))
        errors.append(RandomEffects(np.exp(logarithms).tolist(), "infer").value)
        of_medians.append(fmean(map(median, logarithms.tolist())))
    assert _deviation(errors) < 0.95 * _deviation(of_medians)
    assert _deviation(errors) < 0.02


def _deviation(errors: list[float]) -> float:
    return math.sqrt(fmean(error**2 for error in errors))


def test_an_instance_of_another_speed_keeps_it():
    noise = [-0.01, 0.01, -0.005, 0.005]
    rows = [[math.exp(speed + each) for each in noise] for speed in (0.0, 0.12, 0.0, 0.0)]
    found = RandomEffects(rows, "infer")
    assert found.means == pytest.approx([0.0, 0.12, 0.0, 0.0], abs=2e-3)
    assert found.value == pytest.approx(0.03, abs=2e-3)
    assert found.between == pytest.approx(0.06, rel=0.05)


def test_noise_that_has_no_tails_is_seen_as_large_as_it_is():
    generator = np.random.default_rng(2)
    rows = [np.exp(generator.normal(0, 0.05, (6, 8))).tolist() for _ in range(100)]
    within = [RandomEffects(row, "infer").within for row in rows]
    assert fmean(within) == pytest.approx(0.05, rel=0.1)


def test_instances_whose_blocks_are_all_alike_have_a_ratio():
    found = RandomEffects([[1.1] * 4] * 4, "infer")
    assert found.value == pytest.approx(math.log(1.1))
    assert found.between == pytest.approx(0.0, abs=1e-9)
