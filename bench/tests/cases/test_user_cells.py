"""Cells brought on the command line: their names, their baselines, and their way through a run."""

import shutil
from pathlib import Path

import pytest

import bench.contract.check_cell
import bench.runner.session
from bench.cases.sweeps import SWEEPS, Grid, Sweep, comparisons
from bench.cases.user_cells import GuestError, broken_contract, guests, loaded
from bench.records.csv_file import read_records

pytest_plugins = ["pytester"]  # forgets what is first imported inside its runs: TensorFlow comes before

CELLS = """
import keras
from keras import ops


class Plain(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        h = ops.tanh(ops.matmul(inputs, self.kernel) + 0.5 * states[0])
        return h, [h]


class Other(Plain):
    pass


class Leaking(Plain):
    def call(self, inputs, states):
        h, states = super().call(inputs, states)
        return h + 0.1 * ops.mean(h, axis=0, keepdims=True), states
"""


def test_a_target_is_a_subject_of_its_own_name():
    brought = guests(["my_cells.py:Plain", "my_cells.py:Plain", "package.cells:Deep.Cell"])
    assert brought.joining == ("Plain-rnn", "Deep.Cell-rnn")
    assert {subject.baseline for subject in brought.subjects.values()} == {"lstm-builtin"}
    assert brought.subjects["Plain-rnn"].target == "my_cells.py:Plain"
    assert brought.subjects["Plain-rnn"].label == "Plain in RNN"


def test_a_baseline_is_a_built_in_or_a_target_that_does_not_join():
    assert guests(["a.py:A"], "gru").subjects["A-rnn"].baseline == "gru-builtin"
    brought = guests(["a.py:A"], "b.py:B")
    assert brought.joining == ("A-rnn",)
    assert brought.subjects["A-rnn"].baseline == "B-rnn"
    assert set(brought.subjects) == {"A-rnn", "B-rnn"}


@pytest.mark.parametrize(
    "targets, baseline, message",
    [
        (["nonsense"], None, "--cell nonsense: expected package.module:Name or path/to/file.py:Name"),
        (["a.py:lstm"], None, "--cell a.py:lstm: there is a cell 'lstm' already; give yours another name"),
        (["a.py:A", "b.py:A"], None, "--cell b.py:A: there is a cell 'A' already"),
        (["a.py:A"], "rnn", "--baseline rnn: must be one of lstm, gru, simple_rnn, or package.module:Name"),
        ([], "lstm", "there is no --cell"),
    ],
)
def test_what_cannot_be_a_subject_is_said(targets, baseline, message):
    with pytest.raises(GuestError) as error:
        guests(targets, baseline)
    assert message in str(error.value)


def test_guests_join_the_sweeps_that_take_them():
    brought = guests(["a.py:A"])
    rows = [row.case for row in comparisons(["default"], brought) if row.case.cell == "A"]
    assert len(rows) == 26
    assert {"unroll", "stateful", "xla"} <= {option for case in rows for option in case.options}
    assert not [row for row in comparisons(["default"]) if row.case.cell == "A"]


@pytest.fixture
def run(pytester, monkeypatch):
    """run(*options): the sweep `tiny`, a built-in and the guests, in a folder that holds my_cells.py."""
    grid = Grid(("lstm-builtin",), ((2, 4, 3, 4),), guests=True)
    monkeypatch.setitem(SWEEPS, "tiny", Sweep("?", (grid,)))
    monkeypatch.setattr("bench.report.charts.run_charts.draw", lambda folder, records: [])
    monkeypatch.setattr("bench.report.html.write_report", lambda folders, target: target)
    for known in (loaded, broken_contract):
        known.cache_clear()
    pytester.makeconftest('pytest_plugins = ["bench.plugin"]')
    shutil.copy(
        Path(bench.__file__).parent / "benchmarks" / "benchmark_cost.py", pytester.path / "test_cost.py"
    )
    (pytester.path / "my_cells.py").write_text(CELLS)

    def run(*options):
        return pytester.runpytest_inprocess(
            "--benchmark-only", "--benchmark-max-time=0.02", "--sweep=tiny", "--results=results", *options
        )

    return run


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--sweep=fused", "--cell=my_cells.py:Plain"],
            "--cell: the sweep takes no cells; those that do are*",
        ),
        (["--full"], "--full is for training tasks: --sweep=partial_sum, char_model, generate"),
        (["--corpus=play.txt"], "--corpus is for training tasks: --sweep=partial_sum, char_model, generate"),
    ],
)
def test_an_option_that_nothing_would_heed_is_an_error(run, pytester, options, message):
    sweep = [] if options[0].startswith("--sweep") else ["--sweep=tiny"]
    result = pytester.runpytest_inprocess("--benchmark-only", "--results=results", *sweep, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}"])
    assert not (pytester.path / "results").exists()


def records(pytester):
    (folder,) = (pytester.path / "results").iterdir()
    return {record["case"]: record for record in read_records(folder)}


def test_a_cell_that_holds_the_contract_is_proven_and_timed(run, pytester):
    result = run("--cell=my_cells.py:Plain", "--cell=my_cells.py:Other", "--baseline=gru", "-k", "Plain")
    result.assert_outcomes(passed=2, deselected=4)
    record = records(pytester)["train-Plain-rnn-b2-t4-f3-u4"]
    assert (record["status"], record["proof"]) == ("ok", "consistent")
    assert record["baseline"] == "train-gru-builtin-b2-t4-f3-u4"
    assert record["gradient_error"] <= record["gradient_tolerance"]
    result.stdout.fnmatch_lines(["*Plain in RNN, train: *x the time of keras GRU*"])


def test_a_cell_that_breaks_the_contract_is_not_timed(run, pytester):
    result = run("--cell=my_cells.py:Leaking")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2, failed=2)
    record = records(pytester)["infer-Leaking-rnn-b2-t4-f3-u4"]
    assert (record["status"], record["reason"]) == ("failed", "contract")
    assert "independent_samples" in record["message"] and "my_cells.py" in record["message"]
    assert record["median_s"] is record["ratio"] is None


@pytest.mark.parametrize(
    "option, message",
    [
        ("--cell=no_such.py:Cell", "*no such file: *no_such.py"),
        ("--cell=my_cells.py:Plan", "*no 'Plan' in it; did you mean 'Plain'?"),
        ("--cell=broken.py:Cell", "*broken.py cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_a_target_that_cannot_be_loaded_is_an_error_before_the_first_case(run, pytester, option, message):
    (pytester.path / "broken.py").write_text("1 / 0\n")
    result = run(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert not (pytester.path / "results").exists()
