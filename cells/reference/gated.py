"""The references of the cells made of gates, of a dense layer, and of the matrix memory."""

import numpy as np

from cells.reference.numpy_functions import Outputs, bias_of, block, relu, scan, sigmoid, tanh


def minimal(weights, inputs, initial_states) -> Outputs:
    kernel, recurrent = weights

    def step(x, states):
        h = x @ kernel + states[0] @ recurrent
        return h, [h]

    return scan(step, inputs, initial_states)


def simple_rnn(weights, inputs, initial_states, activation=tanh) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = bias_of(weights)

    def step(x, states):
        h = activation(x @ kernel + states[0] @ recurrent + bias)
        return h, [h]

    return scan(step, inputs, initial_states)


def lstm(weights, inputs, initial_states, activation=tanh, recurrent_activation=sigmoid) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = bias_of(weights)

    def sum_of(number, x, h):
        return x @ block(kernel, number, 4) + h @ block(recurrent, number, 4) + block(bias, number, 4)

    def step(x, states):
        h, c = states
        input_gate = recurrent_activation(sum_of(0, x, h))
        forget_gate = recurrent_activation(sum_of(1, x, h))
        candidate = activation(sum_of(2, x, h))
        output_gate = recurrent_activation(sum_of(3, x, h))
        c = forget_gate * c + input_gate * candidate
        h = output_gate * activation(c)
        return h, [h, c]

    return scan(step, inputs, initial_states)


def gru(
    weights, inputs, initial_states, activation=tanh, recurrent_activation=sigmoid, reset_after=True
) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = bias_of(weights)
    input_bias, recurrent_bias = (bias[0], bias[1]) if bias.ndim == 2 else (bias, np.zeros(()))

    def from_x(number, x):
        return x @ block(kernel, number, 3) + block(input_bias, number, 3)

    def from_h(number, h):
        return h @ block(recurrent, number, 3) + block(recurrent_bias, number, 3)

    def step(x, states):
        (h,) = states
        update_gate = recurrent_activation(from_x(0, x) + from_h(0, h))
        reset_gate = recurrent_activation(from_x(1, x) + from_h(1, h))
        recall = reset_gate * from_h(2, h) if reset_after else from_h(2, reset_gate * h)
        candidate = activation(from_x(2, x) + recall)
        h = update_gate * h + (1 - update_gate) * candidate
        return h, [h]

    return scan(step, inputs, initial_states)


def slstm(weights, inputs, initial_states, activation=tanh, recurrent_activation=sigmoid) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = bias_of(weights)

    def sum_of(number, x, h):
        return x @ block(kernel, number, 2) + h @ block(recurrent, number, 2) + block(bias, number, 2)

    def step(x, states):
        h, c = states
        forget_gate = recurrent_activation(sum_of(0, x, h))
        c = forget_gate * c + (1 - forget_gate) * activation(sum_of(1, x, h))
        h = activation(c)
        return h, [h, c]

    return scan(step, inputs, initial_states)


def candidate_gru(weights, inputs, initial_states, activation=tanh, recurrent_activation=sigmoid) -> Outputs:
    kernel, recurrent = weights

    def step(x, states):
        (c,) = states
        reset_gate = recurrent_activation(x @ block(kernel, 0, 3) + c @ block(recurrent, 0, 3))
        update_gate = recurrent_activation(x @ block(kernel, 1, 3) + c @ block(recurrent, 1, 3))
        candidate = activation(x @ block(kernel, 2, 3) + (reset_gate * c) @ block(recurrent, 2, 3))
        return candidate, [update_gate * c + (1 - update_gate) * candidate]

    return scan(step, inputs, initial_states)


def dense_rnn(weights, inputs, initial_states, activation=tanh) -> Outputs:
    kernel = weights[0]
    bias = bias_of(weights, at=1)
    features = inputs.shape[-1]

    def step(x, states):
        h = activation(x @ kernel[:features] + states[0] @ kernel[features:] + bias)
        return h, [h]

    return scan(step, inputs, initial_states)


def learned_state_rnn(weights, inputs, initial_states, activation=tanh) -> Outputs:
    """`simple_rnn` with h_0 as the last weight; it counts where `initial_states` is None."""
    *weights, h_0 = weights
    if initial_states is None:
        initial_states = [np.tile(h_0, (len(inputs), 1))]
    return simple_rnn(weights, inputs, initial_states, activation)


def matrix_memory(weights, inputs, initial_states) -> Outputs:
    """The one state is [batch, keys, units]."""
    kernel = weights[0]
    bias = bias_of(weights, at=1)
    keys, units = initial_states[0].shape[1:]
    ends = np.cumsum([keys, keys, units, units, 1])

    def step(x, states):
        (memory,) = states
        query, key, value, output_gate, input_gate, forget_gate = np.split(x @ kernel + bias, ends, axis=-1)
        write = np.einsum("bi,bk,bv->bkv", sigmoid(input_gate), key, value) / np.sqrt(keys)
        memory = np.einsum("bi,bkv->bkv", sigmoid(forget_gate), memory) + write
        read = np.einsum("bk,bkv->bv", query, memory)
        return sigmoid(output_gate) * read, [memory]

    return scan(step, inputs, initial_states)


def peephole_lstm(weights, inputs, initial_states, activation=tanh, recurrent_activation=sigmoid) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = weights[2] if len(weights) == 6 else np.zeros(())
    input_peephole, forget_peephole, output_peephole = weights[-3:]

    def sum_of(number, x, h):
        return x @ block(kernel, number, 4) + h @ block(recurrent, number, 4) + block(bias, number, 4)

    def step(x, states):
        h, c = states
        input_gate = recurrent_activation(sum_of(0, x, h) + input_peephole * c)
        forget_gate = recurrent_activation(sum_of(1, x, h) + forget_peephole * c)
        c = forget_gate * c + input_gate * activation(sum_of(2, x, h))
        output_gate = recurrent_activation(sum_of(3, x, h) + output_peephole * c)
        h = output_gate * activation(c)
        return h, [h, c]

    return scan(step, inputs, initial_states)


def janet(
    weights, inputs, initial_states, activation=tanh, recurrent_activation=sigmoid, beta=1.0
) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = bias_of(weights)

    def sum_of(number, x, h):
        return x @ block(kernel, number, 2) + h @ block(recurrent, number, 2) + block(bias, number, 2)

    def step(x, states):
        (h,) = states
        forget = sum_of(0, x, h)
        take = 1 - recurrent_activation(forget - beta)
        h = recurrent_activation(forget) * h + take * activation(sum_of(1, x, h))
        return h, [h]

    return scan(step, inputs, initial_states)


def mgu(weights, inputs, initial_states, activation=tanh, recurrent_activation=sigmoid) -> Outputs:
    kernel, recurrent = weights[:2]
    bias = bias_of(weights)

    def sum_of(number, x, h):
        return x @ block(kernel, number, 2) + h @ block(recurrent, number, 2) + block(bias, number, 2)

    def step(x, states):
        (h,) = states
        forget_gate = recurrent_activation(sum_of(0, x, h))
        candidate = activation(sum_of(1, x, forget_gate * h))
        h = h + forget_gate * (candidate - h)
        return h, [h]

    return scan(step, inputs, initial_states)


def indrnn(weights, inputs, initial_states, activation=relu) -> Outputs:
    kernel, recurrent = weights[0], weights[-1]
    bias = weights[1] if len(weights) == 3 else np.zeros(())

    def step(x, states):
        h = activation(x @ kernel + recurrent * states[0] + bias)
        return h, [h]

    return scan(step, inputs, initial_states)
