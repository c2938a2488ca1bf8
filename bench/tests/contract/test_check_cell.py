import random

import keras
import numpy as np
import pytest
from keras import ops

from bench.contract.cell_under_test import Cells, arrays, difference, gradients, variables_made, vary_weights
from bench.contract.check_cell import CHECKS, CheckResult, check_cell
from bench.contract.load_cell import Target, TargetError
from bench.tests.broken_cells import BROKEN, Plain
from bench.tests.odd_cells import ODD, MatrixState, NoWeights, OneIntegerState, SubLayers

# Half of the time of a whole contract: asked of the odd cells, and of the broken ones that they must refuse.
SLOW = {
    "xla",
    "any_batch_size",
    "any_timesteps",
    "mask",
    "mask_gradients",
    "save_load",
    "stacked",
    "bidirectional",
    "float64",
    "gradient",
    "mixed_float16",
    "mixed_bfloat16",
    "dropout",
}


def named(*names):
    return [check for check in CHECKS if check.name in names]


def only(name, factory, **options):
    """What one check says of a cell."""
    (result,) = check_cell(factory, checks=named(name), **options).checks
    return result


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_cell_fails_the_checks_it_breaks_and_no_other(name):
    factory, must_fail = BROKEN[name]
    asked = [check for check in CHECKS if check.name in must_fail or check.name not in SLOW]
    report = check_cell(factory, checks=asked)
    assert {result.name for result in report.failed} == must_fail, [r.text for r in report.failed]
    assert not report.ok


def test_every_check_refuses_a_broken_cell():
    assert set().union(*(must_fail for _, must_fail in BROKEN.values())) == {check.name for check in CHECKS}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_but_right_cell_passes_all_checks_that_apply(name):
    factory, skipped = ODD[name]
    report = check_cell(factory)
    assert report.ok, [result.text for result in report.failed]
    assert {result.name for result in report.having("skipped")} == skipped
    assert [result.name for result in report.checks] == [check.name for check in CHECKS]


def test_the_table_names_each_check_once_and_what_it_needs_before_it():
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for index, check in enumerate(CHECKS):
        assert set(check.needs) <= set(names[:index])
        assert check.question.endswith("?") and check.change


def test_a_check_that_needs_a_failed_one_is_not_asked_and_names_it():
    report = check_cell(BROKEN["BuildIsTrue"][0])
    results = {result.name: result for result in report.checks}
    for name in ("own_variables", "call", "graph", "gradient"):  # `gradient` needs it by way of others
        assert results[name] == CheckResult(name, "skipped", "not asked, since `build` failed")


def line_of(source):
    """The line in broken_cells.py that holds this source."""
    with open(BROKEN["OldSignature"][0].build.__code__.co_filename) as file:
        return next(number for number, line in enumerate(file, 1) if source in line)


@pytest.mark.parametrize(
    ("check", "cell", "source"),
    [
        ("graph", "ChecksItsInputsInPython", "if float(ops.max(ops.abs(z))) > 1e6"),  # the line that raises
        ("build", "BuildIsTrue", "self.build = True"),
        ("state_size", "StateSizeIsTensorShape", "self.state_size = tf.TensorShape"),
        ("weights_tracked", "RawVariable", "self.scale = tf.Variable"),
        ("hidden_state", "RemembersInAList", "self.memory.append"),
        ("get_initial_state", "OldSignature", "def get_initial_state(self, inputs, batch_size, dtype)"),
        ("layer", "whole_layer", "def whole_layer(units)"),
    ],
)
def test_a_failure_names_the_line_to_change(check, cell, source):
    assert f"broken_cells.py:{line_of(source)}" in only(check, BROKEN[cell][0]).hint


@pytest.mark.parametrize(
    ("check", "cell", "words"),
    [
        ("get_initial_state", "OldSignature", "the signature of Keras 2"),
        ("initial_state_shapes", "OldSignatureWithDefaults", "the signature of Keras 2"),
        ("initial_state_shapes", "MatrixReadAsTwoStates", "means 2 states"),
        ("state_size", "StateSizeIsTensorShape", "Keras 3 takes no tf.TensorShape"),
        ("build", "BuildIsTrue", "the flag that Keras sets by itself is called `built`"),
        ("sublayers_built", "UnbuiltDense", "call self.dense.build(shape) in build"),
        ("hidden_state", "KeepsItsStateInAnAttribute", "self.previous"),
        ("weights_tracked", "WeightInADrawer", "scale (16,)"),
        ("get_config", "ConfigWithoutUnits", "missing 1 required positional argument: 'units'"),
        ("weight_gradients", "ExcusesAWeightItHasNot", "kernels"),
    ],
)
def test_a_failure_says_what_people_get_wrong(check, cell, words):
    result = only(check, BROKEN[cell][0])
    assert result.status == "failed"
    assert words in result.text


def test_a_failure_is_one_sentence_of_expected_seen_and_change():
    text = only("output_size", BROKEN["WrongOutputSize"][0]).text
    assert text.startswith(
        "expected output_size to say the size of the output (3, 16); seen 17; "
        "change: set self.output_size = 16 in __init__"
    )


# --- hints: what is good to know of a cell that passes ------------------------------------------------


