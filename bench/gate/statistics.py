"""Statistics of a change between two revisions, over the processes of each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.timing.intervals import CONFIDENCE, Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

_FEWEST_CASES = 3  # fewer do not say what variance is usual
_PRIOR_DEGREES = (1e-3, 1e6)
_LEAST_VARIANCE = 1e-12  # of a mean of log figures: a millionth, below what a clock resolves
_LARGEST_LOG = 700.0  # whose exponential is a float


@dataclass(frozen=True)
class Factors:
    """Factors current / baseline, with their 95% intervals, an array each."""

    value: "np.ndarray"
    low: "np.ndarray"
    high: "np.ndarray"

    def __getitem__(self, place: int) -> Interval:
        """The factor of one case."""
        return Interval(float(self.value[place]), float(self.low[place]), float(self.high[place]))


@dataclass(frozen=True)
class Change:
    """Changes of figures between two sides of several processes each, in natural logarithms.

    Attributes:
        difference: for each case the mean of the current side's log figures less that of the baseline's.
        error: the differences' standard errors.
        degrees: the degrees of freedom of these errors.
    """

    difference: "np.ndarray"
    error: "np.ndarray"
    degrees: "np.ndarray"

    def __len__(self) -> int:
        return len(self.difference)

    def __getitem__(self, which: Any) -> "Change":
        """The changes of some of the cases, or of one."""
        return Change(self.difference[which], self.error[which], self.degrees[which])

    def where(self, condition: "np.ndarray", others: "Change") -> "Change":
        """These changes where the condition holds, the others elsewhere."""
        import numpy as np

        return Change(
            np.where(condition, self.difference, others.difference),
            np.where(condition, self.error, others.error),
            np.where(condition, self.degrees, others.degrees),
        )

    def __iter__(self) -> Iterator["Change"]:
        return map(self.__getitem__, range(len(self)))

    @property
    def interval(self) -> Factors:
        """The factors current / baseline, with their 95% intervals."""
        from scipy.stats import t

        half = t.ppf((1 + CONFIDENCE) / 2, self.degrees) * self.error
        return Factors(*(_exp(self.difference + step) for step in (0.0, -half, half)))

    def p_value(self, threshold: float) -> "np.ndarray":
        """The probability of so large a change, in either direction, where the true factor is at most
        1 + `threshold` and at least 1 / (1 + `threshold`)."""
        import numpy as np
        from scipy.stats import t

        beyond = np.abs(self.difference) - math.log1p(threshold)
        return np.minimum(1.0, 2 * t.sf(beyond / self.error, self.degrees))

    def smallest_found(self, threshold: float, cases: int) -> "np.ndarray":
        """The least factor that, measured with this error, is significantly beyond the threshold after the
        correction for `cases` cases of which no other one has changed."""
        from scipy.stats import t

        needed = t.isf((1 - CONFIDENCE) / 2 / cases, self.degrees) * self.error
        return _exp(math.log1p(threshold) + needed)


def changes(baseline: "ArrayLike", current: "ArrayLike") -> Change:
    """The changes of the figures of several cases of one kind: Welch's t on their logarithms, with the
    variances moderated over the cases.

    A variance of five processes a side says little, and so large a change would be needed for significance
    after the correction for many cases. Each is therefore drawn towards what is usual among the cases, the
    more so the less the cases differ: the empirical Bayes estimate of Smyth (2004), "Linear models and
    empirical Bayes methods for assessing differential expression in microarray experiments".

    Args:
        baseline, current: positive figures, cases x processes, two processes at least.
    """
    import numpy as np

    sides = [np.log(np.asarray(side, dtype=float)) for side in (baseline, current)]
    if not len(sides[0]):
        return Change(np.empty(0), np.empty(0), np.empty(0))
    differences, variances, degrees = _welch(*sides)
    variances, degrees = _moderated(variances, degrees)
    return Change(differences, np.sqrt(variances), degrees)


def _welch(before: "np.ndarray", after: "np.ndarray") -> tuple["np.ndarray", "np.ndarray", "np.ndarray"]:
    """The differences of the means, their variances, and these variances' degrees of freedom."""
    import numpy as np

    sizes = np.array([before.shape[1], after.shape[1]])[:, None]
    shares = np.stack([side.var(axis=1, ddof=1) for side in (before, after)]) / sizes
    shares = np.maximum(shares, _LEAST_VARIANCE)
    degrees = shares.sum(axis=0) ** 2 / (shares**2 / (sizes - 1)).sum(axis=0)
    return after.mean(axis=1) - before.mean(axis=1), shares.sum(axis=0), degrees


def _moderated(variances, degrees):
    """Draws the variances towards what is usual among them; gives them and their new degrees of freedom."""
    import numpy as np
    from scipy.special import digamma, polygamma

    if len(variances) < _FEWEST_CASES:
        return variances, degrees
    logs = np.log(variances) - digamma(degrees / 2) + np.log(degrees / 2)
    excess = np.var(logs, ddof=1) - polygamma(1, degrees / 2).mean()  # beyond what their own scatter makes
    prior = _prior_degrees(excess)
    usual = math.exp(logs.mean() + digamma(prior / 2) - math.log(prior / 2))
    moderated = (prior * usual + degrees * variances) / (prior + degrees)
    return moderated, np.minimum(prior + degrees, degrees.sum())


def _prior_degrees(excess: float) -> float:
    """The degrees of freedom that the usual variance is worth: 2 trigamma⁻¹(`excess`)."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    least, most = _PRIOR_DEGREES
    if excess <= polygamma(1, most / 2):
        return most
    if excess >= polygamma(1, least / 2):
        return least
    return 2 * brentq(lambda half: polygamma(1, half) - excess, least / 2, most / 2)


def corrected(p_values: "ArrayLike") -> "np.ndarray":
    """The p-values of several cases, adjusted (Benjamini-Hochberg): of those kept at most 5% are false."""
    import numpy as np
    from scipy.stats import false_discovery_control

    p_values = np.asarray(p_values, dtype=float)
    return false_discovery_control(p_values) if len(p_values) else p_values


def _exp(logarithms: "np.ndarray") -> "np.ndarray":
    import numpy as np

    return np.exp(np.clip(logarithms, -_LARGEST_LOG, _LARGEST_LOG))
