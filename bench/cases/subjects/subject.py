"""`Subject`: a layer and a cell to measure, and what making its layer may refuse."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from importlib.util import find_spec
from typing import Any

from bench.cases.case import Case
from bench.contract.load_cell import Target

# the fields of `Case` that no subject need have, with their defaults
DEFAULTS: dict[str, Any] = {
    field.name: field.default
    for field in fields(Case)
    if field.default is not MISSING and field.name not in ("dtype", "jit_compile", "device")
}


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

    asked = {name for name, default in DEFAULTS.items() if getattr(case, name) != default}
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
