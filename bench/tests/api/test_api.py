"""The Python face: what `import bench` offers, on cells that stand in no file too."""

import html
import subprocess
import sys
import types
from dataclasses import replace
from functools import partialmethod

import keras
import pytest
from keras import ops

import bench
from bench.api.comparison_report import CannotTell, ComparisonReport
from bench.cases.subjects import UnsupportedOption
from bench.commands import check as check_command
from bench.commands.compare import line
from bench.contract.checks import CHECKS
from bench.contract.load_cell import TargetError
from bench.contract.report import BrokenContract
from bench.proof.problem import WrongAnswer
from bench.tests.broken_cells import BuildIsTrue

pytest_plugins = ["pytester"]

TINY = (2, 3, 4, 5)


class Plain(keras.layers.Layer):
    def __init__(self, units, gain=1.0, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.gain = gain

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        h = ops.tanh(self.gain * ops.matmul(inputs, self.kernel) + 0.5 * states[0])
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units, "gain": self.gain}


class Mistaken(Plain):
    """Its reference computes something else."""

    def reference(self, inputs, initial_states):
        return 0 * inputs @ self.kernel.numpy(), initial_states


@pytest.fixture
def few_checks(monkeypatch):
    """The first of the contract's checks alone: all take seconds."""
    few = tuple(check for check in CHECKS if check.name in ("layer", "state_size", "build", "own_variables"))
    monkeypatch.setattr("bench.contract.check_cell.CHECKS", few)


def compare(cell, other="lstm", **given):
    return bench.compare(cell, other, **{"shape": TINY, "seconds": 0.02, "contract": False, **given})


def test_the_face_is_listed_and_light():
    program = (
        "import sys, bench; bench.Case, bench.Grid, bench.Sweep, bench.check, bench.compare, bench.checks"
    )
    shown = "print(*({'tensorflow', 'keras', 'pandas', 'pytest'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", f"{program}; {shown}"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")
    assert {*bench.__all__} == {"check", "compare", "load", "checks", "Sweep", "Grid", "Case"}
    assert {*bench.__all__} <= {*dir(bench)}
    assert all(callable(getattr(bench, name)) and getattr(bench, name).__doc__ for name in bench.__all__)
    with pytest.raises(AttributeError, match=r"no attribute 'chek'; it has Case, .*checks"):
        bench.chek  # noqa: B018


# --- check ---


def test_a_report_prints_as_the_command_does(few_checks):
    report = bench.check(Plain)
    assert report.ok and not report.failed
    assert str(report) == check_command.as_text(report, report.seconds)
    assert str(report).startswith("ok       layer, state_size, build, own_variables\n")
    report.raise_if_failed()


def test_a_report_of_a_broken_cell_raises_what_it_prints(few_checks):
    report = bench.check(BuildIsTrue)
    assert [result.name for result in report.failed] == ["build"]
    with pytest.raises(BrokenContract) as error:
        report.raise_if_failed()
    assert str(report) in str(error.value) and "change:" in str(report)


def test_kwargs_units_and_features_reach_the_cell(few_checks):
    seen = []

    def make(units, gain):
        seen.append((units, gain))
        return Plain(units, gain)

    assert "[batch, 7]" in bench.check(make, units=3, features=7, kwargs={"gain": 2.0}).checks[2].message
    assert set(seen) == {(3, 2.0)}


NOTEBOOK = """
import keras
class Cell(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = units
        self.dense = keras.layers.Dense(units, activation=squash)
    def build(self, input_shape):
        self.dense.build((None, input_shape[-1] + self.state_size))
    def call(self, inputs, states):
        h = self.dense(keras.ops.concatenate([inputs, states[0]], axis=-1))
        return h, [h]
def squash(x):
    return keras.ops.tanh(x)
"""


@pytest.mark.parametrize("name", ["__main__", "no_such_module"])
def test_a_class_that_stands_in_no_file(few_checks, name, monkeypatch):
    """As in a notebook, whose module has no file, and as code that is no module's."""
    module = types.ModuleType(name)
    if name == "__main__":
        monkeypatch.setitem(sys.modules, name, module)
    exec(NOTEBOOK, vars(module))
    assert bench.check(module.Cell).ok
    with pytest.raises(BrokenContract):
        bench.check(type("Broken", (module.Cell,), {"build": True})).raise_if_failed()
    assert compare(module.Cell, mode="train", options={"bidirectional": True}).ratio > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"units": 0}, "units 0: must be a positive integer"),
        ({"units": True}, "units True: must be a positive integer"),
        ({"features": (8, 0)}, r"features \(8, 0\): must be"),
        ({"features": ()}, r"features \(\): must be"),
    ],
)
def test_a_size_that_cannot_be_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        bench.check(Plain, **given)


