"""Cells brought on the command line: their names, their baselines, and their way through a run."""

import json
import os
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

import bench.contract.check_cell
import bench.report.charts.run_charts
import bench.report.html
import bench.runner.run
from bench.cases.comparisons import comparisons
from bench.cases.sweeps import SWEEPS, Grid, Sweep
from bench.cases.user_cells import UserCellError, UserCells, loaded
from bench.processes.contract_worker import _Session
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


class Branching(Plain):
    def call(self, inputs, states):
        h, _ = super().call(inputs, states)
        return ops.cond(ops.all(h > 0), lambda: h, lambda: -h), [h]


class Leaky(Plain):
    def __init__(self, units, alpha, dropout=0.0, **kwargs):
        super().__init__(units, **kwargs)
        self.alpha, self.drop = alpha, keras.layers.Dropout(dropout, seed=1)

    def call(self, inputs, states, training=False):
        h, states = super().call(self.drop(inputs, training=training), states)
        return self.alpha * h, [self.alpha * states[0]]

    def get_config(self):
        return {**super().get_config(), "units": self.units, "alpha": self.alpha, "dropout": self.drop.rate}


class Branching(Plain):
    def call(self, inputs, states):
        h, states = super().call(inputs, states)
        return ops.cond(ops.sum(h) > 0, lambda: h, lambda: -h), states


class Leaking(Plain):
    def call(self, inputs, states):
        h, states = super().call(inputs, states)
        return h + 0.1 * ops.mean(h, axis=0, keepdims=True), states
