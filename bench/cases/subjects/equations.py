"""The equations of the cells, whoever runs them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Equation:
    """A cell's equation, whoever runs it.

    Attributes:
        gates: how many products of the inputs and of the state a step takes; where these have other shapes,
            about as many as cost the same.
        builtin: the cell of the built-in layer that it is compared with.
    """

    gates: int
    builtin: str

    @property
    def baseline(self) -> str:
        """The name of the subject that cells of this equation are compared with by default."""
        return f"{self.builtin}-builtin"


# by the name of the cell; the first are those that most charts show, in their order
EQUATIONS = {
    "simple_rnn": Equation(1, "simple_rnn"),
    "lstm": Equation(4, "lstm"),
    "gru": Equation(3, "gru"),
    "slstm": Equation(2, "lstm"),
    "minimal": Equation(1, "simple_rnn"),
    "peephole_lstm": Equation(4, "lstm"),
    "janet": Equation(2, "lstm"),
    "mgu": Equation(2, "gru"),
    "gru_candidate": Equation(3, "gru"),
    "indrnn": Equation(1, "simple_rnn"),
    "chosen_state": Equation(1, "simple_rnn"),
    "learned_state": Equation(1, "simple_rnn"),
    "min_gru": Equation(1, "gru"),
    "sru": Equation(2, "lstm"),
    "cifg_lstm": Equation(3, "lstm"),
    "antisymmetric_rnn": Equation(2, "simple_rnn"),
    "layer_norm_gru": Equation(3, "gru"),
    "projected_lstm": Equation(9, "lstm"),
    "multiplicative_lstm": Equation(5, "lstm"),
    "rhn": Equation(3, "gru"),
    "cfc": Equation(3, "gru"),
    "lmu": Equation(1, "lstm"),
    "delta_net": Equation(3, "lstm"),
    "matrix_lstm": Equation(4, "lstm"),
}
