"""The sweeps: declared sets of cases, each the answer to a question. Adding one is adding an entry."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
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
        baselines: what each case is compared with, a row for each of these rules: `builtin`, the subject's
            `Subject.baseline` at the same shape, mode, dtype and `jit_compile`; `loop`, the same cell in
            Keras' loop (the built-in layer where there is one, else `RNN`), plain; `loop_xla`, that under
            XLA.
        task: the name in `bench.tasks.TASKS` of what its cases do, compared with nothing; None: its cases
            time a layer.
        full: the fields of a task's cases that `--full` sets to the tutorial's size.
    """

    question: str
    grids: tuple[Grid, ...]
    baselines: tuple[str, ...] = ("builtin",)
    task: str | None = None
    full: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """What one row is about: a case of a sweep, and the case it is compared with."""

    sweep: str
    case: Case
    baseline: Case

    @property
    def id(self) -> str:
        """The row's name within its sweep: the case's, and the baseline's where the sweep has several."""
        if len(SWEEPS[self.sweep].baselines) == 1:
            return self.case.id
        return f"{self.case.id}-vs-{'-'.join((self.baseline.subject, *self.baseline.options))}"


@dataclass(frozen=True)
class Task:
    """What one row of a training task is about: a case of a sweep, and the task's name."""

    sweep: str
    case: Case
    name: str

    @property
    def id(self) -> str:
        """The row's name within its sweep."""
        return self.case.id


OURS = ("minimal-rnn", "simple_rnn-rnn", "lstm-rnn", "gru-rnn", "slstm-rnn")
KERAS_CELLS = ("keras_simple_rnn-rnn", "keras_lstm-rnn", "keras_gru-rnn")
BUILTINS = ("simple_rnn-builtin", "lstm-builtin", "gru-builtin")
FUSED = ("lstm-fused", "gru-fused", "slstm-fused")
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
            Grid(FUSED, (BASE,)),
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
    "gate": Sweep(
        "Did a change make it slower? A dozen cases, about a minute a process on two cores.",
        (
            Grid(("lstm-builtin", "lstm-rnn", "gru-rnn", "slstm-rnn", "slstm-fused"), (BASE,)),
            Grid(("slstm-rnn",), (BASE,), ({"jit_compile": True},)),
        ),
    ),
    "fused": Sweep(
        "What does `FusedRNN` gain over Keras' loop, as users run it and under XLA?",
        (
            Grid(
                FUSED,
                (
                    (1, 100, 64, 128),
                    (8, 400, 64, 64),
                    (256, 30, 1, 16),
                    (32, 100, 128, 256),
                    (64, 80, 256, 512),
                    (32, 79, 256, 1024),
                ),
            ),
        ),
        baselines=("loop", "loop_xla"),
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
        Comparison(name, case, baseline)
        for name in dict.fromkeys(names)
        if SWEEPS[name].task is None
        for case in dict.fromkeys(_cases(SWEEPS[name], device, guests.joining))
        for baseline in baselines_of(case, SWEEPS[name], subjects)
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
            yield Case(cell, layer, mode, *shape, **{**options, "device": device})


def _against(subject: str, case: Case, jit_compile: bool) -> Case:
    """The subject at the shape, mode and dtype of `case`, without its other options."""
    cell, _, layer = subject.rpartition("-")
    shape = (case.batch_size, case.timesteps, case.features, case.units)
    return Case(cell, layer, case.mode, *shape, dtype=case.dtype, jit_compile=jit_compile, device=case.device)


def _builtin(case: Case, subjects: Mapping[str, Subject]) -> Case:
    return _against(subjects[case.subject].baseline, case, case.jit_compile)


def _loop(case: Case, subjects: Mapping[str, Subject], jit_compile: bool = False) -> Case:
    builtin = f"{case.cell}-builtin"
    return _against(builtin if builtin in subjects else f"{case.cell}-rnn", case, jit_compile)


# the rules that say what a case is compared with
BASELINES: dict[str, Callable[[Case, Mapping[str, Subject]], Case]] = {
    "builtin": _builtin,
    "loop": _loop,
    "loop_xla": partial(_loop, jit_compile=True),
}


def baselines_of(case: Case, sweep: Sweep, subjects: Mapping[str, Subject]) -> list[Case]:
    """The cases that `case` is compared with, one for each of the sweep's rules."""
    return [BASELINES[rule](case, subjects) for rule in sweep.baselines]