"""


def test_a_target_is_a_subject_of_its_own_name():
    brought = UserCells.of(["my_cells.py:Plain", "my_cells.py:Plain", "package.cells:Deep.Cell"])
    assert brought.joining(["rnn"]) == ("Plain-rnn", "Deep.Cell-rnn")
    assert {subject.baseline for subject in brought.subjects.values()} == {"lstm-builtin"}
    assert brought.subjects["Plain-rnn"].target == "my_cells.py:Plain"
    assert brought.subjects["Plain-rnn"].label == "Plain in RNN"


def test_a_baseline_is_a_built_in_or_a_target_that_does_not_join():
    assert UserCells.of(["a.py:A"], "gru").subjects["A-rnn"].baseline == "gru-builtin"
    brought = UserCells.of(["a.py:A"], "b.py:B")
    assert brought.joining(["rnn"]) == ("A-rnn",)
    assert brought.subjects["A-rnn"].baseline == "B-rnn"
    layers = ("rnn", "fused", "keras_jax", "keras_torch")
    assert set(brought.subjects) == {f"{name}-{layer}" for name in "AB" for layer in layers}


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
    with pytest.raises(UserCellError) as error:
        UserCells.of(targets, baseline)
    assert message in str(error.value)


def test_user_cells_join_the_sweeps_that_take_them():
    brought = UserCells.of(["a.py:A"])
    rows = [row.case for row in comparisons(["default"], brought) if row.case.cell == "A"]
    assert len(set(rows)) == 26 + 2  # in RNN and in FusedRNN
    assert {"unroll", "stateful", "xla"} <= {option for case in rows for option in case.options}
    assert not [row for row in comparisons(["default"]) if row.case.cell == "A"]


@pytest.fixture
def write(pytester, nursery):
    """write(name, text): a file of cells, in the folder of the run and in that of its workers."""

    def write(name: str, text: str) -> None:
        for folder in {pytester.path, nursery.folder if nursery else pytester.path}:
            (folder / name).write_text(text)

    return write


@pytest.fixture
def run(pytester, monkeypatch, write, one_nursery):
    """run(*options): the sweep `tiny`, a built-in and the user cells, in a folder with my_cells.py."""
    grid = Grid(("lstm-builtin",), ((2, 4, 3, 4),), user_cells=("rnn",))
    monkeypatch.setitem(SWEEPS, "tiny", Sweep("?", (grid,)))
    monkeypatch.setattr("bench.report.charts.run_charts.draw", lambda folder, records: [])
    monkeypatch.setattr("bench.report.html.write_report", lambda folders, target: target)
    loaded.cache_clear()
    pytester.makeconftest('pytest_plugins = ["bench.plugin"]')
    shutil.copy(
        Path(bench.__file__).parent / "benchmarks" / "benchmark_cost.py", pytester.path / "test_cost.py"
    )
    write("my_cells.py", CELLS)

    def run(*options, sweep="--sweep=tiny"):
        named = [sweep] if sweep else []
        return pytester.runpytest_inprocess(
            "--benchmark-only", "--benchmark-max-time=0.02", "--results=results", *named, *options
        )

    return run


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--sweep=peers", "--cell=my_cells.py:Plain"],
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


@pytest.fixture
def quick_checks(monkeypatch):
    """Leaves out the checks that compile, save or train: what a run does with the contract is tested."""
    ask_all = _Session.checks.func
    slow = {"xla", "mask", "gradient", "save_load", "stacked", "bidirectional", "float64", "fit"}
    slow |= {"mask_gradients", "mixed_float16", "mixed_bfloat16", "any_batch_size", "any_timesteps"}
    checks = property(lambda session: [check for check in ask_all(session) if check[0] not in slow])
    monkeypatch.setattr(_Session, "checks", checks)


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
    result.stdout.fnmatch_lines(["*Plain in RNN, train: * the time of keras GRU*"])


@pytest.mark.usefixtures("quick_checks")
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
def test_a_target_that_cannot_be_loaded_is_an_error_before_the_first_case(
    run, pytester, write, option, message
):
    write("broken.py", "1 / 0\n")
    result = run(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert not (pytester.path / "results").exists()


@pytest.mark.parametrize(
    "targets, baseline, kwargs, message",
    [
        ([], None, '{"alpha": 1}', "--kwargs is for the cells of --cell; there is no --cell"),
        (["a.py:A"], None, "alpha=1", "--kwargs: expected a JSON object, such as"),
        (["a.py:A"], None, "[1]", "--kwargs: expected a JSON object, such as"),
        (["a.py:A"], None, "[" * 100_000, "--kwargs: expected a JSON object, such as"),
    ],
)
def test_arguments_that_are_none_are_refused(targets, baseline, kwargs, message):
    with pytest.raises(UserCellError, match=re.escape(message)):
        UserCells.of(targets, baseline, kwargs)


@pytest.mark.usefixtures("quick_checks")
def test_any_cell_at_any_shape_is_measured_against_the_same_arrangement_of_the_built_in(run, pytester):
    """Arguments of its own, an unregistered class that `Bidirectional` clones, dropout that it hides."""
    result = run(
        "--cell=my_cells.py:Leaky",
        '--kwargs={"alpha": 0.5}',
        "--shape=2,4,3,4",
        "--mode=train",
        "--option=bidirectional,depth=2",
        "--option=dropout=0.5",
        "--option=recurrent_dropout=0.5",
        sweep=None,
    )
    result.assert_outcomes(passed=2, skipped=1)
    found = records(pytester)
    deep, dropping, lacking = found.values()
    assert deep["case"] == "train-Leaky-rnn-b2-t4-f3-u4-bidirectional-depth2"
    assert deep["baseline"] == "train-lstm-builtin-b2-t4-f3-u4-bidirectional-depth2"
    assert (dropping["baseline"], dropping["proof"]) == (
        "train-lstm-builtin-b2-t4-f3-u4-dropout0.5",
        "statistical",
    )
    assert (lacking["status"], lacking["reason"]) == ("skipped", "unsupported")
    assert "Leaky in RNN has no option recurrent_dropout: the cell takes none" in lacking["message"]


@pytest.mark.usefixtures("quick_checks")
def test_a_baseline_that_breaks_the_contract_is_named_as_the_baseline(run, pytester):
    run("--cell=my_cells.py:Plain", "--baseline=my_cells.py:Leaking", "-k", "infer-Plain")
    record = records(pytester)["infer-Plain-rnn-b2-t4-f3-u4"]
    assert (record["status"], record["reason"]) == ("failed", "contract")
    assert record["message"].startswith("the baseline infer-Leaking-rnn-b2-t4-f3-u4: ")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--cell=no_such.py:Plain"], "no such file: *no_such.py"),
        (["--cell=my_cells.py:Plane"], "my_cells.py:Plane: no 'Plane' in *Plain*"),
        (
            ["--cell=my_cells.py:Plane", "--case=infer-Plane-rnn-b1-t2-f3-u4"],
            "my_cells.py:Plane: no 'Plane'*",
        ),
        (["--layer=my_cells.py:make"], "my_cells.py:make: no 'make' in *"),
        (["--cell=my_cells.py:Plain", "--baseline=no_package.cells:B"], "no module named 'no_package'*"),
        (["--cell=exits.py:A"], "exits.py cannot be imported: SystemExit: 3"),
    ],
)
def test_a_target_that_is_not_there_is_noticed_while_cases_are_listed(run, write, options, message):
    write("exits.py", "raise SystemExit(3)\n")
    sweep = None if any(option.startswith("--case") for option in options) else "--sweep=tiny"
    result = run(*options, "--collect-only", sweep=sweep)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert fnmatch([line for line in result.errlines if line][-1], f"*{message}")


def test_a_cell_that_no_engine_runs_is_left_out_of_fused_rnn_and_said_so(run, pytester):
    brought = ("--cell=my_cells.py:Plain", "--cell=my_cells.py:Branching")
    result = run(*brought, "--collect-only", sweep="--sweep=gate")
    result.stdout.fnmatch_lines(["left out: Branching-fused: no engine of FusedRNN runs it: *a branch*"])
    listed = result.stdout.str()
    assert "[gate-infer-Branching-rnn" in listed and "[gate-infer-Branching-fused" not in listed
    assert "[gate-infer-Plain-fused" in listed


@pytest.mark.parametrize(
    "options, ids",
    [
        (
            ["--cell=my_cells.py:Plain", "--shape=16,120,40,96"],
            [f"chosen-{mode}-Plain-rnn-b16-t120-f40-u96" for mode in ("infer", "train")],
        ),
        (["--case=infer-mgu-rnn-b1-t2-f3-u4-depth2"], ["chosen-infer-mgu-rnn-b1-t2-f3-u4-depth2"]),
        (
            ["--sweep=my_sweeps.py:long", "--mode=infer", "--shape=1,2,3,4", "--shape=2,2,3,4"],
            ["long-infer-lstm-rnn-b1-t2-f3-u4", "long-infer-lstm-rnn-b2-t2-f3-u4"],
        ),
    ],
)
def test_the_command_line_lists_what_it_asks_for_and_nothing_else(run, pytester, options, ids):
    (pytester.path / "my_sweeps.py").write_text(
        "from bench.cases.sweeps import Grid, Sweep\n"
        'long = Sweep("?", (Grid(("lstm-rnn",), ((1, 9, 1, 1),)),))\n'
    )
    result = run(*options, "--collect-only", "-q", sweep=None)
    assert [line.partition("[")[2].rstrip("]") for line in result.outlines if "::" in line] == ids


@pytest.mark.parametrize(
    "option, message",
    [
        ("--shape=1,2,3", "--shape '1,2,3': must be batch_size,timesteps,features,units, such as *"),
        ("--option=dept=2", "--option dept=2: no option 'dept'; there are depth"),
        ("--mode=both", "--mode 'both': must be one of infer, train, fit, generate"),
        ("--subject=lstm", "--subject lstm: not known; there are *"),
        ("--case=infer-lstm-rnn", "--case 'infer-lstm-rnn': batch_size is missing; an id is *"),
        ("--kwargs={}x", "--kwargs is for the cells of --cell; there is no --cell"),
        ("--step-shape=8,8,1", "--step-shape is for the cells of --cell; there is no --cell"),
        ("--features=8", "--features is for the cells of --cell; there is no --cell"),
        ("--features=0", "argument --features: 0: must be above zero"),
        ("--features=2.5", "argument --features: '2.5': must be an integer"),
        ("--sweep=no_cases.py:mine", "--sweep mine: has no case on the cpu without --cell"),
    ],
)
def test_an_option_that_makes_no_sense_is_one_line(run, pytester, option, message):
    (pytester.path / "no_cases.py").write_text(
        "from bench import Grid, Sweep\n"
        'mine = Sweep("?", (Grid((), ((1, 2, 3, 4),), user_cells=("rnn",)),))\n'
    )
    result = run(option, sweep=None)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}"])
    assert not (pytester.path / "results").exists()


ODD_CELLS = """
import keras
import tensorflow as tf
from keras import ops

