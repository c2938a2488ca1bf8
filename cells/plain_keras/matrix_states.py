"""Cells in plain Keras whose state is a matrix a sequence: DeltaNet and the matrix LSTM.

`cells.MatrixMemoryCell` is another.
"""

import math

from keras import ops, saving

from cells.plain_keras.cell import UnitsCell, positive_integer


class KeysCell(UnitsCell):
    """What cells share whose memory is written to by keys.

    Args:
        units: int, the width of the output and of the values.
        keys: int, the width of keys and queries; `units` if None.

    Raises:
        ValueError: `units` or `keys` is not a positive integer.
    """

    def __init__(self, units, keys=None, **kwargs):
        super().__init__(units, **kwargs)
        self.keys = positive_integer(self, "keys", self.units if keys is None else keys)

    def get_config(self):
        return {**super().get_config(), "keys": self.keys}


def _read(key, memory):
    """key [batch, keys] times memory [batch, keys, units]: [batch, units]."""
    return ops.squeeze(ops.matmul(ops.expand_dims(key, 1), memory), 1)


def _outer(key, value):
    """key [batch, keys] and value [batch, units]: [batch, keys, units]."""
    return ops.expand_dims(key, 2) * ops.expand_dims(value, 1)


@saving.register_keras_serializable("cells")
class DeltaNetCell(KeysCell):
    """Fast weights that are corrected by the delta rule (Schlag, Irie & Schmidhuber, Linear transformers are
    secretly fast weight programmers, 2021), with the softmax for keys that are positive and sum to one.

        q = softmax(x W_q),  k = softmax(x W_k)      query and key, [batch, keys]
        v = x W_v                                    value
        β = σ(x w_β)                                 how much to correct, a number a sequence
        S' = S + β k ⊗ (v − k S)
        h = q S'

    Output: h [batch, units]. State: S [batch, keys, units]. Weights: `kernel` (features,
    2 * keys + units + 1), its blocks in the order q, k, v, β.

    Args, errors: those of `KeysCell`.
    """

    @property
    def state_size(self):
        return [(self.keys, self.units)]

    def build(self, input_shape):
        width = 2 * self.keys + self.units + 1
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], width))

    def call(self, inputs, states):
        memory = states[0]
        ends = [self.keys, 2 * self.keys, 2 * self.keys + self.units]
        q, k, v, beta = ops.split(ops.matmul(inputs, self.kernel), ends, axis=-1)
        q, k = ops.softmax(q), ops.softmax(k)
        memory = memory + _outer(ops.sigmoid(beta) * k, v - _read(k, memory))
        return _read(q, memory), [memory]


@saving.register_keras_serializable("cells")
class MatrixLSTMCell(KeysCell):
    """mLSTM: the LSTM whose memory is a matrix, with exponential gates (Beck et al., xLSTM: extended long
    short-term memory, 2024), one head.

        q = x W_q + b_q,  k = (x W_k + b_k) / √keys  query and key, [batch, keys]
        v = x W_v + b_v,  o = σ(x W_o + b_o)         value and output gate, [batch, units]
        ĩ = x w_i + b_i,  f̃ = log σ(x w_f + b_f)     gates, a number a sequence
        m' = max(f̃ + m, ĩ)
        i = exp(ĩ − m'),  f = exp(f̃ + m − m')
        C' = f C + i k ⊗ v
        n' = f n + i k
        h = o ∘ (q C') / max(|q · n'|, exp(−m'))

    m keeps the exponentials in range; the numbers are those without it.

    Output: h [batch, units]. States: C [batch, keys, units], n [batch, keys], m [batch, 1]. Weights: `kernel`
    (features, 2 * keys + 2 * units + 2) and `bias`, their blocks in the order q, k, v, o, i, f.

    Args, errors: those of `KeysCell`.
    """

    @property
    def state_size(self):
        return [(self.keys, self.units), self.keys, 1]

    def build(self, input_shape):
        width = 2 * self.keys + 2 * self.units + 2
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], width))
        self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")

    def call(self, inputs, states):
        memory, normaliser, largest = states
        q, k, v, o, i, f = self._projections(inputs)
        k = k / math.sqrt(self.keys)
        f = ops.log_sigmoid(f) + largest
        largest = ops.maximum(f, i)
        i, f = ops.exp(i - largest), ops.exp(f - largest)
        memory = ops.expand_dims(f, 2) * memory + _outer(i * k, v)
        normaliser = f * normaliser + i * k
        weight = ops.abs(ops.sum(q * normaliser, axis=-1, keepdims=True))
        h = ops.sigmoid(o) * _read(q, memory) / ops.maximum(weight, ops.exp(-largest))
        return h, [memory, normaliser, largest]

    def _projections(self, inputs):
        """x W + b in the blocks q, k, v, o, i, f, the last two of width 1."""
        ends, at = [], 0
        for width in (self.keys, self.keys, self.units, self.units, 1):
            at += width
            ends.append(at)
        return ops.split(ops.matmul(inputs, self.kernel) + self.bias, ends, axis=-1)
