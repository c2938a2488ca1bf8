"""Every interval: that of a ratio from its blocks, and how many blocks a wished width takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WISHED_HALF_WIDTH = 0.02  # of a ratio's interval, relative
CONFIDENCE = 0.95
_RESAMPLES = 4000  # the ends of the interval then move by less than a tenth of its width from seed to seed
# half the 95% interval of a median of n normal values is 1.96 * sqrt(pi / 2) * deviation / sqrt(n)
_MEDIAN_FACTOR = 1.96 * math.sqrt(math.pi / 2)


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
    """The median of the blocks' ratios, with its percentile bootstrap interval.

    Args:
        block_ratios: one ratio for each of the disjoint ABBA blocks, at least two.
    """
    import numpy as np
    from scipy.stats import bootstrap

    ratios = np.asarray(block_ratios, dtype=float)
    if ratios.ndim != 1 or len(ratios) < 2:
        raise ValueError(f"{len(ratios)} blocks: an interval takes at least 2")
    if np.ptp(ratios) == 0:
        return Interval(*[float(ratios[0])] * 3)
    result = bootstrap(
        (ratios,),
        np.median,
        n_resamples=_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return Interval(float(np.median(ratios)), float(low), float(high))


def blocks_for(pilot_ratios: Sequence[float]) -> int:
    """How many blocks bring the interval of their median ratio within ±2%, by the pilot's spread."""
    logs = [math.log(ratio) for ratio in pilot_ratios]
    mean = sum(logs) / len(logs)
    variance = sum((value - mean) ** 2 for value in logs) / (len(logs) - 1)
    return math.ceil(variance * (_MEDIAN_FACTOR / WISHED_HALF_WIDTH) ** 2)
