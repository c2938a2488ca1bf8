"""The subjects: named pairs of a layer and a cell, in one table, and the equations of the cells.

Nothing of Keras is imported before a subject is made.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from importlib.util import find_spec
from typing import Any

from bench.cases.case import DEVICES, Case
from bench.contract.load_cell import Target

_CELL_OPTIONS = ("activation", "use_bias", "reset_after", "dropout", "recurrent_dropout")
_LAYER_OPTIONS = frozenset({"unroll", "stateful", "return_sequences", "go_backwards", "zero_output_for_mask"})
_FUSED_LAYER_OPTIONS = _LAYER_OPTIONS - {"unroll"}
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
_USE_CUDNN = {"auto": "auto", "True": True, "False": False}


class UnsupportedOption(ValueError):
    """The subject does not have an option that the case asks for."""

    reason = "unsupported"


class NeedsStaticShape(UnsupportedOption):
    """The case leaves a size open that one of its options must know beforehand."""

    reason = "needs_static_shape"


class NotForCudnn(UnsupportedOption):
    """Keras would take cuDNN for the case, which fails at it, or does what it does without the option."""

    reason = "not_for_cudnn"


class NotInstalled(RuntimeError):
    """A package that a subject cannot do without is not there."""


@dataclass(frozen=True)
class Equation:
    """A cell's equation, whoever runs it.

    Attributes:
        gates: how many products of the inputs and of the state a step takes.
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
}
KINDS = ("builtin", "keras_cell", "ours", "user", "backend", "peer")


