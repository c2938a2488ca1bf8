"""`python -m bench selftest`: that its figures are those of synthetic blocks whose truth is known."""

import json
import time
from itertools import chain, count, pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from bench.__main__ import main
from bench.cases.case import Case
from bench.cases.comparisons import comparisons
from bench.selftest import timing
from bench.selftest.timing import (
    PATIENT,
    USUAL,
    Goal,
    Recording,
    Stretch,
    cases,
    delayed,
    disjoint,
    draw,
    overlapping,
    record,
    report,
)
from bench.timing.blocks import Blocks, Budget, time_call, time_pair
from bench.timing.intervals import Interval

FACTS = {
    "machine": "Xeon",
    "tensorflow": "2",
    "keras": "3",
    "commit": "",
    "timestamp": "2026-01-01T00:00:00Z",
}


def blocks(generator, seconds: float, spread: float = 0.01, ratio: float = 1.0, drift: float = 0.0) -> Blocks:
    """Blocks of calls of 10 ms for so long; the logarithm of a block's ratio scatters by `spread`, and moves
    as a random walk by `drift` a block."""
    count = round(seconds / 0.04)
    walk = np.cumsum(generator.normal(0, drift, count)) if drift else 0.0
    ratios = ratio * np.exp(generator.normal(0, spread, count) + walk)
    return Blocks(list(np.repeat(0.01 * ratios, 2)), [0.01] * (2 * count))


def recording(
    spread: float = 0.01, names: int = 6, seconds: float = 7.0, stretches: int = 3, ratio=1.0, drift=0.0
) -> Recording:
    """A recording of several cases of one noise."""
    generator = np.random.default_rng(0)
    made = []
    for planted in (*[0.0] * stretches, 0.05, 0.10):
        for name in range(names):
            found = blocks(generator, seconds, spread, ratio * (1 + planted), drift)
            made.append(Stretch(f"case{name}", planted, found.subject, found.baseline))
    return Recording(FACTS, [2e-7] * 101, made)


def coverage(made: Recording):
    """The share of intervals that hold 1, and of those that hold the long run's ratio."""
    return list(timing._coverage(timing._by_case(made.stretches, 0.0)))


def alarms(made: Recording):
    """The share of suites with a significant row, and of those in which it is beyond the threshold too."""
    return list(timing._suites(timing._by_case(made.stretches, 0.0)))


def power(made: Recording, slowdown: float, budget: Budget):
    """The share of intervals that see the slowdown: of a delay, and of blocks that are multiplied."""
    of = timing._by_case
    return list(timing._power(slowdown, budget, of(made.stretches, 0.0), of(made.stretches, slowdown)))


# --- the intervals that are drawn ---


class Pedantic:
    def __call__(self, target, setup, teardown, rounds):
        for _ in range(rounds):
            setup()
            target()
            teardown()


@pytest.mark.parametrize("budget", [USUAL, Budget(3.0, 9), Budget(0.1, 1)])
@pytest.mark.parametrize("spread", [0.001, 0.03])
def test_an_interval_is_drawn_as_a_run_draws_it(budget, spread):
    recorded = blocks(np.random.default_rng(3), 8.0, spread)
    # the first call of each program warms it up, and counts for nothing
    subject, baseline = (chain([9.0], legs) for legs in (recorded.subject, recorded.baseline))
    timing = time_pair(subject.__next__, baseline.__next__, Pedantic(), budget)
    drawn = draw(recorded, 0, budget)
    assert drawn.ratio == timing.ratio
    assert drawn.last - drawn.first > timing.rounds  # the pilot's blocks too
    assert drawn.seconds == pytest.approx(sum(recorded.seconds()[: drawn.last]))


def test_intervals_that_share_no_block():
    recorded = blocks(np.random.default_rng(4), 8.0, 0.03)
    drawn = list(disjoint(recorded, USUAL))
    assert len(drawn) >= 4 and drawn[0].first == 0
    assert all(one.last == other.first for one, other in pairwise(drawn))
    assert drawn[-1].last <= len(recorded.ratios())
    many = overlapping(recorded, USUAL, 50)
    assert 40 <= len(many) <= 50 and many[1].first < many[0].last


