"""`FusedRNN` against `keras.layers.RNN` for plain Keras cells, whose `call` is traced.

Each cell needs another rewrite of its step, or is refused for another reason.
"""

import os
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers, ops

from cells import FusedRNN, MultiplicativeLSTMCell, ProjectedLSTMCell
from cells.engines import native
from cells.engines.native import translation
from cells.engines.tracing.native_loop import gates_of
from cells.engines.tracing.nodes import Level, Refused
from cells.engines.tracing.plan import light_work_in_the_loop, plan_of
from cells.engines.tracing.staged_loop import staged
from cells.engines.tracing.trace import trace
from cells.tests.support import arrays, assert_same

BATCH, TIMESTEPS, FEATURES, UNITS = 3, 5, 2, 4
INPUTS = np.random.default_rng(0).normal(size=(BATCH, TIMESTEPS, FEATURES)).astype("float32")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # of a largest value of the order of 1


class PlainCell(layers.Layer):
    """h' = tanh(x W + h U): what the cells here begin with."""

    def __init__(self, units=UNITS, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    def weight(self, *shape):
        initializer = keras.initializers.RandomNormal(stddev=0.5, seed=len(self.weights))
        return self.add_weight(shape=shape, initializer=initializer)

    def build(self, input_shape):
        self.kernel, self.recurrent = (
            self.weight(input_shape[-1], self.units),
            self.weight(self.units, self.units),
        )

    def next(self, inputs, h):
        return ops.tanh(inputs @ self.kernel + h @ self.recurrent)

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        return h, [h]


@keras.saving.register_keras_serializable("test_engines")
class OneDenseCell(PlainCell):
    """A sub-layer over [x, h]."""

    def __init__(self, units=UNITS, **kwargs):
        super().__init__(units, **kwargs)
        self.dense = layers.Dense(units, activation="tanh", kernel_initializer="orthogonal")

    def build(self, input_shape):
        self.dense.build((None, input_shape[-1] + self.units))

    def call(self, inputs, states):
        h = self.dense(ops.concatenate([inputs, states[0]], axis=-1))
        return h, [h]


class UnbuiltCell(OneDenseCell):
    """A sub-layer that the first call builds."""

    def build(self, input_shape):
        pass


class FourWeightsCell(PlainCell):
    """An LSTM with weights for each gate, two biases, and its memory before its output."""

    def __init__(self, units=UNITS, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [units, units]

    def build(self, input_shape):
        self.kernels = [self.weight(input_shape[-1], self.units) for _ in range(4)]
        self.recurrents = [self.weight(self.units, self.units) for _ in range(4)]
        self.biases = [self.weight(self.units) for _ in range(4)]

    def call(self, inputs, states):
        c, h = states
        weights = zip(self.kernels, self.recurrents, self.biases, strict=True)
        i, f, g, o = ((ops.dot(inputs, w) + ops.dot(h, u)) + b + ops.tanh(b) for w, u, b in weights)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        h = ops.sigmoid(o) * ops.tanh(c)
        return h, [c, h]


class SlicesCell(PlainCell):
    """A GRU of slices, one of whose gates wants its products apart."""

    def build(self, input_shape):
        self.kernel, self.recurrent = self.weight(input_shape[-1], 12), self.weight(4, 12)
        self.bias = self.weight(12)

    def call(self, inputs, states):
        h = states[0]
        x, r = inputs @ self.kernel + self.bias + ops.tanh(self.bias), h @ self.recurrent + self.bias
        z, k = ops.sigmoid(x[:, :4] + r[:, :4]), ops.sigmoid(x[:, 4:8] + r[:, 4:8])
        h = z * h + (1 - z) * ops.tanh(x[:, 8:] + k * r[:, 8:])
        return h, [h]


class LateCell(PlainCell):
    """A product of a function of the others, a weight and an array in the equation, and swish."""

    def build(self, input_shape):
        super().build(input_shape)
        self.gate, self.scale = self.weight(self.units, self.units), self.weight(self.units)
        self.fixed = np.linspace(0.5, 1.5, self.units).astype("float32")

    def call(self, inputs, states):
        h = states[0]
        f = ops.sigmoid(h @ self.gate) * self.fixed
        h = f * h + ops.silu(inputs @ self.kernel + (self.scale * f * h) @ self.recurrent)
        return h, [h]


class WidthsCell(PlainCell):
    """A chain of products of several widths, and states of several."""

    def __init__(self, units=UNITS, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [units, 2]

    def build(self, input_shape):
        self.kernel, self.down = self.weight(input_shape[-1] + self.units, 3), self.weight(3, 2)
        self.up = self.weight(2, self.units)

    def call(self, inputs, states):
        h, m = states
        m = 0.5 * m + ops.tanh(ops.relu(ops.concatenate([inputs, h], 1) @ self.kernel) @ self.down)
        h = ops.tanh(m @ self.up)
        return h, (h, m)


class LastInputCell(PlainCell):
    """A state that is the last input, and an output layer that is no state."""

    def __init__(self, units=UNITS, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [FEATURES, units]

    def build(self, input_shape):
        super().build(input_shape)
        self.kernel, self.last = self.weight(FEATURES, self.units), self.weight(FEATURES, self.units)
        self.top = self.weight(self.units, 3)

    def call(self, inputs, states):
        last, c = states
        z = inputs @ self.kernel + last @ self.last
        f = ops.sigmoid(z)
        c = f * c + (1 - f) * ops.tanh(z)
        return c @ self.top + inputs[:, :1], [inputs, c]


class NormalisedCell(PlainCell):
    """Layer norm of what is known before the loop and of what is not, and a softmax."""

    def __init__(self, units=UNITS, **kwargs):
        super().__init__(units, **kwargs)
        self.before, self.inside = (layers.LayerNormalization(dtype=self.dtype_policy) for _ in range(2))

    def build(self, input_shape):
        super().build(input_shape)
        self.before.build((None, self.units))
        self.inside.build((None, self.units))

    def call(self, inputs, states):
        h = states[0]
        h = self.before(inputs @ self.kernel) + ops.softmax(self.inside(h @ self.recurrent))
        return h, [h]


class HighwayCell(PlainCell):
    """Two products one after another in a step."""

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        h = h * ops.sigmoid(h @ self.recurrent)
        return h, [h]


class MatrixCell(PlainCell):
    """A matrix of memories, written by an outer product and read by a product with it."""

    def __init__(self, units=UNITS, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [(3, units)]

    def get_initial_state(self, batch_size=None):
        return [ops.ones((batch_size, 3, self.units))]

    def build(self, input_shape):
        self.key, self.value = self.weight(input_shape[-1], 3), self.weight(input_shape[-1], self.units)
        self.mix = self.weight(self.units, self.units)

    def call(self, inputs, states):
        key, value = inputs @ self.key, inputs @ self.value
        memory = 0.5 * ops.einsum("bkn,nm->bkm", states[0], self.mix) + key[:, :, None] * value[:, None]
        return ops.squeeze(key[:, None] @ memory, axis=1), [memory]


class SlotsCell(PlainCell):
    """Slots of memory, read by attention and mixed by one weight, which multiplies each."""

    def __init__(self, units=UNITS, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [(3, units)]

    def get_initial_state(self, batch_size=None):
        return [ops.ones((batch_size, 3, self.units))]

    def call(self, inputs, states):
        slots, query = states[0], (inputs @ self.kernel)[:, None]
        weights = ops.softmax(ops.sum(slots * query, axis=-1), axis=-1)[..., None]
        slots = ops.tanh(ops.matmul(slots, self.recurrent) + weights * query)
        return ops.sum(weights * slots, axis=1), [slots]


class HeadsCell(PlainCell):
    """Two heads, each with a weight of its own, of what is no state."""

    def build(self, input_shape):
        super().build(input_shape)
        self.heads = self.weight(2, 2, 2)

    def call(self, inputs, states):
        h = ops.reshape(self.next(inputs, states[0]), (-1, 2, 2))
        h = ops.reshape(ops.tanh(ops.einsum("bhd,hde->bhe", h, self.heads)), (-1, self.units))
        return h, [h]


class HeadMemoriesCell(PlainCell):
    """Two heads with a matrix each, written by an outer product where it errs, and read."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size = [(2, 3, 5)]

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, 2, 3, 5))]

    def build(self, input_shape):
        self.maps = [self.weight(input_shape[-1], size) for size in (2 * 3, 2 * 5, 2)]

    def call(self, inputs, states):
        memory = states[0]
        keys, values, rate = (ops.reshape(inputs @ each, (-1, 2, each.shape[1] // 2)) for each in self.maps)
        error = values - ops.einsum("bhkv,bhk->bhv", memory, keys)
        memory = memory + (ops.sigmoid(rate) * keys)[..., None] * error[:, :, None, :]
        largest = ops.max(memory, axis=1, keepdims=True)
        output = ops.einsum("bhk,bhkv->bhv", keys, memory - 0.1 * largest)
        return ops.reshape(output, (-1, 10)), [memory]


class CounterCell(PlainCell):
    """Some units move every other step only, by a count [batch, 1]."""

    def __init__(self, units=UNITS, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [units, 1]

    def call(self, inputs, states):
        h, count = states
        h = ops.where(ops.mod(count, np.array([[1.0, 2, 1, 2]], "float32")) == 0, self.next(inputs, h), h)
        return h, [h, count + 1]


class IntegersCell(PlainCell):
    """Integers, known before the loop and not, whose product overflows."""

    def call(self, inputs, states):
        h = states[0]
        whole = ops.cast(h > 0, "int32") * ops.cast(100 * inputs[:, :1], "int32") * 2**28
        h = self.next(inputs, h) + 0.1 * ops.cast(whole > 0, h.dtype)
        return h, [h]


class DropoutCell(PlainCell):
    """Draws numbers in every step, for the inputs and for the state."""

    def __init__(self, units=UNITS, **kwargs):
        super().__init__(units, **kwargs)
        dtype = self.dtype_policy
        self.drop, self.drop_h = (
            layers.Dropout(0.4, seed=1, dtype=dtype),
            layers.Dropout(0.3, seed=2, dtype=dtype),
        )

    def call(self, inputs, states, training=False):
        h = self.next(self.drop(inputs, training=training), states[0])
        return self.drop_h(h, training=training), [h]


class MeanCell(PlainCell):
    """Computes with the number of sequences, and with all of them."""

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        h = h - ops.sum(h, axis=0, keepdims=True) / inputs.shape[0]
        return h, [h]


class SignCell(PlainCell):
    """The sign of a product, which has no gradient, and each number twice."""

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        h = h + ops.sign(h @ self.recurrent) + ops.repeat(h[:, :2], 2, axis=-1) - ops.tile(h[:, :2], (1, 2))
        return 0.5 * h, [0.5 * h]


class PoolingCell(PlainCell):
    """Four values of each input, and a state that is only multiplied by vectors; it needs zeros."""

    def build(self, input_shape):
        self.kernel, self.decay = self.weight(input_shape[-1], 4 * self.units), self.weight(self.units)

    def call(self, inputs, states):
        f, r, x, skip = ops.split(inputs @ self.kernel, 4, axis=-1)
        f, r = ops.sigmoid(f + self.decay * states[0]), ops.sigmoid(r + self.decay)
        c = ops.maximum(f * states[0] + (1 - f) * x, ops.zeros((inputs.shape[0], self.units)) - 1)
        return r * c + (1 - r) * skip, [c]


class ComplexCell(PlainCell):
    """Turns complex numbers, of which the states are the two parts."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size = [self.units, self.units]

    def call(self, inputs, states):
        z = tf.complex(*states)
        turn = tf.complex(ops.zeros((self.units, self.units)), self.recurrent.value)
        z = (
            z * tf.exp(turn[0])
            + z @ turn
            + tf.cast(inputs @ self.kernel, tf.complex64) * tf.complex(0.5, 1.0)
        )
        z = z / tf.cast(1 + tf.abs(z), tf.complex64)
        return tf.math.real(z) * tf.math.imag(z), [tf.math.real(z), tf.math.imag(z)]


class DirectionCell(PlainCell):
    """Takes the direction of its inputs, which zeros have not."""

    def call(self, inputs, states):
        h = self.next(inputs / ops.norm(inputs, axis=-1, keepdims=True), states[0])
        return h, [h]


class BatchMeanCell(PlainCell):
    """A state that is one for all sequences: the mean of their last inputs."""

    def __init__(self, units=UNITS, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [units, FEATURES]

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, self.units)), ops.zeros((1, FEATURES))]

    def call(self, inputs, states):
        h, mean = states
        h = self.next(inputs - mean, h)
        return h, [h, ops.mean(inputs, axis=0, keepdims=True)]


def stack():
    return layers.StackedRNNCells([FourWeightsCell(), SlicesCell()])


def stack_with_dropout():
    """Masks that Keras draws before the loop, the same at every step."""
    cell = keras.layers.LSTMCell(UNITS, dropout=0.3, recurrent_dropout=0.4, seed=3)
    return layers.StackedRNNCells([cell, PlainCell()])


def drawn(cell, features=FEATURES):
    """The cell, built, with the weights that its initialisers draw."""
    if not cell.built:
        cell.build((None, features))
        cell.built = True
    return cell


def some_mask():
    """Steps masked anywhere; the first sequence from its first step, the last all through."""
    mask = np.random.default_rng(5).uniform(size=(BATCH, TIMESTEPS)) > 0.4
    mask[0, 0], mask[-1] = False, False
    return mask


def generators(cell):
    """The seed generators in a cell."""
    return [each.seed_generator for each in cell._flatten_layers() if hasattr(each, "seed_generator")]


def results(layer_class, cell, states=None, training=True, signature=None, **options):
    """Outputs and states; the gradients of inputs, initial states and weights; the seeds afterwards."""
    mask = options.pop("mask", None)
    layer = layer_class(cell, return_state=True, **{"return_sequences": True, **options})
    for each in generators(cell):
        each.state.assign([7, 3])
    layer.build(INPUTS.shape)

    def compute(inputs, *states):
        with tf.GradientTape() as tape:
            tape.watch([inputs, *states])
            found = tf.nest.flatten(
                layer(inputs, initial_state=list(states) or None, mask=mask, training=training)
            )
            weights = [tf.random.stateless_normal(tf.shape(each), [n, 5]) for n, each in enumerate(found)]
            pairs = zip(found, weights, strict=True)
            total = sum(tf.reduce_sum(each * tf.cast(weight, each.dtype)) for each, weight in pairs)
        sources = [inputs, *states, *(each.value for each in cell.trainable_variables)]
        return found, tape.gradient(total, sources, unconnected_gradients="zero")

    given = [tf.constant(INPUTS), *map(tf.constant, states or [])]
    run = compute if signature is None else tf.function(compute, input_signature=signature, autograph=False)
    found, gradients = run(*given)
    gradients = [tf.convert_to_tensor(each) for each in gradients]
    return layer, (found, gradients, [keras.ops.convert_to_numpy(each.state) for each in generators(cell)])


def assert_computes_the_same(cell, engine, **options):
    drawn(cell)
    _, expected = results(keras.layers.RNN, cell, **options)
    layer, found = results(FusedRNN, cell, **options)
    assert layer.explain().startswith(f"FusedRNN runs {engine}"), layer.explain()  # if nothing is masked
    assert_close(found, expected)


def assert_close(found, expected):
    """Asserts that arrays are the same to 1e-5 of the largest number of each."""
    for one, other in zip(arrays(found), arrays(expected), strict=True):
        one, other = (np.asarray(each, "float64") for each in (one, other))
        assert_same(one, other, rtol=0, atol=1e-5 * max(1e-3, np.max(np.abs(other), initial=0)))


NATIVE, XLA, KERAS = "the native engine", "the xla engine", "Keras' own loop"
MASK, BACKWARDS, LAST = {"mask": some_mask()}, {"go_backwards": True}, {"return_sequences": False}

# Every cell, with options of the layer that differ from one to the next.
CASES = [
    (PlainCell, NATIVE, {}),
    (PlainCell, NATIVE, {**MASK, **LAST}),
    (OneDenseCell, NATIVE, BACKWARDS),
    (UnbuiltCell, NATIVE, {}),
    (FourWeightsCell, NATIVE, {**MASK, "zero_output_for_mask": True}),
    (SlicesCell, NATIVE, {**MASK, **BACKWARDS}),
    (LateCell, NATIVE, MASK),
    (DropoutCell, NATIVE, MASK),
    (DropoutCell, NATIVE, {"training": False}),
    (LastInputCell, NATIVE, {}),
    (LastInputCell, NATIVE, LAST),
    (LastInputCell, NATIVE, MASK),
    (WidthsCell, NATIVE, {**MASK, **LAST}),
    (NormalisedCell, NATIVE, BACKWARDS),
    (HighwayCell, NATIVE, MASK),
    (MatrixCell, NATIVE, MASK),
    (MatrixCell, NATIVE, LAST),
    (CounterCell, NATIVE, {}),
    (IntegersCell, NATIVE, {}),
    (MeanCell, XLA, {}),
    (ComplexCell, XLA, {}),
    (ComplexCell, XLA, MASK),
    (HeadsCell, NATIVE, MASK),
    (HeadMemoriesCell, NATIVE, MASK),
    (SlotsCell, NATIVE, MASK),
    (PoolingCell, NATIVE, MASK),
    (SignCell, NATIVE, {}),
    (stack, NATIVE, MASK),
    (stack_with_dropout, NATIVE, {}),
]


@pytest.mark.parametrize(("make", "engine", "options"), CASES)
def test_computes_what_keras_does(make, engine, options):
    assert_computes_the_same(make(), engine, **options)


@pytest.mark.parametrize("batch", [0, 70])
def test_stages_take_any_number_of_sequences(monkeypatch, batch):
    monkeypatch.setattr("cells.engines.native.threads", lambda: 3)
    rng = np.random.default_rng(7)
    inputs = tf.constant(rng.normal(size=(batch, 80, FEATURES)).astype("float32"))
    mask = rng.uniform(size=(batch, 80)) > 0.3
    cell = drawn(NormalisedCell())

    def value_and_gradients(layer):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = layer(inputs, mask=mask)
            total = tf.reduce_sum(value**2)
        return value, tape.gradient(total, [inputs, *(each.value for each in cell.trainable_variables)])

    layers_ = [layer_class(cell, return_sequences=True) for layer_class in (FusedRNN, keras.layers.RNN)]
    found, expected = map(value_and_gradients, layers_)
    assert layers_[0].chosen_engine() == "native"
    assert_close(found, expected)


def test_stages_that_compute_otherwise_than_tensorflow_are_not_used(monkeypatch):
    monkeypatch.setitem(translation._OPERATIONS, "SigmoidGrad", "{1} * ({0} * (1.0f + {0}))")
    layer = FusedRNN(drawn(HighwayCell()))
    layer.build(INPUTS.shape)
    assert layer.explain().startswith(f"FusedRNN runs {XLA}")
    assert "computes its gradients otherwise than TensorFlow" in layer.explain()


@pytest.mark.parametrize(
    ("make", "options"), [(FourWeightsCell, {}), (WidthsCell, MASK), (DropoutCell, {"engine": "xla"})]
)
def test_takes_any_batch_and_length_in_a_graph(make, options):
    cell = drawn(make())
    open_shape = [tf.TensorSpec([None, None, FEATURES])]
    plain = {name: value for name, value in options.items() if name != "engine"}
    _, expected = results(keras.layers.RNN, cell, signature=open_shape, **plain)
    _, found = results(FusedRNN, cell, signature=open_shape, **options)
    assert_same(found, expected, **CLOSE)


@pytest.mark.parametrize("sequences", [True, False])
def test_padding_to_another_length_is_harmless(sequences):
    inputs = tf.constant(np.random.default_rng(6).normal(size=(BATCH, 9, FEATURES)).astype("float32"))
    cell = drawn(DirectionCell())

    def value_and_gradients(layer):
        layer.build(INPUTS.shape)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.reduce_sum(layer(inputs) ** 2)
        return total, tape.gradient(total, [inputs, *(each.value for each in cell.trainable_variables)])

    options = {"return_sequences": sequences}
    found = value_and_gradients(FusedRNN(cell, engine="xla", **options))
    assert_same(found, value_and_gradients(keras.layers.RNN(cell, **options)), **CLOSE)


def test_takes_given_states_and_gives_their_gradients():
    rng = np.random.default_rng(4)
    states = [rng.normal(size=(BATCH, size)).astype("float32") for size in (FEATURES, UNITS)]
    assert_computes_the_same(LastInputCell(), NATIVE, states=states)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (SlicesCell, {}),
        (WidthsCell, {**MASK, **LAST}),
        (LastInputCell, {}),
        (NormalisedCell, BACKWARDS),
        (MatrixCell, MASK),
        (CounterCell, {}),
        (stack_with_dropout, MASK),
    ],
)
def test_xla_computes_what_keras_does_where_native_would(make, options):
    cell = drawn(make())
    _, expected = results(keras.layers.RNN, cell, **options)
    _, found = results(FusedRNN, cell, engine="xla", **options)
    assert_close(found, expected)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (PlainCell, {}),
        (FourWeightsCell, {**MASK, "zero_output_for_mask": True}),
        (SlicesCell, BACKWARDS),
        (LateCell, MASK),
        (WidthsCell, {**MASK, **LAST}),
        (HighwayCell, {}),
        (FourWeightsCell, {**MASK, **LAST, "zero_output_for_mask": True}),
        (LastInputCell, MASK),
        (LastInputCell, {}),
        (LastInputCell, LAST),
        (LastInputCell, {**MASK, **LAST}),
        (NormalisedCell, {}),
        (CounterCell, {}),
        (BatchMeanCell, {}),
        (stack, MASK),
    ],
)
def test_xla_infers_what_keras_does(make, options):
    cell = drawn(make())
    mask = options.get("mask")
    options = {"return_state": True, "return_sequences": True, **options}
    options.pop("mask", None)
    expected = keras.layers.RNN(cell, **options)(INPUTS, mask=mask)
    assert_close(tf.nest.flatten(FusedRNN(cell, engine="xla", **options)(INPUTS, mask=mask)), expected)


