"""Rows: each case of a sweep with what it is compared with, and whether it runs isolated.

`BASELINES` holds the rules that say what a case is compared with. All compare like with like: the baseline is
stacked, goes both ways, drops, masks and computes in the dtype as the case does.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any

from bench.cases import cudnn
from bench.cases.case import MODES, Case
from bench.cases.cost_estimate import memory_bytes
from bench.cases.subjects import BACKENDS, SUBJECTS, Subject
from bench.cases.sweeps import SWEEPS, Grid, Sweep
from bench.cases.user_cells import NO_USER_CELLS, UserCells

_NO_SWEEP = Sweep("What does this case cost?", ())


@dataclass(frozen=True)
class Comparison:
    """A row: a case, and the case it is compared with.

    Attributes:
        sweep: the name of the sweep that it is a row of.
        of: that sweep.
        first: whether the baseline is the case's first.
    """

    sweep: str
    case: Case
    baseline: Case
    of: Sweep = field(default=_NO_SWEEP, compare=False, repr=False)
    first: bool = field(default=True, compare=False, repr=False)

    @property
    def id(self) -> str:
        """The row's name within its sweep: the case's, and the baseline's where the sweep has several, or
        where it is not the case's first."""
        if len(self.of.baselines) == 1 and self.first:
            return self.case.id
        return f"{self.case.id}-vs-{'-'.join((self.baseline.subject, *self.baseline.options))}"

    @property
    def isolated(self) -> bool:
        """True where it runs in processes of its own: its memory is measured, or it may exhaust ours."""
        cases = (self.case, self.baseline)
        return (
            self.of.memory
            or self.of.isolated
            or any(map(_compiles_long, cases))
            or sum(map(memory_bytes, cases)) > _LARGE
        )

    @property
    def retraced(self) -> bool:
        """True where it is timed in several instances: together they take little memory."""
        return not self.of.isolated and sum(map(memory_bytes, (self.case, self.baseline))) <= _RETRACED


@dataclass(frozen=True)
class Task:
    """A row of a training task: a case of a sweep, and the task's name."""

    sweep: str
    case: Case
    name: str

    @property
    def id(self) -> str:
        """The row's name within its sweep."""
        return self.case.id


Row = Comparison | Task


def comparisons(
    names: Sequence[str],
    user_cells: UserCells = NO_USER_CELLS,
    device: str = "cpu",
    sweeps: Mapping[str, Sweep] = SWEEPS,
) -> list[Comparison]:
    """The rows of the sweeps called `names` that time layers: each case once a sweep, with its baselines."""
    subjects = {**SUBJECTS, **user_cells.subjects}
    return [
        Comparison(name, case, baseline, sweeps[name], first=number == 0)
        for name in dict.fromkeys(names)
        if sweeps[name].task is None
        for case, (rules, as_fit) in _cases(sweeps[name], device, user_cells).items()
        for number, baseline in enumerate(baselines_of(case, rules, subjects, as_fit))
    ]


def tasks(
    names: Sequence[str],
    user_cells: UserCells = NO_USER_CELLS,
    full: bool = False,
    device: str = "cpu",
    sweeps: Mapping[str, Sweep] = SWEEPS,
) -> list[Task]:
    """The rows of the sweeps called `names` that are training tasks, at the tutorial's size if `full`."""
    return [
        Task(name, replace(case, **sweep.full) if full else case, sweep.task)
        for name, sweep in ((name, sweeps[name]) for name in dict.fromkeys(names))
        if sweep.task is not None
        for case in _cases(sweep, device, user_cells)
    ]


def _cases(sweep: Sweep, device: str, user_cells: UserCells) -> dict[Case, tuple[tuple[str, ...], bool]]:
    """The sweep's cases, each once, with the rules that say what it is compared with, and whether that too is
    compiled as `fit` compiles it."""
    found: dict[Case, tuple[tuple[str, ...], bool]] = {}
    for grid in sweep.grids:
        rules = sweep.baselines if grid.baselines is None else grid.baselines
        for case, as_fit in _cases_of_grid(grid, device, user_cells):
            found.setdefault(case, (rules, as_fit))
    return found


