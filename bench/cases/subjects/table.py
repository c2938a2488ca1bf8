"""The table of the subjects. One more is one entry."""

from bench.cases.subjects.elsewhere import BACKENDS, PEERS
from bench.cases.subjects.on_tensorflow import builtin, fused, keras_cell, ours, unrolled
from bench.cases.subjects.subject import Subject

_GATED = ("activation", "use_bias", "dropout", "recurrent_dropout")
_OURS = ("implementation", *_GATED)
FROM_PAPERS = ("peephole_lstm", "janet", "mgu", "gru_candidate", "indrnn")
IN_PLAIN_KERAS = (
    *("min_gru", "sru", "cifg_lstm", "antisymmetric_rnn", "layer_norm_gru", "projected_lstm"),
    *("multiplicative_lstm", "rhn", "cfc", "lmu", "delta_net", "matrix_lstm"),
)
_ON_TENSORFLOW: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        builtin("simple_rnn", "SimpleRNN", *_GATED),
        builtin("lstm", "LSTM", "implementation", "use_cudnn", *_GATED),
        builtin("gru", "GRU", "implementation", "use_cudnn", "reset_after", *_GATED),
        keras_cell("simple_rnn", "SimpleRNNCell", *_GATED),
        keras_cell("lstm", "LSTMCell", "implementation", *_GATED),
        keras_cell("gru", "GRUCell", "implementation", "reset_after", *_GATED),
        ours("minimal", "implementation"),
        ours("simple_rnn", *_OURS),
        ours("lstm", *_OURS),
        ours("gru", "reset_after", *_OURS),
        ours("slstm", *_OURS),
        fused("simple_rnn", "input_product", *_GATED),
        fused("lstm", "input_product", *_GATED),
        fused("gru", "reset_after", "input_product", *_GATED),
        fused("slstm", *_GATED),
        *(subject for cell in FROM_PAPERS for subject in (ours(cell, "implementation"), fused(cell))),
        *(make(cell) for cell in IN_PLAIN_KERAS for make in (ours, fused)),
        ours("chosen_state", *_OURS),
        ours("learned_state", *_OURS),
        unrolled("lstm", "static_unroll", *_GATED),
        unrolled("lstm", "dynamic_unroll", *_GATED),
        *PEERS,
    )
}
# every layer of Keras', and every cell in `keras.layers.RNN` that no such layer stands for
_EVERYWHERE = [
    subject
    for subject in _ON_TENSORFLOW.values()
    if subject.layer == "builtin"
    or (subject.layer == "rnn" and f"{subject.cell}-builtin" not in _ON_TENSORFLOW)
]
SUBJECTS: dict[str, Subject] = {
    **_ON_TENSORFLOW,
    **{
        carried.name: carried
        for backend in BACKENDS.values()
        for subject in _EVERYWHERE
        for carried in [backend.carry(subject, subject.label)]
    },
}
# the layers that are measured for comparison alone, which nobody could use instead of Keras' or ours
PEER_LAYERS = tuple(dict.fromkeys(s.layer for s in SUBJECTS.values() if s.kind == "peer"))
_EQUATION_OF = {subject.cell: subject.equation for subject in SUBJECTS.values()}


def equation_of(cell: str) -> str:
    """The equation that a cell computes, by their names: `keras_lstm` is an `lstm`, a user's cell its own."""
    return _EQUATION_OF.get(cell, cell)