def test_chunks_of_a_stateful_layer_are_one_sequence():
    cell = drawn(LastInputCell())
    whole = FusedRNN(cell, return_sequences=True)(INPUTS)
    layer = FusedRNN(cell, return_sequences=True, stateful=True)
    assert_same(tf.concat([layer(INPUTS[:, :2]), layer(INPUTS[:, 2:])], axis=1), whole, **CLOSE)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_computes_in_every_precision(policy):
    cell = drawn(SlicesCell(dtype=policy))
    _, found = results(FusedRNN, cell, dtype=policy)
    _, expected = results(keras.layers.RNN, cell, dtype=policy)
    assert [each.dtype for each in found[0]] == [each.dtype for each in expected[0]]
    tolerance = {"mixed_float16": 2e-2, "mixed_bfloat16": 1e-1, "float64": 1e-10}[policy]
    found, expected = ([each.astype("float64") for each in arrays(all_[:2])] for all_ in (found, expected))
    assert_same(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (FourWeightsCell, {**MASK, "zero_output_for_mask": True}),
        (NormalisedCell, BACKWARDS),
        (MatrixCell, MASK),
        (IntegersCell, MASK),
        (DropoutCell, MASK),
    ],
)
def test_computes_float64_natively_to_its_last_places(make, options):
    cell = drawn(make(dtype="float64"))
    _, expected = results(keras.layers.RNN, cell, dtype="float64", **options)
    layer, found = results(FusedRNN, cell, dtype="float64", **options)
    assert layer.chosen_engine() == "native", layer.explain()
    for one, other in zip(arrays(found), arrays(expected), strict=True):
        assert one.dtype == other.dtype
        assert_same(one, other, rtol=0, atol=1e-12 * max(1, np.max(np.abs(other), initial=0)))


