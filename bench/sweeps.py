"""The sweeps: declared sets of cases, each the answer to a question. Adding one is adding an entry."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from bench.case import MODES, Case
from bench.guests import NO_GUESTS, Guests
from bench.subjects import SUBJECTS, Subject


@dataclass(frozen=True)
class Grid:
    """Every combination of subjects, modes, shapes and options.

    Attributes:
        subjects: names of `bench.subjects`, `cell-layer`.
        shapes: (batch_size, timesteps, features, units).
        options: the values of `Case`'s other fields, one mapping for each combination wanted.
        guests: whether subjects brought with `--cell` join.
    """

    subjects: tuple[str, ...]
    shapes: tuple[tuple[int, int, int, int], ...]
    options: tuple[Mapping[str, Any], ...] = ({},)
    modes: tuple[str, ...] = MODES
    guests: bool = False


@dataclass(frozen=True)
class Sweep:
    """A declared set of cases.

    Attributes:
        question: what it answers, in a sentence.
        grids: its cases.
        baseline: what each case is compared with: `builtin`, the built-in layer of the subject's
            `Subject.baseline` at the same shape, mode, dtype and `jit_compile`.
        task: the name in `bench.tasks.TASKS` of what its cases do, compared with nothing; None: its cases
            time a layer.
        full: the fields of a task's cases that `--full` sets to the tutorial's size.
    """

    question: str
    grids: tuple[Grid, ...]
    baseline: str = "builtin"
    task: str | None = None
    full: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """What one row is about: a case of a sweep, and the case it is compared with."""

    sweep: str
    case: Case
    baseline: Case


@dataclass(frozen=True)
class Task:
    """What one row of a training task is about: a case of a sweep, and the task's name."""

    sweep: str
    case: Case
    name: str


OURS = ("minimal-rnn", "simple_rnn-rnn", "lstm-rnn", "gru-rnn", "slstm-rnn")
KERAS_CELLS = ("keras_simple_rnn-rnn", "keras_lstm-rnn", "keras_gru-rnn")
BUILTINS = ("simple_rnn-builtin", "lstm-builtin", "gru-builtin")
LINES = ("lstm-builtin", "gru-builtin", "slstm-rnn")
ADDERS = ("simple_rnn-builtin", "lstm-builtin", "slstm-rnn", "chosen_state-rnn", "learned_state-rnn")
WRITERS = ("simple_rnn-builtin", "lstm-builtin", "gru-builtin", "slstm-rnn")
BASE = (32, 50, 64, 128)

SWEEPS: dict[str, Sweep] = {
    "default": Sweep(
        "What does a custom cell cost against the built-in layers, and how does it grow?",
        (
            Grid((*BUILTINS, *KERAS_CELLS, *OURS), (BASE,), ({}, {"jit_compile": True}), guests=True),
            Grid(
                ("lstm-builtin", "gru-builtin", "lstm-rnn", "slstm-rnn"),
                (BASE,),
                ({"unroll": True}, {"implementation": 1}, {"stateful": True}),
            ),
            Grid((), (BASE,), ({"unroll": True}, {"stateful": True}), guests=True),
            Grid(LINES, tuple((32, timesteps, 64, 128) for timesteps in (10, 100, 200)), guests=True),
            Grid(LINES, tuple((batch_size, 50, 64, 128) for batch_size in (1, 8, 128)), guests=True),
            Grid(LINES, tuple((32, 50, 64, units) for units in (32, 64, 256)), guests=True),
        ),
    ),
    "smoke": Sweep(
        "Does everything work? A handful of small cases.",
        (
            Grid(("lstm-builtin", "lstm-rnn", "gru-rnn", "slstm-rnn"), ((4, 10, 8, 16),), guests=True),
            Grid(("slstm-rnn",), ((4, 10, 8, 16),), ({"jit_compile": True}, {"unroll": True}), guests=True),
        ),
    ),
    "partial_sum": Sweep(
        "Does a linear cell of one unit learn to add up?",
        (Grid(ADDERS, ((512, 30, 1, 1),), ({"activation": "linear"},), modes=("fit",)),),
        task="partial_sum",
    ),
    "char_model": Sweep(
        "What does a cell learn of the next character, at what speed, and does being stateful help?",
        (Grid(WRITERS, ((32, 79, 256, 128),), ({"stateful": True}, {}), modes=("fit",), guests=True),),
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
                guests=True,
            ),
        ),
        task="generate",
        full={"units": 1024},
    ),
}


def comparisons(names: Sequence[str], guests: Guests = NO_GUESTS, device: str = "cpu") -> list[Comparison]:
    """The rows of the sweeps called `names` that time layers: each case once a sweep, with its baseline."""
    subjects = {**SUBJECTS, **guests.subjects}
    return [
        Comparison(name, case, baseline_of(case, subjects))
        for name in dict.fromkeys(names)
        if SWEEPS[name].task is None
        for case in dict.fromkeys(_cases(SWEEPS[name], device, guests.joining))
    ]


def tasks(
    names: Sequence[str], guests: Guests = NO_GUESTS, full: bool = False, device: str = "cpu"
) -> list[Task]:
    """The rows of the sweeps called `names` that are training tasks, at the tutorial's size if `full`."""
    return [
        Task(name, replace(case, **sweep.full) if full else case, sweep.task)
        for name, sweep in ((name, SWEEPS[name]) for name in dict.fromkeys(names))
        if sweep.task is not None
        for case in dict.fromkeys(_cases(sweep, device, guests.joining))
    ]


def _cases(sweep: Sweep, device: str, guests: tuple[str, ...]) -> Iterator[Case]:
    for grid in sweep.grids:
        subjects = (*grid.subjects, *(guests if grid.guests else ()))
        for options, shape, subject, mode in product(grid.options, grid.shapes, subjects, grid.modes):
            cell, _, layer = subject.rpartition("-")
            yield Case(cell, layer, mode, *shape, **options, device=device)


def baseline_of(case: Case, subjects: Mapping[str, Subject]) -> Case:
    """The case that `case` is compared with under the rule `builtin`."""
    cell, _, layer = subjects[case.subject].baseline.rpartition("-")
    kept = ("mode", "batch_size", "timesteps", "features", "units", "dtype", "jit_compile", "device")
    return Case(cell, layer, **{name: getattr(case, name) for name in kept})
