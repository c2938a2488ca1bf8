"""The sweeps: declared sets of cases, each the answer to a question. Adding one is adding an entry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from bench.cases.case import DEVICES, MERGE_MODES, MODES, SHAPE
from bench.cases.subjects import BACKENDS, FROM_PAPERS, IN_PLAIN_KERAS, USER_LAYERS

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Grid:
    """Every combination of subjects, modes, shapes and options.

    Attributes:
        subjects: names of `bench.cases.subjects`, `cell-layer`.
        shapes: (batch_size, timesteps, features, units).
        options: the values of `Case`'s other fields, one mapping for each combination wanted; one that says
            nothing of `jit_compile` is compiled as `fit` compiles it on the device.
        user_cells: the layers in which the cells of `--cell` join: `rnn`, `fused`, `keras_jax`,
            `keras_torch`.
        devices: the devices on which these are measured.
        baselines: what these are compared with, where it is not what the rest of the sweep is.
    """

    subjects: tuple[str, ...]
    shapes: tuple[Shape, ...]
    options: tuple[Mapping[str, Any], ...] = ({},)
    modes: tuple[str, ...] = MODES
    user_cells: tuple[str, ...] = ()
    devices: tuple[str, ...] = DEVICES
    baselines: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Sweep:
    """A declared set of cases.

    Attributes:
        question: what it answers, in a sentence.
        grids: its cases.
        baselines: what each case is compared with, a row for each of these rules of
            `bench.cases.comparisons.BASELINES`.
        task: the name in `bench.runner.tasks.TASKS` of what its cases do, compared with nothing; None:
            its cases time a layer.
        full: the fields of a task's cases that `--full` sets to the tutorial's size.
        memory: whether the memory that a case takes is measured, for which it runs in a fresh process.
        isolated: whether its cases run in a process of their own all the same, as they may be large.
        longest_s: seconds beyond which an isolated case is skipped: those of its fewest calls, by the
            estimate.
    """

    question: str
    grids: tuple[Grid, ...]
    baselines: tuple[str, ...] = ("builtin",)
    task: str | None = None
    full: Mapping[str, Any] = field(default_factory=dict)
    memory: bool = False
    isolated: bool = False
    longest_s: float = 60.0


class SweepError(ValueError):
    """A user's sweep that cannot be: it names the field, the value and what it must be."""


def check_form(sweep: Sweep) -> None:
    """Raises SweepError for a field of another form than `Sweep` and `Grid` say: no type checker may have
    seen a user's file. What the values may be is asked where they are used."""
    _check_all("grids", sweep.grids, lambda grid: isinstance(grid, Grid), "Grids")
    _check_all("baselines", sweep.baselines, _is_text, "names")
    for grid in sweep.grids:
        for field_name, (is_one, form) in _FORMS.items():
            _check_all(field_name, getattr(grid, field_name), is_one, form)
        if grid.baselines is not None:
            _check_all("baselines", grid.baselines, _is_text, "names")


def _check_all(name: str, values: Any, is_one: Callable[[Any], bool], form: str) -> None:
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(map(is_one, values)):
        raise SweepError(f"{name} {values!r}: must be a tuple of {form}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_shape(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == len(SHAPE)


# what each field of a grid is a tuple of
_FORMS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "subjects": (_is_text, "names, such as 'lstm-builtin'"),
    "shapes": (_is_shape, f"shapes, each ({', '.join(SHAPE)})"),
    "options": (lambda options: isinstance(options, Mapping), "mappings, each the options of one variant"),
    "modes": (_is_text, f"some of {', '.join(MODES)}"),
    "user_cells": (lambda layer: layer in USER_LAYERS, f"some of {', '.join(USER_LAYERS)}"),
    "devices": (lambda device: device in DEVICES, f"some of {', '.join(DEVICES)}"),
}

