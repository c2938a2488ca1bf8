"""`python -m bench selftest`: that its figures are those of synthetic rows whose truth is known."""

import json
import time
from dataclasses import asdict

import numpy as np
import pytest

from bench.__main__ import main
from bench.cases.case import Case
from bench.cases.comparisons import comparisons
from bench.selftest import statistics, timing
from bench.selftest.timing import Goal, Recording, Row, cases, delayed, figures, lost, p_value, report
from bench.timing.blocks import Budget, time_call
from bench.timing.intervals import Interval

FACTS = {
    "machine": "Xeon",
    "tensorflow": "2",
    "keras": "3",
    "commit": "",
    "timestamp": "2026-01-01T00:00:00Z",
}


@pytest.fixture(autouse=True)
def few_suites(monkeypatch):
    monkeypatch.setattr(timing, "SUITES", 500)
    monkeypatch.setattr(statistics, "_OTHER_STRETCHES", 5)


def row(generator, name="case", planted=0.0, spread=0.01, noise=0.01, ratio=1.0, instances=6) -> Row:
    """A row of calls of 10 ms, whose instances scatter by `spread`, and two blocks within each by `noise`."""
    made = []
    for _ in range(instances):
        logarithm = generator.normal(0, spread) + np.repeat(generator.normal(0, noise, 2), 2)
        made.append((list(0.01 * ratio * (1 + planted) * np.exp(logarithm)), [0.01] * 4))
    return Row(f"train-{name}-builtin-b1-t1-f1-u1", planted, made)


