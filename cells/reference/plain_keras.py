"""The references of the cells in plain Keras."""

import numpy as np

from cells.reference.numpy_functions import (
    Array,
    Outputs,
    block,
    larger,
    log_sigmoid,
    magnitude,
    scan,
    sigmoid,
    softmax,
    tanh,
)


def min_gru(weights, inputs, initial_states) -> Outputs:
    gate_kernel, gate_bias, kernel, bias = weights

    def step(x, states):
        (h,) = states
        take = sigmoid(x @ gate_kernel + gate_bias)
        h = h + take * (x @ kernel + bias - h)
        return h, [h]

    return scan(step, inputs, initial_states)


def sru(weights, inputs, initial_states) -> Outputs:
    kernel, (forget_vector, reset_vector), bias = weights

    def step(x, states):
        (c,) = states
        candidate, forget, reset, highway = (x @ block(kernel, number, 4) for number in range(4))
        forget = sigmoid(forget + forget_vector * c + block(bias, 0, 2))
        reset = sigmoid(reset + reset_vector * c + block(bias, 1, 2))
        c = candidate + forget * (c - candidate)
        return highway + reset * (c - highway), [c]

    return scan(step, inputs, initial_states)


def cifg_lstm(weights, inputs, initial_states) -> Outputs:
    kernel, bias = weights
    features = inputs.shape[-1]

    def sum_of(number, x, h):
        of_gate = block(kernel, number, 3)
        return x @ of_gate[:features] + h @ of_gate[features:] + block(bias, number, 3)

    def step(x, states):
        h, c = states
        candidate = tanh(sum_of(2, x, h))
        c = candidate + sigmoid(sum_of(0, x, h)) * (c - candidate)
        h = sigmoid(sum_of(1, x, h)) * tanh(c)
        return h, [h, c]

    return scan(step, inputs, initial_states)


def antisymmetric_rnn(weights, inputs, initial_states, step_size=0.1, diffusion=0.1) -> Outputs:
    kernel, recurrent, bias = weights
    antisymmetric = recurrent - recurrent.T - diffusion * np.eye(len(recurrent))

    def step(x, states):
        (h,) = states
        gate, candidate = (
            x @ block(kernel, number, 2) + h @ antisymmetric + block(bias, number, 2) for number in range(2)
        )
        h = h + step_size * sigmoid(gate) * tanh(candidate)
        return h, [h]

    return scan(step, inputs, initial_states)


def _layer_norm(z: Array, gamma: Array, beta: Array) -> Array:
    """Over the last axis, with Keras' default addend of the variance."""
    centred = z - z.mean(-1, keepdims=True)
    return gamma * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3) + beta


def layer_norm_gru(weights, inputs, initial_states) -> Outputs:
    kernel, recurrent, *norms = weights

    def step(x, states):
        (h,) = states
        from_x, from_h = _layer_norm(x @ kernel, *norms[:2]), _layer_norm(h @ recurrent, *norms[2:])
        update, reset = (sigmoid(block(from_x, number, 3) + block(from_h, number, 3)) for number in range(2))
        candidate = tanh(block(from_x, 2, 3) + reset * block(from_h, 2, 3))
        h = candidate + update * (h - candidate)
        return h, [h]

    return scan(step, inputs, initial_states)


def projected_lstm(weights, inputs, initial_states) -> Outputs:
    kernel, recurrent, bias, projection = weights

    def sum_of(number, x, h):
        return x @ block(kernel, number, 4) + h @ block(recurrent, number, 4) + block(bias, number, 4)

    def step(x, states):
        h, c = states
        c = sigmoid(sum_of(1, x, h)) * c + sigmoid(sum_of(0, x, h)) * tanh(sum_of(2, x, h))
        h = (sigmoid(sum_of(3, x, h)) * tanh(c)) @ projection
        return h, [h, c]

    return scan(step, inputs, initial_states)


def multiplicative_lstm(weights, inputs, initial_states) -> Outputs:
    kernel, state_kernel, recurrent, bias = weights

    def sum_of(number, x, m):
        from_m = m @ block(recurrent, number, 4) + block(bias, number, 4)
        return x @ block(kernel, number + 1, 5) + from_m

    def step(x, states):
        h, c = states
        m = (x @ block(kernel, 0, 5)) * (h @ state_kernel)
        c = sigmoid(sum_of(1, x, m)) * c + sigmoid(sum_of(0, x, m)) * tanh(sum_of(2, x, m))
        h = sigmoid(sum_of(3, x, m)) * tanh(c)
        return h, [h, c]

    return scan(step, inputs, initial_states)


