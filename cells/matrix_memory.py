"""A cell whose state is a matrix a sequence."""

import math
from numbers import Integral

from keras import initializers, layers, ops, saving


@saving.register_keras_serializable("cells")
class MatrixMemoryCell(layers.Layer):
    """A memory that is written by outer products and read by a query: mLSTMsig of Beck et al. (Tiled Flash
    Linear Attention, 2025), with one head and without the normalisation of what is read.

        q = x W_q + b_q                          query, [batch, keys]
        k = (x W_k + b_k) / √keys                key
        v = x W_v + b_v                          value, [batch, units]
        o = σ(x W_o + b_o)                       output gate
        i = σ(x w_i + b_i),  f = σ(x w_f + b_f)  how much to write and to keep, a number a sequence
        C' = f C + i k ⊗ v
        h = o ∘ (q C')

    Output: h [batch, units]. State: C [batch, keys, units].

    Weights: `kernel` (features, 2 * keys + 2 * units + 2) and, with `use_bias`, `bias`, their blocks in the
    order q, k, v, o, i, f.

    `state_size` is a list of one shape. `keras.layers.RNN` takes a pair of integers for two vectors when it
    predicts the shapes of a functional model with `return_state`; `cells.RNN` does not.

    Args:
        units: int, the width of the output and of the values.
        keys: int, the width of keys and queries; `units` if None.
        use_bias: bool.
        kernel_initializer, bias_initializer: how the weights start.

    Raises:
        ValueError: `units` or `keys` is not a positive integer.
    """

    def __init__(
        self,
        units,
        keys=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        keys = units if keys is None else keys
        for name, value in (("units", units), ("keys", keys)):
            if not isinstance(value, Integral) or value <= 0:
                raise ValueError(f"{type(self).__name__}: {name} must be a positive integer, not {value!r}.")
        self.units, self.keys = int(units), int(keys)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)

    @property
    def state_size(self):
        """The shape of the memory, in a list of states."""
        return [(self.keys, self.units)]

    @property
    def output_size(self):
        """The width of the output."""
        return self.units

    def get_initial_state(self, batch_size=None):
        """An empty memory, zeros [batch_size, keys, units]."""
        return [ops.zeros((batch_size, self.keys, self.units), dtype=self.compute_dtype)]

    def build(self, input_shape):
        width = 2 * self.keys + 2 * self.units + 2
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], width), initializer=self.kernel_initializer
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(width,), initializer=self.bias_initializer)

    def call(self, inputs, states):
        memory = states[0]
        q, k, v, o, i, f = self._projections(inputs)
        k = k / math.sqrt(self.keys)
        i, f, o = ops.sigmoid(i), ops.sigmoid(f), ops.sigmoid(o)
        written = ops.expand_dims(i * k, 2) * ops.expand_dims(v, 1)
        memory = ops.expand_dims(f, 2) * memory + written
        read = ops.squeeze(ops.matmul(ops.expand_dims(q, 1), memory), 1)
        return o * read, [memory]

    def _projections(self, inputs):
        """x W + b in the blocks q, k, v, o, i, f, the last two of width 1."""
        sums = ops.matmul(inputs, self.kernel)
        if self.bias is not None:
            sums = sums + self.bias
        widths = [self.keys, self.keys, self.units, self.units, 1]
        return ops.split(sums, [sum(widths[: n + 1]) for n in range(len(widths))], axis=-1)

    def get_config(self):
        """The arguments that make an equal cell."""
        own = {
            "units": self.units,
            "keys": self.keys,
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
        }
        return {**super().get_config(), **own}
