"""Measure how far the timing's intervals can be trusted, on this machine.

A case is timed against a second instance of itself, in the shapes of the sweep `default`, as a run times a
row: both programs are compiled anew and their weights moved, several times, and the interval is over these
instances. It is done again and again, each time with new instances, and with a delay of 5% and of 10% in the
subject. What the intervals say is then counted. *Observed*: of rows as they were timed. *Resampled*: of A/A
rows slowed by multiplication, or of suites that are put together from rows.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import count, product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.cases.case import MODES, Case, id_parts
from bench.cases.comparisons import comparisons
from bench.cases.devices import hide_gpus
from bench.cases.sweeps import LOOPS
from bench.gate.verdicts import THRESHOLD
from bench.records.environment import git_commit, machine_key, timestamp
from bench.records.files import read_json
from bench.records.text import counted
from bench.report.markdown import NOTHING, plain, table
from bench.selftest.statistics import Draws, clustered_share, suite_alarms
from bench.timing.blocks import (
    Blocks,
    Budget,
    Instances,
    Pair,
    plain_rounds,
    summarise,
    time_call,
    time_instances,
)
from bench.timing.intervals import FEWEST_INSTANCES, Interval, ratio_interval
from bench.timing.random_effects import RandomEffects

if TYPE_CHECKING:
    from bench.backend.programs import Program

USUAL = Budget(max_time_s=1.0, min_rounds=5)  # pytest-benchmark's defaults
SLOWDOWNS = (0.05, 0.10)
SUITES = 10_000
MOST_MINUTES = 60.0
LEAST_CASES = 2  # whose rows a share is taken over

# what is planted in a case's rows, again and again in this order, each case beginning with another; mostly
# nothing
_PLANTED = (0.0, SLOWDOWNS[0], 0.0, SLOWDOWNS[1], 0.0)
_COUNTING_SHARE = 0.05  # of the time, for what comes after the recording
_CLOCK_CALLS = 1001
_USUAL_CALLS = 7  # that say how long a delay must be


# --- what is recorded ---


@dataclass(frozen=True)
class Row:
    """A case that was timed against itself as a run times a row.

    Attributes:
        case: its id; CaseError where it is none.
        planted: by how much the subject was slowed, as a share of the baseline's time.
        instances: of each instance the times of the subject's calls and of the baseline's, seconds; a block
            is two of each.
    """

    case: str
    planted: float
    instances: list[tuple[list[float], list[float]]]

    def __post_init__(self):
        id_parts(self.case)

    @property
    def blocks(self) -> list[Blocks]:
        """The blocks of each instance."""
        return [Blocks(*times) for times in self.instances]

    @property
    def mode(self) -> str:
        """Of the case."""
        return id_parts(self.case).mode

    @cached_property
    def ratio(self) -> Interval:
        """As a record has it."""
        return summarise(self.blocks, self.mode).ratio

    def slowed(self, slowdown: float) -> "Row":
        """The same, with every call of the subject slower by so much."""
        slower = [
            ([(1 + slowdown) * each for each in subject], baseline) for subject, baseline in self.instances
        ]
        return replace(self, instances=slower)


@dataclass(frozen=True)
class Recording:
    """The rows of a self-test, and what they were recorded on.

    Attributes:
        facts: what it was recorded on, in words.
        clock_s: times of an empty subject, seconds.
        rows: in the order of time.
    """

    facts: dict[str, str]
    clock_s: list[float]
    rows: list[Row]

    def by_case(self, planted: float) -> dict[str, list[Row]]:
        """The rows of each case with so much planted."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.planted == planted:
                found.setdefault(row.case, []).append(row)
        return found


def loaded(file: Path) -> Recording:
    """A recording that was kept; raises ValueError where the file holds none."""
    try:
        found = read_json(file)
        return Recording(found["facts"], found["clock_s"], [Row(**row) for row in found["rows"]])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: holds no recorded rows: {error}") from error


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


