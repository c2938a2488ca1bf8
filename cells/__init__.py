"""What is measured: recurrent cells, the layers that run them, and their float64 references.

Nothing here imports `bench`. `CELLS` is the one table of cells, by the name that case ids use; a new
cell is an entry here and one in `cells/reference.py`. `LAYERS` is that of the layers.
"""

from typing import Any

from cells.activations import historical_hard_sigmoid
from cells.dense import DenseRNNCell
from cells.from_papers import IndRNNCell, JANETCell, MGUCell, PeepholeLSTMCell
from cells.fused_rnn import FusedRNN
from cells.gated import GatedCell
from cells.initial_state import ChosenStateRNNCell, LearnedStateRNNCell
from cells.matrix_memory import MatrixMemoryCell
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
}

LAYERS = {"rnn": RNN, "fused": FusedRNN}

__all__ = [
    "CELLS",
    "LAYERS",
    "RNN",
    "CandidateGRUCell",
    "ChosenStateRNNCell",
    "DenseRNNCell",
    "FusedRNN",
    "GRUCell",
    "GatedCell",
    "HardSigmoidLSTMCell",
    "HistoricalHardSigmoidLSTMCell",
    "IndRNNCell",
    "JANETCell",
    "LSTMCell",
    "LearnedStateRNNCell",
    "MGUCell",
    "MatrixMemoryCell",
    "MinimalRNNCell",
    "PeepholeLSTMCell",
    "SLSTMCell",
    "SimpleRNNCell",
    "dynamic_unroll",
    "historical_hard_sigmoid",
    "static_unroll",
]
