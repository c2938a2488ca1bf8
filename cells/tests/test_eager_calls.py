"""Eager calls of `FusedRNN`: traced as a whole where they come again, whatever happens between them."""

import copy
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from keras.src.backend.common.variables import AutocastScope  # no public name

import cells
from cells.engines import direct
from cells.tests.support import arrays, assert_same

BATCH, TIMESTEPS, FEATURES, UNITS = 3, 5, 2, 4
INPUTS = np.random.default_rng(0).normal(size=(BATCH, TIMESTEPS, FEATURES)).astype("float32")
MASK = np.random.default_rng(1).random((BATCH, TIMESTEPS)) > 0.4
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
AGAIN = 4  # calls: one that sees, one that traces, two more


@pytest.fixture(autouse=True, scope="module")
def tensors():
    """Makes tensors of them, once tests run: to make one starts TensorFlow."""
    global INPUTS, MASK
    INPUTS, MASK = tf.constant(INPUTS), tf.constant(MASK)


@keras.saving.register_keras_serializable("test_eager_calls")
class PlainCell(keras.layers.Layer):
    """h' = tanh(rate (x W + h U)), whose `call` is traced."""

    def __init__(self, units=UNITS, rate=1.0, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.rate = rate

    def get_config(self):
        return {**super().get_config(), "units": self.units, "rate": self.rate}

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units))
        self.recurrent = self.add_weight(shape=(self.units, self.units), initializer="orthogonal")

    def call(self, inputs, states):
        h = ops.tanh(self.rate * (inputs @ self.kernel + states[0] @ self.recurrent))
        return h, [h]


CELLS = {
    "plain": PlainCell,
    "gated": lambda: cells.LSTMCell(UNITS),
    "keras": lambda: keras.layers.GRUCell(UNITS),
    "stacked": lambda: keras.layers.StackedRNNCells([PlainCell(), PlainCell(2)]),
}


def pair(cell="plain", **options):
    """(`FusedRNN`, `keras.layers.RNN`) with the same weights."""
    fused, expected = (kind(CELLS[cell](), **options) for kind in (cells.FusedRNN, keras.layers.RNN))
    for layer in (fused, expected):
        layer.build(INPUTS.shape)
    expected.set_weights(fused.get_weights())
    return fused, expected


def assert_calls_are_the_same(fused, expected, inputs=None, **given):
    inputs = INPUTS if inputs is None else inputs
    for _ in range(AGAIN):
        assert_same(fused(inputs, **given), expected(inputs, **given), **CLOSE)


def traces(layer):
    return layer._calls._traces


@pytest.mark.parametrize("cell", CELLS)
def test_a_call_that_comes_again_is_one_function(cell, monkeypatch):
    fused, expected = pair(cell)
    assert_calls_are_the_same(fused, expected)
    assert traces(fused) == 1
    wanted = expected(INPUTS)

    def fail(*_):
        raise AssertionError("Python's part of a call was run again")

    monkeypatch.setattr(cells.FusedRNN, "inner_loop", fail)
    monkeypatch.setattr(keras.layers.RNN, "call", fail)
    assert_same(fused(INPUTS), wanted, **CLOSE)


@pytest.mark.parametrize("cell", ["plain", "gated"])
@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"return_sequences": True, "return_state": True}, {"mask": "given"}),
        ({"zero_output_for_mask": True, "return_sequences": True}, {"mask": "given"}),
        ({"go_backwards": True}, {"initial_state": "given"}),
        ({"stateful": True}, {}),
    ],
)
def test_each_way_to_call_is_traced_for_itself(cell, options, given):
    fused, expected = pair(cell, **options)
    if given.get("initial_state"):
        states = [tf.ones((BATCH, UNITS))] * len(fused.state_size)
        given = {"initial_state": states}
    if given.get("mask"):
        given = {"mask": MASK}
    assert_calls_are_the_same(fused, expected)
    assert_calls_are_the_same(fused, expected, **given)
    assert_calls_are_the_same(fused, expected)
    assert traces(fused) == (2 if "mask" in given else 1)  # given states are as those of zeros


