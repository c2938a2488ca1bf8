"""The textbook cells: Minimal, SimpleRNN, LSTM, GRU and the simplified LSTM, each as its equation.

x [batch, features] is a step's input, h [batch, units] the state before the step, σ the
`recurrent_activation`, tanh the `activation`, ∘ the elementwise product. Where Keras has the cell, the
weights have Keras' names, shapes and order, so that they move freely between the two.
"""

from keras import initializers, ops, saving

from cells.gated import GatedCell


@saving.register_keras_serializable("cells")
class MinimalRNNCell(GatedCell):
    """The least recurrent cell, from the documentation of `keras.layers.RNN`.

        h' = x W + h U

    Uniform initialisers, no bias, no activation. Output: h'.
    """

    gates = ("h",)
    without = (
        "activation",
        "recurrent_activation",
        "use_bias",
        "bias_initializer",
        "bias_regularizer",
        "bias_constraint",
    )

    def __init__(self, units, *, kernel_initializer="uniform", recurrent_initializer="uniform", **kwargs):
        super().__init__(
            units,
            use_bias=False,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            **kwargs,
        )

    def update(self, gates, states):
        (h,) = gates
        return h, [h]


@saving.register_keras_serializable("cells")
class SimpleRNNCell(GatedCell):
    """Elman's network (Finding structure in time, 1990), with the weights of `keras.layers.SimpleRNNCell`.

        h' = tanh(x W + h R + b)

    Output: h'.
    """

    gates = ("h",)
    without = ("recurrent_activation",)

    def __init__(self, units, activation="tanh", use_bias=True, **kwargs):
        super().__init__(units, activation=activation, use_bias=use_bias, **kwargs)

    def update(self, gates, states):
        h = self.activation(gates[0])
        return h, [h]


@saving.register_keras_serializable("cells")
class LSTMCell(GatedCell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000),
    with the weights of `keras.layers.LSTMCell`.

        i = σ(x W_i + h R_i + b_i)
        f = σ(x W_f + h R_f + b_f)
        g = tanh(x W_c + h R_c + b_c)
        o = σ(x W_o + h R_o + b_o)
        c' = f ∘ c + i ∘ g
        h' = o ∘ tanh(c')

    Output: h'. Args: `unit_forget_bias` starts b_f at 1 (Jozefowicz et al. 2015); the others are
    `GatedCell`'s.
    """

    gates = ("i", "f", "c", "o")
    states = ("h", "c")

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        *,
        unit_forget_bias=True,
        **kwargs,
    ):
        super().__init__(units, activation, recurrent_activation, use_bias, **kwargs)
        self.unit_forget_bias = unit_forget_bias

    def get_bias_initializer(self):
        if not self.unit_forget_bias:
            return self.bias_initializer

        def with_forget_bias_of_one(shape, dtype=None):
            i, _, c, o = ops.split(self.bias_initializer(shape, dtype=dtype), 4)
            return ops.concatenate([i, initializers.Ones()(i.shape, dtype=dtype), c, o])

        return with_forget_bias_of_one

    def update(self, gates, states):
        _, c = states
        i, f, g, o = gates
        i = self.recurrent_activation(i)
        f = self.recurrent_activation(f)
        c = f * c + i * self.activation(g)
        o = self.recurrent_activation(o)
        h = o * self.activation(c)
        return h, [h, c]


@saving.register_keras_serializable("cells")
class GRUCell(GatedCell):
    """Gated recurrent unit (Cho et al. 2014), with the weights of `keras.layers.GRUCell`.

        z = σ(x W_z + h R_z + b_z)
        r = σ(x W_r + h R_r + b_r)
        g = tanh(x W_h + b_h + r ∘ (h R_h + b'_h))      with reset_after, as in cuDNN
        g = tanh(x W_h + b_h + (r ∘ h) R_h)             without, as in the paper
        h' = z ∘ h + (1 − z) ∘ g

    Output: h'. With `reset_after` the products have a bias each and `bias` is (2, 3 * units): those of x W,
    then those of h R. Args: `reset_after`; the others are `GatedCell`'s.
    """

    gates = ("z", "r", "h")

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        *,
        reset_after=True,
        **kwargs,
    ):
        super().__init__(units, activation, recurrent_activation, use_bias, **kwargs)
        self.reset_after = reset_after

    @property
    def separate(self):  # type: ignore[override]  # here it depends on an argument
        return ("h",) if self.reset_after else ()

    @property
    def late(self):  # type: ignore[override]
        return () if self.reset_after else ("h",)

    def late_input(self, gates, states):
        return self.recurrent_activation(gates[1]) * states[0]

    def update(self, gates, states):
        (h,) = states
        z, r, g = gates
        z = self.recurrent_activation(z)
        if self.reset_after:
            from_x, from_h = g
            g = from_x + self.recurrent_activation(r) * from_h
        h = z * h + (1 - z) * self.activation(g)
        return h, [h]


@saving.register_keras_serializable("cells")
class SLSTMCell(GatedCell):
    """The simplified LSTM of Wu & King (Investigating gated recurrent networks for speech synthesis, 2016):
    the forget gate alone is left, and it also says how much of the new to take.

        f = σ(x W_f + h R_f + b_f)
        c' = f ∘ c + (1 − f) ∘ tanh(x W_c + h R_c + b_c)
        h' = tanh(c')

    Output: h'.
    """

    gates = ("f", "c")
    states = ("h", "c")

    def __init__(self, units, activation="tanh", recurrent_activation="sigmoid", use_bias=True, **kwargs):
        super().__init__(units, activation, recurrent_activation, use_bias, **kwargs)

    def update(self, gates, states):
        _, c = states
        f, g = gates
        f = self.recurrent_activation(f)
        c = f * c + (1 - f) * self.activation(g)
        h = self.activation(c)
        return h, [h, c]
