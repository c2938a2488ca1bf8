"""Statistics of a change between two revisions, over the processes of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.timing.intervals import CONFIDENCE, Interval

_FEWEST_CASES = 3  # whose variances can be said to be alike or not
_PRIOR_DEGREES = (1e-3, 1e6)
_LEAST_VARIANCE = 1e-12  # of a mean of log figures: a millionth, below what a clock resolves
_LARGEST_LOG = 700.0  # whose exponential is a float


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


def _exp(logarithm: float) -> float:
    return math.exp(max(-_LARGEST_LOG, min(_LARGEST_LOG, logarithm)))
