"""The same recurrences once more, in NumPy, from the equations: what the cells are held against.

Nothing is shared with the cells. `gated` and `plain_keras` hold the equations, `REFERENCES` says which cell
has which. A reference is a function

    f(weights, inputs, initial_states) -> (outputs, states)

with `weights` in the cell's `get_weights()` order, inputs [batch, timesteps, features], every state and
the final states [batch, units], outputs [batch, timesteps, units]. It computes in the dtype of what it is
given, float64 or complex128, so that a complex step through it gives exact derivatives: hence σ written
with tanh, no `abs`, and nothing stored in an array of a fixed dtype.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

from cells.dense import DenseRNNCell
from cells.from_papers import IndRNNCell, JANETCell, MGUCell, PeepholeLSTMCell
from cells.initial_state import ChosenStateRNNCell, LearnedStateRNNCell
from cells.matrix_memory import MatrixMemoryCell
from cells.plain_keras import (
    AntisymmetricRNNCell,
    CfCCell,
    CIFGLSTMCell,
    DeltaNetCell,
    LayerNormGRUCell,
    LMUCell,
    MatrixLSTMCell,
    MinGRUCell,
    MultiplicativeLSTMCell,
    ProjectedLSTMCell,
    RHNCell,
    SRUCell,
)
from cells.reference import plain_keras
from cells.reference.gated import (
    candidate_gru,
    dense_rnn,
    gru,
    indrnn,
    janet,
    learned_state_rnn,
    lstm,
    matrix_memory,
    mgu,
    minimal,
    peephole_lstm,
    simple_rnn,
    slstm,
)
from cells.reference.numpy_functions import ACTIVATIONS, Array, Outputs, Recurrence
from cells.textbook import GRUCell, LSTMCell, MinimalRNNCell, SimpleRNNCell, SLSTMCell
from cells.variants import CandidateGRUCell, HardSigmoidLSTMCell, HistoricalHardSigmoidLSTMCell


def _zeros(shape) -> Array:
    return np.zeros(shape)


def _forget_bias_of_one(shape) -> Array:
    bias = np.zeros(shape)
    bias[shape[0] // 4 : shape[0] // 2] = 1
    return bias


@dataclass(frozen=True)
class Reference:
    """What a cell must compute, and how its bias must start.

    Attributes:
        recurrence: the equation, with the cell's settings as keyword arguments.
        initial_bias: the shape of the bias -> its values before training, under the default initialisers.
    """

    recurrence: Callable[..., Outputs]
    initial_bias: Callable[[tuple[int, ...]], Array] = _zeros


_LSTM = Reference(lstm, _forget_bias_of_one)
REFERENCES: dict[type, Reference] = {
    MinimalRNNCell: Reference(minimal),
    SimpleRNNCell: Reference(simple_rnn),
    LSTMCell: _LSTM,
    GRUCell: Reference(gru),
    SLSTMCell: Reference(slstm),
    CandidateGRUCell: Reference(candidate_gru),
    HardSigmoidLSTMCell: _LSTM,
    HistoricalHardSigmoidLSTMCell: _LSTM,
    DenseRNNCell: Reference(dense_rnn),
    ChosenStateRNNCell: Reference(simple_rnn),
    LearnedStateRNNCell: Reference(learned_state_rnn),
    MatrixMemoryCell: Reference(matrix_memory),
    PeepholeLSTMCell: Reference(peephole_lstm, _forget_bias_of_one),
    JANETCell: Reference(janet),
    MGUCell: Reference(mgu),
    IndRNNCell: Reference(indrnn),
    MinGRUCell: Reference(plain_keras.min_gru),
    SRUCell: Reference(plain_keras.sru),
    CIFGLSTMCell: Reference(plain_keras.cifg_lstm),
    AntisymmetricRNNCell: Reference(plain_keras.antisymmetric_rnn),
    LayerNormGRUCell: Reference(plain_keras.layer_norm_gru),
    ProjectedLSTMCell: Reference(plain_keras.projected_lstm),
    MultiplicativeLSTMCell: Reference(plain_keras.multiplicative_lstm),
    RHNCell: Reference(plain_keras.rhn),
    CfCCell: Reference(plain_keras.cfc),
    LMUCell: Reference(plain_keras.lmu),
    DeltaNetCell: Reference(plain_keras.delta_net),
    MatrixLSTMCell: Reference(plain_keras.matrix_lstm),
    keras.layers.SimpleRNNCell: Reference(simple_rnn),
    keras.layers.LSTMCell: _LSTM,
    keras.layers.GRUCell: Reference(gru),
}


def reference_for(cell) -> Recurrence | None:
    """The reference of a built cell with its settings filled in, or None if the project has none for it.

    A cell with a method `reference(inputs, initial_states)` of its own is held against that: the weights
    are set in the cell, which had better be a float64 one, and it computes in float64 only.
    """
    own = getattr(cell, "reference", None)
    if callable(own):

        def recurrence(weights, inputs, initial_states):
            cell.set_weights(weights)
            return own(inputs, initial_states)

        return recurrence
    entry = REFERENCES.get(type(cell))
    if entry is None:
        return None
    return partial(entry.recurrence, **_settings(cell, entry.recurrence))


def _settings(cell, recurrence) -> dict:
    """Those of the cell's attributes that the recurrence takes, activations as NumPy functions."""
    names = list(inspect.signature(recurrence).parameters)[3:]
    return {
        name: _numpy(getattr(cell, name)) if "activation" in name else getattr(cell, name) for name in names
    }


def _numpy(activation) -> Callable[[Array], Array]:
    name = keras.saving.get_registered_name(activation)
    if name not in ACTIVATIONS:
        raise NotImplementedError(
            f"no NumPy form of the activation {name!r}; there are {', '.join(sorted(ACTIVATIONS))}"
        )
    return ACTIVATIONS[name]
