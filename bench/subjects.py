"""The subjects: named pairs of a layer and a cell. `SUBJECTS` is the one table.

Nothing of Keras is imported before a subject is made.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bench.case import Case

_CELL_OPTIONS = ("activation", "use_bias", "reset_after")
_LAYER_OPTIONS = frozenset({"unroll", "stateful", "return_sequences", "go_backwards"})


class UnsupportedOption(ValueError):
    """The subject does not have an option that the case asks for."""


@dataclass(frozen=True)
class Subject:
    """A layer and a cell to measure.

    Attributes:
        cell, layer: its two names, as in `Case`.
        label: what people call it.
        baseline: the name of the subject that it is compared with by default.
        make: case -> layer, not built, that returns its outputs and its states.
        options: the fields of `Case` that it honours beside shape, dtype and `jit_compile`.
        target: for somebody's own cell, what `--cell` said; such a cell must pass the contract.
    """

    cell: str
    layer: str
    label: str
    baseline: str
    make: Callable[[Case], Any]
    options: frozenset[str]
    target: str | None = None

    @property
    def name(self) -> str:
        return f"{self.cell}-{self.layer}"


def make_layer(subject: Subject, case: Case):
    """The subject's layer for a case, not built, its dtype policy set.

    Raises:
        UnsupportedOption: naming the options that the subject does not have.
    """
    import keras

    asked = {
        name
        for name in (*_LAYER_OPTIONS, *_CELL_OPTIONS, "implementation")
        if getattr(case, name) != Case.__dataclass_fields__[name].default
    }
    missing = sorted(asked - subject.options)
    if missing:
        raise UnsupportedOption(f"{subject.label} has no option {', '.join(missing)}")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(case.dtype)
    try:
        return subject.make(case)
    finally:
        keras.config.set_dtype_policy(policy)


def _cell_arguments(case: Case, options: frozenset[str]) -> dict[str, Any]:
    """The arguments of a cell for the case's options; those it leaves at the default are not passed."""
    given = {name: getattr(case, name) for name in _CELL_OPTIONS if getattr(case, name) is not None}
    if "implementation" in options:
        given["implementation"] = case.implementation
    return given


def _layer_arguments(case: Case, options: frozenset[str] = _LAYER_OPTIONS) -> dict[str, Any]:
    return {"return_state": True, **{name: getattr(case, name) for name in _LAYER_OPTIONS & options}}


def _builtin(cell: str, keras_name: str, *options: str) -> Subject:
    honoured = _LAYER_OPTIONS | set(options)

    def make(case):
        import keras

        make_builtin = getattr(keras.layers, keras_name)
        # XLA cannot compile the cuDNN call that Keras would choose on a GPU
        loop = {"use_cudnn": False} if case.jit_compile and keras_name != "SimpleRNN" else {}
        return make_builtin(case.units, **loop, **_cell_arguments(case, honoured), **_layer_arguments(case))

    return Subject(cell, "builtin", f"keras {keras_name}", f"{cell}-builtin", make, honoured)


def _in_rnn(cell: str, label: str, baseline: str, find_cell: Callable[[], Any], *options: str) -> Subject:
    honoured = _LAYER_OPTIONS | set(options)

    def make(case):
        import keras

        made = find_cell()(case.units, **_cell_arguments(case, honoured))
        return keras.layers.RNN(made, **_layer_arguments(case))

    return Subject(cell, "rnn", f"{label} in RNN", baseline, make, honoured)


def _ours(cell: str, baseline: str, *options: str) -> Subject:
    def find_cell():
        import cells

        return cells.CELLS[cell]

    return _in_rnn(cell, cell, baseline, find_cell, "implementation", *options)


def _keras_cell(cell: str, keras_name: str, baseline: str, *options: str) -> Subject:
    def find_cell():
        import keras

        return getattr(keras.layers, keras_name)

    return _in_rnn(cell, f"keras {keras_name}", baseline, find_cell, *options)


def _fused(cell: str, baseline: str, *options: str) -> Subject:
    """One of ours in `cells.FusedRNN`, where `implementation` and `unroll` mean nothing."""
    honoured = (_LAYER_OPTIONS - {"unroll"}) | set(options)

    def make(case):
        from cells import CELLS, FusedRNN

        made = CELLS[cell](case.units, **_cell_arguments(case, honoured))
        return FusedRNN(made, **_layer_arguments(case, honoured))

    return Subject(cell, "fused", f"{cell} in FusedRNN", baseline, make, honoured)


def guest(name: str, make_cell: Callable[[int], Any], baseline: str, target: str | None = None) -> Subject:
    """A subject for somebody's own cell, in `keras.layers.RNN`; `make_cell` is called with `units`."""
    return replace(_in_rnn(name, name, baseline, lambda: make_cell), target=target)


_GATED = ("activation", "use_bias")
SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        _builtin("simple_rnn", "SimpleRNN", *_GATED),
        _builtin("lstm", "LSTM", "implementation", *_GATED),
        _builtin("gru", "GRU", "implementation", "reset_after", *_GATED),
        _keras_cell("keras_simple_rnn", "SimpleRNNCell", "simple_rnn-builtin", *_GATED),
        _keras_cell("keras_lstm", "LSTMCell", "lstm-builtin", "implementation", *_GATED),
        _keras_cell("keras_gru", "GRUCell", "gru-builtin", "implementation", "reset_after", *_GATED),
        _ours("minimal", "simple_rnn-builtin"),
        _ours("simple_rnn", "simple_rnn-builtin", *_GATED),
        _ours("lstm", "lstm-builtin", *_GATED),
        _ours("gru", "gru-builtin", "reset_after", *_GATED),
        _ours("slstm", "lstm-builtin", *_GATED),
        _fused("simple_rnn", "simple_rnn-builtin", *_GATED),
        _fused("lstm", "lstm-builtin", *_GATED),
        _fused("gru", "gru-builtin", "reset_after", *_GATED),
        _fused("slstm", "lstm-builtin", *_GATED),
        _ours("chosen_state", "simple_rnn-builtin", *_GATED),
        _ours("learned_state", "simple_rnn-builtin", *_GATED),
    )
}
