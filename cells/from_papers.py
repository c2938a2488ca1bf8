"""Cells of the literature that ask for more than sums of products, or for less: LSTM with peepholes, JANET,
the minimal gated unit, the independently recurrent network.

Letters as in `cells/textbook.py`.
"""

from keras import saving

from cells.gated import GatedCell
from cells.textbook import LSTMCell


@saving.register_keras_serializable("cells")
class PeepholeLSTMCell(LSTMCell):
    """LSTM whose gates see its memory (Gers, Schraudolph & Schmidhuber, Learning precise timing with LSTM
    recurrent networks, 2002).

        i = σ(x W_i + h R_i + p_i ∘ c + b_i)
        f = σ(x W_f + h R_f + p_f ∘ c + b_f)
        g = tanh(x W_c + h R_c + b_c)
        c' = f ∘ c + i ∘ g
        o = σ(x W_o + h R_o + p_o ∘ c' + b_o)
        h' = o ∘ tanh(c')

    Output: h'. Weights: those of `LSTMCell`, then p_i, p_f and p_o, each (units,), which start as `kernel`
    does.
    """

    vectors = {"input_peephole": "kernel", "forget_peephole": "kernel", "output_peephole": "kernel"}  # noqa: RUF012

    def update(self, gates, states, *vectors):
        _, c = states
        i, f, g, o = gates
        p_i, p_f, p_o = vectors
        i = self.recurrent_activation(i + p_i * c)
        f = self.recurrent_activation(f + p_f * c)
        c = f * c + i * self.activation(g)
        o = self.recurrent_activation(o + p_o * c)
        h = o * self.activation(c)
        return h, [h, c]


@saving.register_keras_serializable("cells")
class JANETCell(GatedCell):
    """Just another network: the LSTM with its forget gate alone (van der Westhuizen & Lasenby, The
    unreasonable effectiveness of the forget gate, 2018).

        s = x W_f + h R_f + b_f
        c = tanh(x W_c + h R_c + b_c)
        h' = σ(s) ∘ h + (1 − σ(s − β)) ∘ c

    Output: h'.

    Args:
        beta: float, β, by how much the cell would rather keep than take in. The other arguments are
            `GatedCell`'s. The paper starts b_f at log(u), u uniform in [1, longest dependency): give a
            `bias_initializer` for that.
    """

    gates = ("f", "c")

    def __init__(
        self, units, activation="tanh", recurrent_activation="sigmoid", use_bias=True, *, beta=1.0, **kwargs
    ):
        super().__init__(units, activation, recurrent_activation, use_bias, **kwargs)
        self.beta = beta

    def update(self, gates, states):
        (h,) = states
        s, c = gates
        h = self.recurrent_activation(s) * h
        h = h + (1 - self.recurrent_activation(s - self.beta)) * self.activation(c)
        return h, [h]


@saving.register_keras_serializable("cells")
class MGUCell(GatedCell):
    """Minimal gated unit: the GRU with one gate in place of its two (Zhou et al., Minimal gated unit for
    recurrent neural networks, 2016).

        f = σ(x W_f + h R_f + b_f)
        g = tanh(x W_h + (f ∘ h) R_h + b_h)
        h' = (1 − f) ∘ h + f ∘ g

    Output: h'.
    """

    gates = ("f", "h")
    late = ("h",)

    def __init__(self, units, activation="tanh", recurrent_activation="sigmoid", use_bias=True, **kwargs):
        super().__init__(units, activation, recurrent_activation, use_bias, **kwargs)

    def late_input(self, gates, states):
        return self.recurrent_activation(gates[0]) * states[0]

    def update(self, gates, states):
        (h,) = states
        f, g = gates
        f = self.recurrent_activation(f)
        h = (1 - f) * h + f * self.activation(g)
        return h, [h]


@saving.register_keras_serializable("cells")
class IndRNNCell(GatedCell):
    """Independently recurrent network: each unit sees no past but its own (Li et al., Independently recurrent
    neural network, 2018).

        h' = relu(x W + u ∘ h + b)

    Output: h'. Weights: `kernel`, `bias` and u, `recurrent_vector` (units,), which the `recurrent_…`
    arguments are about. It starts uniform in [-0.05, 0.05]; the paper goes up to 2 ** (1 / timesteps).
    """

    gates = ("h",)
    recurrent = False
    vectors = {"recurrent_vector": "recurrent"}  # noqa: RUF012
    without = ("recurrent_activation", "recurrent_dropout")

    def __init__(self, units, activation="relu", use_bias=True, *, recurrent_initializer="uniform", **kwargs):
        super().__init__(
            units,
            activation=activation,
            use_bias=use_bias,
            recurrent_initializer=recurrent_initializer,
            **kwargs,
        )

    def update(self, gates, states, *vectors):
        (h,) = states
        (u,) = vectors
        h = self.activation(gates[0] + u * h)
        return h, [h]