def test_a_stretch_too_short_has_no_interval():
    short = blocks(np.random.default_rng(5), 1.0)
    assert draw(short, 0, USUAL) is None and draw(short, 0, Budget(0.4, 1)) is not None


# --- the figures, of synthetic recordings ---


def test_independent_blocks_are_covered_and_raise_no_alarm():
    made = recording(names=10, stretches=5)
    figure, long_run = coverage(made)
    assert figure.how == long_run.how == "observed"
    assert int(figure.count.split()[2]) >= 300
    assert figure.value.low < 0.965 and figure.value.value > 0.92
    significant, alarm = alarms(made)
    assert alarm.value.value == alarm.value.low == 0 and alarm.count == "0 of 10000 suites"
    assert alarm.value.high > 0.5  # so few blocks, used again and again, cannot show that it is rare
    assert alarm.cells[-1] == "reached, not certain" and "suite of 158 rows" in significant.what


def test_a_difference_of_the_two_instances_is_not_covered():
    """Each case's subject is 3% slower than its other instance: no interval of 1%'s scatter holds 1, all hold
    the long run's ratio."""
    made = recording(ratio=1.03)
    figure, long_run = coverage(made)
    assert figure.value.value < 0.05 and figure.cells[-1] == "missed"
    assert long_run.value.value > 0.9
    significant, alarm = alarms(made)
    assert alarm.value.value == 0 and significant.value.value == 1  # 3% is within the threshold


def test_blocks_that_go_together_are_not_covered():
    """The ratio moves as a random walk: the intervals, of blocks that are taken for independent, are too
    narrow."""
    figure, _ = coverage(recording(drift=0.004))
    assert figure.value.high < 0.9


@pytest.mark.parametrize(("spread", "seen"), [(0.01, True), (0.6, False)])
@pytest.mark.parametrize("budget", [USUAL, PATIENT])
def test_a_slowdown_is_seen_if_the_noise_lets_it(monkeypatch, spread, seen, budget):
    monkeypatch.setattr(timing, "LEAST_INTERVALS", 40)
    planted, multiplied = power(recording(spread, names=3, stretches=2), 0.10, budget)
    assert planted.how == "observed: a delay in the subject"
    assert multiplied.how.startswith("resampled: A/A blocks multiplied")
    for figure in (planted, multiplied):
        assert (figure.value.value > 0.95) is seen and (figure.value.value < 0.5) is not seen
        assert (figure.goal is not None) is (budget is PATIENT)


def test_what_takes_too_long_is_not_seen():
    slow = blocks(np.random.default_rng(6), 700.0, 0.001, ratio=1.1)
    slow = Blocks([20 * each for each in slow.subject], [20 * each for each in slow.baseline])
    drawn = draw(slow, 0, USUAL)
    assert drawn.ratio.low > 1.09 and drawn.seconds > 5 and not drawn.seen


def test_few_blocks_are_drawn_from_again_and_it_says_so():
    made = recording(names=4, seconds=4.0)
    figure, _ = coverage(made)
    assert figure.how.startswith("resampled: they overlap, ") and figure.how.endswith(" share no block")
    assert int(figure.count.split()[2]) >= 300
    assert power(made, 0.10, PATIENT) == []


@pytest.mark.parametrize(
    ("figure", "word"),
    [
        (Interval(0.95, 0.94, 0.96), "reached"),
        (Interval(0.95, 0.92, 0.96), "reached, not certain"),
        (Interval(0.92, 0.90, 0.94), "missed, not certain"),
        (Interval(0.90, 0.88, 0.92), "missed"),
        (Interval(0.99, 0.98, 1.00), "missed"),
    ],
)
def test_a_goal_is_reached_for_sure_only_by_the_whole_interval(figure, word):
    assert Goal(0.93, 0.97).reached(figure) == word


# --- recording, and the command ---


