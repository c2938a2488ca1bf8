"""Give each case a verdict: did it get slower from one side to the other?

The figure is `ratio`, the time relative to the baseline case of the same process. A ratio also falls where
its baseline case gets slower: it is trusted to say FASTER only where the baseline case cannot account for it,
and the absolute time is the figure otherwise. Absolute times compare only within one session, in which the
sides' processes took turns.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.gate.revisions import (
    BASELINE_TIME,
    RATIO,
    TIME,
    CannotCompare,
    Key,
    Side,
    alternated,
    check_comparable,
)
from bench.gate.statistics import Change, changes, corrected
from bench.timing.intervals import CONFIDENCE, Interval

if TYPE_CHECKING:
    import numpy as np

THRESHOLD = 0.05
SLOWER, FASTER, INCONCLUSIVE, SAME = WORDS = ("SLOWER", "FASTER", "INCONCLUSIVE", "SAME")
FEWEST_PROCESSES = 2  # a side: one has no spread
PROCESSES = 5  # a side: what the gate's own rates of error were measured with
_HOPELESS = 2.0  # times the time: where even that could be chance in every case, a verdict says nothing


@dataclass(frozen=True)
class Verdict:
    """The verdict on a case.

    Attributes:
        key: its sweep, its id and that of its baseline case.
        word: one of `WORDS`.
        figure: the figure that the verdict is about, `ratio` or `median_s`.
        before, after: the figure on each side, the geometric mean of its processes.
        change: after / before, with its 95% interval; above 1 it got slower.
        why: a remark; empty for most.
    """

    key: Key
    word: str
    figure: str
    before: float
    after: float
    change: Interval
    why: str = ""


@dataclass(frozen=True)
class Remark:
    """A case without a verdict. `kind` is one of `REMARKS`, `why` says more."""

    key: Key
    kind: str
    why: str


REMARKS: dict[str, str] = {
    "vanished": "timed by the baseline, and not or not always by the current side",
    "new": "timed by the current side alone",
    "untimed": "timed by neither side",
    "apart": "absolute times, which compare only within one session of both sides",
}


@dataclass(frozen=True)
class Outcome:
    """All verdicts, the worst first, and the cases that have none."""

    verdicts: tuple[Verdict, ...]
    remarks: tuple[Remark, ...]

    def of_word(self, word: str) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.word == word]

    def of_kind(self, kind: str) -> list[Remark]:
        return [remark for remark in self.remarks if remark.kind == kind]

    @property
    def share_inconclusive(self) -> float:
        """The share of INCONCLUSIVE among the verdicts."""
        return len(self.of_word(INCONCLUSIVE)) / len(self.verdicts)

    def exit_code(self, allowed: float) -> int:
        """0, no case slower; 1, a case slower; 3, more inconclusive than allowed, or a case vanished."""
        if self.of_word(SLOWER):
            return 1
        return 3 if self.share_inconclusive > allowed or self.of_kind("vanished") else 0


def compare(
    baseline: Side, current: Side, threshold: float = THRESHOLD, in_session: bool | None = None
) -> Outcome:
    """The verdict of each case that both sides timed.

    Args:
        threshold: the change that matters: slower beyond 1 + threshold, faster below 1 / (1 + threshold).
        in_session: whether the processes took turns; None asks the sides' session file.

    Raises:
        CannotCompare: naming the cause.
    """
    check_comparable(baseline, current)
    if in_session is None:
        in_session = alternated(baseline, current)
    same_versions = baseline.versions == current.versions
    if not same_versions and not in_session:
        raise CannotCompare(
            "other library versions", f"baseline {_words(baseline)}, current {_words(current)}"
        )
    for side in (baseline, current):
        check_side(side)
    figures = {key: _figure(key, same_versions) for key in dict.fromkeys([*baseline.keys, *current.keys])}
    remarks = tuple(_remarks(baseline, current, figures, in_session))
    for remark in remarks:
        del figures[remark.key]
    if not figures:
        raise CannotCompare("no common case", _counted(remarks))
    verdicts = _judged(baseline, current, figures, threshold, in_session)
    return Outcome(tuple(sorted(verdicts, key=lambda verdict: WORDS.index(verdict.word))), remarks)


def _words(side: Side) -> str:
    return "TensorFlow {}, Keras {}".format(*side.versions)


def check_side(side: Side) -> None:
    """Raises CannotCompare where the side can be no side of a comparison."""
    if len(side.processes) < FEWEST_PROCESSES:
        count = f"{len(side.processes)} of {PROCESSES}"
        raise CannotCompare(
            "too few processes", f"the {side.name} has {count}; {FEWEST_PROCESSES} are the fewest"
        )
    times = side.figures(side.keys, TIME)
    if (times != times).all():  # nan
        raise CannotCompare("no common case", f"the {side.name} timed none")


def _figure(key: Key, same_versions: bool) -> str:
    """The figure that a case is judged by; that a baseline is as fast as itself says nothing."""
    _, case, baseline = key
    return RATIO if same_versions and baseline and case != baseline else TIME


def _remarks(baseline: Side, current: Side, figures: Mapping[Key, str], in_session: bool) -> Iterator[Remark]:
    """Why some cases have no verdict."""
    import numpy as np

    by_time = np.array([figure == TIME for figure in figures.values()])[:, None]
    before, after = (
        np.isfinite(np.where(by_time, side.figures(figures, TIME), side.figures(figures, RATIO)))
        for side in (baseline, current)
    )
    missing = np.logical_not(before.all(axis=1) & after.all(axis=1))
    for place, (key, figure) in enumerate(figures.items()):
        if missing[place]:
            kind = "vanished" if before[place].any() else "new" if after[place].any() else "untimed"
            sides = [(side.name, side.without(key, figure)) for side in (baseline, current)]
            yield Remark(key, kind, "; ".join(f"{name}: {why}" for name, why in sides if why))
        elif figure == TIME and not in_session:
            yield Remark(key, "apart", "")


def _counted(remarks: Sequence[Remark]) -> str:
    counts = Counter(remark.kind for remark in remarks)
    return "; ".join(f"{count} {kind} ({REMARKS[kind]})" for kind, count in counts.items())


def _judged(
    baseline: Side, current: Side, figures: Mapping[Key, str], threshold: float, in_session: bool
) -> Iterator[Verdict]:
    import numpy as np

    keys = list(figures)
    of_ratio = np.array([figures[key] == RATIO for key in keys])
    doubts = np.full(len(keys), "", dtype=object)
    ratios = [key for key in keys if figures[key] == RATIO]
    by_ratio = _changes(baseline, current, ratios, RATIO)
    moved = _baseline_changes(baseline, current, ratios)
    doubts[of_ratio] = _doubts(by_ratio, moved, threshold, in_session)
    by_time = ~of_ratio | ((doubts != "") & in_session)
    times = _changes(baseline, current, keys, TIME) if in_session else None
    chosen = _chosen(by_ratio, of_ratio, times, by_time)
    _check_reach(chosen, threshold)
    words = _verdict_words(chosen, threshold)
    words[(doubts != "") & ~by_time] = INCONCLUSIVE
    interval = chosen.interval
    before, after = (_means(side, keys, by_time) for side in (baseline, current))
    for place, key in enumerate(keys):
        yield Verdict(
            key,
            words[place],
            TIME if by_time[place] else RATIO,
            float(before[place]),
            float(after[place]),
            interval[place],
            doubts[place],
        )


def _chosen(by_ratio: Change, of_ratio: "np.ndarray", times: Change | None, by_time: "np.ndarray") -> Change:
    """The change of each case by the figure that it is judged by."""
    import numpy as np

    if times is None:
        return by_ratio
    places = np.cumsum(of_ratio) - 1
    return times if by_time.all() else times.where(by_time, by_ratio[places])


def _changes(baseline: Side, current: Side, keys: Sequence[Key], figure: str) -> Change:
    return changes(baseline.figures(keys, figure), current.figures(keys, figure))


def _baseline_changes(baseline: Side, current: Side, keys: Sequence[Key]) -> Change:
    """For each case how the absolute time of its baseline case changed, from all rows that are compared with
    it."""
    import numpy as np

    cases, numbers = np.unique([case for _, _, case in keys], return_inverse=True)
    sides = []
    for side in (baseline, current):
        logs = np.log(side.figures(keys, BASELINE_TIME))
        sums = np.zeros((len(cases), logs.shape[1]))
        np.add.at(sums, numbers, logs)
        sides.append(np.exp(sums / np.bincount(numbers, minlength=len(cases))[:, None]))
    return changes(*sides)[numbers]


def _doubts(ratio: Change, of_baseline: Change, threshold: float, in_session: bool) -> "np.ndarray":
    """Why a change of the ratio may be its baseline case's and not its own; empty where it is not.

    FASTER requires that the baseline case did not slow down by as much. SLOWER stands unless one session
    shows that the baseline case got faster beyond the threshold.
    """
    import numpy as np

    limit, change, moved = 1 + threshold, ratio.interval, of_baseline.interval
    may_account = (change.low * moved.low <= 1) & (change.high * moved.high >= 1)
    slower_baseline = (change.high < 1 / limit) & (may_account | (in_session & (moved.low > 1)))
    faster_baseline = (change.low > limit) & in_session & (moved.high < 1 / limit)
    return np.select(
        [slower_baseline, faster_baseline],
        ["its baseline case may have got slower instead", "its baseline case got faster"],
        "",
    )


def _check_reach(found: Change, threshold: float) -> None:
    reach = float(found.smallest_found(threshold, len(found)).min())
    if reach > _HOPELESS:
        raise CannotCompare("too few processes", f"even {reach:.3g} times the time could be chance")


def _verdict_words(change: Change, threshold: float) -> "np.ndarray":
    """The word of each change."""
    import numpy as np

    interval, limit = change.interval, 1 + threshold
    significant = corrected(change.p_value(threshold)) <= 1 - CONFIDENCE
    slower = significant & (interval.low > limit)
    faster = significant & (interval.high < 1 / limit)
    same = (1 / limit <= interval.low) & (interval.high <= limit)
    return np.select([slower, faster, same], [SLOWER, FASTER, SAME], INCONCLUSIVE).astype(object)


def _means(side: Side, keys: Sequence[Key], by_time: "np.ndarray") -> "np.ndarray":
    """The geometric mean of each case's figure over the processes."""
    import numpy as np

    figures = np.where(by_time[:, None], side.figures(keys, TIME), side.figures(keys, RATIO))
    return np.exp(np.log(figures).mean(axis=1))
