"""Every interval: that of a ratio from its blocks, and how many blocks a wished width takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import variance

WISHED_HALF_WIDTH = 0.02  # of a ratio's interval, relative
CONFIDENCE = 0.95
FEWEST_BLOCKS = 6  # the lowest and highest of 5 values hold the median between them in 94% of cases, of 6 in 97%
# The percentile bootstrap of a median of few values is too narrow: it held the true median in 87% of 2000
# simulated samples of 7, 92% of 15, 94% of 30 to 50. The order statistics keep their 95% at any number, for
# intervals wider by a fifth at 30.
_BOOTSTRAP_BLOCKS = 50  # at least
_RESAMPLES = 4000  # the ends of the interval then move by less than a tenth of its width from seed to seed
# half the 95% interval of a median of n normal values is 1.96 * sqrt(pi / 2) * deviation / sqrt(n)
_MEDIAN_FACTOR = 1.96 * math.sqrt(math.pi / 2)
# With these two 68-84% of simulated intervals (normal and exponential noise, pilots of 3 and 6 blocks) came
# within the wish, without them 14-37%.
_ASSURANCE = 0.8  # that the true spread is no larger than what the pilot's is taken for
_LONGER_SIDE = 1.3  # the longer side of an interval, as a multiple of half of it


@dataclass(frozen=True)
class Interval:
    """A figure and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def converged(self) -> bool:
        """Whether the interval lies within ±2% of the figure."""
        return max(self.high - self.value, self.value - self.low) <= WISHED_HALF_WIDTH * self.value


def ratio_interval(block_ratios: Sequence[float]) -> Interval:
    """The median of the blocks' ratios, with its interval.

    That of few blocks is exact: two of the sorted ratios, by the binomial distribution of how many lie below
    the true median; that of many is the percentile bootstrap's.

    Args:
        block_ratios: one ratio for each of the disjoint ABBA blocks, `FEWEST_BLOCKS` at least.
    """
    import numpy as np

    ratios = np.asarray(block_ratios, dtype=float)
    if ratios.ndim != 1 or len(ratios) < FEWEST_BLOCKS:
        raise ValueError(f"{ratios.size} blocks: an interval takes at least {FEWEST_BLOCKS}")
    if not np.isfinite(ratios).all():
        raise ValueError(f"ratios {ratios}: must be finite")
    ends = _exact_ends if len(ratios) < _BOOTSTRAP_BLOCKS else _bootstrap_ends
    low, high = ends(ratios)
    return Interval(float(np.median(ratios)), float(low), float(high))


def _exact_ends(ratios) -> tuple[float, float]:
    from scipy.stats import quantile_test

    return quantile_test(ratios, p=0.5).confidence_interval(CONFIDENCE)


def _bootstrap_ends(ratios) -> tuple[float, float]:
    import numpy as np
    from scipy.stats import bootstrap

    if np.ptp(ratios) == 0:
        return ratios[0], ratios[0]
    return bootstrap(
        (ratios,),
        np.median,
        n_resamples=_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval


def blocks_for(pilot_ratios: Sequence[float]) -> int:
    """How many blocks bring the interval of their median ratio within ±2%, in about three of four cases.

    Args:
        pilot_ratios: the ratios of the pilot's blocks, at least two.
    """
    from scipy.stats import chi2

    degrees = len(pilot_ratios) - 1
    spread = variance(math.log(ratio) for ratio in pilot_ratios)
    spread *= degrees / chi2.ppf(1 - _ASSURANCE, degrees)  # few blocks often look steadier than they are
    return math.ceil(spread * (_LONGER_SIDE * _MEDIAN_FACTOR / WISHED_HALF_WIDTH) ** 2)
