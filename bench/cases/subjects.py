"""The subjects: named pairs of a layer and a cell. `SUBJECTS` is the one table.

Nothing of Keras is imported before a subject is made.
"""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from importlib.util import find_spec
from typing import Any

from bench.cases.case import Case

_CELL_OPTIONS = ("activation", "use_bias", "reset_after", "dropout", "recurrent_dropout")
_LAYER_OPTIONS = frozenset({"unroll", "stateful", "return_sequences", "go_backwards", "zero_output_for_mask"})
# what is done with any layer of Keras' protocol
_AROUND = frozenset(
    {
        *("masked", "bidirectional", "merge_mode", "backward_layer", "depth"),
        *("static_timesteps", "static_batch"),
    }
)
# the fields of `Case` that no subject need have, with their defaults
_DEFAULTS: dict[str, Any] = {
    field.name: field.default
    for field in fields(Case)
    if field.default is not MISSING and field.name not in ("dtype", "jit_compile", "device")
}
# measured for comparison alone: no layers of Keras' or ours that one could use instead
PEER_LAYERS = ("torch", "onnx", "keras2", "block", "static_rnn", "dynamic_rnn")
_USE_CUDNN = {"auto": "auto", "True": True, "False": False}


class UnsupportedOption(ValueError):
    """The subject does not have an option that the case asks for."""

    reason = "unsupported"


class NeedsStaticShape(UnsupportedOption):
    """The case leaves a size open that one of its options must know beforehand."""

    reason = "needs_static_shape"


class NotInstalled(RuntimeError):
    """A package that a subject cannot do without is not there."""


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
        requires: the packages that it cannot do without, beyond the project's own.
        peer: of a subject in a process of its own, the module of `bench.processes.peers` that runs it;
            `make` then makes the Keras layer that it must agree with, whose weights it gets.
    """

    cell: str
    layer: str
    label: str
    baseline: str
    make: Callable[[Case], Any]
    options: frozenset[str]
    target: str | None = None
    requires: tuple[str, ...] = ()
    peer: str | None = None

    @property
    def name(self) -> str:
        return f"{self.cell}-{self.layer}"


def check_installed(subject: Subject) -> None:
    """Raises NotInstalled, naming the packages that are absent and what installs them."""
    absent = [package for package in subject.requires if find_spec(package) is None]
    if absent:
        raise NotInstalled(
            f"{subject.label} needs {', '.join(absent)}, which pip installs with this project's extra `peers`"
        )


def make_layer(subject: Subject, case: Case):
    """The subject's layer for a case, not built, its dtype policy set.

    Raises:
        UnsupportedOption: naming the options that the subject does not have.
        NeedsStaticShape: it is to be unrolled or stateful, and the size that this takes is left open.
    """
    import keras

    asked = {name for name, default in _DEFAULTS.items() if getattr(case, name) != default}
    missing = sorted(asked - subject.options)
    if missing:
        raise UnsupportedOption(f"{subject.label} has no option {', '.join(missing)}")
    if case.unroll and not case.static_timesteps:
        raise NeedsStaticShape("unroll needs the number of timesteps, which is left open")
    if case.stateful and not case.static_batch:
        raise NeedsStaticShape("stateful needs the batch size, which is left open")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(case.dtype)
    try:
        return subject.make(case)
    finally:
        keras.config.set_dtype_policy(policy)


def _cell_arguments(case: Case, options: frozenset[str]) -> dict[str, Any]:
    """The arguments of a cell for the case's options; those it leaves at the default are not passed."""
    given = {name: getattr(case, name) for name in _CELL_OPTIONS if getattr(case, name) != _DEFAULTS[name]}
    if "implementation" in options:
        given["implementation"] = case.implementation
    return given


def _layer_arguments(case: Case, options: frozenset[str] = _LAYER_OPTIONS) -> dict[str, Any]:
    return {"return_state": True, **{name: getattr(case, name) for name in _LAYER_OPTIONS & options}}


def _stacked(case: Case, make_one: Callable[[Case], Any]):
    """`depth` layers `make_one(case)` one upon another, each in both directions if the case wants it."""
    if case.depth == 1:
        return _in_its_directions(case, make_one)
    from bench.cases.layers.stack import Stack

    below = replace(case, return_sequences=True)
    levels = [below] * (case.depth - 1) + [case]
    return Stack([_in_its_directions(level, make_one) for level in levels])