def test_two_precisions_in_one_loop_are_not_native():
    class SingleCell(HighwayCell):
        def call(self, inputs, states):
            h = ops.tanh(ops.cast(states[0] @ self.recurrent, "float32"))
            h = self.next(inputs, ops.cast(h, "float64"))
            return h, [h]

    cell = drawn(SingleCell(dtype="float64"))
    _, expected = results(keras.layers.RNN, cell, dtype="float64")
    layer, found = results(FusedRNN, cell, dtype="float64")
    assert "casts float64 to float32" in layer.why_no_faster()
    assert_close(found, expected)


def test_a_model_is_saved_loaded_and_trained(tmp_path):
    model = keras.Sequential([keras.Input((None, FEATURES)), FusedRNN(OneDenseCell()), layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(np.repeat(INPUTS, 3, axis=0), np.ones((9, 1)), batch_size=4, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(loaded.predict(INPUTS, verbose=0), model.predict(INPUTS, verbose=0), **CLOSE)
    plain = keras.Sequential(
        [keras.Input((None, FEATURES)), keras.layers.RNN(OneDenseCell()), layers.Dense(1)]
    )
    plain.set_weights(model.get_weights())
    assert_same(plain.predict(INPUTS, verbose=0), model.predict(INPUTS, verbose=0), **CLOSE)
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(tmp_path / "model")
    assert_same(served.serve(INPUTS), model.predict(INPUTS, verbose=0), **CLOSE)


def test_runs_inside_of_a_compiled_function():
    layer = FusedRNN(drawn(FourWeightsCell()))
    expected = layer(INPUTS)
    assert_same(tf.function(layer, jit_compile=True)(INPUTS), expected, **CLOSE)


@pytest.mark.parametrize("make", [PlainCell, lambda: keras.layers.LSTMCell(UNITS)])
def test_what_only_a_gradient_needs_is_not_begun_without_one(make, monkeypatch):
    def begin(*_):
        raise AssertionError("a stack was copied, to begin with the initial state")

    monkeypatch.setattr("cells.engines.tracing.xla_loop.XlaLoop.begun", begin)
    monkeypatch.setattr("cells.engines.xla._Forward.start", begin)
    cell = drawn(make())
    layer = FusedRNN(cell, engine="xla", return_sequences=True)
    assert_same(layer(INPUTS), keras.layers.RNN(cell, return_sequences=True)(INPUTS), **CLOSE)
    with tf.GradientTape(), pytest.raises(AssertionError, match="a stack was copied"):
        layer(INPUTS)


def test_a_tensor_of_the_cell_has_its_gradient():
    cell = drawn(PlainCell())
    factor = tf.constant(np.linspace(0.5, 1, UNITS, dtype="float32"))
    cell.next = lambda inputs, h: ops.tanh(inputs @ cell.kernel + h @ cell.recurrent) * factor

    def gradient(layer_class):
        with tf.GradientTape() as tape:
            tape.watch(factor)
            total = tf.reduce_sum(layer_class(cell)(tf.constant(INPUTS)))
        return tape.gradient(total, factor)

    assert_same(gradient(FusedRNN), gradient(keras.layers.RNN), **CLOSE)


# --- what is kept, and what is noticed


class RateCell(PlainCell):
    rate = 0.5

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rates = {"kept": [0.5]}

    def call(self, inputs, states):
        h = self.rates["kept"][0] * states[0] + self.next(inputs, states[0])
        return h, [h]


def test_a_cell_is_traced_once_for_every_batch_and_again_once_it_is_changed(monkeypatch):
    traced = []
    monkeypatch.setattr(
        "cells.engines.tracing.traced_cell.trace", lambda *args: traced.append(args) or trace(*args)
    )
    cell = drawn(RateCell())
    layer, plain = FusedRNN(cell), keras.layers.RNN(cell)
    for inputs in (INPUTS, INPUTS[:2], INPUTS[:, :3]):
        assert_same(layer(inputs), plain(inputs), **CLOSE)
    assert len(traced) == 1
    cell.rates["kept"][0] = 0.9
    assert_same(layer(INPUTS), plain(INPUTS), **CLOSE)
    cell.kernel.assign(2 * cell.kernel)
    assert_same(layer(INPUTS), plain(INPUTS), **CLOSE)
    assert len(traced) == 2


def test_a_cell_that_changes_again_and_again_is_not_compiled_each_time(monkeypatch):
    monkeypatch.setattr("cells.engines.tracing.traced_cell.MOST_CHANGES", 2)
    cell = drawn(RateCell())
    layer = FusedRNN(cell)
    layer.build(INPUTS.shape)
    for rate in (0.1, 0.2, 0.3):
        cell.rates["kept"][0] = rate
        said = layer.explain()
    assert said.startswith(f"FusedRNN runs {KERAS}") and "was changed 2 times" in said


def test_explains_what_is_computed_where():
    layer = FusedRNN(drawn(LastInputCell()))
    layer.build(INPUTS.shape)
    assert layer.explain() == (
        "FusedRNN runs the native engine for LastInputCell.\n"
        "Before the loop, for all steps at once: 2 products (2 x 4, 2 x 4) and 6 other operations.\n"
        "In the loop, at every step: 2 other operations.\n"
        "After the loop, for all steps at once: 1 product (4 x 3) and 1 other operation."
    )


# --- what is left to the loop


def planned(cell, states=(UNITS,), masked=False, all_in_loop=False):
    """The plan of a cell, and its values by level in the loop."""
    specs = [tf.TensorSpec([None, size]) for size in states]
    return plan_of(trace(drawn(cell), tf.TensorSpec([None, FEATURES]), specs, False), masked, all_in_loop)


def kinds(nodes):
    return sorted(each.kind for each in nodes)


def test_a_product_of_parts_is_hoisted_with_its_bias():
    assert kinds(planned(OneDenseCell()).loop) == ["AddV2", "Tanh", "matmul"]


def test_stages_do_light_work_in_the_loop_where_it_reads_no_more():
    cell = NormalisedCell()
    specs = [tf.TensorSpec([None, UNITS])]
    plan = plan_of(trace(drawn(cell), tf.TensorSpec([None, FEATURES]), specs, False), False)
    light = light_work_in_the_loop(plan)
    assert {ref.node.kind for ref in plan.inputs} != {"matmul"} == {ref.node.kind for ref in light.inputs}
    last = planned(LastInputCell(), (FEATURES, UNITS))
    assert light_work_in_the_loop(last) is last  # has work after the loop


def test_stages_read_one_product_of_the_inputs_rather_than_gates():
    plan = planned(PoolingCell())
    with pytest.raises(native.Unavailable, match="it has no products"):
        gates_of(plan)
    assert [ref.shape[1] for ref in light_work_in_the_loop(plan).inputs] == [4 * UNITS]


def test_gradients_of_products_take_the_place_of_the_products():
    """Of all that training keeps these are the most: each as large as all gates at all steps."""
    found = staged(planned(drawn(ProjectedLSTMCell(UNITS, memory=7)), (UNITS, 7)))
    _, _, backward = found.header.partition("struct Backward")
    sizes, places = {}, re.search(r"INSTEAD_OF\[\] = {(.*?)};", backward)[1]
    for name in ("READ", "WRITE"):
        listed = re.search(rf"Place {name}\[\] = {{(.*?)}};", backward)[1]
        sizes[name] = [int(each) for each in re.findall(r"(\d+)}", listed)]
    taken = {n: int(place) for n, place in enumerate(places.split(",")[:-1]) if int(place) >= 0}
    assert {28, UNITS} <= {sizes["WRITE"][n] for n in taken}  # those of all gates, and of the projection
    assert all(sizes["WRITE"][n] == sizes["READ"][place] for n, place in taken.items())
    assert len(set(taken.values())) == len(taken)


@pytest.mark.parametrize("cell", [ProjectedLSTMCell(UNITS), MultiplicativeLSTMCell(UNITS)])
def test_stages_write_equal_gradients_once(cell):
    """Of the gates' products with the inputs and with a state, which are summed: training keeps one."""
    found = staged(planned(drawn(cell), (UNITS, cell.state_size[1])))
    of_gates = [place for ref, place in found.gradients.items() if ref.shape[1] == 4 * cell.state_size[1]]
    assert len(of_gates) == 2 and len(set(of_gates)) == 1


@pytest.mark.parametrize("units", [15, 16, 17])
def test_zeros_for_any_number_of_sequences(units):
    cell = drawn(PoolingCell(units))
    assert trace(cell, tf.TensorSpec([5, FEATURES]), [tf.TensorSpec([5, units])], False).batch is None


def test_products_of_a_state_are_one():
    plan = planned(FourWeightsCell(), (UNITS, UNITS))
    assert [each.inputs[1].shape for each in plan.cuts] == [(UNITS, 4 * UNITS)]
    assert not plan.summed


@pytest.mark.parametrize("make", [PlainCell, OneDenseCell, FourWeightsCell])
def test_products_of_inputs_join_the_states_where_they_are_added(make):
    states = (UNITS,) * len(keras.tree.flatten(make().state_size))
    plan = planned(make(), states, all_in_loop=True)
    assert plan.inputs == (plan.step.inputs,)
    (product,) = (each for each in plan.loop if each.kind == "matmul")
    assert product.inputs[1].shape == (UNITS + FEATURES, planned(make(), states).cuts[0].shapes[0][1])


def test_an_inference_does_all_in_the_loop_but_what_a_delayed_state_needs():
    plan = planned(NormalisedCell(), all_in_loop=True)
    assert plan.inputs == (plan.step.inputs,)
    assert kinds(plan.loop).count("matmul") == 2
    last = planned(LastInputCell(), (FEATURES, UNITS), all_in_loop=True)
    assert last.delayed == (0,) and set(last.inputs) == {last.step.inputs, last.states[0]}


def test_sums_are_split_before_they_are_added():
    plan = planned(SlicesCell())
    assert kinds(plan.loop).count("parts") == 2
    assert all(each.shapes[0][-1] == UNITS for each in plan.loop if each.kind == "AddV2")


def test_a_state_that_is_the_last_input_leaves_the_loop_unless_steps_are_masked():
    states = (FEATURES, UNITS)
    plan = planned(LastInputCell(), states)
    assert (plan.delayed, plan.looped, kinds(plan.cuts)) == ((0,), (1,), [])
    assert kinds(plan.after)[-1] == "matmul"
    plan = planned(LastInputCell(), states, masked=True)
    assert (plan.delayed, plan.looped, plan.held) == ((), (0, 1, 2), True)


def test_an_outer_product_of_inputs_stays_in_the_loop():
    specs = [tf.TensorSpec([None, 3, 16])]
    plan = plan_of(trace(drawn(MatrixCell(16)), tf.TensorSpec([None, FEATURES]), specs, False), False)
    assert sorted(ref.shape[1:] for ref in plan.inputs) == [(1, 3), (1, 16), (3, 1)]
    assert [each.kind for each in plan.cuts] == ["BatchMatMulV2"]


def test_drawn_numbers_are_known_before_the_loop():
    specs = [tf.TensorSpec([None, UNITS])]
    step = trace(drawn(DropoutCell()), tf.TensorSpec([None, FEATURES]), specs, True)
    assert len(step.generators) == len(step.draws) == 2
    assert {draw.ref.level for draw in step.draws} == {Level.INPUT}


# --- what is refused


def refused(reason):
    """Makes a cell of a `call` that is refused for that reason."""

    def decorate(call):
        made = type(call.__name__, (PlainCell,), {"call": call})
        REFUSED.append((made, reason))
        return made

    return decorate


REFUSED: list = []


@refused("PrintV2, which has an effect")
def Printing(self, inputs, states):
    tf.print(states[0][0, 0], output_stream="file:///dev/null")
    return self.next(inputs, states[0]), [self.next(inputs, states[0])]


@refused("EagerPyFunc, which has an effect")
def CallingPython(self, inputs, states):
    h = tf.ensure_shape(
        tf.py_function(lambda h: h, [self.next(inputs, states[0])], "float32"), states[0].shape
    )
    return h, [h]


@refused("RandomStandardNormal, which has an effect")
def DrawingWithoutSeed(self, inputs, states):
    h = self.next(inputs, states[0]) + 0 * tf.random.normal(tf.shape(states[0]))
    return h, [h]


@refused("draws numbers without a seed generator")
def DrawingGlobally(self, inputs, states):
    h = self.next(inputs, states[0]) + 0 * keras.random.normal((1, UNITS))
    return h, [h]


@refused("If, a branch or a loop")
def Branching(self, inputs, states):
    h = self.next(inputs, states[0])
    h = tf.cond(tf.reduce_sum(h) > 0, lambda: h, lambda: -h)
    return h, [h]


@refused("cannot be traced")
def BranchingInPython(self, inputs, states):
    h = self.next(inputs, states[0])
    h = h if tf.reduce_sum(h) > 0 else -h
    return h, [h]


@refused("While, a branch or a loop")
def Looping(self, inputs, states):
    h = ops.fori_loop(0, 2, lambda _, h: self.next(inputs, h), states[0])
    return h, [h]


@refused("convolution")
def Convolving(self, inputs, states):
    h = self.next(inputs, states[0])
    h = ops.conv(h[:, :, None], self.recurrent[:3, :1, None], padding="same")[:, :, 0]
    return h, [h]


@refused("gradient of its own")
def Reversing(self, inputs, states):
    h = tf.custom_gradient(lambda h: (tf.identity(h), lambda of_h: -of_h))(self.next(inputs, states[0]))
    return h, [h]


@refused("makes a variable in `call`")
def MakingVariables(self, inputs, states):
    h = self.next(inputs, states[0]) * tf.Variable(0.5)
    return h, [h]


@refused("changes `calls` in `call`")
def Counting(self, inputs, states):
    self.calls = getattr(self, "calls", 0) + 1
    h = self.next(inputs, states[0])
    return h, [h]


@refused("adds a loss in `call`")
def AddingLoss(self, inputs, states):
    h = self.next(inputs, states[0])
    self.add_loss(ops.mean(h))
    return h, [h]


@refused("is not the same each time")
def DrawingInPython(self, inputs, states):
    h = self.next(inputs, states[0]) + 1e-9 * np.random.uniform()
    return h, [h]


@refused("XLA has no BesselI0")
def Bessel(self, inputs, states):
    h = tf.math.bessel_i0(self.next(inputs, states[0]))
    return h, [h]


@refused("an output that is not one tensor")
def TwoOutputs(self, inputs, states):
    h = self.next(inputs, states[0])
    return (h, h), [h]


@pytest.mark.parametrize(("make", "reason"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_keras_loop_runs_what_is_refused_and_says_why(make, reason):
    cell = drawn(make())
    before = {name: id(value) for name, value in vars(cell).items() if name != "_called"}
    layer = FusedRNN(cell)
    layer.build(INPUTS.shape)
    said = layer.explain()
    assert said.startswith(f"FusedRNN runs {KERAS} for {make.__name__}") and reason in said
    after = {name: id(value) for name, value in vars(cell).items() if name != "_called"}
    assert after == before and not cell.losses
    if make.__name__ == "TwoOutputs":  # which Keras runs only in part
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(layer(INPUTS), keras.layers.RNN(cell)(INPUTS), **CLOSE)
    with pytest.raises(TypeError, match=r"(?s)with the xla engine.*keras\.layers\.RNN runs it"):
        FusedRNN(cell, engine="xla")(INPUTS)


class GrowingCell(PlainCell):
    def call(self, inputs, states):
        h = inputs @ self.kernel + states[0]
        return h, [h]


def test_a_state_of_another_shape_is_refused():
    with pytest.raises(Refused, match=r"changes a state from float32 \[1\] to float32 \[4\]"):
        planned(GrowingCell(), (1,))


# --- cells that nobody thought of


class GeneratedCell(PlainCell):
    """An equation that is drawn.

    Args:
        steps: list of (operation, places of its operands): each adds a value to those that there are.
        remembers: whether there is a state that is a matrix for each of two heads.
    """

    def __init__(self, steps, remembers, **kwargs):
        super().__init__(**kwargs)
        self.steps, self.remembers = steps, remembers
        self.state_size = [UNITS, UNITS, 3, *([(2, 3, 2)] if remembers else [])]

    def get_initial_state(self, batch_size=None):
        shapes = [(UNITS,), (UNITS,), (3,), (2, 3, 2)][: len(self.state_size)]
        return [ops.zeros((batch_size, *shape)) for shape in shapes]

    def build(self, input_shape):
        super().build(input_shape)
        self.vector = self.weight(self.units)
        self.down, self.up, self.keys = (
            self.weight(self.units, 3),
            self.weight(3, self.units),
            self.weight(4, 6),
        )
        self.heads = self.weight(2, 2, 2)

    def call(self, inputs, states):
        values = [inputs @ self.kernel, states[0] @ self.recurrent, *states[:2], self.vector]
        for operation, *places in self.steps:
            values.append(OPERATIONS[operation](self, *(values[place % len(values)] for place in places)))
        c = ops.tanh(values[-2] + states[1])
        h = ops.tanh(values[-1] + values[0] + states[2] @ self.up)
        memories = [self.memory(h, c, each) for each in states[3:]]
        read = sum(ops.sum(each, axis=(1, 2)) for each in memories)
        narrow = ops.tanh(c @ self.down)
        return ops.sigmoid(c) * h, [
            h,
            c,
            narrow + (ops.mean(read, axis=-1, keepdims=True) if memories else 0),
            *memories,
        ]

    def memory(self, h, c, memory):
        keys, values = ops.tanh(ops.reshape(h @ self.keys, (-1, 2, 3))), ops.reshape(c, (-1, 2, 2))
        return (
            0.5 * memory + keys[..., None] * (values - ops.einsum("bhkv,bhk->bhv", memory, keys))[:, :, None]
        )


def wide(a, b):
    """Two values as one [batch, UNITS], whatever they are made of."""
    return a + 0 * b + ops.zeros((1, UNITS))


OPERATIONS = {
    "sum": lambda cell, a, b: a + b,
    "product": lambda cell, a, b: a * b,
    "gate": lambda cell, a, b: ops.sigmoid(a) * b,
    "maximum": lambda cell, a, b: ops.maximum(a, b),
    "tanh": lambda cell, a, b: ops.tanh(a - b),
    "choice": lambda cell, a, b: ops.where(a > b, a * b, ops.sin(a)),
    "gelu": lambda cell, a, b: ops.gelu(a) - ops.softplus(b),
    "parts": lambda cell, a, b: ops.concatenate([(a + b)[..., 2:], (a + b)[..., :2]], axis=-1),
    "rolled": lambda cell, a, b: ops.roll(a, 1, axis=-1) * ops.flip(b, axis=-1),
    "matmul": lambda cell, a, b: wide(a, b) @ cell.recurrent,
    "heads": lambda cell, a, b: ops.reshape(
        ops.einsum("bhi,hij->bhj", ops.reshape(wide(a, b), (-1, 2, 2)), cell.heads), (-1, UNITS)
    ),
    "mean": lambda cell, a, b: a - ops.mean(b, axis=-1, keepdims=True),
    "spread": lambda cell, a, b: a / ops.sqrt(ops.var(b, axis=-1, keepdims=True) + 0.1),
    "softmax": lambda cell, a, b: a * ops.softmax(a - b, axis=-1),
    "largest": lambda cell, a, b: a / (1 + ops.abs(ops.max(b, axis=-1, keepdims=True))),
    "narrow": lambda cell, a, b: ops.tanh(wide(a, b) @ cell.down) @ cell.up,
    "outer": lambda cell, a, b: ops.sum(a[..., :, None] * ops.tanh(b)[..., None, :], axis=-2),
    "running": lambda cell, a, b: ops.cumsum(a + b, axis=-1),
}
generated = st.lists(
    st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 20), st.integers(0, 20)),
    min_size=3,
    max_size=8,
)


@settings(
    # each compiles a library, in seconds; GENERATED_CELLS=50 draws as many others
    max_examples=int(os.environ.get("GENERATED_CELLS", "3")),
    deadline=None,
    derandomize="GENERATED_CELLS" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(steps=generated, options=st.tuples(*[st.booleans()] * 4))
def test_computes_what_keras_does_whatever_the_cell(steps, options):
    remembers, masked, backwards, sequences = options
    cell = drawn(GeneratedCell(steps, remembers))
    options = {"go_backwards": backwards, "return_sequences": sequences, **(MASK if masked else {})}
    _, expected = results(keras.layers.RNN, cell, **options)
    layer, found = results(FusedRNN, cell, **options)
    assert layer.chosen_engine() == "native", layer.explain()
    assert_close(found, expected)
