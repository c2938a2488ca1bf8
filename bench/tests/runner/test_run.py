"""A run's rows that are timed again: which instances have further blocks, and which pairs are kept for it."""

from dataclasses import replace

import pytest

from bench.cases.case import Case
from bench.cases.comparisons import Comparison
from bench.cases.subjects import SUBJECTS
from bench.runner.refining import Timed
from bench.runner.run import Run
from bench.timing.blocks import Budget, Plan, plain_rounds

SHAPE = (2, 4, 3, 4)
WAYS = [{}, {"jit_compile": True}]


class Benchmark:
    """pytest-benchmark's fixture, as far as a run uses it."""

    enabled = True
    has_error = False

    def __init__(self):
        self.extra_info = {}
        self.pedantic = plain_rounds


@pytest.fixture
def run(monkeypatch):
    made = Run(None, "cpu", SUBJECTS)
    monkeypatch.setattr(Timed, "plan", property(lambda timed: Plan(2, 4, len(timed.instances))))
    yield made
    made.close()


def measured(run: Run, *comparisons: Comparison) -> list[Timed]:
    for comparison in comparisons:
        record = run.measure(comparison, Benchmark(), Budget(0.02, 5))
        assert record["status"] == "ok", record["note"]
    return [run._timed[number] for number in range(len(comparisons))]


def of(cell: str, layer: str = "rnn", **options) -> Comparison:
    subject, baseline = (
        Case(*names, "infer", *SHAPE, **options) for names in ((cell, layer), ("lstm", "builtin"))
    )
    return Comparison("any", subject, baseline)


def unsettled(monkeypatch):
    """Tiny cases are known well enough soon: here none is."""
    from bench.timing.intervals import Interval

    monkeypatch.setattr(Interval, "converged", False)


@pytest.mark.parametrize("options", WAYS)
def test_instances_have_further_blocks_and_new_ones_come_after_them(run, options, monkeypatch):
    unsettled(monkeypatch)
    (before,) = measured(run, of("slstm", **options))
    assert before.pair is not None
    there, blocks = len(before.instances), before.instances[0].count
    program = before.pair[0].instance(there - 1)
    assert run._time_more(0)
    after = run._timed[0]
    assert [each.count for each in after.instances] == [blocks + 4] * there + [4] * 2
    for earlier, later in zip(before.instances, after.instances, strict=False):
        assert (
            later.subject[: 2 * blocks] == earlier.subject
            and later.baseline[: 2 * blocks] == earlier.baseline
        )
    assert after.pair[0].instance(there - 1) is program
    assert run.records[0]["instances"] == there + 2
    assert run.records[0]["rounds"] == there * (blocks + 4) + 2 * 4
    assert run.records[0]["retraces"] == 0


def test_the_first_call_of_an_instance_that_has_waited_does_not_count(run, monkeypatch):
    unsettled(monkeypatch)
    (before,) = measured(run, of("slstm"))

    def waited(subject, baseline, numbers, ahead):
        def leg():
            seconds = iter([1000.0])
            return lambda: next(seconds, 1.0)

        return [(leg(), leg()) for _ in numbers]

    monkeypatch.setattr(run._prover, "legs_of_more", waited)
    assert run._time_more(0)
    for earlier, later in zip(before.instances, run._timed[0].instances, strict=False):
        further = len(earlier.subject)
        assert set(later.subject[further:]) == set(later.baseline[further:]) == {1.0}


def test_rows_that_share_a_side_keep_their_instances_apart(run, monkeypatch):
    unsettled(monkeypatch)
    lstm = of("slstm")
    first, second = measured(run, lstm, replace(lstm, baseline=replace(lstm.baseline, cell="gru")))
    assert first.pair[0].program is second.pair[0].program
    assert run._time_more(0) and run._time_more(1)
    for number, before in enumerate((first, second)):
        after = run._timed[number]
        assert len(after.instances) == len(before.instances) + 2
        assert after.instances[0].subject[: len(before.instances[0].subject)] == before.instances[0].subject


def test_what_was_not_kept_is_proven_anew_and_its_instances_are_all_new(run, monkeypatch):
    unsettled(monkeypatch)
    run._most_kept_bytes = 0
    (before,) = measured(run, of("slstm"))
    assert before.pair is None
    monkeypatch.setattr(Timed, "plan", property(lambda timed: Plan(3, 2)))
    asked, legs_of_more = [], run._prover.legs_of_more
    monkeypatch.setattr(run._prover, "legs_of_more", lambda *of: asked.append(of) or legs_of_more(*of))
    assert run._time_more(0)
    after = run._timed[0]
    assert after.instances[: len(before.instances)] == before.instances
    assert [each.count for each in after.instances[len(before.instances) :]] == [2] * 3
    assert asked[0][2:] == (range(3), 1)  # the baseline's first instance has been timed


def test_what_is_known_well_enough_is_not_kept(run, monkeypatch):
    from bench.timing.intervals import Interval

    monkeypatch.setattr(Interval, "converged", True)
    (timed,) = measured(run, of("slstm"))
    assert timed.pair is None


def test_no_more_is_kept_than_a_share_of_the_memory(run, monkeypatch):
    from bench.runner import run as module

    unsettled(monkeypatch)
    monkeypatch.setattr(module, "_bytes", lambda timed: 100)
    run._most_kept_bytes = 250
    kept = measured(run, of("slstm"), of("gru"), of("lstm"))
    assert [timed.pair is not None for timed in kept] == [True, True, False]


def test_a_trace_that_instances_share_is_counted_once(run, monkeypatch):
    from bench.runner import run as module

    traces, pair = [1], run._prover.pair

    def trace_count() -> int:
        return traces[0]

    def counted(comparison):
        subject, baseline = pair(comparison)
        program = replace(subject.program, trace_count=trace_count)
        program = replace(program, again=lambda: replace(subject.program.again(), trace_count=trace_count))
        return replace(subject, program=program), baseline

    def traced_again(*_) -> float:
        traces[0] += 1
        return 1e-3

    monkeypatch.setattr(run._prover, "pair", counted)
    monkeypatch.setattr(module, "time_queue", traced_again)
    (timed,) = measured(run, of("slstm", jit_compile=True))
    assert len(timed.instances) > 1
    assert run.records[0]["retraces"] == 1


def test_each_row_has_instances_of_its_own(run, monkeypatch):
    """Those of a baseline that has served another row would be older than the subject's."""
    unsettled(monkeypatch)
    first, second = measured(run, of("slstm"), of("lstm"))
    assert first.comparison.baseline == second.comparison.baseline
    of_first, of_second = ({id(each) for each in timed.pair[1]._more} for timed in (first, second))
    assert of_first and of_second and not of_first & of_second
