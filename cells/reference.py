"""The same recurrences once more, in NumPy, from the equations: what the cells are held against.

Nothing is shared with the cells. A reference is a function

    f(weights, inputs, initial_states) -> (outputs, states)

with `weights` in the cell's `get_weights()` order, inputs [batch, timesteps, features], every state and
the final states [batch, units], outputs [batch, timesteps, units]. It computes in the dtype of what it is
given, float64 or complex128, so that a complex step through it gives exact derivatives: hence σ written
with tanh, no `abs`, and nothing stored in an array of a fixed dtype.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

from cells.dense import DenseRNNCell
from cells.from_papers import IndRNNCell, JANETCell, MGUCell, PeepholeLSTMCell
from cells.initial_state import ChosenStateRNNCell, LearnedStateRNNCell
from cells.matrix_memory import MatrixMemoryCell
from cells.textbook import GRUCell, LSTMCell, MinimalRNNCell, SimpleRNNCell, SLSTMCell
from cells.variants import CandidateGRUCell, HardSigmoidLSTMCell, HistoricalHardSigmoidLSTMCell

Array = np.ndarray
Outputs = tuple[Array, list[Array]]
Recurrence = Callable[[Sequence[Array], Array, Sequence[Array]], Outputs]


def _sigmoid(z):
    return (1 + np.tanh(z / 2)) / 2


def _linear(z):
    return z


def _relu(z):
    return np.where(z.real > 0, z, 0)


def _relu6(z):
    return np.where(z.real < 6, _relu(z), 6)


def _hard_sigmoid(z):
    return _relu6(z + 3) / 6


def _historical_hard_sigmoid(z):
    line = z / 5 + 0.5
    return np.where(line.real > 1, 1, np.where(line.real < 0, 0, line))


def _softplus(z):
    return np.where(z.real > 0, z, 0) + np.log1p(np.exp(np.where(z.real > 0, -z, z)))


def _softsign(z):
    return z / (1 + np.where(z.real > 0, z, -z))


# by the name that Keras has the function under; all are analytic, or piecewise so: a complex step follows
# the piece
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": _linear,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "relu": _relu,
    "relu6": _relu6,
    "hard_sigmoid": _hard_sigmoid,
    "cells>historical_hard_sigmoid": _historical_hard_sigmoid,
    "softplus": _softplus,
    "softsign": _softsign,
}


def _scan(step, inputs: Array, initial_states: Sequence[Array]) -> Outputs:
    """step(x [batch, features], states) -> (output, states), over the timesteps of `inputs`."""
    outputs, states = [], list(initial_states)
    for x in np.moveaxis(inputs, 1, 0):
        output, states = step(x, states)
        outputs.append(output)
    return np.stack(outputs, axis=1), states


def _bias(weights: Sequence[Array], at: int = 2) -> Array:
    return weights[at] if len(weights) > at else np.zeros(())


def _gate(array: Array, number: int, count: int) -> Array:
    """Block `number` of `count` along the last axis; a scalar is every block."""
    if array.ndim == 0:
        return array
    units = array.shape[-1] // count
    return array[..., number * units : (number + 1) * units]


def minimal(weights, inputs, initial_states) -> Outputs:
    kernel, recurrent = weights

    def step(x, states):
        h = x @ kernel + states[0] @ recurrent
        return h, [h]

    return _scan(step, inputs, initial_states)


def simple_rnn(weights, inputs, initial_states, activation=np.tanh) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = _bias(weights)

    def step(x, states):
        h = activation(x @ kernel + states[0] @ recurrent + bias)
        return h, [h]

    return _scan(step, inputs, initial_states)


def lstm(weights, inputs, initial_states, activation=np.tanh, recurrent_activation=_sigmoid) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = _bias(weights)

    def sum_of(number, x, h):
        return x @ _gate(kernel, number, 4) + h @ _gate(recurrent, number, 4) + _gate(bias, number, 4)

    def step(x, states):
        h, c = states
        input_gate = recurrent_activation(sum_of(0, x, h))
        forget_gate = recurrent_activation(sum_of(1, x, h))
        candidate = activation(sum_of(2, x, h))
        output_gate = recurrent_activation(sum_of(3, x, h))
        c = forget_gate * c + input_gate * candidate
        h = output_gate * activation(c)
        return h, [h, c]

    return _scan(step, inputs, initial_states)


def gru(
    weights, inputs, initial_states, activation=np.tanh, recurrent_activation=_sigmoid, reset_after=True
) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = _bias(weights)
    input_bias, recurrent_bias = (bias[0], bias[1]) if bias.ndim == 2 else (bias, np.zeros(()))

    def from_x(number, x):
        return x @ _gate(kernel, number, 3) + _gate(input_bias, number, 3)

    def from_h(number, h):
        return h @ _gate(recurrent, number, 3) + _gate(recurrent_bias, number, 3)

    def step(x, states):
        (h,) = states
        update_gate = recurrent_activation(from_x(0, x) + from_h(0, h))
        reset_gate = recurrent_activation(from_x(1, x) + from_h(1, h))
        recall = reset_gate * from_h(2, h) if reset_after else from_h(2, reset_gate * h)
        candidate = activation(from_x(2, x) + recall)
        h = update_gate * h + (1 - update_gate) * candidate
        return h, [h]

    return _scan(step, inputs, initial_states)


def slstm(weights, inputs, initial_states, activation=np.tanh, recurrent_activation=_sigmoid) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = _bias(weights)

    def sum_of(number, x, h):
        return x @ _gate(kernel, number, 2) + h @ _gate(recurrent, number, 2) + _gate(bias, number, 2)

    def step(x, states):
        h, c = states
        forget_gate = recurrent_activation(sum_of(0, x, h))
        c = forget_gate * c + (1 - forget_gate) * activation(sum_of(1, x, h))
        h = activation(c)
        return h, [h, c]

    return _scan(step, inputs, initial_states)


def candidate_gru(
    weights, inputs, initial_states, activation=np.tanh, recurrent_activation=_sigmoid
) -> Outputs:
    kernel, recurrent = weights

    def step(x, states):
        (c,) = states
        reset_gate = recurrent_activation(x @ _gate(kernel, 0, 3) + c @ _gate(recurrent, 0, 3))
        update_gate = recurrent_activation(x @ _gate(kernel, 1, 3) + c @ _gate(recurrent, 1, 3))
        candidate = activation(x @ _gate(kernel, 2, 3) + (reset_gate * c) @ _gate(recurrent, 2, 3))
        return candidate, [update_gate * c + (1 - update_gate) * candidate]

    return _scan(step, inputs, initial_states)


def dense_rnn(weights, inputs, initial_states, activation=np.tanh) -> Outputs:
    kernel = weights[0]
    bias = _bias(weights, at=1)
    features = inputs.shape[-1]

    def step(x, states):
        h = activation(x @ kernel[:features] + states[0] @ kernel[features:] + bias)
        return h, [h]

    return _scan(step, inputs, initial_states)


def learned_state_rnn(weights, inputs, initial_states, activation=np.tanh) -> Outputs:
    """`simple_rnn` with h_0 as the last weight; it counts where `initial_states` is None."""
    *weights, h_0 = weights
    if initial_states is None:
        initial_states = [np.tile(h_0, (len(inputs), 1))]
    return simple_rnn(weights, inputs, initial_states, activation)


def matrix_memory(weights, inputs, initial_states) -> Outputs:
    """The one state is [batch, keys, units]."""
    kernel = weights[0]
    bias = _bias(weights, at=1)
    keys, units = initial_states[0].shape[1:]
    ends = np.cumsum([keys, keys, units, units, 1])

    def step(x, states):
        (memory,) = states
        query, key, value, output_gate, input_gate, forget_gate = np.split(x @ kernel + bias, ends, axis=-1)
        write = np.einsum("bi,bk,bv->bkv", _sigmoid(input_gate), key, value) / np.sqrt(keys)
        memory = np.einsum("bi,bkv->bkv", _sigmoid(forget_gate), memory) + write
        read = np.einsum("bk,bkv->bv", query, memory)
        return _sigmoid(output_gate) * read, [memory]

    return _scan(step, inputs, initial_states)


def peephole_lstm(
    weights, inputs, initial_states, activation=np.tanh, recurrent_activation=_sigmoid
) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = weights[2] if len(weights) == 6 else np.zeros(())
    input_peephole, forget_peephole, output_peephole = weights[-3:]

    def sum_of(number, x, h):
        return x @ _gate(kernel, number, 4) + h @ _gate(recurrent, number, 4) + _gate(bias, number, 4)

    def step(x, states):
        h, c = states
        input_gate = recurrent_activation(sum_of(0, x, h) + input_peephole * c)
        forget_gate = recurrent_activation(sum_of(1, x, h) + forget_peephole * c)
        c = forget_gate * c + input_gate * activation(sum_of(2, x, h))
        output_gate = recurrent_activation(sum_of(3, x, h) + output_peephole * c)
        h = output_gate * activation(c)
        return h, [h, c]

    return _scan(step, inputs, initial_states)


def janet(
    weights, inputs, initial_states, activation=np.tanh, recurrent_activation=_sigmoid, beta=1.0
) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = _bias(weights)

    def sum_of(number, x, h):
        return x @ _gate(kernel, number, 2) + h @ _gate(recurrent, number, 2) + _gate(bias, number, 2)

    def step(x, states):
        (h,) = states
        forget = sum_of(0, x, h)
        take = 1 - recurrent_activation(forget - beta)
        h = recurrent_activation(forget) * h + take * activation(sum_of(1, x, h))
        return h, [h]

    return _scan(step, inputs, initial_states)


def mgu(weights, inputs, initial_states, activation=np.tanh, recurrent_activation=_sigmoid) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = _bias(weights)

    def sum_of(number, x, h):
        return x @ _gate(kernel, number, 2) + h @ _gate(recurrent, number, 2) + _gate(bias, number, 2)

    def step(x, states):
        (h,) = states
        forget_gate = recurrent_activation(sum_of(0, x, h))
        candidate = activation(sum_of(1, x, forget_gate * h))
        h = h + forget_gate * (candidate - h)
        return h, [h]

    return _scan(step, inputs, initial_states)


def indrnn(weights, inputs, initial_states, activation=_relu) -> Outputs:
    kernel, recurrent = weights[0], weights[-1]
    bias = weights[1] if len(weights) == 3 else np.zeros(())

    def step(x, states):
        h = activation(x @ kernel + recurrent * states[0] + bias)
        return h, [h]

    return _scan(step, inputs, initial_states)


def _zeros(shape) -> Array:
    return np.zeros(shape)


def _forget_bias_of_one(shape) -> Array:
    bias = np.zeros(shape)
    bias[shape[0] // 4 : shape[0] // 2] = 1
    return bias


@dataclass(frozen=True)
class Reference:
    """What a cell must compute, and how its bias must start.

    Attributes:
        recurrence: the equation, with the cell's settings as keyword arguments.
        initial_bias: the shape of the bias -> its values before training, under the default initialisers.
    """

    recurrence: Callable[..., Outputs]
    initial_bias: Callable[[tuple[int, ...]], Array] = _zeros


_LSTM = Reference(lstm, _forget_bias_of_one)
REFERENCES: dict[type, Reference] = {
    MinimalRNNCell: Reference(minimal),
    SimpleRNNCell: Reference(simple_rnn),
    LSTMCell: _LSTM,
    GRUCell: Reference(gru),
    SLSTMCell: Reference(slstm),
    CandidateGRUCell: Reference(candidate_gru),
    HardSigmoidLSTMCell: _LSTM,
    HistoricalHardSigmoidLSTMCell: _LSTM,
    DenseRNNCell: Reference(dense_rnn),
    ChosenStateRNNCell: Reference(simple_rnn),
    LearnedStateRNNCell: Reference(learned_state_rnn),
    MatrixMemoryCell: Reference(matrix_memory),
    PeepholeLSTMCell: Reference(peephole_lstm, _forget_bias_of_one),
    JANETCell: Reference(janet),
    MGUCell: Reference(mgu),
    IndRNNCell: Reference(indrnn),
    keras.layers.SimpleRNNCell: Reference(simple_rnn),
    keras.layers.LSTMCell: _LSTM,
    keras.layers.GRUCell: Reference(gru),
}


def reference_for(cell) -> Recurrence | None:
    """The reference of a built cell with its settings filled in, or None if the project has none for it.

    A cell with a method `reference(inputs, initial_states)` of its own is held against that: the weights
    are set in the cell, which had better be a float64 one, and it computes in float64 only.
    """
    own = getattr(cell, "reference", None)
    if callable(own):

        def recurrence(weights, inputs, initial_states):
            cell.set_weights(weights)
            return own(inputs, initial_states)

        return recurrence
    entry = REFERENCES.get(type(cell))
    if entry is None:
        return None
    return partial(entry.recurrence, **_settings(cell, entry.recurrence))


def _settings(cell, recurrence) -> dict:
    """Those of the cell's attributes that the recurrence takes, activations as NumPy functions."""
    names = list(inspect.signature(recurrence).parameters)[3:]
    return {
        name: _numpy(getattr(cell, name)) if "activation" in name else getattr(cell, name) for name in names
    }


def _numpy(activation) -> Callable[[Array], Array]:
    name = keras.saving.get_registered_name(activation)
    if name not in ACTIVATIONS:
        raise NotImplementedError(
            f"no NumPy form of the activation {name!r}; there are {', '.join(sorted(ACTIVATIONS))}"
        )
    return ACTIVATIONS[name]