def _in_its_directions(case: Case, make_one: Callable[[Case], Any]):
    """`make_one(case)`, in a `Bidirectional` if the case wants one."""
    if not case.bidirectional:
        return make_one(case)
    import keras

    one_way = replace(case, bidirectional=False, merge_mode=None, backward_layer=False)
    return keras.layers.Bidirectional(
        make_one(one_way),
        merge_mode=None if case.merge_mode == "none" else case.merge_mode or "concat",
        backward_layer=make_one(replace(one_way, go_backwards=True)) if case.backward_layer else None,
    )


def _builtin(cell: str, keras_name: str, *options: str) -> Subject:
    honoured = _LAYER_OPTIONS | _AROUND | set(options)

    def make_one(case):
        import keras

        make_builtin = getattr(keras.layers, keras_name)
        kernel = {"use_cudnn": _USE_CUDNN[case.use_cudnn]} if case.use_cudnn else {}
        if case.jit_compile and "use_cudnn" in honoured:  # XLA cannot compile the cuDNN call
            kernel = {"use_cudnn": False}
        return make_builtin(case.units, **kernel, **_cell_arguments(case, honoured), **_layer_arguments(case))

    def make(case):
        return _stacked(case, make_one)

    return Subject(cell, "builtin", f"keras {keras_name}", f"{cell}-builtin", make, honoured)


def _in_rnn(cell: str, label: str, baseline: str, find_cell: Callable[[], Any], *options: str) -> Subject:
    honoured = _LAYER_OPTIONS | _AROUND | set(options)

    def make_one(case):
        import keras

        made = [find_cell()(case.units, **_cell_arguments(case, honoured)) for _ in range(case.depth)]
        return keras.layers.RNN(made if case.depth > 1 else made[0], **_layer_arguments(case))

    def make(case):
        return _in_its_directions(case, make_one)

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
    honoured = (_LAYER_OPTIONS - {"unroll"}) | _AROUND | set(options)

    def make_one(case):
        from cells import CELLS, FusedRNN

        made = CELLS[cell](case.units, **_cell_arguments(case, honoured))
        if not case.input_product:
            from bench.cases.layers.projected import ProjectedFusedRNN

            return ProjectedFusedRNN(made, **_layer_arguments(case, honoured))
        return FusedRNN(made, **_layer_arguments(case, honoured))

    def make(case):
        return _stacked(case, make_one)

    return Subject(cell, "fused", f"{cell} in FusedRNN", baseline, make, honoured)


def _unrolled(cell: str, function: str, baseline: str, *options: str) -> Subject:
    """One of ours, run by `cells.static_unroll` or `cells.dynamic_unroll`."""
    honoured = frozenset({"time_major", "implementation", *options})

    def make(case):
        from bench.cases.layers.unrolled import Unrolled
        from cells import CELLS

        made = CELLS[cell](case.units, **_cell_arguments(case, honoured))
        return Unrolled(made, function, case.time_major)

    return Subject(cell, function, f"{cell} in {function}", baseline, make, honoured)


def guest(name: str, make_cell: Callable[[int], Any], baseline: str, target: str | None = None) -> Subject:
    """A subject for somebody's own cell, in `keras.layers.RNN`; `make_cell` is called with `units`."""
    return replace(_in_rnn(name, name, baseline, lambda: make_cell), target=target)


def _peer(cell: str, layer: str, keras_name: str, label: str, peer: str, *requires: str) -> Subject:
    """A built-in in other hands, in a process of its own."""

    def make(case):
        import keras

        _check_plain(label, case)
        if layer == "onnx" and case.mode != "infer":
            raise UnsupportedOption(f"{label} infers only")
        return getattr(keras.layers, keras_name)(case.units, return_sequences=True, return_state=True)

    return Subject(cell, layer, label, f"{cell}-builtin", make, frozenset(), requires=requires, peer=peer)


def _torch(cell: str, keras_name: str, torch_name: str) -> Subject:
    return _peer(cell, "torch", keras_name, f"PyTorch nn.{torch_name}", "pytorch", "torch")


def _onnx(cell: str, keras_name: str, operator: str) -> Subject:
    label = f"ONNX Runtime {operator}"
    return _peer(cell, "onnx", keras_name, label, "onnx_runtime", "onnx", "onnxruntime")


def _keras2(cell: str, keras_name: str) -> Subject:
    return _peer(cell, "keras2", keras_name, f"Keras 2 {keras_name}", "keras2", "tf_keras")


