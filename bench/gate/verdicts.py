"""Verdicts: whether each case got slower from one side to the other. What is compared, and by which figure.

The figure is `ratio`, the time relative to the baseline case of the same process. A ratio also falls where
its baseline case gets slower: it is trusted to say FASTER only where the baseline case cannot account for it,
and the absolute time is the figure otherwise. Absolute times compare only within one session, in which the
sides' processes took turns.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.gate.revisions import CannotCompare, Key, Side, alternated, check_comparable
from bench.gate.statistics import Change, changes, corrected
from bench.timing.intervals import CONFIDENCE, Interval

THRESHOLD = 0.05
RATIO, TIME = "ratio", "median_s"
SLOWER, FASTER, INCONCLUSIVE, SAME = WORDS = ("SLOWER", "FASTER", "INCONCLUSIVE", "SAME")
_FEWEST_PROCESSES = 2  # a side: one has no spread
_HOPELESS = (
    2.0  # where even so many times the time could be chance, in every case, no verdict is worth its name
)


@dataclass(frozen=True)
class Verdict:
    """What became of a case.

    Attributes:
        key: its sweep, its id and that of its baseline case.
        word: one of `WORDS`.
        figure: `ratio` or `median_s`: what the verdict is about.
        before, after: the figure on each side, the geometric mean of its processes.
        change: after / before, with its 95% interval; above 1 it got slower.
        why: what else is to be said.
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
    remarks = tuple(
        filter(None, (_remark(baseline, current, key, figures[key], in_session) for key in figures))
    )
    without = {remark.key for remark in remarks}
    figures = {key: figure for key, figure in figures.items() if key not in without}
    if not figures:
        raise CannotCompare("no common case", _counted(remarks))
    verdicts = _judged(baseline, current, figures, threshold, in_session)
    return Outcome(tuple(sorted(verdicts, key=lambda verdict: WORDS.index(verdict.word))), remarks)


def _words(side: Side) -> str:
    return "TensorFlow {}, Keras {}".format(*side.versions)


def check_side(side: Side) -> None:
    """Raises CannotCompare where the side can be no side of a comparison."""
    if len(side.processes) < _FEWEST_PROCESSES:
        raise CannotCompare("too few processes", f"the {side.name} has {len(side.processes)}")
    if not any(side.figures(key, TIME) for key in side.keys):
        raise CannotCompare("no common case", f"the {side.name} timed none")


def _figure(key: Key, same_versions: bool) -> str:
    """What a case is judged by; that a baseline is as fast as itself says nothing."""
    _, case, baseline = key
    return RATIO if same_versions and baseline and case != baseline else TIME


def _remark(baseline: Side, current: Side, key: Key, figure: str, in_session: bool) -> Remark | None:
    """Why a case has no verdict, None where it has."""
    before, after = (len(side.figures(key, figure)) for side in (baseline, current))
    missing = [f"{side.name}: {why}" for side in (baseline, current) if (why := side.without(key, figure))]
    if not missing:
        return None if in_session or figure != TIME else Remark(key, "apart", "")
    kind = "vanished" if before else "new" if after else "untimed"
    return Remark(key, kind, "; ".join(missing))


def _counted(remarks: Sequence[Remark]) -> str:
    counts = Counter(remark.kind for remark in remarks)
    return "; ".join(f"{count} {kind} ({REMARKS[kind]})" for kind, count in counts.items())


def _judged(
    baseline: Side, current: Side, figures: Mapping[Key, str], threshold: float, in_session: bool
) -> list[Verdict]:
    by_ratio = _changes(baseline, current, [key for key in figures if figures[key] == RATIO], RATIO)
    by_time = _changes(baseline, current, figures, TIME) if in_session else {}
    of_baselines = _baseline_changes(baseline, current, list(by_ratio))
    chosen: dict[Key, tuple[str, Change, str]] = {}
    for key, figure in figures.items():
        doubt = _doubt(by_ratio[key], of_baselines[key[2]], threshold, in_session) if figure == RATIO else ""
        if figure == TIME or (doubt and in_session):
            chosen[key] = TIME, by_time[key], doubt
        else:
            chosen[key] = RATIO, by_ratio[key], doubt
    _check_reach([change for _, change, _ in chosen.values()], threshold)
    p_values = corrected([change.p_value(threshold) for _, change, _ in chosen.values()])
    return [
        Verdict(
            key,
            INCONCLUSIVE if why and figure == RATIO else _word(change, p_value, threshold),
            figure,
            _mean(baseline.figures(key, figure)),
            _mean(current.figures(key, figure)),
            change.interval,
            why,
        )
        for (key, (figure, change, why)), p_value in zip(chosen.items(), p_values, strict=True)
    ]


def _changes(baseline: Side, current: Side, keys: Iterable[Key], figure: str) -> dict[Key, Change]:
    keys = list(keys)
    sides = ([side.figures(key, figure) for key in keys] for side in (baseline, current))
    return dict(zip(keys, changes(*sides), strict=True))


def _baseline_changes(baseline: Side, current: Side, keys: Sequence[Key]) -> dict[str, Change]:
    """How the absolute time of each baseline case changed, from all rows that are compared with it."""
    rows: dict[str, list[Key]] = {}
    for key in keys:
        rows.setdefault(key[2], []).append(key)
    sides = ([_baseline_times(side, rows[case]) for case in rows] for side in (baseline, current))
    return dict(zip(rows, changes(*sides), strict=True))


def _baseline_times(side: Side, keys: Sequence[Key]) -> list[float]:
    of_rows = zip(*(side.figures(key, "baseline_median_s") for key in keys), strict=True)
    return [_mean(times) for times in of_rows]


def _doubt(ratio: Change, of_baseline: Change, threshold: float, in_session: bool) -> str:
    """Why a change of the ratio may be its baseline case's and not its own; empty where it is not.

    Praise needs a baseline case that did not move as much; an alarm stands unless one session shows that the
    baseline case got faster beyond the threshold.
    """
    limit, change, moved = 1 + threshold, ratio.interval, of_baseline.interval
    may_account = change.low * moved.low <= 1 <= change.high * moved.high
    if change.high < 1 / limit and (may_account or (in_session and moved.low > 1)):
        return "its baseline case may have got slower instead"
    if change.low > limit and in_session and moved.high < 1 / limit:
        return "its baseline case got faster"
    return ""


def _check_reach(found: Sequence[Change], threshold: float) -> None:
    reach = min(change.smallest_found(threshold, len(found)) for change in found)
    if reach > _HOPELESS:
        raise CannotCompare("too few processes", f"even {reach:.3g} times the time could be chance")


def _word(change: Change, p_value: float, threshold: float) -> str:
    interval, limit = change.interval, 1 + threshold
    significant = p_value <= 1 - CONFIDENCE
    if significant and interval.low > limit:
        return SLOWER
    if significant and interval.high < 1 / limit:
        return FASTER
    return SAME if 1 / limit <= interval.low and interval.high <= limit else INCONCLUSIVE


def _mean(figures: Iterable[float]) -> float:
    """The geometric mean."""
    return math.exp(fmean(map(math.log, figures)))
