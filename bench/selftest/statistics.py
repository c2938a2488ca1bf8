"""Statistics of error rates: a share with its interval, and the false alarms of whole suites."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.timing.intervals import CONFIDENCE, Interval

_LEAST_VARIANCE = 1e-12  # of a share
_OTHER_STRETCHES = 200  # times that all stretches are drawn anew
_SUITES_A_TIME = 500


def share_interval(successes: int, trials: int) -> Interval:
    """A share with its exact (Clopper-Pearson) 95% interval."""
    from scipy.stats import binomtest

    low, high = binomtest(successes, trials).proportion_ci(CONFIDENCE)
    return Interval(successes / trials, float(low), float(high))


def clustered_share(
    successes: Sequence[int], trials: Sequence[int], independent: int | None = None
) -> Interval:
    """A share over clusters whose trials resemble each other, with its 95% interval.

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


@dataclass(frozen=True)
class Draws:
    """The intervals drawn from one stretch of measuring.

    Attributes:
        p_values: of each, that there is no difference.
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
    share, disjoint = alarms / suites, max(1, independent // rows)
    exact = share_interval(round(share * disjoint), disjoint)
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