tf.config.run_functions_eagerly(True)


def stacked(units):
    return keras.layers.StackedRNNCells([keras.layers.LSTMCell(units), keras.layers.GRUCell(units)])


class Average(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def call(self, inputs, states):
        h = 0.9 * states[0] + 0.1 * inputs
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Normalises(Average):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.norm = keras.layers.BatchNormalization()

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.norm.build((None, self.units))

    def call(self, inputs, states, training=False):
        z = self.norm(ops.matmul(inputs, self.kernel), training=training) + states[0]
        h = ops.tanh(z) if training else ops.clip(z, -1, 1)
        return h, [h]


def eight_wide(units):
    return keras.layers.GRUCell(8)


class Ends(Average):
    def call(self, inputs, states):
        import os
        os._exit(0)
"""


@pytest.mark.usefixtures("quick_checks")
def test_odd_cells_are_judged_as_check_judges_them(run, pytester, write):
    """One run of cells that need a square shape, are a stack, differ in training, or end the process; their
    file leaves functions eager, which no row pays for."""
    write("odd.py", ODD_CELLS)
    right, wrong = ("stacked", "Average", "Normalises"), ("eight_wide", "Ends")
    result = run(*(f"--cell=odd.py:{name}" for name in (*right, *wrong)), "--shape=2,4,6,6")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = records(pytester)
    for name in right:
        for mode in ("infer", "train"):
            record = found[f"{mode}-{name}-rnn-b2-t4-f6-u6"]
            assert (record["status"], record["proof"], record["message"]) == ("ok", "consistent", None)
            assert record["kernel"] == "while"
    for name, words in (("eight_wide", "units: expected"), ("Ends", "ended the process: exit code 0")):
        record = found[f"infer-{name}-rnn-b2-t4-f6-u6"]
        assert (record["status"], record["reason"]) == ("failed", "contract")
        assert words in record["message"]
    (folder,) = (pytester.path / "results").iterdir()
    switches = json.loads((folder / "environment.json").read_text())["switches"]
    assert switches["tf.config.run_functions_eagerly"] == "False"
    assert "run_functions_eagerly from False to True" in switches["undone"]["odd.py:stacked"][0]


AT_ITS_SIZE = """
import ctypes, os
import keras


class At(keras.layers.SimpleRNNCell):
    def call(self, sequence, states, training=False):
        if self.units == 6 and os.getpid() != %(pid)d:
            self.end()
        assert self.units != 6, "this is the run's own process"
        return super().call(sequence, states, training)


class Exits(At):
    def end(self):
        os._exit(0)


class Quits(At):
    def end(self):
        raise SystemExit(0)


class Crashes(At):
    def end(self):
        ctypes.string_at(0)


class Loops(At):
    def end(self):
        while True:
            pass


class Allocates(At):
    def end(self):
        self.kept = [bytearray(b"x" * 2**20) for _ in range(2**16)]
"""


def test_what_a_cell_does_at_its_cases_size_alone_does_not_end_the_run(run, write, pytester):
    write("ends.py", AT_ITS_SIZE % {"pid": os.getpid()})
    reasons = {
        "Exits": "killed",
        "Quits": "killed",
        "Crashes": "killed",
        "Loops": "killed",
        "Allocates": "out_of_memory",
    }
    result = run(
        *(f"--cell=ends.py:{name}" for name in reasons),
        *("--shape=2,4,6,6", "--mode=infer", "--compile-limit=1.5", f"--memory-limit={3 << 29}"),
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = records(pytester)
    for name, reason in reasons.items():
        record = found[f"infer-{name}-rnn-b2-t4-f6-u6"]
        assert (record["status"], record["reason"]) == ("failed", reason), record["message"]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a": ' * 1000 + "1" + "}" * 1000,
        '{"a": 1' + "0" * 5000 + "}",
        '{"a": NaN}',
        '{"a": 1e999}',
        '"' + "x" * 5000,
        "\x1b[31m",
        "[1]",
        "",
    ],
)
def test_kwargs_that_are_no_json_object_are_said_on_a_line(text):
    with pytest.raises(UserCellError, match="--kwargs: expected a JSON object") as raised:
        UserCells.of(["a.py:A"], kwargs=text)
    assert len(str(raised.value)) < 500
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("import os\nos._exit(0)", "*ended the process while it was loaded: exit code 0*"),
        ("import ctypes\nctypes.string_at(0)", "*ended the process while it was loaded: SIGSEGV*"),
    ],
)
def test_a_file_that_ends_the_process_does_not_end_the_run_without_a_word(run, write, file, message):
    write("ends.py", file)
    result = run("--cell=ends.py:Cell")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_a_cell_of_images_takes_vectors_of_as_many_features():
    brought = UserCells.of(["a.py:A"], step_shape="8,8,1")
    assert {subject.step_shape for subject in brought.subjects.values()} == {(8, 8, 1)}
    with pytest.raises(UserCellError, match="--step-shape: expected positive integers, such as 8,8,1"):
        UserCells.of(["a.py:A"], step_shape="8,x")
    with pytest.raises(UserCellError, match="--step-shape is for the cells of --cell"):
        UserCells.of([], step_shape="8,8,1")


def test_the_features_of_a_cell_or_layer_are_those_that_the_contract_asks_it_with():
    brought = UserCells.of(["a.py:A"], layers=["a.py:make"], features=7)
    assert {subject.step_shape for subject in brought.subjects.values()} == {(7,)}
    with pytest.raises(UserCellError, match="--features and --step-shape say the same: leave one out"):
        UserCells.of(["a.py:A"], step_shape="8,8,1", features=64)


LAYERS = """
import keras


def two_layers(units):
    lower = keras.layers.SimpleRNN(units, return_sequences=True)
    return keras.Sequential([lower, keras.layers.SimpleRNN(2)])


def fixed():
    return keras.Sequential([keras.Input((None, 3)), keras.layers.GRU(2)])
"""


def test_whole_layers_run_here_and_isolated(run, write, pytester, monkeypatch):
    write("my_layers.py", LAYERS)
    run("--layer=my_layers.py:two_layers", "--layer=my_layers.py:fixed", "--shape=2,3,3,4", sweep=None)
    (records,) = map(read_records, (pytester.path / "results").iterdir())
    assert [(record["case"], record["status"]) for record in records] == [
        (f"{mode}-{name}-layer-b2-t3-f3-u4", "ok")
        for name in ("two_layers", "fixed")
        for mode in ("infer", "train")
    ]
    assert {record["proof"] for record in records} == {"consistent"}
    assert {record["baseline"] for record in records} == {
        f"{mode}-lstm-builtin-b2-t3-f3-u4" for mode in ("infer", "train")
    }
    grid = Grid((), ((2, 3, 3, 4),), modes=("infer",), user_cells=("rnn",))
    monkeypatch.setitem(SWEEPS, "apart", Sweep("?", (grid,), memory=True))
    shutil.rmtree(pytester.path / "results")
    run("--layer=my_layers.py:two_layers", sweep="--sweep=apart")
    (records,) = map(read_records, (pytester.path / "results").iterdir())
    assert [(record["status"], record["peak_bytes"] is not None) for record in records] == [("ok", True)]
