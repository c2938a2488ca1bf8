"""Measure how far the timing's intervals can be trusted, on this machine.

A subject is timed against a second instance of itself, in the shapes of the sweep `default`, and once more
with a delay of 5% and of 10% in it. From each stretch of blocks that lie together intervals are drawn as a
run draws them: a pilot fixes the number of blocks, and these follow. What the intervals say is then counted.
*Observed*: of intervals that share no block, of blocks as they were recorded. *Resampled*: of A/A blocks
slowed by multiplication, of intervals that overlap, or of suites that are put together from stretches.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product
from pathlib import Path
from statistics import median

from bench.cases.case import MODES, Case
from bench.cases.comparisons import comparisons
from bench.cases.devices import hide_gpus
from bench.cases.sweeps import LOOPS
from bench.gate.verdicts import THRESHOLD
from bench.records.environment import git_commit, machine_key, timestamp
from bench.records.files import read_json
from bench.report.markdown import NOTHING, plain, table
from bench.selftest.statistics import Draws, clustered_share, sign_p_value, suite_alarms
from bench.timing.blocks import (
    PILOT_BLOCKS,
    PILOT_SHARE,
    Blocks,
    Budget,
    collector_off,
    plan_for,
    time_call,
)
from bench.timing.intervals import FEWEST_BLOCKS, Interval, ratio_interval

USUAL = Budget(max_time_s=1.0, min_rounds=5)  # pytest-benchmark's defaults
PATIENT = Budget(max_time_s=4.0, min_rounds=5)  # with its pilot within `CASE_S`
CASE_S = 5.0  # within which a slowdown must be seen
SLOWDOWNS = (0.05, 0.10)
LEAST_INTERVALS = 300
SUITES = 10_000
MOST_MINUTES = 20.0

# what is planted in the passes over all cases, in their order: nothing, three times
_PASSES = (0.0, SLOWDOWNS[0], 0.0, SLOWDOWNS[1], 0.0)
_COUNTING_SHARE = 0.1  # of the time, for what comes after the recording
_STARTS = (10, 20, 40, 80, 160)  # of intervals in a stretch, until there are enough of them
_SUITE_STARTS = 20  # of those that suites are made of
_LEAST_SHARE = 0.5  # of the cases must have intervals; those of the slowest alone say little
_CLOCK_CALLS = 1001


# --- what is recorded ---


@dataclass(frozen=True)
class Stretch:
    """Blocks that were timed one after the other.

    Attributes:
        case: the id of the case that was timed against itself.
        planted: by how much the subject was slowed, as a share of the baseline's time.
        subject, baseline: the times of all legs, seconds; a block is two of each.
    """

    case: str
    planted: float
    subject: list[float]
    baseline: list[float]

    @property
    def blocks(self) -> Blocks:
        return Blocks(self.subject, self.baseline)


@dataclass(frozen=True)
class Recording:
    """The blocks of a self-test, and what they were recorded on.

    Attributes:
        facts: what it was recorded on, in words.
        clock_s: times of an empty subject, seconds.
        stretches: in the order of time.
    """

    facts: dict[str, str]
    clock_s: list[float]
    stretches: list[Stretch]


def loaded(file: Path) -> Recording:
    """A recording that was kept; raises ValueError where the file holds none."""
    try:
        found = read_json(file)
        stretches = [Stretch(**stretch) for stretch in found["stretches"]]
        return Recording(found["facts"], found["clock_s"], stretches)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: holds no recorded blocks: {error}") from error


def cases(device: str = "auto") -> list[Case]:
    """A case in each mode for each shape of the sweep `default`, its subjects in turn."""
    if device == "cpu":
        hide_gpus()
    from bench.backend import devices

    device = devices.choose_device(device)
    shapes = dict.fromkeys(
        (row.case.batch_size, row.case.timesteps, row.case.features, row.case.units)
        for row in comparisons(["default"])
    )
    made = []
    for number, (shape, mode) in enumerate(product(shapes, MODES)):
        cell, _, layer = LOOPS[number % len(LOOPS)].rpartition("-")
        made.append(replace(Case(cell, layer, mode, *shape), device=device))
    return made


Program = Callable[[], object]


def record(chosen: Sequence[Case], seconds: float) -> Recording:
    """Times each case against a second instance of itself, in passes over all of them."""
    end = time.monotonic() + (1 - _COUNTING_SHARE) * seconds
    facts = _facts()
    clock_s = [time_call(lambda: None) for _ in range(_CLOCK_CALLS)]
    pairs: dict[str, tuple[Program, Program]] = {}
    for case in chosen:
        _say(f"compiling {case.id}")
        pairs[case.id] = (_program(case), _program(case))
    if time.monotonic() >= end:
        raise ValueError("--minutes: not enough to compile the cases, let alone to time them")
    stretches: list[Stretch] = []
    usual_s: dict[str, float] = {}
    wanted = list(product(_PASSES, pairs.items()))
    for number, (planted, (name, pair)) in enumerate(wanted):
        stretch_s = (end - time.monotonic()) / (len(wanted) - number)
        if stretch_s <= 0:
            break
        _say(f"timing {name}, {planted:.0%} slower, {stretch_s:.1f} s")
        found = _stretch(name, planted, pair, stretch_s, planted * usual_s.get(name, 0.0))
        if not planted:
            usual_s[name] = median(found.baseline)
        stretches.append(found)
    return Recording(facts, clock_s, stretches)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _facts() -> dict[str, str]:
    from bench.backend import devices

    return {
        "machine": machine_key(devices.gpu_name()),
        **{name: version for name, version in devices.versions().items() if name != "numpy"},
        "commit": git_commit() or "",
        "timestamp": timestamp(),
    }


def _program(case: Case) -> Program:
    from bench.backend import programs
    from bench.cases.subjects import SUBJECTS
    from bench.proof.problem import prepare

    problem = prepare(SUBJECTS[case.subject], case)
    return programs.compile_program(problem.layer, case, problem.data).run


def _stretch(
    name: str, planted: float, pair: tuple[Program, Program], seconds: float, delay_s: float
) -> Stretch:
    subject, baseline = pair
    blocks = record_blocks(delayed(subject, delay_s) if delay_s else subject, baseline, seconds)
    return Stretch(name, planted, blocks.subject, blocks.baseline)


def delayed(run: Program, delay_s: float) -> Program:
    """The program, and then a wait of so many seconds; the thread stays busy, since one that sleeps wakes up
    late."""

    def slower():
        run()
        end = time.perf_counter() + delay_s
        while time.perf_counter() < end:
            pass

    return slower


def record_blocks(subject: Program, baseline: Program, seconds: float) -> Blocks:
    """Blocks for so long, but enough for one interval, as `timing.blocks.time_pair` times them."""
    blocks = Blocks()
    with collector_off():
        for run in (baseline, subject):
            run()
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(blocks.subject) < 2 * _FEWEST:
            blocks.baseline.append(time_call(baseline))
            blocks.subject.extend(time_call(subject) for _ in range(2))
            blocks.baseline.append(time_call(baseline))
    return blocks


# --- what intervals say ---

_FEWEST = FEWEST_BLOCKS + PILOT_BLOCKS[1]


@dataclass(frozen=True)
class Drawn:
    """An interval as a run draws it.

    Attributes:
        first, last: the pilot's first block, and the one behind the last block.
        ratio: with its interval.
        p_value: of the sign test.
        seconds: of all its blocks, the pilot's too.
    """

    first: int
    last: int
    ratio: Interval
    p_value: float
    seconds: float

    @property
    def seen(self) -> bool:
        """Says whether it shows within `CASE_S` that the subject is slower."""
        return self.ratio.low > 1 and self.seconds <= CASE_S

    @property
    def beyond(self) -> bool:
        """Says whether the whole interval lies beyond the threshold that matters, on either side."""
        return self.ratio.low > 1 + THRESHOLD or self.ratio.high < 1 / (1 + THRESHOLD)


def draw(blocks: Blocks, first: int, budget: Budget) -> Drawn | None:
    """The interval that a run draws that starts at block `first`; None where there are not enough blocks for
    whatever the pilot may say."""
    ratios, seconds = blocks.ratios()[first:], blocks.seconds()[first:]
    if sum(seconds) < longest_s(budget) or len(ratios) < _FEWEST:
        return None
    pilot = _pilot_length(seconds, budget)
    times = (legs[2 * first : 2 * (first + pilot)] for legs in (blocks.subject, blocks.baseline))
    last = pilot + plan_for(Blocks(*times), budget, None).blocks
    if last > len(ratios):
        return None
    measured = ratios[pilot:last]
    interval = ratio_interval(measured)
    return Drawn(first, first + last, interval, sign_p_value(measured), sum(seconds[:last]))


def longest_s(budget: Budget) -> float:
    """The time that pilot and blocks may take, seconds."""
    return (1 + PILOT_SHARE) * budget.max_time_s


def _pilot_length(seconds: Sequence[float], budget: Budget) -> int:
    """The number of blocks that `timing.blocks.time_pair` takes for its pilot."""
    least, most = PILOT_BLOCKS
    spent = 0.0
    for number, block_s in enumerate(seconds[:most], 1):
        spent += block_s
        if number >= least and spent > PILOT_SHARE * budget.max_time_s:
            return number
    return most


def disjoint(blocks: Blocks, budget: Budget) -> Iterator[Drawn]:
    """Intervals that share no block, from the first on."""
    first = 0
    while drawn := draw(blocks, first, budget):
        yield drawn
        first = drawn.last


def overlapping(blocks: Blocks, budget: Budget, most: int) -> list[Drawn]:
    """Up to so many intervals, their starts evenly spaced over those blocks that enough others follow."""
    left = list(accumulate(reversed(blocks.seconds())))
    starts = sum(seconds >= longest_s(budget) for seconds in left[_FEWEST - 1 :])
    chosen = sorted({number * starts // most for number in range(most)}) if starts else []
    return [drawn for first in chosen if (drawn := draw(blocks, first, budget))]


# --- the figures ---


@dataclass(frozen=True)
class Goal:
    """The range that a figure should be in."""

    low: float
    high: float

    def reached(self, figure: Interval) -> str:
        """In words; only where the whole interval is on one side it is sure."""
        inside = self.low <= figure.value <= self.high
        if inside:
            sure = self.low <= figure.low and figure.high <= self.high
        else:
            sure = figure.high < self.low or figure.low > self.high
        return ("reached" if inside else "missed") + ("" if sure else ", not certain")


_TOO_SHORT = "The stretches were too short for intervals of 5 s: `--minutes=15` makes them longer."
COVERAGE, ALARMS, POWER = Goal(0.93, 0.97), Goal(0.0, 0.01), Goal(0.95, 1.0)
CLOCK_S, CLOCK_SHARE = 5e-6, 0.001


@dataclass(frozen=True)
class Figure:
    """A row of the table.

    Attributes:
        what: what is counted.
        value: with its 95% interval.
        count: how many of how many.
        how: `observed` or `resampled`, and from what.
        goal: None: there is none.
        write: a number -> how it is written.
    """

    what: str
    value: Interval
    count: str
    how: str
    goal: Goal | None = None
    write: Callable[[float], str] = "{:.1%}".format

    @property
    def cells(self) -> tuple[str, ...]:
        low, high = self.write(self.value.low), self.write(self.value.high)
        goal = self.goal.reached(self.value) if self.goal else NOTHING
        return plain(self.what), self.write(self.value.value), f"[{low}, {high}]", self.count, self.how, goal


def report(recording: Recording) -> str:
    """Writes what was found, in Markdown."""
    blocks = sum(len(stretch.blocks.ratios()) for stretch in recording.stretches)
    seconds = sum(sum(stretch.blocks.seconds()) for stretch in recording.stretches)
    names = {stretch.case for stretch in recording.stretches}
    facts = recording.facts
    where = (
        f"{facts['machine']} · TensorFlow {facts['tensorflow']} · Keras {facts['keras']} · commit "
        f"{facts['commit'] or 'unknown'} · {facts['timestamp'][:10]} · {len(names)} cases, {blocks} blocks "
        f"in {seconds:.0f} s"
    )
    found = list(figures(recording))
    rows = [figure.cells for figure in found]
    header = ("figure", "value", "95% interval", "count", "how", "goal")
    short = "" if any(figure.goal is POWER for figure in found) else f"\n\n{_TOO_SHORT}"
    return f"{plain(where)}\n\n{table(header, rows, right=1)}{short}"


def figures(recording: Recording) -> Iterator[Figure]:
    """All figures of a recording."""
    yield from _clock(recording)
    same = _by_case(recording.stretches, 0.0)
    yield from _coverage(same)
    yield from _suites(same)
    for slowdown in SLOWDOWNS:
        for budget in (USUAL, PATIENT):
            yield from _power(slowdown, budget, same, _by_case(recording.stretches, slowdown))


def _by_case(stretches: Iterable[Stretch], planted: float) -> dict[str, list[Blocks]]:
    found: dict[str, list[Blocks]] = {}
    for stretch in stretches:
        if stretch.planted == planted:
            found.setdefault(stretch.case, []).append(stretch.blocks)
    return found


def _clock(recording: Recording) -> Iterator[Figure]:
    times = ratio_interval(recording.clock_s)
    quickest = min(median(stretch.baseline) for stretch in recording.stretches)
    share = Interval(*(value / quickest for value in (times.value, times.low, times.high)))
    count = f"{len(recording.clock_s)} calls"
    yield Figure(
        "the clock's own time, of an empty subject: at most 5 µs",
        times,
        count,
        "observed",
        Goal(0.0, CLOCK_S),
        lambda value: f"{1e6 * value:.2f} µs",
    )
    yield Figure(
        "the same, of the quickest case's time: at most 0.1%",
        share,
        count,
        "observed",
        Goal(0.0, CLOCK_SHARE),
        "{:.4%}".format,
    )


def _coverage(same: Mapping[str, list[Blocks]]) -> Iterator[Figure]:
    drawn, how, independent = _intervals(same, USUAL)
    long_run = {name: _median_ratio(stretches) for name, stretches in same.items()}

    def covered(truth: Callable[[str], float]) -> Callable[[str, Drawn], bool]:
        return lambda name, found: found.ratio.low <= truth(name) <= found.ratio.high

    yield _share(
        "A/A: the interval holds 1: 93% to 97%", drawn, covered(lambda name: 1.0), how, COVERAGE, independent
    )
    yield _share(
        "A/A: the interval holds the ratio of all the case's blocks",
        drawn,
        covered(long_run.__getitem__),
        how,
        None,
        independent,
    )


def _median_ratio(stretches: Sequence[Blocks]) -> float:
    return median(ratio for blocks in stretches for ratio in blocks.ratios())


def _intervals(
    stretches: Mapping[str, list[Blocks]], budget: Budget
) -> tuple[dict[str, list[Drawn]], str, int]:
    """The intervals of each case, how they were drawn, and how many of them share no block.

    Where too few can be had that share none, they overlap.
    """
    disjoint_ones = {
        name: [drawn for each in blocks for drawn in disjoint(each, budget)]
        for name, blocks in stretches.items()
    }
    independent = sum(map(len, disjoint_ones.values()))
    if independent >= LEAST_INTERVALS:
        return disjoint_ones, "observed", independent
    for most in _STARTS:
        found = {
            name: [drawn for each in blocks for drawn in overlapping(each, budget, most)]
            for name, blocks in stretches.items()
        }
        if sum(map(len, found.values())) >= LEAST_INTERVALS:
            break
    return found, f"resampled: they overlap, {independent} share no block", independent


def _share(
    what: str,
    drawn: Mapping[str, list[Drawn]],
    happened: Callable[[str, Drawn], bool],
    how: str,
    goal: Goal | None,
    independent: int,
) -> Figure:
    found = {name: intervals for name, intervals in drawn.items() if intervals}
    if not _enough(drawn):
        raise ValueError(f"{what}: too few blocks; --minutes gives more")
    hits = [sum(happened(name, each) for each in intervals) for name, intervals in found.items()]
    trials = [len(intervals) for intervals in found.values()]
    value = clustered_share(hits, trials, independent)
    return Figure(what, value, f"{sum(hits)} of {sum(trials)} intervals", how, goal)


def _enough(drawn: Mapping[str, list[Drawn]]) -> bool:
    """Says whether so many cases have intervals that a share over them has one."""
    return sum(map(bool, drawn.values())) >= max(2, _LEAST_SHARE * len(drawn))


def _suites(same: Mapping[str, list[Blocks]]) -> Iterator[Figure]:
    rows = len(comparisons(["default"]))
    drawn = [
        [found for blocks in stretches if (found := overlapping(blocks, USUAL, _SUITE_STARTS))]
        for stretches in same.values()
    ]
    drawn = [stretches for stretches in drawn if stretches]
    intervals = sum(len(found) for stretches in drawn for found in stretches)
    independent = sum(
        1 for stretches in same.values() for blocks in stretches for _ in disjoint(blocks, USUAL)
    )
    how = f"resampled, from {intervals} intervals of {sum(map(len, drawn))} stretches"
    for what, is_beyond, goal in (
        (f"A/A: a false alarm in a suite of {rows} rows, significant after correction", False, None),
        (f"A/A: the same, and beyond the threshold of {THRESHOLD:.0%}: at most 1%", True, ALARMS),
    ):
        series = [
            [
                Draws([each.p_value for each in found], [each.beyond or not is_beyond for each in found])
                for found in stretches
            ]
            for stretches in drawn
        ]
        value = suite_alarms(series, rows, SUITES, independent)
        yield Figure(what, value, f"{round(value.value * SUITES)} of {SUITES} suites", how, goal)


def _power(
    slowdown: float,
    budget: Budget,
    same: Mapping[str, list[Blocks]],
    planted: Mapping[str, list[Blocks]],
) -> Iterator[Figure]:
    goal = POWER if slowdown == SLOWDOWNS[-1] and budget is PATIENT else None
    wished = ": at least 95%" if goal else ""
    what = f"{slowdown:.0%} slower: seen with --benchmark-max-time={budget.max_time_s:g}{wished}"

    def seen(name: str, found: Drawn) -> bool:
        return found.seen

    disjoint_ones = {
        name: [drawn for each in blocks for drawn in disjoint(each, budget)]
        for name, blocks in planted.items()
    }
    if not _enough(disjoint_ones):
        return
    independent = sum(map(len, disjoint_ones.values()))
    yield _share(what, disjoint_ones, seen, "observed: a delay in the subject", goal, independent)
    slowed = {
        name: [_slowed(blocks, 1 + slowdown) for blocks in stretches] for name, stretches in same.items()
    }
    drawn, how, independent = _intervals(slowed, budget)
    how = how.replace("observed", "resampled").replace("resampled", "resampled: A/A blocks multiplied", 1)
    how = how.replace("multiplied:", "multiplied;")
    yield _share(what, drawn, seen, how, goal, independent)


def _slowed(blocks: Blocks, factor: float) -> Blocks:
    return Blocks([factor * seconds for seconds in blocks.subject], blocks.baseline)
