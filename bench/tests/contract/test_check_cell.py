import inspect
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from bench.contract.cell_under_test import Cells, arrays, difference, gradients, variables_made, vary_weights
from bench.contract.check_cell import CHECKS, check_cell
from bench.contract.load_cell import Target, TargetError
from bench.contract.report import CheckResult
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
    "fit",
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


# --- advice: by where an error arose ---------------------------------------------------------------------


class TakesConstants(Plain):
    def call(self, inputs, states, constants):
        return super().call(inputs + constants[0], states)


class TakesTwoInputs(Plain):
    def build(self, input_shape):
        super().build(input_shape[0])

    def call(self, inputs, states):
        x, elapsed = inputs
        h = states[0] + elapsed * self.next(x, states[0])
        return h, [h]


class UnpacksTwoInputs(Plain):
    """Builds as any cell does, and fails in call."""

    def build(self, input_shape):
        super().build(input_shape[0] if isinstance(input_shape[0], tuple) else input_shape)

    def call(self, inputs, states):
        x, elapsed = inputs
        h = self.next(x + elapsed, states[0])
        return h, [h]


class Residual(OneIntegerState):
    def call(self, inputs, states):
        h = inputs + ops.tanh(self.mix(inputs, states[0]))
        return h, [h]


class NineFeatures(Plain):
    def build(self, input_shape):
        super().build((None, 9))


class Images(keras.layers.Layer):
    """Steps and states are images of 6 x 6, of one channel and of `units`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.state_size = units, [(6, 6, units)]
        self.of_input, self.of_state = (keras.layers.Conv2D(units, 3, padding="same") for _ in range(2))

    def build(self, input_shape):
        self.of_input.build(input_shape)
        self.of_state.build((None, *self.state_size[0]))

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, *self.state_size[0]), dtype=self.compute_dtype)]

    def call(self, inputs, states):
        h = ops.tanh(self.of_input(inputs) + self.of_state(states[0]))
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class ComplexStates(Plain):
    def get_initial_state(self, batch_size=None):
        return [ops.cast(ops.zeros((batch_size, self.units)), "complex64")]


class ReturnsComplexStates(Plain):
    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        return h, [ops.cast(h, "complex64")]


class BuiltBefore(Plain):
    """Its build is guarded by the flag that Keras sets, which it sets itself."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.built = True

    def build(self, input_shape):
        if not self.built:
            super().build(input_shape)
            self.gain = 1.0

    def call(self, inputs, states):
        h = ops.tanh(self.gain * states[0])
        return h, [h]