def record(chosen: Sequence[Case], seconds: float) -> Recording:
    """Times each case against a second instance of itself, again and again, for so long."""
    end = time.monotonic() + (1 - _COUNTING_SHARE) * seconds
    facts = _facts()
    clock_s = [time_call(lambda: None) for _ in range(_CLOCK_CALLS)]
    programs: dict[str, tuple[Program, Program]] = {}
    for case in chosen:
        _say(f"compiling {case.id}")
        programs[case.id] = (_program(case), _program(case))
    rows: list[Row] = []
    for number in count():
        for place, (name, pair) in enumerate(programs.items()):
            if time.monotonic() >= end:
                return Recording(facts, clock_s, rows)
            planted = _PLANTED[(number + place) % len(_PLANTED)]
            _say(f"timing {name}, {planted:.0%} slower")
            rows.append(_row(name, planted, pair))
    raise AssertionError("counts for ever")


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


def _program(case: Case) -> "Program":
    from bench.backend import programs
    from bench.cases.subjects import SUBJECTS
    from bench.proof.problem import prepare

    problem = prepare(SUBJECTS[case.subject], case)
    return programs.compile_program(problem.layer, case, problem.data)


def _row(name: str, planted: float, pair: "tuple[Program, Program]") -> Row:
    """Times the two as a run does, in instances that are all new."""
    delay_s = planted * median(time_call(pair[1].run) for _ in range(_USUAL_CALLS)) if planted else 0.0

    def another() -> Pair:
        subject, baseline = (program.again() if program.again else program for program in pair)
        run = delayed(subject.run, delay_s) if delay_s else subject.run
        return partial(time_call, run), baseline.time

    def others(numbers: range) -> list[Pair]:
        return [another() for _ in numbers]

    more = Instances(others, sum(program.again_s for program in pair))
    timed = time_instances(another(), plain_rounds, USUAL, more)
    return Row(name, planted, [(blocks.subject, blocks.baseline) for blocks in timed])


def delayed(run: Callable[[], object], delay_s: float) -> Callable[[], None]:
    """The program, and then a wait of so many seconds; the thread stays busy, since one that sleeps wakes up
    late."""

    def slower():
        run()
        end = time.perf_counter() + delay_s
        while time.perf_counter() < end:
            pass

    return slower


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


COVERAGE, ALARMS, POWER, KNOWN = Goal(0.93, 0.97), Goal(0.0, 0.01), Goal(0.95, 1.0), Goal(0.5, 1.0)
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


_COLUMNS = ("figure", "value", "95% interval", "count", "how", "goal")


def report(recording: Recording, found: Sequence[Figure] | None = None) -> str:
    """Writes what was found, in Markdown.

    Args:
        found: its `figures`, where they are known.
    """
    seconds = sum(sum(blocks.seconds()) for row in recording.rows for blocks in row.blocks)
    instances = sum(len(row.instances) for row in recording.rows)
    cases = len({row.case for row in recording.rows})
    facts = recording.facts
    where = (
        f"{facts['machine']} · TensorFlow {facts['tensorflow']} · Keras {facts['keras']} · commit "
        f"{facts['commit'] or 'unknown'} · {facts['timestamp'][:10]} · "
        f"{counted(cases, 'case')}, {counted(len(recording.rows), 'row')}, "
        f"{counted(instances, 'instance')}, {seconds:.0f} s of calls"
    )
    rows = [figure.cells for figure in (figures(recording) if found is None else found)]
    return f"{plain(where)}\n\n{table(_COLUMNS, rows, right=1)}"


def lost(found: Iterable[Figure], published: str) -> list[str]:
    """The figures whose goal was reached, as the text of an earlier report says, and surely is no longer."""
    reached = {
        cells[1].strip()
        for line in published.splitlines()
        if len(cells := line.split("|")) > len(_COLUMNS)
        and cells[len(_COLUMNS)].strip().startswith("reached")
    }
    return [figure.what for figure in found if figure.cells[0] in reached and figure.cells[-1] == "missed"]


