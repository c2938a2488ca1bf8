"""Cases in processes of their own: the same records, the limits, and that nothing is left behind."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bench
from bench.cases import cost_estimate
from bench.cases.case import Case
from bench.cases.comparisons import Comparison
from bench.cases.subjects import SUBJECTS
from bench.cases.sweeps import SWEEPS, Grid, Sweep
from bench.cases.user_cells import NO_USER_CELLS
from bench.processes.isolated import Isolated
from bench.processes.worker import NO_LIMITS, Limits, MemoryLimit, TimeLimit, WorkerDied
from bench.proof.problem import prepare
from bench.proof.verify import prove
from bench.records.csv_file import read_records
from bench.report import html
from bench.report.charts import run_charts
from bench.runner import proving

pytest_plugins = ["pytester"]

BENCHMARK = Path(bench.__file__).parent / "benchmarks" / "benchmark_cost.py"
SHAPE = (2, 4, 3, 5)
EXPLODING = {"unroll": True, "jit_compile": True}
CPU = ("cpu", NO_USER_CELLS)


@pytest.fixture
def begin(nursery):
    """begin(case, limits): its `Isolated`, ended with the test."""
    begun: list[Isolated] = []

    def begin(case: Case, limits: Limits = NO_LIMITS) -> Isolated:
        begun.append(Isolated(case, limits, CPU, nursery))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


def problem_of(subject: str, mode: str, **options):
    cell, layer = subject.split("-")
    return prepare(SUBJECTS[subject], Case(cell, layer, mode, *SHAPE, **options))


@pytest.mark.parametrize("subject, options", [("lstm-builtin", {}), ("slstm-rnn", {"stateful": True})])
def test_an_isolated_program_is_proven_as_one_here_and_has_its_figures(begin, subject, options):
    problem = problem_of(subject, "train", **options)
    here, _, _ = prove(problem)
    made = begin(problem.case)
    program, answer, _ = prove(problem, made.compile_program)
    assert sorted(answer.gradients) == sorted(here.answer().gradients)
    assert (program.kernel, program.xla, program.graph_nodes) == (here.kernel, here.xla, here.graph_nodes)
    assert program.trace_s > 0 and program.compile_s > 0 and program.trace_count() == 1
    assert 0 < program.time() < 5 and 0 < program.queue(3) < 5
    assert 0 <= program.peak_bytes < 1 << 30
    assert made.matmul_peak("float32", "cpu") > 1e8


def test_isolated_dropout_draws_what_it_draws_here(begin):
    problem = problem_of("lstm-rnn", "train", dropout=0.5)
    prove(problem, begin(problem.case).compile_program)


def test_two_programs_of_one_case_are_two(begin):
    """A built-in is compared with a second instance of itself."""
    problem = problem_of("slstm-rnn", "infer")
    other = replace(problem, data=replace(problem.data, inputs=2 * problem.data.inputs))
    made = begin(problem.case)
    first, second = (made.compile_program(each, True) for each in (problem, other))
    _, here, _ = prove(problem)
    assert np.allclose(first.answer().outputs[0], here.outputs[0], atol=1e-6)
    assert not np.allclose(second.answer().outputs[0], here.outputs[0], atol=1e-3)


def test_the_memory_of_a_case_is_its_own(begin):
    """What a larger case took before is not in it."""
    small, large = (
        prepare(SUBJECTS["lstm-rnn"], Case("lstm", "rnn", "infer", batch_size, 50, 64, 64))
        for batch_size in (1, 2000)
    )
    rises = []
    for problem in (large, small):
        made = begin(problem.case)
        rises.append(made.compile_program(problem, True).peak_bytes)
    inputs_and_outputs = 2 * large.data.inputs.nbytes
    assert rises[0] > inputs_and_outputs > 10 * MEGABYTE
    assert rises[1] < inputs_and_outputs


MEGABYTE = 1 << 20


def test_the_limits_are_errors_with_what_was_reached(begin):
    problem = problem_of("lstm-rnn", "train", **EXPLODING)
    short = begin(problem.case, Limits(compile_s=0.2))
    with pytest.raises(TimeLimit, match=r"the limit is 0\.2 s") as stopped:
        short.compile_program(problem, True)
    assert 0.2 <= stopped.value.seconds < 2 and not short.alive
    small = begin(problem.case, Limits(memory_bytes=50 * MEGABYTE))
    with pytest.raises(MemoryLimit, match="the limit is 52,428,800 bytes") as full:
        small.compile_program(problem, True)
    assert full.value.bytes > 50 * MEGABYTE


def test_a_worker_that_is_killed_is_an_error_and_gone(begin):
    problem = problem_of("lstm-rnn", "infer")
    made = begin(problem.case)
    program = made.compile_program(problem, True)
    os.kill(made._worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        program.time()
    assert not made.alive


# --- which cases are isolated -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "timesteps", "explodes"),
    [
        ({}, 1000, False),
        ({"jit_compile": True}, 1000, False),
        ({"unroll": True}, 50, False),
        ({"unroll": True}, 51, True),
        (EXPLODING, 10, True),
    ],
)
def test_what_may_explode_is_isolated_as_subject_or_baseline(options, timesteps, explodes):
    plain = Case("lstm", "rnn", "train", 32, timesteps, 64, 128)
    case = Case("lstm", "rnn", "train", 32, timesteps, 64, 128, **options)
    assert Comparison("plain", case, plain).isolated is explodes
    assert Comparison("plain", plain, case).isolated is explodes


@pytest.mark.parametrize("layer", ["static_unroll", "static_rnn"])
def test_what_unrolls_without_being_asked_is_isolated(layer):
    for timesteps, explodes in ((50, False), (51, True)):
        case = Case("lstm", layer, "train", 32, timesteps, 64, 128)
        assert Comparison("plain", case, case).isolated is explodes


def test_what_is_large_is_isolated():
    small, large = (Case("lstm", "rnn", "train", 32, 50, units, units) for units in (256, 2560))
    assert not Comparison("plain", small, small).isolated
    assert Comparison("plain", large, small).isolated and Comparison("plain", small, large).isolated


@pytest.mark.parametrize("name", ["static_dynamic", "scaling", "fused", "deepbench"])
def test_sweeps_that_measure_memory_or_may_be_too_large_are_isolated(name):
    case = Case("lstm", "rnn", "infer", *SHAPE)
    assert Comparison(name, case, case, SWEEPS[name]).isolated
    assert SWEEPS[name].memory is (name != "deepbench")


# --- a run -------------------------------------------------------------------------------------------


@pytest.fixture
def run_isolated(pytester, monkeypatch, one_nursery):
    """run_isolated(sweep, *options): the records of a run of the sweep."""

    monkeypatch.setattr(run_charts, "draw", lambda folder, records: [])
    monkeypatch.setattr(html, "write_report", lambda folders, target: target)
    pytester.makeconftest('pytest_plugins = ["bench.plugin"]')
    shutil.copy(BENCHMARK, pytester.path / "test_cost.py")

    def run_isolated(sweep: Sweep, *options: str):
        monkeypatch.setitem(SWEEPS, "tiny", sweep)
        arguments = ["--benchmark-only", "--sweep=tiny", "--benchmark-max-time=0.02", "--results=results"]
        pytester.runpytest_inprocess(*arguments, *options)
        (folder,) = (pytester.path / "results").iterdir()
        return read_records(folder)

    return run_isolated


def test_a_sweep_that_measures_memory_has_all_figures(run_isolated):
    grid = Grid(("slstm-rnn",), (SHAPE,))
    records = run_isolated(Sweep("?", (grid,), baselines=("builtin", "loop"), memory=True))
    assert [record["status"] for record in records] == ["ok"] * 4
    for record in records:
        assert record["peak_bytes"] > 0 and record["queued_s"] > 0 and record["retraces"] == 0
        assert record["flops"] > 0 and 0 < record["roofline_fraction"] < 1
        assert record["gflops_per_s"] == pytest.approx(record["flops"] / record["median_s"] / 1e9)
        assert record["proof"] == "exact"
    for first, second in (records[:2], records[2:]):  # one process, one program, two baselines
        assert first["case"] == second["case"] and first["baseline"] != second["baseline"]
        assert first["peak_bytes"] == second["peak_bytes"] and first["trace_s"] == second["trace_s"]


def test_elsewhere_the_memory_is_empty_and_the_rest_is_not(run_isolated, monkeypatch):
    def none(*arguments):
        raise AssertionError("a worker was begun")

    monkeypatch.setattr(proving, "Isolated", none)
    (record,) = run_isolated(Sweep("?", (Grid(("gru-rnn",), (SHAPE,), modes=("infer",)),)))
    assert record["status"] == "ok" and record["peak_bytes"] is None
    assert record["flops"] > 0 and record["roofline_fraction"] > 0 and record["queued_s"] > 0


def test_a_compile_that_takes_too_long_is_skipped_and_longer_ones_are_not_tried(run_isolated, monkeypatch):
    begun = []
    monkeypatch.setattr(proving, "Isolated", lambda *arguments: begun.append(1) or Isolated(*arguments))
    shapes = tuple((2, timesteps, 3, 5) for timesteps in (3, 30, 60))
    sweep = Sweep("?", (Grid(("lstm-rnn",), shapes, (EXPLODING,), modes=("train",)),), baselines=("loop",))
    records = run_isolated(sweep, "--compile-limit=1.5", "--memory-limit=20000000000")
    messages = [record["message"] for record in records]
    stopped = next(number for number, record in enumerate(records) if record["status"] != "ok")
    assert stopped < 2
    for record in records[stopped:]:
        assert (record["status"], record["reason"]) == ("skipped", "compile_timeout")
        assert record["median_s"] is record["ratio"] is None
    assert "stopped after 1." in messages[stopped] and "the limit is 1.5 s" in messages[stopped]
    for message in messages[stopped + 1 :]:
        assert message.endswith(f"not tried; {records[stopped]['case']} was stopped by the limit of 1.5 s")
    assert len(begun) == stopped + 1


def test_too_much_memory_fails_with_the_bytes(run_isolated):
    grid = Grid(("slstm-rnn",), (SHAPE,), modes=("infer",))
    (record,) = run_isolated(Sweep("?", (grid,), memory=True), "--memory-limit=50000000")
    assert (record["status"], record["reason"]) == ("failed", "out_of_memory")
    assert record["message"].endswith("bytes resident, the limit is 50,000,000 bytes")


def test_a_killed_worker_is_a_record_and_the_next_case_goes_on(run_isolated, monkeypatch):
    compile_program = Isolated.compile_program

    def killed(self, problem, exact):
        if problem.case.subject == "slstm-rnn":
            os.kill(self._worker.pid, signal.SIGKILL)
        return compile_program(self, problem, exact)

    monkeypatch.setattr(Isolated, "compile_program", killed)
    grid = Grid(("slstm-rnn", "lstm-rnn"), (SHAPE,), modes=("infer",))
    first, second = run_isolated(Sweep("?", (grid,), isolated=True))
    assert (first["status"], first["reason"]) == ("failed", "killed") and "SIGKILL" in first["message"]
    assert second["status"] == "ok" and second["peak_bytes"] is None  # the sweep is not about memory


def test_what_is_too_large_is_not_begun(run_isolated, monkeypatch):
    monkeypatch.setattr(cost_estimate, "machine_bytes", lambda: 1000)
    (record,) = run_isolated(Sweep("?", (Grid(("slstm-rnn",), (SHAPE,), modes=("infer",)),), isolated=True))
    assert (record["status"], record["reason"]) == ("skipped", "too_large")
    assert "bytes and" in record["message"] and "750 bytes are the most" in record["message"]


def test_a_user_cell_is_isolated_too(run_isolated, pytester, monkeypatch):
    monkeypatch.setattr(proving.Prover, "check_contract", lambda *_: None)  # seconds, and of no matter here
    pytester.path.joinpath("mine.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('test_isolated')\n"
        "class Mine(keras.layers.SimpleRNNCell):\n"
        "    pass\n"
    )
    grid = Grid((), (SHAPE,), modes=("infer",), user_cells=("rnn",))
    (record,) = run_isolated(Sweep("?", (grid,), isolated=True), f"--cell={pytester.path}/mine.py:Mine")
    assert (record["status"], record["message"]) == ("ok", None)
    assert record["proof"] == "consistent" and record["cell"] == "Mine"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--compile-limit=0", "0: must be above zero"),
        ("--compile-limit=nan", "nan: must be above zero"),
        ("--memory-limit=much", "'much': must be an integer"),
    ],
)
def test_a_limit_that_is_none_is_refused_in_a_line(pytester, option, message):
    pytester.makeconftest('pytest_plugins = ["bench.plugin"]')
    result = pytester.runpytest_inprocess(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}"])


def test_collect_only_says_how_many_cases_and_how_long(pytester, monkeypatch):
    pytester.makeconftest('pytest_plugins = ["bench.plugin"]')
    shutil.copy(BENCHMARK, pytester.path / "test_cost.py")
    monkeypatch.setattr(
        "bench.session.tell.expected_seconds", lambda rows, max_time_s, limit_s: 60 * 7 * max_time_s
    )
    result = pytester.runpytest_inprocess("--benchmark-only", "--collect-only", "--sweep=char_shape")
    result.stdout.fnmatch_lines(["18 cases, about 7 min on two cores"])
    result = pytester.runpytest_inprocess(
        "--benchmark-only",
        "--collect-only",
        "--sweep=char_shape",
        "-k",
        "infer-lstm",
        "--benchmark-max-time=3",
    )
    result.stdout.fnmatch_lines(["3 cases, about 21 min on two cores"])
    result = pytester.runpytest_inprocess(
        "--benchmark-only", "--collect-only", "--sweep=char_shape", "--budget=30"
    )
    result.stdout.fnmatch_lines(
        ["18 cases, about 7 min on two cores; wide ratios are measured again, up to 30 min in all (--budget)"]
    )


@pytest.mark.parametrize(
    ("option", "minutes"), [("--benchmark-max-time=1", "7 min"), ("--budget=30", "30 min")]
)
def test_collect_only_says_the_minutes_of_all_processes(option, minutes, pytester, monkeypatch):
    pytester.makeconftest('pytest_plugins = ["bench.plugin"]')
    shutil.copy(BENCHMARK, pytester.path / "test_cost.py")
    monkeypatch.setattr("bench.session.tell.expected_seconds", lambda rows, max_time_s, limit_s: 60.0)
    result = pytester.runpytest_inprocess(
        "--benchmark-only", "--collect-only", "--sweep=char_shape", "--processes=4", option
    )
    result.stdout.fnmatch_lines([f"18 cases, about 4 min on two cores; *, up to {minutes} in all (--budget)"])
