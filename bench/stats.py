"""Every interval: that of a ratio from its blocks and how many blocks a wished width takes, and that of a
figure's change from one revision to another, over processes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import variance

WISHED_HALF_WIDTH = 0.02  # of a ratio's interval, relative
CONFIDENCE = 0.95
# the lowest and the highest of 5 values hold the true median between them in 94% of samples, of 6 in 97%
FEWEST_BLOCKS = 6
# The percentile bootstrap of a median of few values is too narrow: it held the true median in 87% of 2000
# simulated samples of 7, 92% of 15, 94% of 30 to 50. The order statistics keep their 95% at any number, for
# intervals wider by 29% at 15 and by 11% at 30.
_BOOTSTRAP_BLOCKS = 50  # at least
_RESAMPLES = 4000  # the ends of the interval then move by less than a tenth of its width from seed to seed
# half the 95% interval of a median of n normal values is 1.96 * sqrt(pi / 2) * deviation / sqrt(n)
_MEDIAN_FACTOR = 1.96 * math.sqrt(math.pi / 2)
# With these two 68-84% of simulated intervals (normal and exponential noise, pilots of 3 and 6 blocks) came
# within the wish, without them 14-37%.
_ASSURANCE = 0.8  # that the true spread is no larger than what the pilot's is taken for
_LONGER_SIDE = 1.3  # the longer side of an interval, as a multiple of half of it

_FEWEST_CASES = 3  # whose variances can be said to be alike or not
_PRIOR_DEGREES = (1e-3, 1e6)
_LEAST_VARIANCE = 1e-12  # of a mean of log figures: a millionth, below what a clock resolves
_LARGEST_LOG = 700.0  # whose exponential is a float


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


@dataclass(frozen=True)
class Change:
    """How a case's figure changed between two sides of several processes each, in natural logarithms.

    Attributes:
        difference: mean of the current side's log figures less that of the baseline's.
        error: the difference's standard error.
        degrees: the degrees of freedom of that error.
    """

    difference: float
    error: float
    degrees: float

    @property
    def interval(self) -> Interval:
        """The factor current / baseline, with its 95% interval."""
        from scipy.stats import t

        half = float(t.ppf((1 + CONFIDENCE) / 2, self.degrees)) * self.error
        return Interval(*(_exp(self.difference + step) for step in (0.0, -half, half)))

    def p_value(self, threshold: float) -> float:
        """How likely so large a change is, in either direction, where the true factor is at most
        1 + `threshold` and at least 1 / (1 + `threshold`)."""
        from scipy.stats import t

        beyond = abs(self.difference) - math.log1p(threshold)
        return min(1.0, 2 * float(t.sf(beyond / self.error, self.degrees)))

    def smallest_found(self, threshold: float, cases: int) -> float:
        """The least factor that, measured with this error, is significantly beyond the threshold after the
        correction for `cases` cases of which no other one has changed."""
        from scipy.stats import t

        needed = float(t.isf((1 - CONFIDENCE) / 2 / cases, self.degrees)) * self.error
        return _exp(math.log1p(threshold) + needed)


def changes(baseline: Sequence[Sequence[float]], current: Sequence[Sequence[float]]) -> list[Change]:
    """How the figures of several cases of one kind changed: Welch's t on their logarithms, with the
    variances moderated over the cases.

    A variance of five processes a side says little, and so large a change would be needed for significance
    after the correction for many cases. Each is therefore drawn towards what is usual among the cases, the
    more so the more alike they are: the empirical Bayes estimate of Smyth (2004), "Linear models and
    empirical Bayes methods for assessing differential expression in microarray experiments".

    Args:
        baseline, current: for each case one positive figure a process, two processes at least.
    """
    import numpy as np

    if len(baseline) == 0:
        return []
    sides = [[np.log(np.asarray(figures, dtype=float)) for figures in side] for side in (baseline, current)]
    welch = [_welch(before, after) for before, after in zip(*sides, strict=True)]
    differences, variances, degrees = (np.array(column) for column in zip(*welch, strict=True))
    variances, degrees = _moderated(variances, degrees)
    return [
        Change(float(difference), math.sqrt(variance), float(freedom))
        for difference, variance, freedom in zip(differences, variances, degrees, strict=True)
    ]


def _welch(before, after) -> tuple[float, float, float]:
    """Difference of the means, its variance, and that variance's degrees of freedom."""
    import numpy as np

    shares = np.array([np.var(side, ddof=1) / len(side) for side in (before, after)])
    shares = np.maximum(shares, _LEAST_VARIANCE)
    sizes = np.array([len(before), len(after)])
    degrees = shares.sum() ** 2 / (shares**2 / (sizes - 1)).sum()
    return after.mean() - before.mean(), shares.sum(), degrees


def _moderated(variances, degrees):
    """The variances drawn towards what is usual among them, and their new degrees of freedom."""
    import numpy as np
    from scipy.special import digamma, polygamma

    if len(variances) < _FEWEST_CASES:
        return variances, degrees
    logs = np.log(variances) - digamma(degrees / 2) + np.log(degrees / 2)
    unlike = np.var(logs, ddof=1) - polygamma(1, degrees / 2).mean()  # beyond what their own scatter makes
    prior = _prior_degrees(unlike)
    usual = math.exp(logs.mean() + digamma(prior / 2) - math.log(prior / 2))
    moderated = (prior * usual + degrees * variances) / (prior + degrees)
    return moderated, np.minimum(prior + degrees, degrees.sum())


def _prior_degrees(unlike: float) -> float:
    """How many degrees of freedom what is usual among the cases is worth: 2 trigamma⁻¹(`unlike`)."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    least, most = _PRIOR_DEGREES
    if unlike <= polygamma(1, most / 2):
        return most
    if unlike >= polygamma(1, least / 2):
        return least
    return 2 * brentq(lambda half: polygamma(1, half) - unlike, least / 2, most / 2)


def corrected(p_values: Sequence[float]) -> list[float]:
    """The p-values of several cases, adjusted (Benjamini-Hochberg): of those kept at most 5% are false."""
    from scipy.stats import false_discovery_control

    return [float(value) for value in false_discovery_control(p_values)] if p_values else []


def share_interval(successes: int, trials: int) -> Interval:
    """A share with its exact (Clopper-Pearson) 95% interval."""
    from scipy.stats import binomtest

    low, high = binomtest(successes, trials).proportion_ci(CONFIDENCE)
    return Interval(successes / trials, float(low), float(high))


def _exp(logarithm: float) -> float:
    return math.exp(max(-_LARGEST_LOG, min(_LARGEST_LOG, logarithm)))