class NoMoreThanPasses(Plain):
    """Starts from twos; its config leaves out an argument; it counts its calls to no effect."""

    def __init__(self, units, verbose=False, **kwargs):
        super().__init__(units, **kwargs)
        self.calls = 0

    def get_initial_state(self, batch_size=None):
        return [ops.full((batch_size, self.units), 2.0)]

    def call(self, inputs, states):
        self.calls += 1
        return super().call(inputs, states)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.mark.parametrize(
    ("check", "factory", "words"),
    [
        ("initial_state", NoMoreThanPasses, "reset_state() and a second build overwrite it with zeros"),
        ("initial_state", NoMoreThanPasses, "cells.RNN"),
        ("get_config", NoMoreThanPasses, "verbose"),
        ("hidden_state", NoMoreThanPasses, "self.calls"),
        ("get_initial_state", SubLayers, "inputs and dtype are left out by Keras 3"),
        ("return_state", MatrixState, "says other shapes for the states"),
        ("state_structure", BROKEN["BareState"][0], "bare state"),
        ("save_load", OneIntegerState, "register_keras_serializable"),
    ],
)
def test_what_keras_does_to_every_such_cell_is_a_hint(check, factory, words):
    result = only(check, factory)
    assert result.status == "ok"
    assert words in result.hint


@pytest.mark.parametrize(
    "check", ["initial_state", "get_config", "hidden_state", "get_initial_state", "return_state", "save_load"]
)
def test_an_ordinary_cell_has_no_hints(check):
    result = only(check, keras.layers.LSTMCell)
    assert (result.status, result.hint) == ("ok", "")


def test_a_registered_class_needs_no_hint():
    @keras.saving.register_keras_serializable("bench_tests")
    class Registered(OneIntegerState):
        pass

    assert only("save_load", Registered).hint == ""


# --- the ways to ask ---------------------------------------------------------------------------------


def test_a_constructor_that_raises_is_a_target_error():
    with pytest.raises(TargetError, match="expected a positive integer, got -1"):
        check_cell(keras.layers.LSTMCell, units=-1)


def test_a_cell_that_needs_as_many_features_as_units_is_asked_with_them():
    class Residual(OneIntegerState):
        def call(self, inputs, states):
            h = inputs + ops.tanh(self.mix(inputs, states[0]))
            return h, [h]

    checks = named("call", "stacked", "any_batch_size")
    assert not check_cell(Residual, checks=checks).ok
    assert check_cell(Residual, units=6, features=6, checks=checks).ok


def test_the_targets_own_arguments_are_used():
    target = Target("LSTMCell", keras.layers.LSTMCell, kwargs={"activation": "nonsense"})
    with pytest.raises(TargetError, match="nonsense"):
        check_cell(target)


def test_nothing_global_is_changed():
    keras.config.enable_traceback_filtering()
    before = random.getstate(), np.random.get_state()[1].tolist(), keras.config.dtype_policy()
    check_cell(NoWeights, checks=named("call", "float64", "mixed_float16"))
    assert (random.getstate(), np.random.get_state()[1].tolist(), keras.config.dtype_policy()) == before
    assert keras.config.is_traceback_filtering_enabled()
    assert keras.config.floatx() == "float32"


# --- the tools ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "expected", "found"),
    [
        ([1.0, 2.5], [1.0, 2.0], 0.25),  # relative to the largest number
        ([0.1], [0.2], 0.1),  # or to 1
        ([[1.0]], [1.0], np.inf),
        ([np.nan], [1.0], np.inf),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([1.0], [np.inf], np.inf),
    ],
)
def test_difference(seen, expected, found):
    assert difference(np.array(seen), np.array(expected)) == pytest.approx(found)


def test_difference_of_other_numbers_of_tensors():
    assert difference([np.ones(2)], [np.ones(2), np.ones(2)]) == np.inf


def test_weights_are_moved_without_changing_signs_and_within_their_constraints():
    layer = keras.layers.Dense(50, kernel_constraint="unit_norm")
    layer.build((None, 50))
    before = arrays(layer.weights)
    vary_weights(layer, seed=0)
    kernel, bias = arrays(layer.weights)
    assert np.all(np.sign(kernel) == np.sign(before[0])) and not np.any(kernel == before[0])
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-5)
    assert np.all(bias > 0)


def test_cells_of_one_seed_have_the_same_weights_and_of_another_others():
    cells = Cells(Target.of(Plain), units=5, step_shape=(3,))
    one, same, other = cells.built(1), cells.built(1), cells.built(2)
    assert difference(one.weights, same.weights) == 0
    assert all(difference(a, b) > 0 for a, b in zip(one.weights, other.weights, strict=True))


def test_gradients_of_variables_tensors_and_what_is_not_used():
    weight, unused = keras.Variable([3.0]), keras.Variable([1.0])
    found = gradients(lambda: ops.sum(weight * weight), [weight, unused])
    np.testing.assert_allclose(found[0], [6.0])
    assert found[1] is None


def test_variables_made_are_noticed():
    assert variables_made(lambda: keras.Variable([1.0], name="late")) == ["late"]
    assert variables_made(lambda: ops.ones(1)) == []