# the layers in which a user's cell joins
IN_RNN = ("rnn",)
IN_FUSED = ("fused",)
IN_BOTH = (*IN_RNN, *IN_FUSED)
ON_BACKENDS = tuple(BACKENDS)
OURS = ("minimal-rnn", "simple_rnn-rnn", "lstm-rnn", "gru-rnn", "slstm-rnn")
KERAS_CELLS = ("keras_simple_rnn-rnn", "keras_lstm-rnn", "keras_gru-rnn")
BUILTINS = ("simple_rnn-builtin", "lstm-builtin", "gru-builtin")
FUSED = ("lstm-fused", "gru-fused", "slstm-fused")
LOOPS = ("lstm-builtin", "gru-builtin", "slstm-rnn")
PEERS = ("lstm-torch", "gru-torch", "lstm-keras2", "gru-keras2", "lstm-block")
SIMPLE_PEERS = ("simple_rnn-torch", "simple_rnn-keras2")
ONNX = ("lstm-onnx", "gru-onnx")
ADDERS = ("simple_rnn-builtin", "lstm-builtin", "slstm-rnn", "chosen_state-rnn", "learned_state-rnn")
WRITERS = ("simple_rnn-builtin", "lstm-builtin", "gru-builtin", "slstm-rnn")
CHAR_CELLS = ("simple_rnn", "lstm", "gru")
BASE = (32, 50, 64, 128)
OPTIONS = (32, 40, 64, 64)
WITH_CUDNN = ("lstm-builtin", "gru-builtin")
KERAS_GATED = ("keras_lstm-rnn", "keras_gru-rnn")
GATED_CELLS = (*KERAS_GATED, "lstm-rnn", "gru-rnn", "slstm-rnn")
PLAIN: Mapping[str, Any] = {"jit_compile": False}
# unrolled on a GPU, `fit` would compile for minutes
UNROLLED: Mapping[str, Any] = {"unroll": True, **PLAIN}
# what the layers' code handles, the same in the built-ins and in `keras.layers.RNN`
LAYER_OPTIONS: tuple[Mapping[str, Any], ...] = (
    UNROLLED,
    {"stateful": True},
    {"jit_compile": True},
    {"return_sequences": False},
    {"go_backwards": True},
    {"masked": "right"},
    {"masked": "right", "zero_output_for_mask": True},
    {"bidirectional": True},
    *({"bidirectional": True, "merge_mode": mode} for mode in MERGE_MODES[1:]),
    {"bidirectional": True, "backward_layer": True},
    {"depth": 2},
    {"depth": 3},
    {"dtype": "mixed_float16"},
    {"dtype": "mixed_bfloat16"},
    {"dtype": "float64"},
    {"static_timesteps": False},
    {"static_batch": False},
)
# what the cells' code handles; the activation is smooth, as a gradient in float32 can be proven of such only
CELL_OPTIONS: tuple[Mapping[str, Any], ...] = (
    {"dropout": 0.5},
    {"recurrent_dropout": 0.5},
    {"activation": "softsign"},
    {"use_bias": False},
)
FUSED_OPTIONS: tuple[Mapping[str, Any], ...] = (
    {"stateful": True},
    {"return_sequences": False},
    {"go_backwards": True},
    {"masked": "right"},
    {"masked": "right", "zero_output_for_mask": True},
    {"dropout": 0.5},
    {"recurrent_dropout": 0.5},
    {"dtype": "mixed_bfloat16"},
    {"static_timesteps": False},
)
FUSED_LAYER_OPTIONS = tuple(
    option for option in FUSED_OPTIONS if not {"dropout", "recurrent_dropout"} & option.keys()
)
ODD_MASKS: tuple[Mapping[str, Any], ...] = ({"masked": "left"}, {"masked": "full"})
# options that change each other's price: a mask adds selects to every step, unrolled ones too, and XLA fuses
# them; XLA may merge what `implementation=1` takes apart; a stream comes in pieces of any length
PAIRS: tuple[Mapping[str, Any], ...] = (
    {"masked": "right", **UNROLLED},
    {"masked": "right", "jit_compile": True},
    {"implementation": 1, "jit_compile": True},
    {"stateful": True, "static_timesteps": False},
)
WITHOUT_CUDNN: Mapping[str, Any] = {"use_cudnn": "False"}
ON_GPU: tuple[Mapping[str, Any], ...] = (
    *({"use_cudnn": value} for value in ("auto", "True")),
    {**WITHOUT_CUDNN, **PLAIN},
    *({**option, **WITHOUT_CUDNN} for option in ({"implementation": 1}, *ODD_MASKS)),
)
FUSED_SHAPES = (
    (1, 100, 64, 128),
    (8, 400, 64, 64),
    (256, 30, 1, 16),
    (32, 100, 128, 256),
    (64, 80, 256, 512),
    BASE,
)
UNDER_XLA_SHAPES = (*FUSED_SHAPES[:2], FUSED_SHAPES[3], BASE)
LARGEST = (32, 79, 256, 1024)
OF_KERAS = ("loop", "loop_xla")

