"""A cell made of another layer."""

from numbers import Integral

from keras import activations, layers, ops, saving


@saving.register_keras_serializable("cells")
class DenseRNNCell(layers.Layer):
    """Elman's network as tutorials write it, over one dense layer that sees input and state side by side.

        h' = tanh([x, h] W + b)

    x [batch, features] is a step's input, h [batch, units] the state. Output: h'. It computes what
    `SimpleRNNCell` does with `kernel` the first `features` rows of W and `recurrent_kernel` the others.

    The dense layer is made in the constructor and built in `build`. Left to build itself at its first
    call it would make its weights inside the loop over the timesteps, where they are lost.

    Weights: those of the dense layer, `kernel` (features + units, units) and `bias` (units,).

    Args:
        units: int, the width of the output and of the state.
        activation: name or function.
        use_bias: bool, whether there is a b.

    Raises:
        ValueError: `units` is not a positive integer (from `keras.layers.Dense`).
    """

    def __init__(self, units, activation="tanh", use_bias=True, **kwargs):
        super().__init__(**kwargs)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        units = int(units) if isinstance(units, Integral) else units  # a dense layer refuses NumPy's
        self.dense = layers.Dense(units, self.activation, use_bias, dtype=self.dtype_policy, name="dense")
        self.units = units

    @property
    def state_size(self):
        """The width of the state."""
        return self.units

    @property
    def output_size(self):
        """The width of the output."""
        return self.units

    def get_initial_state(self, batch_size=None):
        """Zeros [batch_size, units]."""
        return [ops.zeros((batch_size, self.units), dtype=self.compute_dtype)]

    def build(self, input_shape):
        self.dense.build((input_shape[0], input_shape[-1] + self.units))

    def call(self, inputs, states):
        h = self.dense(ops.concatenate([inputs, states[0]], axis=-1))
        return h, [h]

    def get_config(self):
        """The arguments that make an equal cell."""
        own = {
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }
        return {**super().get_config(), **own}