def recording(names: int = 8, rows: int = 25, **of_rows) -> Recording:
    """A recording of several cases: so many rows of each with nothing planted, a fifth with each slowdown."""
    generator = np.random.default_rng(0)
    planted = [0.0] * rows + [slowdown for slowdown in timing.SLOWDOWNS for _ in range(rows // 5)]
    made = [row(generator, f"case{name}", each, **of_rows) for each in planted for name in range(names)]
    return Recording(FACTS, [2e-7] * 101, made)


def found(made: Recording, *words: str):
    """The figures whose names hold the words."""
    return [figure for figure in figures(made) if all(word in figure.what for word in words)]


# --- the figures, of synthetic recordings ---


def test_rows_whose_instances_are_drawn_anew_are_covered():
    made = recording()
    (coverage,) = found(made, "holds 1")
    assert coverage.count == f"{round(coverage.value.value * 200)} of 200 rows" and coverage.how == "observed"
    assert 0.92 <= coverage.value.value <= 0.98
    (off,) = found(made, "off")
    (known,) = found(made, "known")
    assert off.value.value == 0 and known.value.value > 0.9
    significant, alarm = found(made, "a false alarm") + found(made, "beyond")
    assert alarm.value.value == 0 and "suite of 158 rows" in significant.what


def test_a_bias_is_not_covered():
    made = recording(ratio=1.03, spread=0.001, noise=0.001)
    (coverage,) = found(made, "holds 1")
    assert coverage.value.value < 0.05 and coverage.cells[-1] == "missed"
    (significant,) = found(made, "a false alarm")
    (alarm,) = found(made, "beyond")
    assert alarm.value.value == 0 and significant.value.value == 1  # 3% is within the threshold


@pytest.mark.parametrize(("spread", "seen"), [(0.01, True), (0.3, False)])
def test_a_slowdown_is_seen_if_the_noise_lets_it(spread, seen):
    planted, multiplied = found(recording(spread=spread), "10% slower")
    assert planted.how == "observed: a delay in the subject"
    assert multiplied.how == "resampled: A/A rows multiplied"
    for figure in (planted, multiplied):
        assert (figure.value.value > 0.95) is seen and (figure.value.value < 0.5) is not seen
        assert figure.goal is timing.POWER


def test_the_p_value_is_of_the_instances():
    generator = np.random.default_rng(1)
    assert p_value(row(generator, spread=0.0, noise=0.0)) == pytest.approx(1)
    assert p_value(row(generator, spread=0.001, ratio=1.1)) < 1e-4
    assert p_value(row(generator, instances=2, ratio=2.0)) == 1  # too few to tell
    values = [p_value(row(generator)) for _ in range(300)]
    assert 0.02 < np.mean(np.array(values) < 0.05) < 0.09


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


def test_a_goal_that_was_reached_and_is_missed_is_lost(tmp_path, capsys):
    good, bad = recording(), recording(ratio=1.03, spread=0.001, noise=0.001)
    (coverage,) = found(bad, "holds 1")
    assert lost(figures(bad), report(good)) == [coverage.what]
    assert lost(figures(bad), report(bad)) == lost(figures(good), report(good)) == []
    written, kept = tmp_path / "README.md", tmp_path / "rows.json"
    written.write_text(f"<!-- selftest:timing -->\n{report(good)}\n<!-- /selftest:timing -->\n")
    kept.write_text(json.dumps(asdict(bad)))
    assert main(["selftest", "--load", str(kept), "--write", str(written)]) == 1
    assert f"a goal that was reached is missed: {coverage.what}" in capsys.readouterr().err


# --- recording, and the command ---


def test_a_file_whose_rows_are_of_no_case_is_refused(tmp_path):
    kept = tmp_path / "rows.json"
    made = asdict(recording(names=1, rows=5))
    kept.write_text(json.dumps(made))
    assert {row.mode for row in timing.loaded(kept).rows} == {"train"}
    made["rows"][3]["case"] = "lstm"
    kept.write_text(json.dumps(made))
    with pytest.raises(ValueError, match=r"rows\.json: holds no recorded rows: 'lstm': cell is missing"):
        timing.loaded(kept)


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


def test_a_real_recording_of_tiny_cases(tmp_path, monkeypatch, capsys):
    """Recorded, kept, loaded and written; each row is of new traces, and its subject alone is slowed."""
    tiny = [Case("slstm", "rnn", "infer", 2, timesteps, 3, 4) for timesteps in (3, 4)]
    monkeypatch.setattr(timing, "cases", lambda: tiny)
    monkeypatch.setattr(timing, "USUAL", Budget(0.3, 1))
    monkeypatch.setattr(timing, "_PLANTED", (0.0, 1.0))
    monkeypatch.setattr(timing, "SLOWDOWNS", (1.0,))
    monkeypatch.setattr(timing, "_COUNTING_SHARE", 0.0)
    rows = 0

    class Clock:
        """Each row takes a second of six."""

        perf_counter = staticmethod(time.perf_counter)

        @staticmethod
        def monotonic():
            nonlocal rows
            rows += 1
            return float(rows)

    monkeypatch.setattr(timing, "time", Clock)
    kept, written = tmp_path / "rows.json", tmp_path / "README.md"
    written.write_text("<!-- selftest:timing -->\n<!-- /selftest:timing -->\n")
    assert main(["selftest", "--minutes", "0.1", "--save", str(kept)]) == 0
    printed = capsys.readouterr().out
    made = timing.loaded(kept).rows
    assert [each.planted for each in made] == [0.0, 1.0, 1.0, 0.0, 0.0]
    assert all(len(each.instances) >= 3 for each in made)
    assert min(made[1].instances[0][0]) > 1.3 * min(made[1].instances[0][1])
    assert "2 cases, 5 rows, " in printed and "at most 5 µs" in printed
    assert main(["selftest", "--load", str(kept), "--write", str(written)]) == 0
    assert printed.strip() in written.read_text() and capsys.readouterr().out == printed


def test_too_little_time_is_named(tmp_path, capsys):
    kept = tmp_path / "rows.json"
    kept.write_text(json.dumps(asdict(recording(names=1, rows=5))))
    assert main(["selftest", "--load", str(kept)]) == 2
    assert "rows of 1 case, it takes 2; --minutes gives more" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["0", "61", "nan"])
def test_minutes_that_cannot_be(minutes, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["selftest", "--minutes", minutes])
    assert ended.value.code == 2
    assert "must be above 0 and at most 60" in capsys.readouterr().err


def test_a_file_without_rows_is_named(tmp_path, capsys):
    file = tmp_path / "blocks.json"
    file.write_text('{"facts": {}}')
    assert main(["selftest", "--load", str(file)]) == 2
    assert f"{file}: holds no recorded rows" in capsys.readouterr().err


def test_the_report_says_what_it_was_recorded_on():
    text = report(recording(names=3))
    assert text.startswith(
        "Xeon · TensorFlow 2 · Keras 3 · commit unknown · 2026-01-01 · 3 cases, 105 rows, "
    )
    assert text.count("\n| ") >= 11 and "0.20 µs" in text