def figures(recording: Recording) -> Iterator[Figure]:
    """All figures of a recording."""
    yield from _clock(recording)
    same = recording.by_case(0.0)
    yield _share("A/A: the interval holds 1: 93% to 97%", same, _holds_one, "observed", COVERAGE)
    yield _share(
        f"A/A: the ratio is more than {THRESHOLD:.0%} off: at most 1%", same, _is_off, "observed", ALARMS
    )
    yield _share("A/A: the ratio is known to ±2%: at least 50%", same, _is_known, "observed", KNOWN)
    yield from _suites(same)
    for slowdown in SLOWDOWNS:
        goal = POWER if slowdown == SLOWDOWNS[-1] else None
        what = f"{slowdown:.0%} slower: seen" + (": at least 95%" if goal else "")
        planted = recording.by_case(slowdown)
        yield _share(what, planted, _is_seen, "observed: a delay in the subject", goal)
        slowed = {name: [row.slowed(slowdown) for row in rows] for name, rows in same.items()}
        yield _share(what, slowed, _is_seen, "resampled: A/A rows multiplied", goal)


def _clock(recording: Recording) -> Iterator[Figure]:
    times = ratio_interval(recording.clock_s)
    quickest = min(median(calls) for row in recording.rows for _, calls in row.instances)
    share = Interval(*(value / quickest for value in (times.value, times.low, times.high)))
    count = counted(len(recording.clock_s), "call")
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


def _holds_one(ratio: Interval) -> bool:
    return ratio.low <= 1 <= ratio.high


def _is_off(ratio: Interval) -> bool:
    return not 1 / (1 + THRESHOLD) <= ratio.value <= 1 + THRESHOLD


def _is_known(ratio: Interval) -> bool:
    return ratio.converged


def _is_seen(ratio: Interval) -> bool:
    return ratio.low > 1


def _is_beyond(ratio: Interval) -> bool:
    """Says whether the whole interval lies beyond the threshold that matters, on either side."""
    return ratio.low > 1 + THRESHOLD or ratio.high < 1 / (1 + THRESHOLD)


def _share(
    what: str,
    rows: Mapping[str, list[Row]],
    happened: Callable[[Interval], bool],
    how: str,
    goal: Goal | None,
) -> Figure:
    """The share of rows whose ratio is so; the rows of a case may resemble each other."""
    if len(rows) < LEAST_CASES:
        raise ValueError(
            f"{what}: rows of {counted(len(rows), 'case')}, it takes {LEAST_CASES}; --minutes gives more"
        )
    hits = [sum(happened(row.ratio) for row in of_case) for of_case in rows.values()]
    trials = [len(of_case) for of_case in rows.values()]
    return Figure(
        what, clustered_share(hits, trials), f"{sum(hits)} of {counted(sum(trials), 'row')}", how, goal
    )


def _suites(same: Mapping[str, list[Row]]) -> Iterator[Figure]:
    """The false alarms of whole runs, each row drawn from those of one case."""
    suite = len(comparisons(["default"]))
    total = sum(map(len, same.values()))
    for what, is_alarm, goal in (
        (
            f"A/A: a false alarm in a suite of {suite} rows, significant after correction",
            lambda _: True,
            None,
        ),
        (f"A/A: the same, and beyond the threshold of {THRESHOLD:.0%}: at most 1%", _is_beyond, ALARMS),
    ):
        series = [
            [Draws([p_value(row)], [is_alarm(row.ratio)]) for row in of_case] for of_case in same.values()
        ]
        value = suite_alarms(series, suite, SUITES, total)
        drawn = f"resampled, from {counted(total, 'row')} of {counted(len(same), 'case')}"
        yield Figure(what, value, f"{round(value.value * SUITES)} of {SUITES} suites", drawn, goal)


def p_value(row: Row) -> float:
    """Twice the probability that the ratio lies on the other side of 1, as the interval's model has it; 1
    where the instances are too few to tell."""
    if len(row.blocks) < FEWEST_INSTANCES:
        return 1.0
    below = RandomEffects([blocks.ratios() for blocks in row.blocks], row.mode).below(0.0)
    return 2 * max(0.0, min(below, 1 - below))