def test_what_makes_no_cells_is_said():
    with pytest.raises(TargetError, match="a cell already made; name its class"):
        bench.check(Plain(4))
    with pytest.raises(TargetError, match="expected a class or a function of `units`, got 3"):
        bench.check(3)
    with pytest.raises(ValueError, match=r"cells \[\]: must be a list"):
        bench.checks([])
    with pytest.raises(ValueError, match=r"kwargs \[1\]: must be a mapping, such as {'gain': 0.5}"):
        bench.check(Plain, kwargs=[1])
    with pytest.raises(TargetError, match=r"expected a class or a function of `units`, got \[3\]"):
        compare([3])
    with pytest.raises(TargetError, match=r"expected a class or a function of `units`, got \[3\]"):
        compare([3], layer="fused")


# --- checks ---

OWN_TESTS = """
import bench
from bench.tests.api.test_api import Plain
from bench.tests.broken_cells import BuildIsTrue

def plain(units):
    return Plain(units)

@bench.checks([Plain, BuildIsTrue, plain])
def test_cell(cell, check):
    check(cell)

@bench.checks([Plain])
def test_another(cell, check):
    check(BuildIsTrue)
"""


def test_checks_are_tests_one_a_check(pytester, few_checks):
    pytester.makepyfile(OWN_TESTS)
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rfEs", "-v", "-k", "test_cell")
    done.assert_outcomes(passed=10, failed=1, skipped=1)
    done.stdout.fnmatch_lines(
        [
            "*::test_cell?Plain-layer? PASSED*",
            "*::test_cell?BuildIsTrue-build? FAILED*",
            "*::test_cell?plain-own_variables? PASSED*",
            "*BrokenContract: BuildIsTrue: build: Can Keras build it? expected *; change: build(self*",
            "SKIPPED *not asked, since `build` failed",
        ]
    )


def test_a_check_may_be_asked_of_another_cell(pytester, few_checks):
    pytester.makepyfile(OWN_TESTS)
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-k", "test_another and build")
    done.assert_outcomes(failed=1, deselected=15)


# --- compare ---


def test_a_comparison_holds_what_was_proven_and_timed():
    numbers = [keras.random.randint((), 0, 10**6).numpy() for _ in [keras.utils.set_random_seed(3)]]
    keras.utils.set_random_seed(3)
    report = compare(Plain, "gru", mode="train", kwargs={"gain": 0.5})
    assert [keras.random.randint((), 0, 10**6).numpy()] == numbers  # the caller's seeds stay as they were
    assert report.interval[0] <= report.ratio <= report.interval[1]
    assert (report.name, report.baseline, report.mode) == ("Plain in RNN", "keras GRU", "train")
    assert report.shape == TINY and report.rounds >= 6
    assert all(seconds > 0 for seconds in report.medians)
    assert (report.proof, report.kernel, report.baseline_kernel) == ("consistent", "while", "while")
    assert 0 <= report.error <= report.tolerance
    assert str(report).startswith("Plain in RNN, train b2 t3 f4 u5: ")
    assert "<td>keras GRU</td>" in report._repr_html_()


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_the_seconds_and_the_mode_are_those_of_the_timing(monkeypatch, mode):
    class Stopped(Exception):
        pass

    def stop(first, second, rounds, budget, mode, more):
        raise Stopped(budget.max_time_s, mode)

    monkeypatch.setattr("bench.timing.blocks.time_pair", stop)
    with pytest.raises(Stopped) as stopped:
        bench.compare("lstm", "gru", shape=TINY, seconds=0.25, mode=mode)
    assert stopped.value.args == (0.25, mode)


def test_both_sides_get_the_options():
    report = compare(
        Plain, lambda units: Plain(units), options={"depth": 2, "dtype": "bfloat16", "unroll": True}
    )
    assert report.options == ("bfloat16", "unroll", "depth2")
    assert report.baseline == "_lambda_ in RNN" and report.baseline_kernel == "unrolled"


def test_cells_of_one_name_are_told_apart(tmp_path):
    source = "from bench.tests.api.test_api import Plain\nclass Cell(Plain):\n    pass\n"
    files = [tmp_path / name for name in ("old.py", "new.py")]
    for file in files:
        file.write_text(source)
    report = compare(*(f"{file}:Cell" for file in files))
    assert (report.name, report.baseline) == ("Cell in RNN", "Cell_2 in RNN")


def test_a_cell_that_has_changed_is_proven_against_itself_as_it_is_now():
    """As in a notebook, where a class is written anew under its name, or gets other arguments."""
    for gain in (0.5, 2.0):
        assert compare(Plain, mode="train", kwargs={"gain": gain}).proof == "consistent"
        changed = type("Changed", (Plain,), {"__init__": partialmethod(Plain.__init__, gain=gain)})
        assert compare("lstm", changed).baseline == "Changed in RNN"


def test_a_cell_is_compared_in_one_layer_with_itself_in_another(tmp_path):
    file = tmp_path / "my-cells.py"  # a dash that names no layer
    file.write_text("from bench.tests.api.test_api import Plain\n")
    reports = [
        compare(f"{file}:Plain-fused", f"{file}:Plain"),
        compare(Plain, Plain, layer="fused", mode="train"),
        compare(f"{file}:Plain-rnn", f"{file}:Plain-fused"),
    ]
    assert [(report.name, report.baseline) for report in reports] == [
        ("Plain in FusedRNN", "Plain in RNN"),
        ("Plain in FusedRNN", "Plain in RNN"),
        ("Plain in RNN", "Plain in FusedRNN"),
    ]
    assert [report.kernel == "while" for report in reports] == [False, False, True]
    assert compare("slstm", "lstm", layer="fused").name == "slstm in FusedRNN"