def _cases_of_grid(grid: Grid, device: str, user_cells: UserCells) -> Iterator[tuple[Case, bool]]:
    """The cases, and whether each is compiled as `fit` compiles it: where its options say nothing of XLA."""
    if device not in grid.devices:
        return
    subjects = (*grid.subjects, *user_cells.joining(grid.user_cells))
    for options, shape, subject, mode in product(grid.options, grid.shapes, subjects, grid.modes):
        case = Case(*_names(subject), mode, *shape, **{**options, "device": device})
        as_fit = "jit_compile" not in options
        yield _as_fit(case) if as_fit else case, as_fit


def _as_fit(case: Case) -> Case:
    """The case, compiled as `fit` and `predict` compile it where nobody says anything of XLA."""
    return replace(case, jit_compile=_is_keras(case) and cudnn.fit_compiles(case))


def _is_keras(case: Case) -> bool:
    """False for what runs elsewhere than in Keras on TensorFlow, which no `fit` of it compiles."""
    if case.layer in BACKENDS:
        return False
    return case.subject not in SUBJECTS or SUBJECTS[case.subject].kind != "peer"


def _names(subject: str) -> tuple[str, str]:
    """The cell and the layer of a subject's name."""
    cell, _, layer = subject.rpartition("-")
    return cell, layer


# --- what a case is compared with ---

# the options that change the work itself and not how it is run: the baseline does the same work
_SAME_WORK = (
    *("dtype", "return_sequences", "go_backwards", "masked", "zero_output_for_mask"),
    *("dropout", "recurrent_dropout", "bidirectional", "merge_mode", "backward_layer", "depth"),
)
# those of the cell's equation, which a baseline of another equation may not have
_SAME_EQUATION = ("activation", "use_bias", "reset_after")


def _against(name: str, case: Case, jit_compile: bool, subjects: Mapping[str, Subject]) -> Case:
    """The subject called `name` at the same work as `case`, otherwise with its default options."""
    shape = (case.batch_size, case.timesteps, case.features, case.units)
    shared = (*_SAME_WORK, *(option for option in _SAME_EQUATION if option in subjects[name].options))
    given = {option: getattr(case, option) for option in shared}
    found = Case(*_names(name), case.mode, *shape, **given, jit_compile=jit_compile, device=case.device)
    return replace(found, use_cudnn="False") if cudnn.refusal(found) else found


def like(name: str, case: Case, subjects: Mapping[str, Subject]) -> Case:
    """The subject called `name` at the same work as `case`, with each of the case's other options that it
    has: how two subjects of a user's are compared."""
    options = {option for option in subjects[name].options if hasattr(case, option)}
    given = {option: getattr(case, option) for option in options}
    return replace(_against(name, case, case.jit_compile, subjects), **given)


def _builtin(case: Case, subjects: Mapping[str, Subject]) -> Case:
    return _against(subjects[case.subject].baseline, case, case.jit_compile, subjects)


def _plain_builtin(case: Case, subjects: Mapping[str, Subject]) -> Case:
    return _against(subjects[case.subject].baseline, case, jit_compile=False, subjects=subjects)


def _loop(case: Case, subjects: Mapping[str, Subject], jit_compile: bool = False) -> Case | None:
    """The same cell in Keras' loop; None for a whole layer, whose cell nobody knows."""
    known = [name for name in (f"{case.cell}-builtin", f"{case.cell}-rnn") if name in subjects]
    return _against(known[0], case, jit_compile, subjects) if known else None


def _default_option(case: Case, subjects: Mapping[str, Subject]) -> Case:
    shape = (case.batch_size, case.timesteps, case.features, case.units)
    return _as_fit(Case(case.cell, case.layer, case.mode, *shape, device=case.device))