def _compat_v1(cell: str, keras_name: str, function: str, *options: str) -> Subject:
    """What our two functions were: those of TensorFlow 1, with the cell of Keras 2 that they take."""
    label = f"Keras 2 {keras_name}Cell in tf.compat.v1.nn.{function}"
    subject = _peer(cell, function, keras_name, label, function, "tf_keras")
    return replace(subject, options=frozenset(options))


def _block_lstm() -> Subject:
    label = "TensorFlow's BlockLSTMV2"

    def make(case):
        from bench.cases.layers.block import BlockLSTM

        _check_plain(label, case)
        return BlockLSTM(case.units, return_sequences=True, return_state=True)

    return Subject("lstm", "block", label, "lstm-builtin", make, frozenset())


def _block_gru() -> Subject:
    label = "TensorFlow's GRUBlockCell"

    def make(case):
        from bench.cases.layers.block import BlockGRU

        _check_plain(label, case)
        if case.reset_after is not False:
            raise UnsupportedOption(f"{label} is the GRU with reset_after=False only")
        return BlockGRU(case.units, reset_after=False, return_sequences=True, return_state=True)

    return Subject("gru", "block", label, "gru-builtin", make, frozenset({"reset_after"}))


def _check_plain(label: str, case: Case) -> None:
    """Raises UnsupportedOption for what no peer is measured with."""
    plain = {"dtype": "float32", "jit_compile": False, "device": "cpu"}
    other = [f"{name} {getattr(case, name)}" for name, value in plain.items() if getattr(case, name) != value]
    if other:
        raise UnsupportedOption(
            f"{label} is measured in float32, without XLA, on the CPU; not {', '.join(other)}"
        )


_GATED = ("activation", "use_bias", "dropout", "recurrent_dropout")
_FROM_PAPERS = (
    ("peephole_lstm", "lstm-builtin"),
    ("janet", "lstm-builtin"),
    ("mgu", "gru-builtin"),
    ("gru_candidate", "gru-builtin"),
    ("indrnn", "simple_rnn-builtin"),
)
SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        _builtin("simple_rnn", "SimpleRNN", *_GATED),
        _builtin("lstm", "LSTM", "implementation", "use_cudnn", *_GATED),
        _builtin("gru", "GRU", "implementation", "use_cudnn", "reset_after", *_GATED),
        _keras_cell("keras_simple_rnn", "SimpleRNNCell", "simple_rnn-builtin", *_GATED),
        _keras_cell("keras_lstm", "LSTMCell", "lstm-builtin", "implementation", *_GATED),
        _keras_cell("keras_gru", "GRUCell", "gru-builtin", "implementation", "reset_after", *_GATED),
        _ours("minimal", "simple_rnn-builtin"),
        _ours("simple_rnn", "simple_rnn-builtin", *_GATED),
        _ours("lstm", "lstm-builtin", *_GATED),
        _ours("gru", "gru-builtin", "reset_after", *_GATED),
        _ours("slstm", "lstm-builtin", *_GATED),
        _fused("simple_rnn", "simple_rnn-builtin", "input_product", *_GATED),
        _fused("lstm", "lstm-builtin", "input_product", *_GATED),
        _fused("gru", "gru-builtin", "reset_after", "input_product", *_GATED),
        _fused("slstm", "lstm-builtin", *_GATED),
        *(make(cell, baseline) for cell, baseline in _FROM_PAPERS for make in (_ours, _fused)),
        _ours("chosen_state", "simple_rnn-builtin", *_GATED),
        _ours("learned_state", "simple_rnn-builtin", *_GATED),
        _unrolled("lstm", "static_unroll", "lstm-builtin", *_GATED),
        _unrolled("lstm", "dynamic_unroll", "lstm-builtin", *_GATED),
        _compat_v1("lstm", "LSTM", "static_rnn"),
        _compat_v1("lstm", "LSTM", "dynamic_rnn", "time_major"),
        _torch("lstm", "LSTM", "LSTM"),
        _torch("gru", "GRU", "GRU"),
        _torch("simple_rnn", "SimpleRNN", "RNN"),
        _onnx("lstm", "LSTM", "LSTM"),
        _onnx("gru", "GRU", "GRU"),
        _onnx("simple_rnn", "SimpleRNN", "RNN"),
        _keras2("lstm", "LSTM"),
        _keras2("gru", "GRU"),
        _keras2("simple_rnn", "SimpleRNN"),
        _block_lstm(),
        _block_gru(),
    )
}