def rhn(weights, inputs, initial_states) -> Outputs:
    kernel, *recurrents, biases = weights

    def layer(number, x, s):
        sums = s @ recurrents[number] + biases[number] + (0 if number else x @ kernel)
        return s + sigmoid(block(sums, 0, 2)) * (tanh(block(sums, 1, 2)) - s)

    def step(x, states):
        (s,) = states
        for number in range(len(recurrents)):
            s = layer(number, x, s)
        return s, [s]

    return scan(step, inputs, initial_states)


def cfc(weights, inputs, initial_states, elapsed=1.0) -> Outputs:
    backbone, time, first, second = (weights[at : at + 2] for at in range(0, 8, 2))
    features = inputs.shape[-1]

    def step(x, states):
        (h,) = states
        z = tanh(x @ backbone[0][:features] + h @ backbone[0][features:] + backbone[1])
        from_z = [z @ kernel + bias for kernel, bias in (time, first, second)]
        later = sigmoid(elapsed * from_z[0])
        h = (1 - later) * tanh(from_z[1]) + later * tanh(from_z[2])
        return h, [h]

    return scan(step, inputs, initial_states)


def _legendre_transition(order: int, theta: float) -> tuple[Array, Array]:
    """The LMU's A and B over a step of one: the exponential of both in one matrix, entry by entry."""
    from scipy.linalg import expm

    both = np.zeros((order + 1, order + 1))
    for i in range(order):
        both[i, order] = (2 * i + 1) * (-1) ** i / theta
        for j in range(order):
            both[i, j] = (2 * i + 1) / theta * (-1 if i < j else (-1) ** (i - j + 1))
    exact = expm(both)
    return exact[:order, :order], exact[:order, order]


def lmu(weights, inputs, initial_states, theta=100.0) -> Outputs:
    input_encoder, hidden_encoder, kernel, recurrent, memory_kernel = weights
    transition, entry = _legendre_transition(len(memory_kernel), theta)

    def step(x, states):
        h, m = states
        signal = x @ input_encoder + h @ hidden_encoder
        m = np.einsum("ij,bj->bi", transition, m) + signal * entry
        h = tanh(x @ kernel + h @ recurrent + m @ memory_kernel)
        return h, [h, m]

    return scan(step, inputs, initial_states)


def delta_net(weights, inputs, initial_states) -> Outputs:
    """The one state is [batch, keys, units]."""
    (kernel,) = weights
    keys, units = initial_states[0].shape[1:]

    def step(x, states):
        (memory,) = states
        query, key, value, strength = np.split(x @ kernel, np.cumsum([keys, keys, units]), axis=-1)
        query, key = softmax(query), softmax(key)
        missing = value - np.einsum("bk,bkv->bv", key, memory)
        memory = memory + np.einsum("bi,bk,bv->bkv", sigmoid(strength), key, missing)
        return np.einsum("bk,bkv->bv", query, memory), [memory]

    return scan(step, inputs, initial_states)


def matrix_lstm(weights, inputs, initial_states) -> Outputs:
    """The states are [batch, keys, units], [batch, keys] and [batch, 1]."""
    kernel, bias = weights
    keys, units = initial_states[0].shape[1:]
    ends = np.cumsum([keys, keys, units, units, 1])

    def step(x, states):
        memory, normaliser, largest = states
        query, key, value, output, enter, forget = np.split(x @ kernel + bias, ends, axis=-1)
        key = key / np.sqrt(keys)
        kept = log_sigmoid(forget) + largest
        largest = larger(kept, enter)
        enter, kept = np.exp(enter - largest), np.exp(kept - largest)
        memory = kept[..., None] * memory + np.einsum("bi,bk,bv->bkv", enter, key, value)
        normaliser = kept * normaliser + enter * key
        weight = magnitude((query * normaliser).sum(-1, keepdims=True))
        read = np.einsum("bk,bkv->bv", query, memory) / larger(weight, np.exp(-largest))
        return sigmoid(output) * read, [memory, normaliser, largest]

    return scan(step, inputs, initial_states)