def _peer(
    case: Case,
    subjects: Mapping[str, Subject],
    layer: str,
    modes: tuple[str, ...] = MODES,
    cells: Container[str] | None = None,
) -> Case | None:
    """The same equation in another library; None where there is none, or `modes` or `cells` leave it out."""
    name = f"{case.cell}-{layer}"
    if name not in subjects or case.mode not in modes or (cells is not None and case.cell not in cells):
        return None
    return _against(name, case, jit_compile=False, subjects=subjects)


def _simple_rnn(case: Case, subjects: Mapping[str, Subject]) -> Case:
    return _against("simple_rnn-builtin", case, case.jit_compile, subjects)


# what a case is compared with, by rule; None is nothing, and no row
BASELINES: dict[str, Callable[[Case, Mapping[str, Subject]], Case | None]] = {
    "builtin": _builtin,  # `Subject.baseline`, under XLA as the case is, or as `fit` runs both
    "loop": _loop,  # the same cell in Keras' loop: the built-in layer where there is one, else `RNN`
    "loop_xla": partial(_loop, jit_compile=True),  # that under XLA
    "default_option": _default_option,  # the same subject, every option at its default
    "torch": partial(_peer, layer="torch"),  # the same cell in PyTorch
    "onnx": partial(_peer, layer="onnx", modes=("infer",)),  # in ONNX Runtime, which does not train
    # of other cells it would say the same as of these
    "keras_jax": partial(_peer, layer="keras_jax", cells=("lstm", "slstm")),
    "simple_rnn": _simple_rnn,  # the built-in SimpleRNN
    "plain_builtin": _plain_builtin,  # `Subject.baseline`, never under XLA
}


_UNDER_XLA = ("loop_xla",)  # the rules that say themselves how the baseline is compiled


def baselines_of(
    case: Case, rules: Sequence[str], subjects: Mapping[str, Subject], as_fit: bool = False
) -> list[Case]:
    """The cases that `case` is compared with, each once: one for each of the rules that has one.

    Args:
        as_fit: whether they are compiled as `fit` compiles them, and not as the case is.
    """
    found = ((rule, BASELINES[rule](case, subjects)) for rule in rules)
    return list(
        dict.fromkeys(
            _as_fit(baseline) if as_fit and rule not in _UNDER_XLA else baseline
            for rule, baseline in found
            if baseline is not None
        )
    )


# --- what runs isolated ---

_SAFELY_UNROLLED = 50  # timesteps; train a hundred under XLA, and it compiles for two minutes
_RETRACED = 2**28  # bytes, by the estimate, up to which a comparison is traced several times
_LARGE = 2**30  # bytes of a comparison, by the estimate: more than any sweep has that runs in our process


def _compiles_long(case: Case) -> bool:
    """True where compiling it may take minutes and gigabytes."""
    unrolled = case.unroll or (case.subject in SUBJECTS and SUBJECTS[case.subject].unrolls)
    return unrolled and (case.timesteps > _SAFELY_UNROLLED or case.jit_compile)


def names_of(
    sweep: str, case: Case, baseline: Case | None, subjects: Mapping[str, Subject]
) -> dict[str, Any]:
    """The columns that name a row; an option that is not used has its default, not an empty value."""
    fields = asdict(case)
    if "implementation" not in subjects[case.subject].options:
        fields["implementation"] = None
    elif case.recurrent_dropout:  # takes the gates apart
        fields["implementation"] = 1
    if case.bidirectional and case.merge_mode is None:
        fields["merge_mode"] = "concat"
    return {
        **fields,
        "sweep": sweep,
        "case": case.id,
        "subject": case.subject,
        "backend": subjects[case.subject].backend,
        "baseline": baseline.id if baseline else None,
        "static_timesteps": case.static_timesteps and case.mode != "generate",
    }
