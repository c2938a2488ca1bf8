"""What is measured: recurrent cells, the layers that run them, and their float64 references.

Nothing here imports `bench`. `CELLS` is the one table of cells, by the name that case ids use; a new
cell is an entry here and one in `cells/reference`. `LAYERS` is that of the layers.
"""

from typing import Any

from cells.activations import historical_hard_sigmoid
from cells.dense import DenseRNNCell
from cells.from_papers import IndRNNCell, JANETCell, MGUCell, PeepholeLSTMCell
from cells.fused_rnn import FusedRNN
from cells.gated import GatedCell
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
from cells.rnn import RNN
from cells.textbook import GRUCell, LSTMCell, MinimalRNNCell, SimpleRNNCell, SLSTMCell
from cells.unroll import dynamic_unroll, static_unroll
from cells.variants import CandidateGRUCell, HardSigmoidLSTMCell, HistoricalHardSigmoidLSTMCell

CELLS: dict[str, Any] = {
    "minimal": MinimalRNNCell,
    "simple_rnn": SimpleRNNCell,
    "lstm": LSTMCell,
    "gru": GRUCell,
    "slstm": SLSTMCell,
    "gru_candidate": CandidateGRUCell,
    "lstm_hard_sigmoid": HardSigmoidLSTMCell,
    "lstm_hard_sigmoid_historical": HistoricalHardSigmoidLSTMCell,
    "dense_rnn": DenseRNNCell,
    "chosen_state": ChosenStateRNNCell,
    "learned_state": LearnedStateRNNCell,
    "matrix_memory": MatrixMemoryCell,
    "peephole_lstm": PeepholeLSTMCell,
    "janet": JANETCell,
    "mgu": MGUCell,
    "indrnn": IndRNNCell,
    "min_gru": MinGRUCell,
    "sru": SRUCell,
    "cifg_lstm": CIFGLSTMCell,
    "antisymmetric_rnn": AntisymmetricRNNCell,
    "layer_norm_gru": LayerNormGRUCell,
    "projected_lstm": ProjectedLSTMCell,
    "multiplicative_lstm": MultiplicativeLSTMCell,
    "rhn": RHNCell,
    "cfc": CfCCell,
    "lmu": LMUCell,
    "delta_net": DeltaNetCell,
    "matrix_lstm": MatrixLSTMCell,
}

LAYERS = {"rnn": RNN, "fused": FusedRNN}

__all__ = [
    "CELLS",
    "LAYERS",
    "RNN",
    "AntisymmetricRNNCell",
    "CIFGLSTMCell",
    "CandidateGRUCell",
    "CfCCell",
    "ChosenStateRNNCell",
    "DeltaNetCell",
    "DenseRNNCell",
    "FusedRNN",
    "GRUCell",
    "GatedCell",
    "HardSigmoidLSTMCell",
    "HistoricalHardSigmoidLSTMCell",
    "IndRNNCell",
    "JANETCell",
    "LMUCell",
    "LSTMCell",
    "LayerNormGRUCell",
    "LearnedStateRNNCell",
    "MGUCell",
    "MatrixLSTMCell",
    "MatrixMemoryCell",
    "MinGRUCell",
    "MinimalRNNCell",
    "MultiplicativeLSTMCell",
    "PeepholeLSTMCell",
    "ProjectedLSTMCell",
    "RHNCell",
    "SLSTMCell",
    "SRUCell",
    "SimpleRNNCell",
    "dynamic_unroll",
    "historical_hard_sigmoid",
    "static_unroll",
]
