"""Confidence intervals: of a ratio from its blocks and instances, and of a line through points.

Says too how many ratios an interval of a wished width takes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, median, stdev, variance

WISHED_HALF_WIDTH = 0.02  # of a ratio's interval, relative
LARGEST_HALF_WIDTH = 0.05  # beyond it a ratio says little
ENOUGH_KNOWN = 0.6  # of a run's ratios, to the wished half width
CONFIDENCE = 0.95
# the lowest and the highest of 5 values hold the true median between them in 94% of samples, of 6 in 97%
_FEWEST_RATIOS = 6
FEWEST_BLOCKS = 6
# The percentile bootstrap of a median of few values is too narrow: it held the true median in 87% of 2000
# simulated samples of 7, 92% of 15, 94% of 30 to 50. The order statistics keep their 95% at any number, for
# intervals wider by 29% at 15 and by 11% at 30.
_BOOTSTRAP_RATIOS = 50  # at least
_RESAMPLES = 4000  # the ends of the interval then move by less than a tenth of its width from seed to seed
# Below, Student's interval is too wide to say anything: 12.7 standard errors for two, 4.3 for three.
FEWEST_INSTANCES = 3
_VAGUE = 1.2  # high / low of an interval
# half the 95% interval of a median of n normal values is 1.96 * sqrt(pi / 2) * deviation / sqrt(n)
_MEDIAN_FACTOR = 1.96 * math.sqrt(math.pi / 2)
# With these two 68-84% of simulated intervals (normal and exponential noise, pilots of 3 and 6 ratios) came
# within the wish, without them 14-37%.
_ASSURANCE = 0.8  # that the true spread is no larger than what the pilot's is taken for
_DRIFT_BY_CHANCE = 0.001  # of a run of 158 rows without any drift one in six says that a row has some
_STANDARD_ERRORS = 2.1  # half an interval of `RandomEffects`
_LEAST_OF_USUAL = 0.8  # what of its prior remains where instances look alike
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
        return self.is_within(WISHED_HALF_WIDTH)

    @property
    def half_width(self) -> float:
        """How far the end that is further off lies from the figure, as a share of it."""
        return max(self.high - self.value, self.value - self.low) / self.value

    def is_within(self, half_width: float) -> bool:
        """Whether neither end is further from the figure than this share of it."""
        return self.half_width <= half_width

    @property
    def is_vague(self) -> bool:
        """Whether a ratio's interval is wider than what it finds, and than ±10%: its middle says little."""
        width = self.high / self.low
        return width > _VAGUE and width > max(self.value, 1 / self.value)


def ratio_interval(ratios: Sequence[float]) -> Interval:
    """The median of the ratios, with its interval.

    That of few ratios is exact: two of the sorted ratios, by the binomial distribution of how many lie below
    the true median; that of many is the percentile bootstrap's.

    Args:
        ratios: of disjoint pairs of calls, six at least.
    """
    import numpy as np

    found = np.asarray(ratios, dtype=float)
    if found.ndim != 1 or len(found) < _FEWEST_RATIOS:
        raise ValueError(f"{found.size} ratios: an interval takes at least {_FEWEST_RATIOS}")
    if not np.isfinite(found).all():
        raise ValueError(f"ratios {found}: must be finite")
    ends = _exact_ends if len(found) < _BOOTSTRAP_RATIOS else _bootstrap_ends
    low, high = ends(found)
    return Interval(float(np.median(found)), float(low), float(high))


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


def instances_interval(instances: Sequence[Sequence[float]], mode: str) -> Interval:
    """The ratio of the layers, with its interval: instances are drawn, and blocks within them.

    By the model of `RandomEffects`. Of a layer against itself it holds 1 in 90% to 99% of simulated rows,
    whether all instances run alike, differ by 1% or run at two or three speeds, also where wide ones are
    timed again until they are within ±2%. It does not know of a speed that none of the instances drew.

    Args:
        instances: of each instance, `FEWEST_INSTANCES` at least, its ratios, two at least.
        mode: of the case; how far instances usually differ goes by it.
    """
    from bench.timing.random_effects import RandomEffects

    _check_enough(instances)
    found = RandomEffects(instances, mode)
    ends = (found.quantile((1 + sign * CONFIDENCE) / 2) for sign in (-1, 1))
    return Interval(math.exp(found.value), *map(math.exp, ends))


def processes_interval(ratios: Sequence[float]) -> Interval:
    """The ratio of the layers, with its interval, of each process's ratio, `FEWEST_INSTANCES` at least.

    Their geometric mean, with Student's interval over their logarithms: all that differs between processes
    and within them is in it. (Kalibera, Bulej and Tůma 2006, "Quality assurance in performance: evaluating
    mono benchmark results".)
    """
    from scipy.stats import t

    _check_enough(ratios)
    logarithms = [math.log(ratio) for ratio in ratios]
    degrees = len(logarithms) - 1
    half = float(t.ppf((1 + CONFIDENCE) / 2, degrees)) * stdev(logarithms) / math.sqrt(len(logarithms))
    value = math.exp(fmean(logarithms))
    return Interval(value, value * math.exp(-half), value * math.exp(half))


def _check_enough(drawn: Sequence) -> None:
    if len(drawn) < FEWEST_INSTANCES:
        raise ValueError(f"{len(drawn)}, and an interval takes at least {FEWEST_INSTANCES}")


def drift_of(instances: Sequence[Sequence[float]]) -> float | None:
    """Spearman's rank correlation of the time of a ratio and its size, where it is no chance (p < 0.001);
    else None.

    Args:
        instances: of each instance its ratios, in the order of time.
    """
    from scipy.stats import spearmanr

    places = [place for ratios in instances for place in range(len(ratios))]
    moved = [ratio / median(ratios) for ratios in instances for ratio in ratios]
    if len(set(moved)) < 2 or len(set(places)) < 2:
        return None
    found = spearmanr(places, moved)
    return float(found.statistic) if found.pvalue < _DRIFT_BY_CHANCE else None


def half_width(mode: str, between: float, within: float, instances: int, ratios: int) -> float:
    """About the half of the interval of a ratio, relative.

    Args:
        mode: of the case.
        between, within: the deviations of instances, and of ratios within them.
        ratios: of all instances together.
    """
    between = _at_least_usual(mode, between)
    return _STANDARD_ERRORS * math.sqrt(between**2 / instances + within**2 / ratios)


def ratios_in_all(mode: str, between: float, within: float, instances: int, wished: float) -> int | None:
    """How many ratios of all instances make `half_width` as small as wished; None: no number does."""
    spare = (wished / _STANDARD_ERRORS) ** 2 - _at_least_usual(mode, between) ** 2 / instances
    return math.ceil(within**2 / spare) if spare > 0 else None


def _at_least_usual(mode: str, between: float) -> float:
    from bench.timing.random_effects import USUAL_DEVIATION

    return max(between, _LEAST_OF_USUAL * USUAL_DEVIATION[mode])


def ratios_for(pilot_ratios: Sequence[float]) -> int:
    """How many ratios bring the interval of their median within ±2%, in about three of four cases.

    Args:
        pilot_ratios: those of the pilot, at least two.
    """
    from scipy.stats import chi2

    degrees = len(pilot_ratios) - 1
    spread = variance(math.log(ratio) for ratio in pilot_ratios)
    spread *= degrees / chi2.ppf(1 - _ASSURANCE, degrees)  # few ratios often look steadier than they are
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
