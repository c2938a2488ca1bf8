"""Find level shifts: the runs from which on a figure has another level, and by how much.

The figures' logarithms are divided by their deviation from run to run. `ruptures.KernelCPD` with the linear
kernel then finds the levels that minimise the squares plus a penalty for each shift. The deviation comes from
the differences between neighbours, the largest fifth left out, so that a shift, which makes one large
difference, is not taken for noise. A few slow runs are no level: each figure is brought to within three
deviations of the median of the seven around it. A shift below `SMALLEST_SHIFT` is left out.

In simulated series (2000 without a shift, 1000 with one), how often a shift was seen that is not there, and
how often one of 5 or 8 deviations was found, to within one run, once 4 runs had been made at the new level.
The noise was normal; in the second column of a pair, one run in twenty was 6 or 10 deviations slower as well.

    runs   seen, none there     found, of 5       found, of 8
       8     0.2%     0.4%      85%     64%       99%     81%
      12     0.4%     0.5%      98%     81%      100%     93%
      20     0.1%     0.7%     100%     86%      100%     95%
      50     0.0%     0.9%     100%     93%      100%     97%
     100     0.0%     1.8%     100%     94%      100%     96%

With the median of five and levels of 3 runs, three slow runs among five were taken for a level in 5.7% of the
series of 100. Noise that hangs together (a correlation of 0.3 between neighbours, such as an hour of a busy
machine leaves in the absolute times) gave false shifts in 1 to 4% of the series.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

FEWEST_RUNS = 8  # two levels of the fewest runs
FEWEST_OF_A_LEVEL = 4  # fewer slow runs in a row are weather
SMALLEST_SHIFT = 0.03  # relative; a ratio is wished known within ±2%
_PENALTY = (8.0, 3.0)  # of a shift: constant, and times the logarithm of the number of runs
_KEPT = 0.8  # of the differences between neighbours
_NEAR = 7  # neighbours, itself among them, whose median an odd figure is brought near to
_CLIP = 3.0  # deviations
_SERIES_AT_ONCE = 2000  # that the memory holds whatever their number
_SMALLEST_DEVIATION = 0.002  # relative: figures that repeat to the last digit have none


@dataclass(frozen=True)
class Shift:
    """A change of level.

    Attributes:
        start: the index of the level's first run before the shift.
        at: the index of the first run at the new level.
        end: the index after the new level's last run.
        before, after: the two levels, medians.
    """

    start: int
    at: int
    end: int
    before: float
    after: float

    @property
    def change(self) -> float:
        """The relative change: 0.15 is 15% more."""
        return self.after / self.before - 1


def find_shifts(figures: Sequence[float], error: float = 0.0) -> tuple[Shift, ...]:
    """The level shifts of one series; none where it has fewer than `FEWEST_RUNS`.

    Args:
        figures: one a run, in the runs' order, above 0.
        error: the relative standard error of one figure, where it is known: the deviation from run to run is
            not taken for less.
    """
    return find_all_shifts([figures], [error])[0]


def find_all_shifts(figures: "ArrayLike", errors: Sequence[float] | None = None) -> list[tuple[Shift, ...]]:
    """The level shifts of many series of one length, as `find_shifts` finds them in each.

    Args:
        figures: series x runs, above 0.
        errors: one a series.
    """
    import numpy as np

    figures = np.asarray(figures, dtype=float)
    if figures.shape[1] < FEWEST_RUNS:
        return [()] * len(figures)
    least = np.zeros(len(figures)) if errors is None else np.asarray(errors, dtype=float)
    found: list[tuple[Shift, ...]] = []
    for start in range(0, len(figures), _SERIES_AT_ONCE):
        part = slice(start, start + _SERIES_AT_ONCE)
        found += map(_large_shifts, figures[part], _cuts(np.log(figures[part]), least[part]))
    return found


def _large_shifts(figures: "np.ndarray", cuts: list[int]) -> tuple[Shift, ...]:
    """The shifts at the cuts, without those that are too small: the smallest goes first."""
    while shifts := _between(figures, cuts):
        least = min(shifts, key=lambda shift: abs(math.log1p(shift.change)))
        if abs(math.log1p(least.change)) >= math.log1p(SMALLEST_SHIFT):
            return shifts
        cuts = [cut for cut in cuts if cut != least.at]
    return ()


def _cuts(logs: "np.ndarray", errors: "np.ndarray") -> list[list[int]]:
    """The first runs of the levels of each series, but for the first level."""
    import numpy as np

    runs = logs.shape[1]
    deviation = np.maximum(np.maximum(deviation_of(logs), errors), _SMALLEST_DEVIATION)[:, None]
    medians = np.median(np.lib.stride_tricks.sliding_window_view(logs, _NEAR, axis=1), axis=2)
    near = medians[:, np.clip(np.arange(runs) - _NEAR // 2, 0, runs - _NEAR)]
    steady = near + np.clip(logs - near, -_CLIP * deviation, _CLIP * deviation)
    constant, factor = _PENALTY
    return _partitions((steady - near[:, :1]) / deviation, constant + factor * math.log(runs))


def _partitions(series: "np.ndarray", penalty: float) -> list[list[int]]:
    """The cuts that minimise the squares about the levels' means plus the penalty for each cut."""
    from ruptures import KernelCPD

    search = KernelCPD(kernel="linear", min_size=FEWEST_OF_A_LEVEL)
    return [search.fit(each[:, None]).predict(pen=penalty)[:-1] for each in series]


def deviation_of(logs: "ArrayLike") -> "np.ndarray":
    """The standard deviation of normal noise around levels that shift seldom, along the last axis."""
    import numpy as np

    squares = np.sort(np.diff(logs, axis=-1) ** 2, axis=-1)
    kept = max(3, int(_KEPT * squares.shape[-1]))
    share = kept / squares.shape[-1]
    normal = NormalDist()
    end = normal.inv_cdf((1 + share) / 2)
    cut_variance = 1 - 2 * end * normal.pdf(end) / share  # of a normal figure cut at ±end
    return np.sqrt(squares[..., :kept].mean(axis=-1) / 2 / cut_variance)


def _between(figures: "np.ndarray", cuts: list[int]) -> tuple[Shift, ...]:
    ends = [0, *cuts, len(figures)]
    return tuple(
        Shift(start, at, end, float(median(figures[start:at])), float(median(figures[at:end])))
        for start, at, end in zip(ends, ends[1:], ends[2:], strict=False)
    )