def test_states_go_on_and_are_reset():
    fused, expected = pair(stateful=True, return_sequences=True)
    assert_calls_are_the_same(fused, expected)
    for layer in (fused, expected):
        layer.reset_state()
    assert_calls_are_the_same(fused, expected)


def change_rate(layer):
    layer.cell.rate = 0.5


def change_activation(layer):
    layer.cell.activation = keras.activations.relu


def change_weights(layer):
    layer.set_weights([0.5 * weight for weight in layer.get_weights()])


def replace_variable(layer):
    """As quantisation does: what a weight of Keras' holds is another variable."""
    weight = layer.cell.kernel
    weight._value = tf.Variable(0.5 * weight._value)


def freeze(layer):
    layer.trainable = False


def return_sequences(layer):
    layer.return_sequences = True


def go_backwards(layer):
    layer.go_backwards = True


@pytest.mark.parametrize(
    ("cell", "change"),
    [
        ("plain", change_rate),
        ("gated", change_activation),
        ("keras", change_activation),
        ("plain", replace_variable),
        ("gated", replace_variable),
        ("keras", replace_variable),
        *((cell, each) for cell in ("plain", "gated") for each in (change_weights, freeze)),
        *((cell, each) for cell in ("plain", "gated") for each in (return_sequences, go_backwards)),
    ],
)
def test_a_change_between_calls_is_heeded(cell, change):
    fused, expected = pair(cell)
    assert_calls_are_the_same(fused, expected)
    before = arrays(fused(INPUTS))
    for layer in (fused, expected):
        change(layer)
    assert_calls_are_the_same(fused, expected)
    if change is not freeze:
        after = arrays(fused(INPUTS))
        assert before[0].shape != after[0].shape or np.abs(before[0] - after[0]).max() > 1e-3


@pytest.mark.parametrize("cell", ["plain", "gated"])
def test_gradients_are_those_of_keras_after_calls_without(cell):
    fused, expected = pair(cell)
    assert_calls_are_the_same(fused, expected)

    def gradients(layer):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(INPUTS, training=True) ** 2)
        return tape.gradient(total, [each.value for each in layer.trainable_variables])

    for _ in range(2):
        assert_same(gradients(fused), gradients(expected), **CLOSE)
    fused.trainable = False
    assert not fused.trainable_variables
    fused.trainable = True
    assert_same(gradients(fused), gradients(expected), **CLOSE)


def test_a_call_without_training_draws_its_masks_all_the_same():
    """Keras draws them before the loop, whoever uses them: the next numbers are others."""
    fused, expected = (
        kind(keras.layers.LSTMCell(UNITS, dropout=0.5, seed=3)) for kind in (cells.FusedRNN, keras.layers.RNN)
    )
    for layer in (fused, expected):
        layer.build(INPUTS.shape)
    expected.set_weights(fused.get_weights())
    for training in (False, True, True, False, True, False, True):
        both = [layer(INPUTS, training=training) for layer in (fused, expected)]
        assert_same(*both, **CLOSE)
        seeds = [layer.cell.seed_generator.state.numpy() for layer in (fused, expected)]
        np.testing.assert_array_equal(*seeds)
    assert traces(fused) == 2


def test_a_changed_dropout_is_heeded():
    fused, expected = pair("keras")
    assert_calls_are_the_same(fused, expected)
    seeds = []
    for layer in (fused, expected):
        layer.cell.dropout = 0.5
        layer(INPUTS)
        seeds.append(layer.cell.seed_generator.state.numpy()[1])
    assert seeds[0] == seeds[1] > 0


def test_weights_of_a_stateless_call_are_those_given():
    fused, _ = pair()
    trainable = [variable.value for variable in fused.trainable_variables]
    others = [variable.value for variable in fused.non_trainable_variables]
    plain = arrays(fused(INPUTS))
    for _ in range(AGAIN):
        same, _ = fused.stateless_call(trainable, others, INPUTS)
        zeros, _ = fused.stateless_call([tf.zeros_like(each) for each in trainable], others, INPUTS)
        assert_same(same, plain, **CLOSE)
        assert not np.any(zeros)
        assert_same(fused(INPUTS), plain, **CLOSE)


