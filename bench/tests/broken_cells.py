"""Small broken cells: for every check of the contract at least one that it refuses.

`@fails(...)` beside a cell names the checks that must fail for it, and no others may. `BROKEN` lists all.
"""

from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import ops

BROKEN: dict[str, tuple[object, frozenset[str]]] = {}


def fails(*names):
    """Enters a cell in `BROKEN`: the checks that must fail, and no others."""

    def enter(factory):
        BROKEN[factory.__name__] = (factory, frozenset(names))
        return factory

    return enter


class Plain(keras.layers.Layer):
    """What all cells below would be if they were right: h' = tanh(x W + h R + b), output h'."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [units]
        self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], self.units), name="kernel")
        self.recurrent_kernel = self.add_weight((self.units, self.units), name="recurrent_kernel")
        self.bias = self.add_weight((self.units,), name="bias", initializer="zeros")

    def activate(self, z):
        return ops.tanh(z)

    def next(self, inputs, state):
        return self.activate(
            ops.matmul(inputs, self.kernel) + ops.matmul(state, self.recurrent_kernel) + self.bias
        )

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        return h, [h]


# --- protocol ----------------------------------------------------------------------------------------


@fails("layer")
class NotALayer:
    def __init__(self, units):
        self.state_size = units

    def __call__(self, inputs, states):
        return inputs, states

    call = __call__


@fails("layer")
def whole_layer(units):
    return keras.layers.LSTM(units)


_ONE = Plain(16)


@fails("layer")
def same_cell_each_time(units):
    return _ONE


@fails("state_size")
class NoStateSize(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        del self.state_size


@fails("state_size")
class StateSizeIsTensorShape(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = tf.TensorShape([units])


@fails("state_size")
class StateSizeIsNumpy(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = np.int64(units)


@fails("state_size")
class StateSizeAfterBuild(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        del self.state_size

    def build(self, input_shape):
        super().build(input_shape)
        self.state_size = self.units


@fails("build")
class BuildIsTrue(Plain):
    def build(self, input_shape):
        super().build(input_shape)
        self.build = True


@fails("build")
class BuildIsTrueFromTheStart(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.build = True


@fails("build")
class BuildRaises(Plain):
    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[2], self.units), name="kernel")


@fails("own_variables")
class DefaultArgument(Plain):
    def __init__(self, units, projection=keras.layers.Dense(6), **kwargs):  # noqa: B008 - that is the fault
        super().__init__(units, **kwargs)
        self.projection = projection
        self.output_size = 6

    def build(self, input_shape):
        super().build(input_shape)
        if not self.projection.built:
            self.projection.build((input_shape[0], self.units))

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        return self.projection(h), [h]


@fails("get_initial_state")
class OldSignature(Plain):
    def get_initial_state(self, inputs, batch_size, dtype):
        return [ops.zeros((batch_size, self.units), dtype=dtype)]


@fails("initial_state_shapes")
class OldSignatureWithDefaults(Plain):
    def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
        return [tf.zeros((batch_size, self.units), dtype)]


@fails("initial_state_shapes")
class MatrixWithoutInitialState(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [(units, units)]


@fails("initial_state_shapes")
class MatrixReadAsTwoStates(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = (units, units)

    def get_initial_state(self, batch_size=None):
        return ops.zeros((batch_size, self.units, self.units))


@fails("initial_state_shapes")
class StateWithoutBatch(Plain):
    def get_initial_state(self, batch_size=None):
        return [ops.zeros((1, self.units))]


@fails("sublayers_built")
class UnbuiltDense(Plain):
    def build(self, input_shape):
        self.dense = keras.layers.Dense(self.units)

    def next(self, inputs, state):
        return ops.tanh(self.dense(ops.concatenate([inputs, state], axis=-1)))


@fails("call")
class OutputOnly(Plain):
    def call(self, inputs, states):
        return self.next(inputs, states[0])


@fails("call")
class OutputAndStatesSideBySide(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [units, units]

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        return h, h, states[1]


@fails("call")
class TakesOneStateForTwo(Plain):
    def call(self, inputs, states):
        h, c = states
        return h, [h, c]


@fails("state_structure")
class ForgetsAState(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [units, units]


@fails("state_structure")
class NestsItsState(Plain):
    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        return h, [[h]]


@fails("state_structure")
class NamesItsState(Plain):
    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        return h, {"h": h}


@fails("state_shapes")
class GrowingState(Plain):
    def call(self, inputs, states):
        h = self.next(inputs, states[0][:, : self.units])
        return h, [ops.concatenate([states[0], h], axis=-1)]


@fails("state_dtypes")
class InsistsOnIntegers(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [units, 1]

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, self.units)), ops.zeros((batch_size, 1), dtype="int32")]

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        return h, [h, ops.cast(states[1], "int32") + 1]


@fails("output_size")
class WrongOutputSize(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.output_size = units + 1


@fails("output_size")
class NoOutputSize(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.output_size = None

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        return h[:, :2], [h]


@fails("finite")
class LogarithmOfNegatives(Plain):
    def activate(self, z):
        return ops.log(z)


@fails("units")
class AlwaysEightWide(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(8, **kwargs)


@fails("units")
def half_as_wide(units):
    return Plain(units // 2)


# --- purity ------------------------------------------------------------------------------------------


@fails("same_answer_twice")
class AlwaysNoisy(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.noise = keras.random.SeedGenerator(1)

    def activate(self, z):
        return ops.tanh(z + keras.random.normal((self.units,), seed=self.noise, dtype=self.compute_dtype))


@fails("hidden_state")
class KeepsItsStateInAnAttribute(Plain):
    previous = 0.0

    def call(self, inputs, states):
        h = self.next(inputs, states[0] + self.previous)
        answer, self.previous = h + 0.1 * self.previous, states[0]
        return answer, [h]


@fails("hidden_state")
class RemembersInAList(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.memory = []

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        self.memory.append(inputs)
        return h * ops.mean(self.memory[-2:][0]), [h]


@fails("hidden_state")
class AveragesItsInputs(Plain):
    """As batch normalisation does, but at inference too."""

    def build(self, input_shape):
        super().build(input_shape)
        self.average = self.add_weight((), name="average", initializer="zeros", trainable=False)

    def call(self, inputs, states):
        h = self.next(inputs - self.average, states[0])
        self.average.assign(0.5 * self.average + 0.5 * ops.mean(inputs))
        return h, [h]


@fails("switches")
class FlipsASwitch(Plain):
    def build(self, input_shape):
        super().build(input_shape)
        tf.config.run_functions_eagerly(True)


@fails("switches")
class SeedsInCall(Plain):
    def activate(self, z):
        tf.random.set_seed(1)
        return ops.tanh(z)


@fails(
    # A pass over a sequence begins with a state of zeros; this cell counts them, and answers differently.
    # So two passes never agree, which all of these compare. Nothing else but a hidden state could: what
    # differs between them is done by Keras' layer, outside of the cell.
    "graph",
    "causality",
    "independent_samples",
    "unroll",
    "stateful",
    "go_backwards",
    "zero_output_for_mask",
    "return_state",
    "bidirectional",
    "initial_state",
)
class CountsPasses(Plain):
    def build(self, input_shape):
        super().build(input_shape)
        self.passes = self.add_weight((), name="passes", initializer="zeros", trainable=False)

    def call(self, inputs, states):
        begins = ops.cast(ops.all(ops.equal(states[0], 0)), "float32")
        self.passes.assign_add(begins)
        h = self.next(inputs, states[0] + ops.cast(begins * self.passes, states[0].dtype))
        return h, [h]


@fails("independent_samples")
class NormalisesOverTheBatch(Plain):
    def activate(self, z):
        return ops.tanh(z - ops.mean(z, axis=0, keepdims=True))


@fails("any_batch_size")
class BatchOfThree(Plain):
    def activate(self, z):
        return ops.reshape(ops.tanh(z), (3, self.units))


@fails("any_batch_size")
class StaticBatch(Plain):
    """Takes the batch size from the static shape, which is None in a graph for any batch."""

    def activate(self, z):
        return ops.tanh(z + ops.zeros((z.shape[0], 1), dtype=z.dtype))


@fails("any_timesteps")
class EightPositions(Plain):
    """Looks its position up in a table of eight."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [units, 1]

    def build(self, input_shape):
        super().build(input_shape)
        self.table = self.add_weight((8, self.units), name="table")

    def call(self, inputs, states):
        position = ops.cast(states[1][:, 0] + 0.5, "int32")
        h = self.next(inputs, states[0] + ops.take(self.table, position, axis=0))
        return h, [h, states[1] + 1]


