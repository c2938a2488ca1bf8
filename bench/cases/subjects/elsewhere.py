"""Make the subjects that something else than Keras on TensorFlow runs: its other back ends, and peers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.cases.case import DEVICES, Case
from bench.cases.subjects.equations import EQUATIONS
from bench.cases.subjects.subject import Subject, UnsupportedOption


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


def _peer(
    cell: str,
    layer: str,
    keras_name: str,
    label: str,
    peer: str,
    *requires: str,
    runs_in: str = "",
    on: Sequence[str] = ("cpu",),
) -> Subject:
    """A built-in's equation in another library, in a process of its own, on those devices."""

    def make(case):
        import keras

        _check_plain(label, case, on)
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
    return _peer(cell, "torch", keras_name, label, "pytorch", "torch", runs_in="PyTorch", on=DEVICES)


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


# one more is a module of `bench.processes.peers` and an entry here
PEERS = (
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