# one sequence, as a user waits for it; a batch, as one trains
BACKEND_SHAPES = ((1, 100, 64, 128), (32, 50, 64, 128))
LONGER = tuple((32, timesteps, 64, 64) for timesteps in (10, 50, 100, 200, 500, 1000))
# the first as `fit` runs it: on a CPU that is plain, on a GPU XLA, but for the built-ins that cuDNN runs
PLAIN_AND_XLA: tuple[Mapping[str, Any], ...] = ({}, PLAIN, {"jit_compile": True})
# what an option, or XLA, costs is a pair of its own: two ratios to a third do not say it
WITH_OWN_DEFAULT = ("builtin", "default_option")
INPUT_PRODUCT: tuple[Mapping[str, Any], ...] = ({}, {"input_product": False})


def _square(timesteps: int, batch_sizes: Sequence[int], units: Sequence[int]) -> tuple[Shape, ...]:
    """Shapes with as many features as units."""
    return tuple((batch_size, timesteps, size, size) for size, batch_size in product(units, batch_sizes))


# DeepBench's training shapes
VANILLA_SHAPES = _square(50, (16, 32, 64, 128), (1760, 2048, 2560))
GRU_UNITS = (1536, 2048, 2560, 2816)
GRU_SHAPES = (
    *_square(1, (32,), (512,)),
    *_square(187, (32,), GRU_UNITS),
    *_square(375, (32,), GRU_UNITS),
    *_square(750, (32,), GRU_UNITS),
    *_square(1500, (32,), GRU_UNITS),
    *_square(1500, (32, 64), (1024,)),
)
LSTM_SHAPES = (
    *_square(25, (16, 32, 64, 128), (512, 1024, 2048, 4096)),
    *_square(50, (8, 16, 32), (1536,)),
    *_square(150, (16, 32, 64), (256,)),
)

