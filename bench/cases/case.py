"""`Case`: one point of a sweep, a frozen value with a readable id. Everything downstream follows from it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from bench.records import options
from bench.records.options import DTYPES

MODES = ("infer", "train")
TASK_MODES = ("fit", "generate")
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
_TOO_LARGE = 10**18  # no array is as long; an id has no more digits either
_RATES = ("dropout", "recurrent_dropout")
# a field that means something only beside others that are set
_NEEDS = {
    "zero_output_for_mask": ("masked", "return_sequences"),
    "merge_mode": ("bidirectional",),
    "backward_layer": ("bidirectional",),
}


# the sizes of a shape, and how an id begins each
SHAPE = {"batch_size": "b", "timesteps": "t", "features": "f", "units": "u"}
_ID = "mode-cell-layer-b…-t…-f…-u…"  # then the options


class CaseError(ValueError):
    """A case that cannot be: it names the field, the value and the values allowed; or an id that is none."""


def shape_id(sizes: Mapping[str, Any]) -> str:
    """A shape as ids write it, `b32-t50-f64-u128`, of a mapping that holds the four sizes."""
    return "-".join(f"{letter}{sizes[name]}" for name, letter in SHAPE.items())


class IdParts(NamedTuple):
    """The parts of a case's id.

    Attributes:
        shape: the four sizes, in the order of `SHAPE`.
        options: the words of the options that are not the default.
    """

    mode: str
    cell: str
    layer: str
    shape: tuple[int, int, int, int]
    options: tuple[str, ...]

    @property
    def subject(self) -> str:
        """The subject's name, `cell-layer`."""
        return f"{self.cell}-{self.layer}"


def id_parts(text: str) -> IdParts:
    """Takes an id apart, whatever its mode, names and options are called.

    Raises:
        CaseError: naming the part that is missing or is no size.
    """
    parts = text.split("-")
    names = ("mode", "cell", "layer", *SHAPE)
    if len(parts) < len(names):
        raise CaseError(f"{text!r}: {names[len(parts)]} is missing; an id is {_ID} and its options")
    mode, cell, layer, *rest = parts
    sizes = [_size(text, *pair) for pair in zip(SHAPE, rest, strict=False)]
    return IdParts(mode, cell, layer, (sizes[0], sizes[1], sizes[2], sizes[3]), tuple(rest[len(SHAPE) :]))


def _size(id: str, name: str, part: str) -> int:
    found = re.fullmatch(f"{SHAPE[name]}([1-9][0-9]{{0,17}})", part)
    if found is None:
        raise CaseError(
            f"{id!r}: {name} {part!r}: must be {SHAPE[name]!r} and a positive integer; "
            f"an id is {_ID} and its options"
        )
    return int(found[1])


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
            if value >= _TOO_LARGE:
                raise CaseError(f"{name} {value}: must have at most 18 digits")
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
        return shape_id(vars(self))

    @property
    def compiles_alike(self) -> bool:
        """Whether its graph compiled twice runs alike, so that instances can share what was compiled.

        So it is with inference that XLA compiles for a CPU: of six compilations of an LSTM and a SimpleRNN,
        each with its weights and inputs in four places, times differed by what places do, 0.2% to 0.3%, and
        to compile again takes 0.1 to 0.2 s. Training may draw its speed there too: six compilations of a
        SimpleRNN were up to 5% apart, for as long as they lived, those of a GRU not. On a GPU it chooses
        among kernels by timing them.
        """
        return self.jit_compile and self.device == "cpu" and self.mode == "infer"

    @property
    def options(self) -> tuple[str, ...]:
        """The options that are not the default, as ids write them."""
        return tuple(
            options.write(name, getattr(self, name))
            for name in options.FIELDS
            if getattr(self, name) != _DEFAULTS[name]
        )

    @property
    def id(self) -> str:
        """The case's name: mode, subject, shape, then the options that are not the default."""
        return "-".join((self.mode, self.subject, self.shape, *self.options))

    @classmethod
    def from_id(cls, text: str, device: str = "cpu") -> "Case":
        """The case whose `id` is `text`, on a device, which is no part of an id.

        Raises:
            CaseError: naming the part of the text that is wrong, and what it may be.
        """
        parts = id_parts(text)
        try:
            given = _options_of(parts.options)
            case = cls(parts.cell, parts.layer, parts.mode, *parts.shape, **given, device=device)
        except (CaseError, options.UnknownOption) as error:
            raise CaseError(f"{text!r}: {error}") from None
        if case.id != text:
            raise CaseError(f"{text!r}: this case is written {case.id}")
        return case


_DEFAULTS = {field.name: field.default for field in fields(Case)}


def _options_of(words: tuple[str, ...]) -> Mapping[str, Any]:
    """The fields that the words of an id stand for.

    Raises:
        CaseError: two words speak of one field, or a word of a field's default, which no id names.
        UnknownOption: no option is written like that.
    """
    given: dict[str, Any] = {}
    for word in words:
        name, value = options.read(word)
        if name in given:
            raise CaseError(f"option {word!r}: {name} is {given[name]!r} already")
        if value == _DEFAULTS[name]:
            raise CaseError(f"option {word!r}: is the default, which an id leaves out")
        given[name] = value
    return given
