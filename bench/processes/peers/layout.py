"""Weights in Keras' layout, and the same in a peer's: the order of the gates, and where the biases stand.

Keras has `kernel` [features, gates * units], `recurrent_kernel` [units, gates * units] and `bias`
[gates * units], or [2, gates * units] in a GRU with `reset_after`, input bias first.
"""

from collections.abc import Sequence

import numpy as np

Arrays = list[np.ndarray]

# the gates' letters, in the order of their blocks: input, forget, candidate, output; update (z), reset,
# candidate
KERAS = {"lstm": "ifco", "gru": "zrh", "simple_rnn": "h"}
TORCH = {"lstm": "ifco", "gru": "rzh", "simple_rnn": "h"}
ONNX = {"lstm": "iofc", "gru": "zrh", "simple_rnn": "h"}


def to_torch(cell: str, weights: Sequence[np.ndarray]) -> Arrays:
    """PyTorch's `weight_ih`, `weight_hh` [gates * units, …], `bias_ih`, `bias_hh` [gates * units].

    Where Keras has one bias, PyTorch's second is zero.
    """
    return _transposed(weights, KERAS[cell], TORCH[cell])


def from_torch(cell: str, arrays: Sequence[np.ndarray]) -> Arrays:
    """Keras' kernel, recurrent kernel and bias from PyTorch's four; the same for the gradients of each."""
    kernel, recurrent_kernel, input_bias, recurrent_bias = (
        _regated(array.T, TORCH[cell], KERAS[cell]) for array in arrays
    )
    bias = np.stack([input_bias, recurrent_bias]) if cell == "gru" else input_bias
    return [kernel, recurrent_kernel, bias]


def to_onnx(cell: str, weights: Sequence[np.ndarray]) -> Arrays:
    """ONNX's `W` [1, gates * units, features], `R` [1, gates * units, units], `B` [1, 2 * gates * units]."""
    kernel, recurrent_kernel, *biases = _transposed(weights, KERAS[cell], ONNX[cell])
    return [array[np.newaxis] for array in (kernel, recurrent_kernel, np.concatenate(biases))]


def _transposed(weights: Sequence[np.ndarray], gates: str, wanted: str) -> Arrays:
    """Both kernels, gates first, and two biases."""
    kernel, recurrent_kernel, bias = (_regated(array, gates, wanted) for array in weights)
    input_bias, recurrent_bias = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    return [
        np.ascontiguousarray(kernel.T),
        np.ascontiguousarray(recurrent_kernel.T),
        input_bias,
        recurrent_bias,
    ]


def _regated(array: np.ndarray, gates: str, wanted: str) -> np.ndarray:
    """The blocks along the last axis, which are in the order `gates`, in the order `wanted`."""
    blocks = dict(zip(gates, np.split(array, len(gates), axis=-1), strict=True))
    return np.concatenate([blocks[gate] for gate in wanted], axis=-1)