def test_the_precision_that_a_caller_asks_for_is_its_own():
    fused, expected = pair("gated")
    assert_calls_are_the_same(fused, expected)
    with AutocastScope("float16"):
        halves = [arrays(fused.call(INPUTS)) for _ in range(AGAIN)]
    assert_same(halves[-1], halves[0], **CLOSE)
    assert traces(fused) == 2
    assert_calls_are_the_same(fused, expected)


def test_layers_share_a_cell():
    fused, expected = pair()
    other = cells.FusedRNN(fused.cell, return_sequences=True)
    for scale in (1.0, 0.5):
        expected.set_weights([scale * weight for weight in expected.get_weights()])
        fused.set_weights(expected.get_weights())
        assert_calls_are_the_same(fused, expected)
        for _ in range(AGAIN):
            assert_same(other(INPUTS)[:, -1], expected(INPUTS), **CLOSE)


def test_threads_share_a_layer():
    fused, expected = pair()
    inputs = [INPUTS[: 1 + n % 2] for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fused, inputs))
    for one, other in zip(found, map(expected, inputs), strict=True):
        assert_same(one, other, **CLOSE)


def test_a_layer_that_was_called_is_copied_saved_and_loaded(tmp_path):
    model = keras.Sequential([keras.Input((TIMESTEPS, FEATURES)), cells.FusedRNN(PlainCell())])
    plain = arrays(model(INPUTS))
    for _ in range(AGAIN):
        model(INPUTS)
    copied = copy.deepcopy(model.layers[0])
    model.save(tmp_path / "model.keras")
    for each in (copied, keras.models.load_model(tmp_path / "model.keras")):
        for _ in range(AGAIN):
            assert_same(each(INPUTS), plain, **CLOSE)
        each.set_weights([0 * weight for weight in each.get_weights()])
        assert not np.any(each(INPUTS))
    assert_same(model(INPUTS), plain, **CLOSE)


def test_ever_new_shapes_are_not_traced_each():
    fused, expected = pair()
    for _ in range(3):
        for steps in range(1, direct.MOST_SIGNATURES + 5):
            fused(INPUTS[:1, :1] * tf.ones((1, steps, 1)))
    assert traces(fused) == len(fused._calls._seen) == direct.MOST_SIGNATURES
    assert_calls_are_the_same(fused, expected)


def test_ever_new_weights_are_not_traced_each():
    fused, expected = pair("gated")
    for _ in range(2 * direct.MOST_SIGNATURES):
        for layer in (fused, expected):
            replace_variable(layer)
        found = fused(INPUTS)
    assert traces(fused) == direct.MOST_SIGNATURES
    assert_same(found, expected(INPUTS), **CLOSE)


@pytest.mark.parametrize("cell", ["plain", "gated", "keras"])
def test_training_runs_little_python(cell):
    """No `tf.function` looks at its arguments, and what follows the loop back is one call."""
    fused, _ = pair(cell)

    def gradient():
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(fused(INPUTS, training=True))
        return tape.gradient(total, fused.cell.kernel.value)

    first = gradient()
    with pytest.MonkeyPatch.context() as patched:
        kind = type(tf.function(lambda: None))
        patched.setattr(kind, "__call__", lambda *_: pytest.fail("a tf.function looked at its arguments"))
        patched.setattr(tf, "matmul", lambda *_, **__: pytest.fail("a product was called by itself"))
        again = gradient()
    assert_same(again, first, **CLOSE)


def test_a_bad_call_is_told_as_before():
    fused, _ = pair(stateful=True)
    for _ in range(AGAIN):
        with pytest.raises(ValueError, match="batch size"):
            fused(INPUTS[:1])
    other, _ = pair()
    for _ in range(AGAIN):
        with pytest.raises(ValueError, match="does not fit"):
            other(INPUTS, mask=MASK[:, :2])