SWEEPS: dict[str, Sweep] = {
    "default": Sweep(
        "What does a custom cell cost against the built-in layers, and how does it grow?",
        (
            # the first as `fit` runs it: plain on a CPU, on a GPU XLA, but for the built-ins that cuDNN runs
            Grid((*BUILTINS, *KERAS_CELLS, *OURS), (BASE,), ({}, PLAIN), user_cells=IN_RNN),
            Grid(KERAS_CELLS, (BASE,), ({"jit_compile": True},)),
            Grid(
                (*BUILTINS, *OURS),
                (BASE,),
                ({"jit_compile": True},),
                user_cells=IN_RNN,
                baselines=WITH_OWN_DEFAULT,
            ),
            Grid(
                ("lstm-builtin", "gru-builtin", "lstm-rnn", "slstm-rnn"),
                (BASE,),
                (UNROLLED, {"implementation": 1}, {"stateful": True}),
                devices=("cpu",),
                baselines=WITH_OWN_DEFAULT,
            ),
            Grid(
                (*WITH_CUDNN, "lstm-rnn", "slstm-rnn"),
                (BASE,),
                (UNROLLED, {"stateful": True}),
                devices=("gpu",),
                baselines=WITH_OWN_DEFAULT,
            ),
            # cuDNN heeds no `implementation`
            Grid(
                WITH_CUDNN,
                (BASE,),
                ({"implementation": 1, **WITHOUT_CUDNN},),
                devices=("gpu",),
                baselines=WITH_OWN_DEFAULT,
            ),
            Grid(
                ("lstm-rnn", "slstm-rnn"),
                (BASE,),
                ({"implementation": 1},),
                devices=("gpu",),
                baselines=WITH_OWN_DEFAULT,
            ),
            Grid(FUSED, (BASE,), user_cells=IN_FUSED, baselines=("builtin", "loop")),
            Grid(
                (),
                (BASE,),
                (UNROLLED, {"stateful": True}),
                user_cells=IN_RNN,
                baselines=WITH_OWN_DEFAULT,
            ),
            Grid(LOOPS, tuple((32, timesteps, 64, 128) for timesteps in (10, 100, 200)), user_cells=IN_RNN),
            Grid(LOOPS, tuple((batch_size, 50, 64, 128) for batch_size in (1, 8, 128)), user_cells=IN_RNN),
            Grid(LOOPS, tuple((32, 50, 64, units) for units in (32, 64, 256)), user_cells=IN_RNN),
        ),
    ),
    "smoke": Sweep(
        "Does everything work? A handful of small cases.",
        (
            Grid(("lstm-builtin", "lstm-rnn", "gru-rnn", "slstm-rnn"), ((4, 10, 8, 16),), user_cells=IN_RNN),
            Grid(
                ("slstm-rnn",),
                ((4, 10, 8, 16),),
                ({"jit_compile": True}, UNROLLED),
                user_cells=IN_RNN,
            ),
        ),
    ),
    "gate": Sweep(
        "Did a change make it slower? A dozen cases, about a minute a process on two cores.",
        (
            Grid(
                ("lstm-builtin", "lstm-rnn", "gru-rnn", "slstm-rnn", "slstm-fused"),
                (BASE,),
                user_cells=IN_BOTH,
            ),
            Grid(("slstm-rnn",), (BASE,), ({"jit_compile": True},), user_cells=IN_RNN),
        ),
    ),
    "fused": Sweep(
        "What does `FusedRNN` gain over Keras' loop, as users run it and under XLA, and over what one would "
        "pick instead: PyTorch, ONNX Runtime, Keras on JAX?",
        (
            Grid(FUSED, FUSED_SHAPES, user_cells=IN_FUSED),
            Grid(("lstm-fused",), (LARGEST,), user_cells=IN_FUSED, baselines=OF_KERAS),
            Grid(tuple(f"{cell}-fused" for cell in FROM_PAPERS), FUSED_SHAPES[3:4]),
            Grid(tuple(f"{cell}-fused" for cell in IN_PLAIN_KERAS), FUSED_SHAPES[1:2]),
            # in a model that XLA compiles as a whole
            Grid(FUSED, UNDER_XLA_SHAPES, ({"jit_compile": True},), baselines=("loop_xla",)),
            # what compiling and training take there
            Grid(
                LOOPS,
                FUSED_SHAPES,
                PLAIN_AND_XLA,
                modes=("train",),
                user_cells=IN_RNN,
                baselines=("loop",),
            ),
            Grid(
                tuple(f"{cell}-rnn" for cell in IN_PLAIN_KERAS),
                FUSED_SHAPES[1:2],
                PLAIN_AND_XLA,
                modes=("train",),
                baselines=("loop",),
            ),
        ),
        baselines=(*OF_KERAS, "torch", "onnx", "keras_jax"),
        memory=True,
    ),
    "options": Sweep(
        "What does leaving the default cost, option by option?",
        (
            Grid(WITH_CUDNN, (OPTIONS,), ({}, *LAYER_OPTIONS, *CELL_OPTIONS)),
            Grid((), (OPTIONS,), ({}, *LAYER_OPTIONS), user_cells=IN_RNN),
            Grid(("gru-builtin", "keras_gru-rnn", "gru-rnn"), (OPTIONS,), ({"reset_after": False},)),
            Grid(GATED_CELLS, (OPTIONS,), ({}, PLAIN, *CELL_OPTIONS, {"implementation": 1})),
            Grid((*KERAS_GATED, "slstm-rnn"), (OPTIONS,), ({"depth": 2}, {"depth": 3})),
            Grid(("slstm-fused",), (OPTIONS,), ({}, PLAIN, *FUSED_OPTIONS)),
            Grid((), (OPTIONS,), ({}, *FUSED_LAYER_OPTIONS), user_cells=IN_FUSED),
            Grid(WITH_CUDNN, (OPTIONS,), PAIRS),
            Grid(KERAS_GATED, (OPTIONS,), ({"dropout": 0.5, "implementation": 1},)),
            Grid(("lstm-builtin",), (OPTIONS,), ({"unroll": True, "jit_compile": True},)),
            # cuDNN heeds no `implementation`, and takes none of these masks
            Grid(WITH_CUDNN, (OPTIONS,), ({"implementation": 1}, *ODD_MASKS), devices=("cpu",)),
            Grid(WITH_CUDNN, (OPTIONS,), ON_GPU, devices=("gpu",)),
            # says that there is none
            Grid(WITH_CUDNN, (OPTIONS,), ({"use_cudnn": "True"},), modes=("infer",), devices=("cpu",)),
        ),
        baselines=("default_option",),
    ),
    "static_dynamic": Sweep(
        "Unrolled or a loop: what do tracing, compiling, memory and time become as the timesteps grow?",
        (
            Grid(
                ("lstm-rnn",),
                LONGER,
                (PLAIN, UNROLLED, {"jit_compile": True}, {"unroll": True, "jit_compile": True}),
                user_cells=IN_RNN,
            ),
            Grid(("lstm-static_unroll", "lstm-dynamic_unroll"), LONGER, (PLAIN,)),
            Grid(("lstm-static_rnn", "lstm-dynamic_rnn"), LONGER),
            Grid(("lstm-dynamic_unroll", "lstm-dynamic_rnn"), LONGER[::2], ({"time_major": True, **PLAIN},)),
        ),
        baselines=("loop",),
        memory=True,
    ),
    "scaling": Sweep(
        "How does time grow over batch size, timesteps and units?",
        (
            Grid(
                (*LOOPS, "slstm-fused"),
                tuple(
                    (batch_size, timesteps, 64, units)
                    for batch_size, units, timesteps in product((1, 32), (64, 256), (10, 50, 200, 500))
                ),
                user_cells=IN_BOTH,
            ),
        ),
        memory=True,
    ),
    "deepbench": Sweep(
        "How far from the machine's limit are the shapes that kernels are benchmarked by?",
        (
            Grid(("simple_rnn-fused",), VANILLA_SHAPES, INPUT_PRODUCT),
            Grid(("gru-fused",), GRU_SHAPES, INPUT_PRODUCT),
            Grid(("lstm-fused",), LSTM_SHAPES, INPUT_PRODUCT),
        ),
        isolated=True,
        longest_s=10.0,
    ),
    "char_shape": Sweep(
        "Does the character model's layer run faster as LSTM or GRU than as SimpleRNN?",
        (
            Grid(
                (*BUILTINS, *(f"{cell}-{layer}" for layer in ("rnn", "fused") for cell in CHAR_CELLS)),
                ((32, 79, 256, 1024),),
                user_cells=IN_BOTH,
            ),
        ),
        baselines=("simple_rnn",),
    ),
    "peers": Sweep(
        "What do the same cells cost in PyTorch, ONNX Runtime, Keras 2 and TensorFlow's own fused kernels?",
        (
            Grid((*PEERS, *SIMPLE_PEERS), (BASE,)),
            Grid((*ONNX, "simple_rnn-onnx"), (BASE,), modes=("infer",)),
            Grid(PEERS, FUSED_SHAPES),
            Grid(ONNX, FUSED_SHAPES, modes=("infer",)),
            Grid(("gru-block",), (BASE, *FUSED_SHAPES), ({"reset_after": False},)),
        ),
    ),
    "backends": Sweep(
        "What does the same cell cost on each back end of Keras?",
        (
            Grid(LOOPS, BACKEND_SHAPES, PLAIN_AND_XLA, user_cells=IN_RNN),
            Grid(FUSED, BACKEND_SHAPES, user_cells=IN_FUSED),
            Grid(
                tuple(f"{cell}-{layer}" for layer in BACKENDS for cell in ("lstm", "gru", "slstm")),
                BACKEND_SHAPES,
                user_cells=ON_BACKENDS,
            ),
        ),
        baselines=("loop",),
    ),
    "partial_sum": Sweep(
        "Does a linear cell of one unit learn to add up?",
        (Grid(ADDERS, ((512, 30, 1, 1),), ({"activation": "linear"},), modes=("fit",)),),
        task="partial_sum",
    ),
    "char_model": Sweep(
        "What does a cell learn of the next character, at what speed, and does being stateful help?",
        (Grid(WRITERS, ((32, 79, 256, 128),), ({"stateful": True}, {}), modes=("fit",), user_cells=IN_RNN),),
        task="char_model",
        full={"units": 1024},
    ),
    "generate": Sweep(
        "How fast does the character model write, one character a call or a hundred in one loop?",
        (
            Grid(
                WRITERS,
                ((1, 1, 256, 128), (1, 100, 256, 128)),
                ({"stateful": True},),
                modes=("generate",),
                user_cells=IN_RNN,
            ),
        ),
        task="generate",
        full={"units": 1024},
    ),
}
