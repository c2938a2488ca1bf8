"""`Case`: one point of a sweep, a frozen value with a readable id. Everything downstream follows from it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

MODES = ("infer", "train")
TASK_MODES = ("fit", "generate")
DTYPES = ("float32", "mixed_float16", "mixed_bfloat16", "float64", "float16", "bfloat16")
DEVICES = ("cpu", "gpu")
MASKS = ("right", "left", "full")
MERGE_MODES = ("concat", "sum", "mul", "ave", "none")
_SWITCH = (False, True)
_CHOICES: dict[str, tuple[Any, ...]] = {
    "mode": MODES + TASK_MODES,
    "dtype": DTYPES,
    "unroll": _SWITCH,
    "implementation": (1, 2),
    "stateful": _SWITCH,
    "jit_compile": _SWITCH,
    "use_cudnn": (None, "auto", "True", "False"),
    "return_sequences": _SWITCH,
    "go_backwards": _SWITCH,
    "masked": (None, *MASKS),
    "zero_output_for_mask": _SWITCH,
    "use_bias": (None, *_SWITCH),
    "reset_after": (None, *_SWITCH),
    "bidirectional": _SWITCH,
    "merge_mode": (None, *MERGE_MODES),
    "backward_layer": _SWITCH,
    "static_timesteps": _SWITCH,
    "static_batch": _SWITCH,
    "time_major": _SWITCH,
    "input_product": _SWITCH,
    "device": DEVICES,
}
_SIZES = ("batch_size", "timesteps", "features", "units", "depth")
_RATES = ("dropout", "recurrent_dropout")
# a field that means something only beside others that are set
_NEEDS = {
    "zero_output_for_mask": ("masked", "return_sequences"),
    "merge_mode": ("bidirectional",),
    "backward_layer": ("bidirectional",),
}


class CaseError(ValueError):
    """A case that cannot be: it names the field, the value and the values allowed."""


@dataclass(frozen=True)
class Case:
    """A subject at a shape, with options, in a mode, on a device.

    Attributes:
        cell, layer: the subject, by the names of `bench.cases.subjects`.
        mode: `infer`, the forward pass, or `train`, the forward pass and the gradients of the weights,
            the inputs and the initial states; `fit` or `generate` in a training task.
        batch_size, timesteps, features, units: the shape, in Keras' words.
        dtype: a Keras dtype policy.
        unroll, stateful, return_sequences, go_backwards: as `keras.layers.RNN` has them.
        implementation: 1, a matmul a gate, or 2, one for all.
        jit_compile: whether XLA compiles it.
        use_cudnn: the built-ins' argument, `auto`, `True` or `False`; None does not pass it.
        masked: the mask that is passed: `right`- or `left`-padded sequences, or `full`, right-padded with one
            sequence masked from end to end; None is no mask.
        zero_output_for_mask: as `keras.layers.RNN` has it.
        dropout, recurrent_dropout: shares of the inputs and of the state that are dropped, in training.
        activation, use_bias, reset_after: as the cell has them; None is the cell's own default.
        bidirectional: whether the layer is in `keras.layers.Bidirectional`; with a `merge_mode` (`none` is
            Keras' None; None is its default, `concat`) and, if `backward_layer`, a layer of its own for the
            way back.
        depth: how many layers are stacked, or cells in one `keras.layers.RNN`.
        static_timesteps, static_batch: whether the size is known when compiling.
        time_major: whether time is the first axis.
        input_product: whether the product of the inputs and the kernel is computed; if not, it is given.
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
    use_cudnn: str | None = None
    return_sequences: bool = True
    go_backwards: bool = False
    masked: str | None = None
    zero_output_for_mask: bool = False
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    activation: str | None = None
    use_bias: bool | None = None
    reset_after: bool | None = None
    bidirectional: bool = False
    merge_mode: str | None = None
    backward_layer: bool = False
    depth: int = 1
    static_timesteps: bool = True
    static_batch: bool = True
    time_major: bool = False
    input_product: bool = True
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
        for name in _RATES:
            value = getattr(self, name)
            if type(value) is not float or not 0 <= value < 1:
                raise CaseError(f"{name} {value!r}: must be a float from 0.0 up to, but not, 1.0")
        for name in ("cell", "layer", *(["activation"] if self.activation is not None else [])):
            value = getattr(self, name)
            if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.]+", value):
                raise CaseError(f"{name} {value!r}: must be a name of letters, digits, '_' and '.'")
        self._check_company()

    def _check_company(self):
        """Refuses an option that means nothing beside the others."""
        for name, needed in _NEEDS.items():
            lacking = [other for other in needed if not getattr(self, other)]
            if getattr(self, name) and lacking:
                value, other = getattr(self, name), lacking[0]
                raise CaseError(f"{name} {value!r}: needs {other}, which is {getattr(self, other)!r}")
        if self.bidirectional and self.go_backwards:
            raise CaseError("go_backwards True: a bidirectional layer goes both ways")
        if self.merge_mode == "none" and self.depth > 1:
            raise CaseError("merge_mode 'none': its two outputs cannot be stacked; depth must be 1")

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
    "use_cudnn": {"auto": "cudnn_auto", "True": "cudnn", "False": "no_cudnn"}.__getitem__,
    "return_sequences": lambda value: "last_output",
    "go_backwards": lambda value: "backwards",
    "masked": lambda value: f"mask_{value}",
    "zero_output_for_mask": lambda value: "zero_masked",
    "dropout": lambda value: f"dropout{Decimal(repr(value)):f}",
    "recurrent_dropout": lambda value: f"recurrent_dropout{Decimal(repr(value)):f}",
    "activation": lambda value: f"act_{value}",
    "use_bias": lambda value: "bias" if value else "no_bias",
    "reset_after": lambda value: "reset_after" if value else "reset_before",
    "bidirectional": lambda value: "bidirectional",
    "merge_mode": lambda value: f"merge_{value}",
    "backward_layer": lambda value: "backward_layer",
    "depth": lambda value: f"depth{value}",
    "static_timesteps": lambda value: "any_timesteps",
    "static_batch": lambda value: "any_batch",
    "time_major": lambda value: "time_major",
    "input_product": lambda value: "no_input_product",
}