# --- weights -----------------------------------------------------------------------------------------


@fails("weights_created_once")
class DenseInCall(Plain):
    def activate(self, z):
        return keras.layers.Dense(self.units, "tanh", kernel_initializer="identity")(z)


@fails("weights_tracked")
class RawVariable(Plain):
    def build(self, input_shape):
        super().build(input_shape)
        self.scale = tf.Variable(tf.ones((self.units,)), name="scale")

    def activate(self, z):
        return ops.tanh(z * ops.cast(self.scale, z.dtype))


class Drawer:
    """A plain object, in which Keras does not look for weights."""


@fails("weights_tracked")
class WeightInADrawer(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.drawer = Drawer()
        self.drawer.scale = keras.Variable(np.ones(units), name="scale")

    def activate(self, z):
        return ops.tanh(z * ops.cast(self.drawer.scale, z.dtype))


@fails("weight_gradients")
class UnusedWeight(Plain):
    def build(self, input_shape):
        super().build(input_shape)
        self.unused = self.add_weight((self.units,), name="unused")


@fails("weight_gradients")
class InfiniteGradient(Plain):
    def next(self, inputs, state):
        return super().next(inputs, state) + ops.sum(ops.sqrt(0 * self.bias))


@fails("weight_gradients")
class ExcusesAWeightItHasNot(Plain):
    no_gradient: ClassVar = {"kernels": "they are frozen"}


@fails("set_weights")
class CopiesItsKernelInBuild(Plain):
    def build(self, input_shape):
        super().build(input_shape)
        self.copy = ops.convert_to_tensor(self.kernel) / 2

    def next(self, inputs, state):
        return super().next(inputs, state) + ops.matmul(inputs, ops.cast(self.copy, inputs.dtype))


@fails("set_weights")
class RandomReservoir(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.reservoir = np.random.normal(size=units)

    def activate(self, z):
        return ops.tanh(z + ops.cast(self.reservoir, z.dtype))


@fails("get_config")
class ConfigWithoutUnits(Plain):
    def get_config(self):
        return super().get_config()


@fails("get_config")
class ArgumentThatCannotBeSaved(Plain):
    def __init__(self, units, initializer=keras.initializers.Zeros(), **kwargs):  # noqa: B008
        super().__init__(units, **kwargs)


@fails("get_config")
class LosesAnArgument(Plain):
    """The copy gets the default `gain`, not the one it was made with."""

    def __init__(self, units, gain=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.gain = gain

    def activate(self, z):
        return ops.tanh(self.gain * z)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def half_gain(units):
    return LosesAnArgument(units, gain=0.5)


BROKEN["LosesAnArgument"] = (half_gain, frozenset({"get_config"}))


@fails("save_load")
class LoadsNoBias(Plain):
    def load_own_variables(self, store):
        self.kernel.assign(store["0"])
        self.recurrent_kernel.assign(store["1"])


# --- gradients ---------------------------------------------------------------------------------------


@tf.custom_gradient
def tanh_with_wrong_gradient(z):
    return tf.tanh(z), lambda upstream: upstream * (1 - z * z)


@fails("gradient")
class WrongCustomGradient(Plain):
    def activate(self, z):
        return tanh_with_wrong_gradient(ops.convert_to_tensor(z))


@fails("gradient")
class StopsAGradient(Plain):
    def next(self, inputs, state):
        return super().next(inputs, ops.stop_gradient(state))


@fails("fit")
class AddsALoss(Plain):
    def activate(self, z):
        self.add_loss(1e-3 * ops.mean(ops.square(z)))
        return ops.tanh(z)


@fails("fit")
class RegularisesActivity(Plain):
    """A loss of its sub-layer's, made in a step too."""

    def build(self, input_shape):
        super().build(input_shape)
        self.dense = keras.layers.Dense(self.units, activity_regularizer="l2")
        self.dense.build((None, self.units))

    def activate(self, z):
        return ops.tanh(self.dense(z))


# --- one answer however it is run --------------------------------------------------------------------


@fails("graph")
class ChecksItsInputsInPython(Plain):
    def activate(self, z):
        if float(ops.max(ops.abs(z))) > 1e6:
            raise ValueError("inputs out of range")
        return ops.tanh(z)


@fails("xla")
class CallsPython(Plain):
    def activate(self, z):
        h = tf.py_function(tf.tanh, [z], z.dtype)
        h.set_shape(z.shape)
        return h


@fails("mask")
class OutputOfUnknownWidth(Plain):
    """No static last axis, which Keras needs for a mask in an unrolled graph."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.supports_jit = False

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        width = tf.reduce_sum(tf.cast(tf.equal(h[0], h[0]), "int32"))
        return h[:, :width], [h]


@fails("mask_gradients")
class DividesByTheNorm(Plain):
    """Zero padding makes 0 / 0 in the masked steps, which reaches the gradients."""

    def next(self, inputs, state):
        norm = ops.sqrt(ops.sum(ops.square(inputs), axis=-1, keepdims=True))
        return super().next(inputs / norm, state)


@fails("stacked")
class BareState(Plain):
    """Not in a list: at batch size 1 Keras' StackedRNNCells takes the tensor for a list of one."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = units

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        return h, h


@fails("stacked")
class BareStateInAGraph(Plain):
    """As the list of sizes says there is a list of states; a graph cannot take the tensor for one."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [units]

    def call(self, inputs, states):
        h = self.next(inputs, states[0])
        return h, h


_MADE: dict[str, Plain] = {}  # not in the class, whose attributes Keras walks through when it loads


@fails("bidirectional")
class MadeOnlyOnce(Plain):
    """Its from_config returns the same cell again, so that both directions are one."""

    @classmethod
    def from_config(cls, config):
        return _MADE.setdefault(config["name"], cls(**config))


@fails("float64", "mixed_float16", "mixed_bfloat16")
class InsistsOnFloat32(Plain):
    def activate(self, z):
        return z * tf.ones([], tf.float32)


@fails("float64")
class HasNoFloat64Epsilon(Plain):
    epsilon: ClassVar = {"float32": 1e-7, "float16": 1e-3, "bfloat16": 1e-2}

    def activate(self, z):
        return ops.tanh(z) / (1 + self.epsilon[self.compute_dtype])


@fails("mixed_float16")
class OverflowsInFloat16(Plain):
    def activate(self, z):
        large = ops.cast(1e5, z.dtype)
        return ops.tanh(z) * (large / large)


@fails("mixed_bfloat16")
class HasNoBfloat16Epsilon(Plain):
    epsilon: ClassVar = {"float64": 1e-9, "float32": 1e-7, "float16": 1e-3}

    def activate(self, z):
        return ops.tanh(z) / (1 + self.epsilon[self.compute_dtype])


class Dropping(Plain):
    """Right but for `mask`, which the cells below get wrong."""

    def __init__(self, units, dropout=0.0, **kwargs):
        super().__init__(units, **kwargs)
        self.dropout = dropout

    def call(self, inputs, states, training=False):
        h = self.next(self.drop(inputs, training), states[0])
        return h, [h]


@fails("dropout")
class DropsAtInference(Dropping):
    def drop(self, inputs, training):
        return keras.random.dropout(inputs, self.dropout, seed=7) if self.dropout else inputs


@fails("dropout")
class DropsNothing(Dropping):
    def drop(self, inputs, training):
        return inputs


@fails("dropout")
class DropsNoState(Dropping):
    def __init__(self, units, dropout=0.0, recurrent_dropout=0.0, **kwargs):
        super().__init__(units, dropout, **kwargs)
        self.recurrent_dropout = recurrent_dropout
        self.masks = keras.random.SeedGenerator(1)

    def drop(self, inputs, training):
        return keras.random.dropout(inputs, self.dropout, seed=self.masks) if training else inputs


@fails("dropout")
class DropsTheSameEachTime(Dropping):
    def drop(self, inputs, training):
        return keras.random.dropout(inputs, self.dropout, seed=7) if training and self.dropout else inputs


@fails("dropout")
class DropsWithoutASeed(Dropping):
    def drop(self, inputs, training):
        keep = np.random.default_rng().random(inputs.shape[-1]) >= self.dropout
        return inputs * ops.cast(keep, inputs.dtype) if training else inputs


@fails("initial_state")
class PreparesInGetInitialState(Plain):
    """Keras does not call get_initial_state when it is given a state."""

    def get_initial_state(self, batch_size=None):
        self.scale = ops.full((batch_size, 1), 0.5, dtype=self.compute_dtype)
        return [ops.zeros((batch_size, self.units), dtype=self.compute_dtype)]

    def activate(self, z):
        return ops.tanh(z) * self.scale


@fails("reference")
class ForgetsTheBiasInItsReference(Plain):
    def reference(self, inputs, initial_states):
        kernel, recurrent_kernel, _ = self.get_weights()
        h, outputs = initial_states[0], []
        for x in np.moveaxis(inputs, 1, 0):
            h = np.tanh(x @ kernel + h @ recurrent_kernel)
            outputs.append(h)
        return np.stack(outputs, axis=1), [h]


@fails("reference")
class ReturnsNoStatesInItsReference(Plain):
    def reference(self, inputs, initial_states):
        return inputs
