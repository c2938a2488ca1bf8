"""What the references are written with: activations, the loop over the timesteps, blocks of weights.

All of it computes in the dtype of what it is given, complex128 too: hence σ written with tanh, and no `abs`.
"""

from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray
Outputs = tuple[Array, list[Array]]
Recurrence = Callable[[Sequence[Array], Array, Sequence[Array]], Outputs]


def tanh(z):
    """tanh z; of a complex step as NumPy's, in a twentieth of its time: the square of the step vanishes."""
    if not np.iscomplexobj(z):
        return np.tanh(z)
    real = np.tanh(z.real)
    return real + 1j * (z.imag * (1 - real**2))


def sigmoid(z):
    return (1 + tanh(z / 2)) / 2


def _linear(z):
    return z


def relu(z):
    return np.where(z.real > 0, z, 0)


def _relu6(z):
    return np.where(z.real < 6, relu(z), 6)


def _hard_sigmoid(z):
    return _relu6(z + 3) / 6


def _historical_hard_sigmoid(z):
    line = z / 5 + 0.5
    return np.where(line.real > 1, 1, np.where(line.real < 0, 0, line))


def _softplus(z):
    return np.where(z.real > 0, z, 0) + np.log1p(np.exp(np.where(z.real > 0, -z, z)))


def _softsign(z):
    return z / (1 + magnitude(z))


def magnitude(z):
    """|z| of what is real but for a complex step."""
    return np.where(z.real > 0, z, -z)


def larger(one, other):
    """The larger of two that are real but for a complex step."""
    return np.where(one.real > other.real, one, other)


def log_sigmoid(z):
    return -_softplus(-z)


def softmax(z):
    """Over the last axis."""
    powers = np.exp(z - z.real.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# by the name that Keras has the function under; all are analytic, or piecewise so: a complex step follows
# the piece
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": _linear,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "relu": relu,
    "relu6": _relu6,
    "hard_sigmoid": _hard_sigmoid,
    "cells>historical_hard_sigmoid": _historical_hard_sigmoid,
    "softplus": _softplus,
    "softsign": _softsign,
}


def scan(step, inputs: Array, initial_states: Sequence[Array]) -> Outputs:
    """step(x [batch, features], states) -> (output, states), over the timesteps of `inputs`."""
    outputs, states = [], list(initial_states)
    for x in np.moveaxis(inputs, 1, 0):
        output, states = step(x, states)
        outputs.append(output)
    return np.stack(outputs, axis=1), states


def bias_of(weights: Sequence[Array], at: int = 2) -> Array:
    return weights[at] if len(weights) > at else np.zeros(())


def block(array: Array, number: int, count: int) -> Array:
    """Block `number` of `count` along the last axis; a scalar is every block."""
    if array.ndim == 0:
        return array
    units = array.shape[-1] // count
    return array[..., number * units : (number + 1) * units]