@dataclass(frozen=True)
class Subject:
    """A layer and a cell to measure.

    Attributes:
        cell, layer: its two names, as in `Case`.
        label: what people call it.
        baseline: the name of the subject that it is compared with by default.
        make: case -> layer, not built, that returns its outputs and its states.
        options: the fields of `Case` that it honours beside shape, dtype and `jit_compile`.
        kind: one of `KINDS`: a layer of Keras', a cell of Keras' in `keras.layers.RNN`, one of the project's
            own, a user's cell, a layer of Keras' on another back end, or a peer, which is measured for
            comparison alone.
        equation: the cell whose equation it computes, a name of `EQUATIONS`; a user's cell is its own.
        unrolls: whether it unrolls its steps without being told to.
        runs_in: what people call the library that runs it, where that is not Keras on TensorFlow.
        backend: the back end of Keras, by Keras' name for it; a peer without Keras has the first.
        target, kwargs: of a user's cell, which must pass the contract, the texts that `--cell` and `--kwargs`
            gave.
        factory: of a user's cell that no text names, what makes it: a class or function of this process.
        step_shape: of a user's cell that takes a certain one, the shape of a step.
        requires: the packages that it cannot do without, beyond the project's own.
        peer: of a subject in a process of its own, the module of `bench.processes.peers` that runs it;
            `make` then makes the Keras layer that it must agree with, whose weights it gets.
        carried: of a subject on another back end, the same subject on TensorFlow.
    """

    cell: str
    layer: str
    label: str
    baseline: str
    make: Callable[[Case], Any]
    options: frozenset[str]
    kind: str = "ours"
    equation: str = ""
    unrolls: bool = False
    runs_in: str = ""
    backend: str = "tensorflow"
    target: str | None = None
    kwargs: str = "{}"
    factory: Target | None = None
    step_shape: tuple[int, ...] | None = None
    requires: tuple[str, ...] = ()
    peer: str | None = None
    carried: "Subject | None" = None

    @property
    def name(self) -> str:
        """Its name in ids and on the command line."""
        return f"{self.cell}-{self.layer}"

    @property
    def is_brought(self) -> bool:
        """Whether a command line or a caller brought the cell or layer: it must pass the contract."""
        return self.target is not None or self.factory is not None

    @property
    def made_from(self) -> dict[str, Any]:
        """What a peer makes a user's cell from; empty where the cell is none."""
        if self.target is None:
            return {}
        return {"target": self.target, "kwargs": self.kwargs, "step_shape": self.step_shape}


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

    from bench.cases.layers.stack import cells_of

    one_way = replace(case, bidirectional=False, merge_mode=None, backward_layer=False)
    forward = make_one(one_way)
    # `Bidirectional` makes its layers anew from their configuration, a user's unregistered cell too
    with keras.saving.custom_object_scope(
        {type(cell).__name__: type(cell) for cell in cells_of(forward, case.depth)}
    ):
        return keras.layers.Bidirectional(
            forward,
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

    return Subject(
        cell,
        "builtin",
        f"keras {keras_name}",
        EQUATIONS[cell].baseline,
        make,
        honoured,
        kind="builtin",
        equation=cell,
    )


def _in_rnn(make_cell: Callable[[Case], Any]) -> Callable[[Case], Any]:
    """case -> `keras.layers.RNN` of the cells that `make_cell` makes, `depth` of them one upon another."""

    def make_one(case):
        import keras

        made = [make_cell(case) for _ in range(case.depth)]
        return keras.layers.RNN(made if case.depth > 1 else made[0], **_layer_arguments(case))

    return lambda case: _in_its_directions(case, make_one)


def _in_fused_rnn(make_cell: Callable[[Case], Any]) -> Callable[[Case], Any]:
    """case -> `cells.FusedRNN` of the cell that `make_cell` makes, `depth` layers one upon another."""

    def make_one(case):
        if case.input_product:
            from cells import FusedRNN as Layer
        else:
            from bench.cases.layers.projected import ProjectedFusedRNN as Layer
        return Layer(make_cell(case), **_layer_arguments(case, _FUSED_LAYER_OPTIONS))

    return lambda case: _stacked(case, make_one)


def _ours(cell: str, *options: str) -> Subject:
    """One of the project's cells in `keras.layers.RNN`."""
    honoured = _LAYER_OPTIONS | _AROUND | {"implementation", *options}
    make = _in_rnn(_our_cell(cell, honoured))
    return Subject(cell, "rnn", f"{cell} in RNN", EQUATIONS[cell].baseline, make, honoured, equation=cell)


def _fused(cell: str, *options: str) -> Subject:
    """One of the project's cells in `cells.FusedRNN`, where `implementation` and `unroll` mean nothing."""
    honoured = _FUSED_LAYER_OPTIONS | _AROUND | set(options)
    make = _in_fused_rnn(_our_cell(cell, honoured))
    return Subject(
        cell, "fused", f"{cell} in FusedRNN", EQUATIONS[cell].baseline, make, honoured, equation=cell
    )


def _unrolled(cell: str, function: str, *options: str) -> Subject:
    """One of the project's cells, run by `cells.static_unroll` or `cells.dynamic_unroll`."""
    honoured = frozenset({"time_major", "implementation", *options})
    make_cell = _our_cell(cell, honoured)

    def make(case):
        from bench.cases.layers.unrolled import Unrolled

        return Unrolled(make_cell(case), function, case.time_major)

    return Subject(
        cell,
        function,
        f"{cell} in {function}",
        EQUATIONS[cell].baseline,
        make,
        honoured,
        equation=cell,
        unrolls=function == "static_unroll",
    )


def _our_cell(cell: str, options: frozenset[str]) -> Callable[[Case], Any]:
    def make_cell(case):
        from cells import CELLS

        return CELLS[cell](case.units, **_cell_arguments(case, options))

    return make_cell


def _keras_cell(equation: str, keras_name: str, *options: str) -> Subject:
    """A cell of Keras' in `keras.layers.RNN`."""
    honoured = _LAYER_OPTIONS | _AROUND | set(options)

    def make_cell(case):
        import keras

        return getattr(keras.layers, keras_name)(case.units, **_cell_arguments(case, honoured))

    return Subject(
        f"keras_{equation}",
        "rnn",
        f"keras {keras_name} in RNN",
        EQUATIONS[equation].baseline,
        _in_rnn(make_cell),
        honoured,
        kind="keras_cell",
        equation=equation,
    )


def user_subject(
    name: str,
    make_cell: Callable[..., Any],
    baseline: str,
    *,
    layer: str = "rnn",
    target: str | None = None,
    kwargs: str = "{}",
    factory: Target | None = None,
    step_shape: tuple[int, ...] | None = None,
    accepts: Callable[[str], bool] = lambda argument: False,
) -> Subject:
    """A subject for a user's cell.

    Args:
        make_cell: is called with `units`, and with those of the case's `activation`, `use_bias`,
            `reset_after`, `dropout` and `recurrent_dropout` that are not the default.
        layer: `rnn`, in `keras.layers.RNN`; `fused`, in `cells.FusedRNN`; `layer`: it is a whole layer; or
            one of `BACKENDS`, in `keras.layers.RNN` there.
        target, kwargs: the texts that `--cell` and `--kwargs` gave.
        factory: what makes the cell where no text does.
        step_shape: the shape of a step where the cell takes a certain one; the case's features are its
            product.
        accepts: whether `make_cell` has an argument of a name.
    """
    words, wrap, honoured = _USER_LAYERS["rnn" if layer in BACKENDS else layer]
    label = words.format(name)

    def make_one(case):
        given = _cell_arguments(case, frozenset())
        missing = [argument for argument in given if not accepts(argument)]
        if missing:
            raise UnsupportedOption(f"{label} has no option {', '.join(missing)}: the cell takes none")
        cell = make_cell(case.units, **given)
        return cell if step_shape is None else _shaped(cell, case, step_shape, label)

    subject = Subject(
        name,
        layer,
        label,
        baseline,
        wrap(make_one),
        honoured,
        kind="user",
        equation=name,
        target=target,
        kwargs=kwargs,
        factory=factory,
        step_shape=step_shape,
    )
    return BACKENDS[layer].carry(subject, label) if layer in BACKENDS else subject


def _shaped(cell: Any, case: Case, step_shape: tuple[int, ...], label: str):
    """The cell, given steps of this shape; refuses a case of other features."""
    from bench.cases.layers.shaped_steps import shaped

    if math.prod(step_shape) != case.features:
        shape = ",".join(map(str, step_shape))
        raise UnsupportedOption(
            f"{label} takes steps of shape {shape}, {math.prod(step_shape)} features, not {case.features}"
        )
    return shaped(cell, step_shape)


def _whole(make_layer: Callable[[Case], Any]) -> Callable[[Case], Any]:
    """case -> the user's layer, as it is."""

    def make(case):
        from bench.cases.layers.whole import WholeLayer

        return WholeLayer(make_layer(case))

    return make


WHOLE = "layer"  # what ids call the layer of a subject that is a user's whole layer
_OF_CELLS = _AROUND | frozenset(_CELL_OPTIONS)


@dataclass(frozen=True)
class _Backend:
    """A back end of Keras beside TensorFlow, whose peer is `keras_NAME`.

    Attributes:
        name: Keras' name for it.
        label: what people call it.
        requires: the packages that it takes.
        on: the devices that its peer computes on.
    """

    name: str
    label: str
    requires: tuple[str, ...]
    on: tuple[str, ...] = ("cpu",)

    @property
    def layer(self) -> str:
        """The layer of its subjects, and the module of their peer."""
        return f"keras_{self.name}"

    def carry(self, subject: Subject, label: str) -> Subject:
        """The subject, a layer of Keras' or a cell in `keras.layers.RNN`, run on this back end.

        Its layer on TensorFlow is what it must agree with, and has none of the options.
        """
        label = f"{label} on {self.label}"

        def make(case):
            _check_plain(label, case, self.on)
            return subject.make(case)

        return replace(
            subject,
            layer=self.layer,
            label=label,
            make=make,
            options=frozenset(),
            kind=subject.kind if subject.kind == "user" else "backend",
            runs_in=f"Keras on {self.label}",
            backend=self.name,
            requires=self.requires,
            peer=self.layer,
            carried=subject,
        )


BACKENDS = {
    backend.layer: backend
    for backend in (_Backend("jax", "JAX", ("jax",), DEVICES), _Backend("torch", "PyTorch", ("torch",)))
}

# the layers that a user's cell may stand in: what they are called, what makes them, the options they have
_USER_LAYERS: dict[str, tuple[str, Callable[..., Any], frozenset[str]]] = {
    "rnn": ("{} in RNN", _in_rnn, _LAYER_OPTIONS | _OF_CELLS),
    "fused": ("{} in FusedRNN", _in_fused_rnn, _FUSED_LAYER_OPTIONS | _OF_CELLS),
    WHOLE: ("{}", _whole, frozenset()),
}
USER_LAYERS = (*(layer for layer in _USER_LAYERS if layer != WHOLE), *BACKENDS)


def _peer(
    cell: str, layer: str, keras_name: str, label: str, peer: str, *requires: str, runs_in: str = ""
) -> Subject:
    """A built-in's equation in another library, in a process of its own."""

    def make(case):
        import keras

        _check_plain(label, case, DEVICES if layer == "torch" else ("cpu",))
        if layer == "onnx" and case.mode != "infer":
            raise UnsupportedOption(f"{label} infers only")
        returned = {"return_sequences": True, "return_state": True}
        return getattr(keras.layers, keras_name)(case.units, **returned)

    return Subject(
        cell,
        layer,
        label,
        EQUATIONS[cell].baseline,
        make,
        frozenset(),
        kind="peer",
        equation=cell,
        runs_in=runs_in,
        requires=requires,
        peer=peer,
    )


def _torch(cell: str, keras_name: str, torch_name: str) -> Subject:
    label = f"PyTorch nn.{torch_name}"
    return _peer(cell, "torch", keras_name, label, "pytorch", "torch", runs_in="PyTorch")


def _onnx(cell: str, keras_name: str, operator: str) -> Subject:
    label, needs = f"ONNX Runtime {operator}", ("onnx", "onnxruntime")
    return _peer(cell, "onnx", keras_name, label, "onnx_runtime", *needs, runs_in="ONNX Runtime")


def _keras2(cell: str, keras_name: str) -> Subject:
    return _peer(cell, "keras2", keras_name, f"Keras 2 {keras_name}", "keras2", "tf_keras", runs_in="Keras 2")


def _compat_v1(cell: str, keras_name: str, function: str, *options: str) -> Subject:
    """The functions of TensorFlow 1 that ours follow, with the cell of Keras 2 that they take."""
    label = f"Keras 2 {keras_name}Cell in tf.compat.v1.nn.{function}"
    subject = _peer(cell, function, keras_name, label, function, "tf_keras")
    return replace(subject, options=frozenset(options), unrolls=function == "static_rnn")


def _block_kernel(cell: str, kernel: str, *options: str) -> Subject:
    """A built-in's equation in a fused kernel of TensorFlow's, which Keras does not use."""
    label = f"TensorFlow's {kernel}"

    def make(case):
        from bench.cases.layers import block

        _check_plain(label, case)
        if "reset_after" not in options:
            return block.BlockLSTM(case.units, return_sequences=True, return_state=True)
        if case.reset_after is not False:
            raise UnsupportedOption(f"{label} is the GRU with reset_after=False only")
        return block.BlockGRU(case.units, reset_after=False, return_sequences=True, return_state=True)

    return Subject(
        cell,
        "block",
        label,
        EQUATIONS[cell].baseline,
        make,
        frozenset(options),
        kind="peer",
        equation=cell,
        runs_in="TensorFlow's kernel",
    )


def _check_plain(label: str, case: Case, on: Sequence[str] = ("cpu",)) -> None:
    """Raises UnsupportedOption for what no peer is measured with."""
    plain = {"dtype": ("float32",), "jit_compile": (False,), "device": on}
    other = [
        f"{name} {getattr(case, name)}" for name, values in plain.items() if getattr(case, name) not in values
    ]
    if other:
        where = " or ".join(f"the {device.upper()}" for device in on)
        raise UnsupportedOption(
            f"{label} is measured in float32, as it comes, on {where}; not {', '.join(other)}"
        )


_GATED = ("activation", "use_bias", "dropout", "recurrent_dropout")
FROM_PAPERS = ("peephole_lstm", "janet", "mgu", "gru_candidate", "indrnn")
_ON_TENSORFLOW: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        _builtin("simple_rnn", "SimpleRNN", *_GATED),
        _builtin("lstm", "LSTM", "implementation", "use_cudnn", *_GATED),
        _builtin("gru", "GRU", "implementation", "use_cudnn", "reset_after", *_GATED),
        _keras_cell("simple_rnn", "SimpleRNNCell", *_GATED),
        _keras_cell("lstm", "LSTMCell", "implementation", *_GATED),
        _keras_cell("gru", "GRUCell", "implementation", "reset_after", *_GATED),
        _ours("minimal"),
        _ours("simple_rnn", *_GATED),
        _ours("lstm", *_GATED),
        _ours("gru", "reset_after", *_GATED),
        _ours("slstm", *_GATED),
        _fused("simple_rnn", "input_product", *_GATED),
        _fused("lstm", "input_product", *_GATED),
        _fused("gru", "reset_after", "input_product", *_GATED),
        _fused("slstm", *_GATED),
        *(make(cell) for cell in FROM_PAPERS for make in (_ours, _fused)),
        _ours("chosen_state", *_GATED),
        _ours("learned_state", *_GATED),
        _unrolled("lstm", "static_unroll", *_GATED),
        _unrolled("lstm", "dynamic_unroll", *_GATED),
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
        _block_kernel("lstm", "BlockLSTMV2"),
        _block_kernel("gru", "GRUBlockCell", "reset_after"),
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