class Branching(Plain):
    def call(self, inputs, states):
        h, states = super().call(inputs, states)
        return ops.cond(ops.sum(h) > 0, lambda: h, lambda: -h), states


@pytest.mark.filterwarnings("ignore:FusedRNN runs Keras' own loop")
def test_what_no_engine_of_fused_rnn_runs_is_said_to_run_in_keras_loop():
    report = compare(Branching, Branching, layer="fused")
    assert report.name == "Branching in FusedRNN" and report.in_keras_loop == ("Branching",)
    said = "no engine runs Branching: in Keras&#x27; loop"
    assert html.unescape(said) in str(report) and said in report._repr_html_()
    assert html.unescape(said) in line(report, None)
    assert compare(Plain, Plain, layer="fused", options={"depth": 2}).in_keras_loop == ()


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        ("exact", "against a reference in float64"),
        ("consistent", "against itself, run eagerly in float64"),
        ("statistical", "against itself in float64, with the dropout that it drew"),
    ],
)
def test_a_report_says_in_words_what_proved_it(proof, said):
    report = replace(report_of(0.9, 1.2), proof=proof)
    for text in (str(report), report._repr_html_(), line(report, None)):
        assert f"proven {said}" in text and proof not in text


def test_a_wrong_answer_has_no_ratio():
    with pytest.raises(WrongAnswer, match="differ from the reference"):
        compare(Mistaken)
    with pytest.raises(WrongAnswer, match="the baseline infer-Mistaken-rnn-"):
        compare("lstm", Mistaken)


def test_a_cell_that_breaks_the_contract_has_no_ratio(few_checks):
    with pytest.raises(BrokenContract, match="build: "):
        compare(BuildIsTrue, contract=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shape": (2, 3, 4)}, r"shape \(2, 3, 4\): must be \(batch_size, timesteps, features, units\)"),
        ({"shape": (2, 3, 0, 4)}, "features 0: must be a positive integer"),
        ({"shape": "2,3"}, "must be batch_size,timesteps,features,units"),
        ({"mode": "fit"}, "mode 'fit': must be one of infer, train"),
        ({"seconds": 0}, "seconds 0: must be a positive number"),
        ({"options": {"bidirectinal": True}}, "no option 'bidirectinal'; there are bidirectional"),
        ({"options": {"depth": 0}}, "depth 0: must be a positive integer"),
        ({"options": "depth"}, "--option depth: depth needs a value"),
        ({"options": 3}, "options 3: must be a mapping"),
        ({"kwargs": [1]}, r"kwargs \[1\]: must be a mapping"),
        ({"step_shape": (2, 0)}, r"step_shape \(2, 0\): must be positive integers"),
        ({"step_shape": (2, 3)}, r"step_shape \(2, 3\): has 6 features, and the shape 4"),
        ({"shape": (10**12, 3, 4, 5)}, "by the estimate it takes"),
        ({"device": "tpu"}, "device 'tpu': must be one of cpu, gpu"),
        ({"layer": "loop"}, "layer 'loop': must be one of rnn, fused, layer"),
        ({"other": "my_cells.py:A-loop"}, "my_cells.py:A-loop: layer 'loop': must be one of rnn, fused"),
        ({"other": "lstn"}, "'lstn': must be one of lstm, gru, simple_rnn, .* such as lstm"),
    ],
)
def test_what_cannot_be_compared_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        compare(Plain, **given)


def test_an_option_that_a_side_lacks_is_said():
    with pytest.raises(UnsupportedOption, match="Plain in RNN has no option use_cudnn"):
        compare(Plain, options={"use_cudnn": "auto"})


def report_of(low, high):
    return ComparisonReport(
        *("Mine", "keras LSTM", "infer", TINY, (), (low + high) / 2, (low, high), (2e-3, 1e-3)),
        *("exact", 0.0, 1e-6, "while", "while", 9),
    )


def test_at_most_fails_beyond_passes_within_and_else_says_so(recwarn):
    report_of(0.9, 1.2).assert_at_most(1.2)
    report_of(0.9, 1.2).assert_at_most(1.2, strict=True)
    assert not recwarn
    with pytest.raises(AssertionError, match=r"slower than 1\.2x: Mine, infer b2 t3 f4 u5: 1\.35x"):
        report_of(1.21, 1.5).assert_at_most(1.2)
    with pytest.warns(CannotTell, match=r"cannot tell whether it is at most 1\.2x") as warned:
        report_of(1.1, 1.3).assert_at_most(1.2)
    assert warned[0].filename == __file__
    with pytest.raises(AssertionError, match="cannot tell"):
        report_of(1.1, 1.3).assert_at_most(1.2, strict=True)
    for limit in (0, -1, float("nan"), float("inf"), True, "1.2"):
        with pytest.raises(ValueError, match="must be a positive number"):
            report_of(1.1, 1.3).assert_at_most(limit)
