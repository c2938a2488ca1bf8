"""Every interval: that of a ratio from its blocks and how many blocks a wished width takes, that of a
figure's change from one revision to another, over processes, and those of how often the others are wrong."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
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

_OTHER_STRETCHES = 200  # times that all stretches are drawn anew
_SUITES_A_TIME = 500


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
    import numpy as np

    low, high = _exact_ranks(len(ratios))
    ordered = np.sort(ratios)
    return ordered[low], ordered[high]


@cache
def _exact_ranks(count: int) -> tuple[int, int]:
    """Which two of so many sorted values, counted from 0, hold the true median between them."""
    from scipy.stats import quantile_test

    low, high = quantile_test(range(count), p=0.5).confidence_interval(CONFIDENCE)
    return int(low), int(high)


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
class Line:
    """A line through points, y = start + slope · x, whose errors are relative to y.

    Attributes:
        start, slope: with their 95% intervals, whose ends are the figure itself where there are two points.
        worst: the largest difference of the line from a point, relative to the point.
        worst_x: where that is.
    """

    start: Interval
    slope: Interval
    worst: float
    worst_x: float

    def at(self, x: float) -> float:
        return self.start.value + self.slope.value * x


def line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """The line of least squares through points, each weighted so that its relative error counts.

    Args:
        xs: two different ones at least.
        ys: positive.
    """
    import numpy as np
    from scipy.stats import t

    x, y = np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
    if len(set(xs)) < 2 or (y <= 0).any():
        raise ValueError(f"points {xs}, {ys}: a line takes two different x and positive y")
    terms = np.stack([1 / y, x / y], axis=1)
    coefficients = np.linalg.lstsq(terms, np.ones(len(x)), rcond=None)[0]
    residuals = terms @ coefficients - 1
    halves = np.zeros(2)
    if len(x) > 2:
        degrees = len(x) - 2
        variances = residuals @ residuals / degrees * np.diag(np.linalg.inv(terms.T @ terms))
        halves = t.ppf((1 + CONFIDENCE) / 2, degrees) * np.sqrt(variances)
    worst = int(np.argmax(np.abs(residuals)))
    start, slope = (
        Interval(float(value), float(value - half), float(value + half))
        for value, half in zip(coefficients, halves, strict=True)
    )
    return Line(start, slope, float(abs(residuals[worst])), float(x[worst]))


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


def clustered_share(
    successes: Sequence[int], trials: Sequence[int], independent: int | None = None
) -> Interval:
    """A share over clusters whose trials are alike, with its 95% interval.

    The exact interval, for as many independent trials as say the same: Korn & Graubard (1998), "Confidence
    intervals for proportions with small expected number of positive counts estimated from survey data".

    Args:
        successes, trials: of each cluster, two clusters at least.
        independent: how many of all trials share no data, where not all do.
    """
    import numpy as np
    from scipy.stats import beta, t

    hits, sizes = np.asarray(successes, dtype=float), np.asarray(trials, dtype=float)
    total, clusters = sizes.sum(), len(sizes)
    share = hits.sum() / total
    effective = total if independent is None else min(total, independent)
    if 0 < share < 1:
        spread = clusters / (clusters - 1) * ((hits - share * sizes) ** 2).sum() / total**2
        few = t.ppf((1 + CONFIDENCE) / 2, [total - 1, clusters - 1])
        effective = min(
            effective, share * (1 - share) / max(spread, _LEAST_VARIANCE) * (few[0] / few[1]) ** 2
        )
    found, tail = share * effective, (1 - CONFIDENCE) / 2
    low = beta.ppf(tail, found, effective - found + 1) if share > 0 else 0.0
    high = beta.ppf(1 - tail, found + 1, effective - found) if share < 1 else 1.0
    return Interval(float(share), float(low), float(high))


def sign_p_value(block_ratios: Sequence[float]) -> float:
    """How likely so many of the blocks lie on one side of 1 where the true median ratio is 1."""
    from scipy.special import bdtr

    fewer = min(sum(ratio <= 1 for ratio in block_ratios), sum(ratio >= 1 for ratio in block_ratios))
    return min(1.0, 2 * float(bdtr(fewer, len(block_ratios), 0.5)))


@dataclass(frozen=True)
class Draws:
    """What intervals drawn from one stretch of consecutive blocks say.

    Attributes:
        p_values: of the sign test of each.
        beyond: whether each lies beyond the threshold that matters.
    """

    p_values: Sequence[float]
    beyond: Sequence[bool]


def suite_alarms(series: Sequence[Sequence[Draws]], rows: int, suites: int, independent: int) -> Interval:
    """The share of suites in which some row raises an alarm, with its 95% interval: the row is significant
    after the correction for many cases, and lies beyond the threshold.

    A simulated suite has `rows` rows, each one draw of a series, the series in turn. The interval is what the
    share is with other stretches, each series' drawn anew with replacement; but no narrower than that of as
    many suites as could be made without using a block twice: thousands of suites of the same blocks say no
    more than these do.

    Args:
        series: of each case of which nothing changed, its stretches.
        independent: how many intervals all stretches hold that share no block.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    alarms = _alarms(series, rows, suites, generator)
    shares = []
    for _ in range(_OTHER_STRETCHES):
        again = [
            [stretches[number] for number in generator.integers(len(stretches), size=len(stretches))]
            for stretches in series
        ]
        shares.append(_alarms(again, rows, _SUITES_A_TIME, generator) / _SUITES_A_TIME)
    low, high = np.quantile(shares, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    share, apart = alarms / suites, max(1, independent // rows)
    exact = share_interval(round(share * apart), apart)
    return Interval(share, min(float(low), exact.low), max(float(high), exact.high))


def _alarms(series: Sequence[Sequence[Draws]], rows: int, suites: int, generator) -> int:
    """In how many of so many simulated suites there is an alarm."""
    import numpy as np
    from scipy.stats import false_discovery_control

    pools = [
        (
            np.concatenate([np.asarray(draws.p_values, dtype=float) for draws in stretches]),
            np.concatenate([np.asarray(draws.beyond, dtype=bool) for draws in stretches]),
        )
        for stretches in series
    ]
    alarms = 0
    for first in range(0, suites, _SUITES_A_TIME):
        count = min(_SUITES_A_TIME, suites - first)
        p_values, beyond = np.empty((count, rows)), np.empty((count, rows), dtype=bool)
        for row in range(rows):
            p, is_beyond = pools[row % len(pools)]
            drawn = generator.integers(len(p), size=count)
            p_values[:, row], beyond[:, row] = p[drawn], is_beyond[drawn]
        significant = false_discovery_control(p_values, axis=1) <= 1 - CONFIDENCE
        alarms += int((significant & beyond).any(axis=1).sum())
    return alarms


def _exp(logarithm: float) -> float:
    return math.exp(max(-_LARGEST_LOG, min(_LARGEST_LOG, logarithm)))