class StopsEagerExecution(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        tf.compat.v1.disable_eager_execution()


class RootAtTheStart(Plain):
    """The root of a state of zeros has no gradient."""

    def next(self, inputs, state):
        return super().next(inputs, state) + ops.sqrt(ops.square(ops.matmul(state, self.recurrent_kernel)))


class RaisesInItsInitialState(Plain):
    def get_initial_state(self, batch_size=None):
        if batch_size > 1:
            raise ValueError("one sample at a time")
        return [ops.zeros((batch_size, self.units))]


class Keras2Layer:
    def __init__(self, units):
        self.state_size = units


Keras2Layer.__module__ = "tf_keras.src.engine.base_layer"


class OfKeras2(Keras2Layer):
    pass


class TooWide(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = 2 * units


class OneStateSaid(Plain):
    def call(self, inputs, states):
        h, c = states
        h = self.next(inputs, h)
        return h, [h, 0.5 * c]


class SpansMany(keras.layers.Layer):
    """Runs a sequence, as a layer does."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.rnn = keras.layers.SimpleRNN(units)

    def call(self, inputs, training=False):
        return self.rnn(inputs)


class Misspelt(Plain):
    def call(self, inputs, states):
        h = ops.matmul(inputs, self.kernal)
        return h, [h]


class MisspeltOperation(Plain):
    def activate(self, z):
        return ops.sigmoyd(z)


class NeverMade(Plain):
    def activate(self, z):
        return self.temperature * z


class NotImported(Plain):
    def activate(self, z):
        return no_such_module.tanh(z)  # noqa: F821


class WrongWayRound(Plain):
    def activate(self, z):
        return ops.matmul(self.kernel, z)


class ReturnsNumPy(Plain):
    def activate(self, z):
        return np.tanh(z)

    def next(self, inputs, state):
        return np.asarray(super().next(inputs, state))


class Zellé(Plain):
    pass


@pytest.mark.parametrize(
    ("check", "factory", "words"),
    [
        ("call", Misspelt, "change: did you mean self.kernel?"),
        ("call", MisspeltOperation, "change: did you mean keras.ops.sigmoid?"),
        ("call", NeverMade, "change: there is no self.temperature: set it in __init__ or build"),
        ("call", NotImported, "change: import or define no_such_module"),
        ("call", WrongWayRound, "change: mend this line: call(self, inputs, states) is given one step"),
        ("call", ReturnsNumPy, "change: use keras.ops in call, not NumPy"),
        ("graph", Zellé, "change: name the class in letters of ASCII"),
        ("call", TooWide, "state_size is 32, and call takes one state of 16, the units: set self.state_size"),
        ("call", OneStateSaid, "call takes two states of 16, the units: set self.state_size so that it is"),
        ("state_shapes", BROKEN["GrowingState"][0], "or let state_size say another"),
        ("layer", keras.layers.LSTM, "ask a whole layer with --layer"),
        ("layer", SpansMany, "ask a whole layer with --layer"),
        ("call", TakesConstants, "Keras 3 passes no constants to a cell"),
        ("build", TakesTwoInputs, "Keras 3 passes one tensor a step, not two"),
        ("call", UnpacksTwoInputs, "Keras 3 passes one tensor a step, not two"),
        ("call", Residual, "ask with --features=16"),
        ("call", NineFeatures, "ask with --features=9"),
        ("build", Images, "--step-shape=6,6,1"),
        ("initial_state_shapes", ComplexStates, "the real and the imaginary part as two states"),
        ("state_dtypes", ReturnsComplexStates, "the real and the imaginary part as two states"),
        ("call", BuiltBefore, "make self.gain each time: build did not come to"),
        ("own_variables", StopsEagerExecution, "leave eager execution"),
        ("weight_gradients", RootAtTheStart, "the cell's own initial state"),
        ("unroll", RaisesInItsInitialState, "get_initial_state(self, batch_size=None) return one tensor"),
        ("layer", OfKeras2, "a layer of Keras 2; change: import keras from `keras`"),
        ("fit", BROKEN["AddsALoss"][0], "no add_loss"),
    ],
)
def test_advice_follows_from_where_the_error_arose(check, factory, words):
    result = only(check, factory)
    assert result.status == "failed"
    assert words in result.text
    assert "`built`" not in result.text or factory is BuiltBefore


def test_a_step_that_is_an_image_is_asked_with_its_shape():
    report = check_cell(Images, units=4, features=(6, 6, 1))
    assert report.ok, [result.text for result in report.failed]


# --- training --------------------------------------------------------------------------------------------


class NormalisesBatch(Plain):
    def build(self, input_shape):
        super().build(input_shape)
        self.norm = keras.layers.BatchNormalization()
        self.norm.build((None, self.units))

    def call(self, inputs, states, training=False):
        h = ops.tanh(self.norm(ops.matmul(inputs, self.kernel), training=training) + self.bias + states[0])
        return h, [h + ops.matmul(h, self.recurrent_kernel)]


class SoftInTraining(Plain):
    def call(self, inputs, states, training=False):
        z = self.next(inputs, states[0])
        h = z if training else ops.clip(z, -0.1, 0.1)
        return h, [h]


class AlwaysDrops(Plain):
    """A rate that is no argument, and the same mask each time."""

    def call(self, inputs, states, training=False):
        inputs = keras.random.dropout(inputs, 0.5, seed=7) if training else inputs
        return super().call(inputs, states)


@pytest.mark.parametrize("factory", [NormalisesBatch, SoftInTraining])
def test_what_differs_in_training_without_chance_is_no_dropout(factory):
    result = only("dropout", factory)
    assert result.status == "skipped"
    assert "seed" not in result.text and "draws nothing at random" in result.text


def test_a_mask_that_never_changes_is_told_from_what_draws_nothing():
    assert "the same mask twice" in only("dropout", AlwaysDrops).text


def test_samples_that_depend_on_each_other_in_training_are_a_hint():
    assert "in training the samples" in only("independent_samples", NormalisesBatch).hint
    assert only("independent_samples", SoftInTraining).hint == ""


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


class StartsInFloat64(Plain):
    def get_initial_state(self, batch_size=None):
        return [np.zeros((batch_size, self.units))]


class MayTakeConstants(Plain):
    def call(self, inputs, states, constants=None):
        return super().call(inputs, states)


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
        ("initial_state_shapes", StartsInFloat64, "which Keras casts to the compute dtype, float32"),
        ("call", MayTakeConstants, "Keras 3 passes no constants to a cell"),
        ("units", NoWeights, "its width does not follow units"),
        ("fit", ODD["OnItsOwnTerms"][0], "run_eagerly=True"),
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


class Forgetful(Plain):
    """Says nothing of its arguments but `units`."""

    def __init__(
        self, units, gain=1.0, activation="tanh", rows=1, squared=False, dropout=0.0, idle=3, **kwargs
    ):
        super().__init__(units, **kwargs)
        self.gain, self.function = gain, keras.activations.get(activation)
        self.rows, self.squared = rows, squared
        self.drop = keras.layers.Dropout(dropout, seed=1)
        self.said = {}

    def build(self, input_shape):
        super().build(input_shape)
        self.extra = self.add_weight((self.rows, self.units), name="extra")

    def call(self, inputs, states, training=False):
        h = self.next(self.drop(self.gain * inputs, training=training), states[0])
        h = self.function(h + ops.sum(self.extra, axis=0))
        return (h**2 if self.squared else h), [h]

    def get_config(self):
        of_layer = keras.layers.Layer.get_config(self)
        return {**of_layer, "units": self.units, **self.said}


@pytest.mark.parametrize("lost", ["gain", "activation", "rows", "squared", "dropout"])
def test_an_argument_that_get_config_loses_is_found_without_being_given(lost):
    """Whatever its kind, and only if the cell heeds it."""

    class Losing(Forgetful):
        def __init__(self, units, **kwargs):
            super().__init__(units, **kwargs)
            names = ("gain", "activation", "rows", "squared", "dropout", "idle")
            defaults = (1.0, "tanh", 1, False, 0.0, 3)
            given = {name: kwargs.get(name, default) for name, default in zip(names, defaults, strict=True)}
            self.said = {name: given[name] for name in given if name not in (lost, "idle")}

    Losing.__init__.__signature__ = inspect.signature(Forgetful.__init__)
    result = only("get_config", Losing)
    assert result.status == "failed"
    assert f"get_config to say the argument {lost};" in result.text and "idle" not in result.text