def test_the_cases_are_the_shapes_of_the_default_sweep_in_both_modes():
    chosen = cases("cpu")
    shapes = {case.shape for case in chosen}
    assert shapes == {row.case.shape for row in comparisons(["default"])}
    assert len(chosen) == len(set(chosen)) == 2 * len(shapes)
    assert {case.subject for case in chosen} == {"lstm-builtin", "gru-builtin", "slstm-rnn"}


def test_a_delay_is_as_long_as_it_should_be():
    """The shortest of many, since the machine may be at something else meanwhile."""
    slowed = delayed(lambda: None, 0.002)
    assert 0.002 <= min(time_call(slowed) for _ in range(50)) < 0.0022


def test_the_subject_is_the_one_that_is_slowed():
    program = delayed(lambda: None, 0.001)
    slowed = timing._stretch("case", 0.5, (program, program), 0.2, 0.0005)
    assert 0.0015 <= min(slowed.subject) < 0.0017 and 0.001 <= min(slowed.baseline) < 0.0012
    assert (slowed.case, slowed.planted) == ("case", 0.5) and len(slowed.subject) >= 24


def test_a_real_recording_of_one_tiny_case(tmp_path, monkeypatch, capsys):
    """Recorded, kept, loaded and written; the clock's own time is small on any machine."""
    tiny = [Case("slstm", "rnn", "infer", 2, timesteps, 3, 4) for timesteps in (3, 4)]
    ticks = count(step=0.004)  # a clock of blocks: as many are recorded on a machine that is busy
    clock = SimpleNamespace(monotonic=lambda: next(ticks), perf_counter=time.perf_counter)
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(timing, "cases", lambda: tiny)
    monkeypatch.setattr(timing, "USUAL", Budget(0.05, 5))
    monkeypatch.setattr(timing, "PATIENT", Budget(0.1, 5))
    monkeypatch.setattr(timing, "LEAST_INTERVALS", 20)
    monkeypatch.setattr(timing, "SUITES", 500)
    kept, written = tmp_path / "blocks.json", tmp_path / "README.md"
    written.write_text("<!-- selftest:timing -->\n<!-- /selftest:timing -->\n")
    assert main(["selftest", "--minutes", "0.2", "--save", str(kept)]) == 0
    table = capsys.readouterr().out
    assert {stretch["planted"] for stretch in json.loads(kept.read_text())["stretches"]} == {0.0, 0.05, 0.1}
    assert "2 cases, " in table and "at most 5 µs" in table
    assert main(["selftest", "--load", str(kept), "--write", str(written)]) == 0
    assert table.strip() in written.read_text() and capsys.readouterr().out == table


def test_too_little_time_is_named():
    with pytest.raises(ValueError, match="--minutes: not enough to compile the cases"):
        record([Case("slstm", "rnn", "infer", 2, 3, 3, 4)], 0.01)


@pytest.mark.parametrize("minutes", ["0", "21", "nan"])
def test_minutes_that_cannot_be(minutes, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["selftest", "--minutes", minutes])
    assert ended.value.code == 2
    assert "must be above 0 and at most 20" in capsys.readouterr().err


def test_a_file_without_blocks_is_named(tmp_path, capsys):
    file = tmp_path / "blocks.json"
    file.write_text('{"facts": {}}')
    assert main(["selftest", "--load", str(file)]) == 2
    assert f"{file}: holds no recorded blocks" in capsys.readouterr().err


def test_the_report_says_what_it_was_recorded_on(monkeypatch):
    monkeypatch.setattr(timing, "LEAST_INTERVALS", 20)
    monkeypatch.setattr(timing, "SUITES", 500)
    text = report(recording(names=3))
    assert text.startswith("Xeon · TensorFlow 2 · Keras 3 · commit unknown · 2026-01-01 · 3 cases, ")
    assert text.count("\n| ") >= 12 and "0.20 µs" in text
    assert timing.longest_s(PATIENT) <= timing.CASE_S
    assert "too short for intervals of 5 s" in report(recording(names=3, seconds=3.0)) and "short" not in text
