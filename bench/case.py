"""`Case`: one point of a sweep, a frozen value with a readable id. Everything downstream follows from it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

MODES = ("infer", "train")
TASK_MODES = ("fit", "generate")
DTYPES = ("float32", "mixed_float16", "mixed_bfloat16", "float64", "float16", "bfloat16")
DEVICES = ("cpu", "gpu")
_SWITCH = (False, True)
_CHOICES: dict[str, tuple[Any, ...]] = {
    "mode": MODES + TASK_MODES,
    "dtype": DTYPES,
    "unroll": _SWITCH,
    "implementation": (1, 2),
    "stateful": _SWITCH,
    "jit_compile": _SWITCH,
    "return_sequences": _SWITCH,
    "go_backwards": _SWITCH,
    "use_bias": (None, *_SWITCH),
    "reset_after": (None, *_SWITCH),
    "device": DEVICES,
}
_SIZES = ("batch_size", "timesteps", "features", "units")


class CaseError(ValueError):
    """A case that cannot be: it names the field, the value and the values allowed."""


@dataclass(frozen=True)
class Case:
    """A subject at a shape, with options, in a mode, on a device.

    Attributes:
        cell, layer: the subject, by the names of `bench.subjects`.
        mode: `infer`, the forward pass, or `train`, the forward pass and the gradients of the weights,
            the inputs and the initial states; `fit` or `generate` in a training task.
        batch_size, timesteps, features, units: the shape, in Keras' words.
        dtype: a Keras dtype policy.
        unroll, stateful, return_sequences, go_backwards: as `keras.layers.RNN` has them.
        implementation: 1, a matmul a gate, or 2, one for all.
        jit_compile: whether XLA compiles it.
        activation, use_bias, reset_after: as the cell has them; None is the cell's own default.
        device: `cpu` or `gpu`. A run has one, so it is no part of the id.
    """

    cell: str
    layer: str
    mode: str
    batch_size: int
    timesteps: int
    features: int
    units: int
    dtype: str = "float32"
    unroll: bool = False
    implementation: int = 2
    stateful: bool = False
    jit_compile: bool = False
    return_sequences: bool = True
    go_backwards: bool = False
    activation: str | None = None
    use_bias: bool | None = None
    reset_after: bool | None = None
    device: str = "cpu"

    def __post_init__(self):
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if not any(type(value) is type(choice) and value == choice for choice in allowed):  # True is 1
                raise CaseError(f"{name} {value!r}: must be one of {', '.join(map(str, allowed))}")
        for name in _SIZES:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise CaseError(f"{name} {value!r}: must be a positive integer")
        for name in ("cell", "layer", *(["activation"] if self.activation is not None else [])):
            value = getattr(self, name)
            if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.]+", value):
                raise CaseError(f"{name} {value!r}: must be a name of letters, digits, '_' and '.'")

    @property
    def subject(self) -> str:
        """The subject's name, `cell-layer`."""
        return f"{self.cell}-{self.layer}"

    @property
    def shape(self) -> str:
        """The shape as ids write it."""
        return f"b{self.batch_size}-t{self.timesteps}-f{self.features}-u{self.units}"

    @property
    def options(self) -> tuple[str, ...]:
        """The options that are not the default, as ids write them."""
        return tuple(
            _WORDS[field.name](getattr(self, field.name))
            for field in fields(self)
            if field.name in _WORDS and getattr(self, field.name) != field.default
        )

    @property
    def id(self) -> str:
        """The case's name: mode, subject, shape, then the options that are not the default."""
        return "-".join((self.mode, self.subject, self.shape, *self.options))


# how an id writes an option that is not the default; the others never stand in an id
_WORDS: dict[str, Callable[[Any], str]] = {
    "dtype": str,
    "unroll": lambda value: "unroll",
    "implementation": lambda value: f"impl{value}",
    "stateful": lambda value: "stateful",
    "jit_compile": lambda value: "xla",
    "return_sequences": lambda value: "last_output",
    "go_backwards": lambda value: "backwards",
    "activation": lambda value: f"act_{value}",
    "use_bias": lambda value: "bias" if value else "no_bias",
    "reset_after": lambda value: "reset_after" if value else "reset_before",
}
