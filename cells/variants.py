"""Variants of the textbook cells, as tutorials wrote them: a GRU with another output, LSTMs with a hard σ.

Letters as in `cells/textbook.py`.
"""

from keras import saving

from cells.activations import historical_hard_sigmoid
from cells.gated import GatedCell
from cells.textbook import LSTMCell


@saving.register_keras_serializable("cells")
class CandidateGRUCell(GatedCell):
    """The GRU of a character-model tutorial: no biases, and the candidate is the output.

        r = σ(x W_r + c R_r)
        u = σ(x W_u + c R_u)
        h = tanh(x W_h + (r ∘ c) R_h)
        c' = u ∘ c + (1 − u) ∘ h

    Output: h, the candidate, and not the state c' as in Cho et al. (2014) and Keras. State: c
    [batch, units]. The reset gate works before the product, as in Keras with `reset_after=False`; the
    blocks of the weights stand in the order r, u, h.
    """

    gates = ("r", "u", "h")
    states = ("c",)
    late = ("h",)
    without = ("use_bias", "bias_initializer", "bias_regularizer", "bias_constraint")

    def __init__(self, units, activation="tanh", recurrent_activation="sigmoid", **kwargs):
        super().__init__(units, activation, recurrent_activation, use_bias=False, **kwargs)

    def late_input(self, gates, states):
        return self.recurrent_activation(gates[0]) * states[0]

    def update(self, gates, states):
        (c,) = states
        _, u, h = gates
        u = self.recurrent_activation(u)
        h = self.activation(h)
        c = u * c + (1 - u) * h
        return h, [c]


@saving.register_keras_serializable("cells")
class HardSigmoidLSTMCell(LSTMCell):
    """`LSTMCell` with σ(a) = relu6(a + 3) / 6, which is `hard_sigmoid` in Keras 3.

    Howard et al. (Searching for MobileNetV3, 2019) give this form.
    """

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="hard_sigmoid",
        use_bias=True,
        *,
        unit_forget_bias=True,
        **kwargs,
    ):
        super().__init__(
            units, activation, recurrent_activation, use_bias, unit_forget_bias=unit_forget_bias, **kwargs
        )


@saving.register_keras_serializable("cells")
class HistoricalHardSigmoidLSTMCell(LSTMCell):
    """`LSTMCell` with σ(a) = clip(0.2 a + 0.5, 0, 1), the default of `LSTM` in Keras 1 and early Keras 2.

    Models of that time compute this; loaded with today's `hard_sigmoid` they compute something else.
    """

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation=historical_hard_sigmoid,
        use_bias=True,
        *,
        unit_forget_bias=True,
        **kwargs,
    ):
        super().__init__(
            units, activation, recurrent_activation, use_bias, unit_forget_bias=unit_forget_bias, **kwargs
        )
