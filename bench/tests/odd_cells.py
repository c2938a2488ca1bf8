"""Odd cells that are right: the contract must not refuse any of them.

`@odd(...)` enters a cell in `ODD`, with what it is made for beside the default 4 features, and the checks
that do not apply to it.
"""

from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

ODD: dict[str, tuple[object, frozenset[str]]] = {}

NEVER = frozenset({"dropout", "reference"})  # do not apply to a cell that has neither


def odd(*applies, skips=()):
    """Enters a cell in `ODD`, with the checks skipped for it: `NEVER`, less `applies`, and `skips`."""

    def enter(factory):
        ODD[factory.__name__] = (factory, (NEVER - set(applies)) | set(skips))
        return factory

    return enter


class Base(keras.layers.Layer):
    """A simple recurrent cell in the fewest words: one integer says it all."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1] + self.units, self.units), name="kernel")

    def mix(self, inputs, state):
        return ops.matmul(ops.concatenate([inputs, state], axis=-1), self.kernel)


@odd()
class OneIntegerState(Base):
    """No output_size, no get_initial_state, states in a tuple."""

    def call(self, inputs, states):
        h = ops.relu(self.mix(inputs, states[0]))
        return h, (h,)


@odd()
class MatrixState(Base):
    """A fast-weights memory: the state is a matrix for each sample."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [(units, units)]
        self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], self.units), name="kernel")

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, self.units, self.units), dtype=self.compute_dtype)]

    def call(self, inputs, states):
        key = ops.tanh(ops.matmul(inputs, self.kernel))
        memory = 0.9 * states[0] + key[:, :, None] * key[:, None, :]
        return ops.tanh(ops.sum(memory, axis=-1)), [memory]


@odd()
class NoWeights(keras.layers.Layer):
    """The running sum and maximum of the inputs' mean; two states of size 1, an output of size 2."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [1, 1]
        self.output_size = 2

    def call(self, inputs, states):
        mean = ops.mean(inputs, axis=-1, keepdims=True)
        total, peak = states[0] + mean, ops.maximum(states[1], mean)
        return ops.concatenate([total, peak], axis=-1), [total, peak]


@odd()
class CountingStates(Base):
    """Three states of different sizes, one of them a counter that starts as an integer."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [units, 3, 1]
        self.output_size = units

    def get_initial_state(self, batch_size=None):
        sizes = ((self.units, self.compute_dtype), (3, self.compute_dtype), (1, "int32"))
        return [ops.zeros((batch_size, size), dtype=dtype) for size, dtype in sizes]

    def call(self, inputs, states):
        h, last, count = states
        slow = ops.cast(ops.equal(ops.cast(count, "int32") % 2, 0), h.dtype)
        h = slow * ops.tanh(self.mix(inputs, h)) + (1 - slow) * h
        return h, [h, inputs[:, :3] + 0 * last, count + 1]


@odd()
class SubLayers(Base):
    """Built from layers, each built in build; starts from ones; takes the old arguments, and ignores them."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.dense = keras.layers.Dense(units, activation="hard_sigmoid")
        self.norm = keras.layers.LayerNormalization()
        self.activation = keras.layers.Activation("relu")

    def build(self, input_shape):
        self.dense.build((None, input_shape[-1] + self.units))
        self.norm.build((None, self.units))

    def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
        return ops.ones((batch_size, self.units), dtype=dtype or self.compute_dtype)

    def call(self, inputs, states):
        z = self.dense(ops.concatenate([inputs, states[0]], axis=-1))
        h = self.activation(self.norm(z))
        return h, [h]


@odd("reference", skips=("gradient",))
class Spiking(Base):
    """A surrogate gradient, a frozen weight, one that has no gradient, and a reference."""

    surrogate_gradient = "a spike has no derivative"
    no_gradient: ClassVar = {"threshold": "the spike's gradient is the potential's"}

    def build(self, input_shape):
        super().build(input_shape)
        self.threshold = self.add_weight((), name="threshold", initializer="ones")
        self.leak = self.add_weight((), name="leak", initializer="ones", trainable=False)

    def call(self, inputs, states):
        potential = 0.5 * self.leak * self.mix(inputs, states[0])
        spike = ops.cast(potential > self.threshold, potential.dtype)
        spike = potential + ops.stop_gradient(spike - potential)
        return spike, [spike]

    def reference(self, inputs, initial_states):
        kernel, threshold, leak = self.get_weights()
        spike, outputs = initial_states[0], []
        for x in np.moveaxis(inputs, 1, 0):
            spike = 1.0 * (0.5 * leak * (np.concatenate([x, spike], axis=-1) @ kernel) > threshold)
            outputs.append(spike)
        return np.stack(outputs, axis=1), [spike]


@odd("dropout")
class Dropping(DropoutRNNCell, Base):
    """Dropout as Keras' own cells do it, with masks that the layer keeps for a whole sequence.

    It has the argument `recurrent_dropout`, and refuses it.
    """

    def __init__(self, units, dropout=0.0, recurrent_dropout=0.0, seed=None, **kwargs):
        super().__init__(units, **kwargs)
        if recurrent_dropout:
            raise ValueError("there is no dropout of the state")
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, states, training=False):
        if training and self.dropout:
            inputs = inputs * self.get_dropout_mask(inputs)
        h = ops.tanh(self.mix(inputs, states[0]))
        return h, [h]


@odd(skips=("xla", "float64", "gradient", "mixed_float16", "mixed_bfloat16"))
class OnItsOwnTerms(Base):
    """Always float32, whatever the policy, and not for XLA, as it says itself."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **{**kwargs, "dtype": "float32"})
        self.supports_jit = False

    def call(self, inputs, states):
        z = self.mix(inputs, states[0])
        h = tf.py_function(tf.tanh, [z], z.dtype)
        h.set_shape(z.shape)
        return h, [h]


def half(x):
    return x / 2


@odd()
class Configured(Base):
    """A cell in a cell, made in place by from_config, and an activation of the user's own."""

    def __init__(self, units, cell=None, activation=half, **kwargs):
        super().__init__(units, **kwargs)
        self.cell = cell or keras.layers.SimpleRNNCell(units)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        if not self.cell.built:
            self.cell.build(input_shape)

    def call(self, inputs, states):
        h, states = self.cell(inputs, states)
        return self.activation(h), states

    def get_config(self):
        cell = keras.saving.serialize_keras_object(self.cell)
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "units": self.units, "cell": cell, "activation": activation}

    @classmethod
    def from_config(cls, config):
        config["cell"] = keras.saving.deserialize_keras_object(config["cell"])
        return cls(**config)


@odd("dropout")
def lstm(units, dropout=0.0, recurrent_dropout=0.0):
    return keras.layers.LSTMCell(units, dropout=dropout, recurrent_dropout=recurrent_dropout)


@odd("dropout")
def gru_dropping(units):
    return keras.layers.GRUCell(units, reset_after=False, recurrent_activation="hard_sigmoid", dropout=0.3)


@odd()
def stack(units):
    simple = keras.layers.SimpleRNNCell(units, activation="relu")
    return keras.layers.StackedRNNCells([keras.layers.LSTMCell(3), simple])
