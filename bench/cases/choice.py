"""`Choice`: what the command line asks for, and the rows that this comes to."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.cases.case import MODES, Case, CaseError
from bench.cases.comparisons import BASELINES, Comparison, Row, Task, baselines_of, comparisons, tasks
from bench.cases.read_options import ChoiceError
from bench.cases.subjects import SUBJECTS, Subject
from bench.cases.sweeps import BASE, SWEEPS, Grid, Shape, Sweep
from bench.cases.user_cells import NO_USER_CELLS, UserCells
from bench.records.text import counted

DEFAULT_SWEEP = "default"
CHOSEN = "chosen"  # what the records of cases say that are no sweep's
_TASK_OF_MODE = {"fit": "char_model", "generate": "generate"}
_TASKS = {sweep.task for sweep in SWEEPS.values() if sweep.task}


@dataclass(frozen=True)
class Choice:
    """A session's options, read.

    Attributes:
        sweeps: the sweeps of `--sweep`, by name; empty where none is named.
        case: the id of `--case`.
        subjects: the names of `--subject`.
        shapes, options: those of `--shape` and `--option`, which take the place of a sweep's.
        modes: those of `--mode`: of a sweep only cases in these.
        user_cells: the cells of `--cell`.
        full: whether training tasks have the tutorial's size.
        device: `cpu` or `gpu`.
    """

    sweeps: Mapping[str, Sweep] = field(default_factory=dict)
    case: str | None = None
    subjects: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()
    options: tuple[Mapping[str, Any], ...] = ()
    modes: tuple[str, ...] = ()
    user_cells: UserCells = NO_USER_CELLS
    full: bool = False
    device: str = "cpu"

    def rows(self) -> list[Row]:
        """The rows that are asked for.

        Raises:
            ChoiceError: a subject, a case or a baseline that is not there; options that contradict each
                other, or that none of the rows would heed.
        """
        for name in self.subjects:
            _check_subject(f"--subject {name}", name, self._known)
        if self.case is not None:
            return self._rows_of_case(self.case)
        if self._names_cases and not self.sweeps:
            return self._rows_of(CHOSEN, self._own_sweep())
        sweeps = self.sweeps or {DEFAULT_SWEEP: SWEEPS[DEFAULT_SWEEP]}
        changed = {name: self._changed(name, sweep) for name, sweep in sweeps.items()}
        rows = [row for name, sweep in changed.items() for row in self._rows_of(name, sweep)]
        self._check_heeded(rows, sweeps)
        return [row for row in rows if self._wants(row.case)]

    @property
    def _known(self) -> dict[str, Subject]:
        return {**SUBJECTS, **self.user_cells.subjects}

    @property
    def _names_cases(self) -> bool:
        """True where the options name cases by themselves: subjects, or user cells at a shape."""
        own = self.user_cells.targets or self.user_cells.layers
        return bool(self.subjects or (own and (self.shapes or self.options)))

    @property
    def _names_own(self) -> bool:
        """True where subjects of the user's cells are named: no others of these are measured."""
        return not self.user_cells.subjects.keys().isdisjoint(self.subjects)

    def _own_sweep(self) -> Sweep:
        """The subjects, and the user's cells unless subjects of theirs are among them, at the given shapes
        with the given options."""
        tasks = [mode for mode in self.modes if mode not in MODES]
        if tasks:
            raise ChoiceError(f"--mode {tasks[0]}: is for the sweeps of training tasks; add --sweep")
        joining = () if self._names_own else self.user_cells.joining(["rnn"])
        subjects = dict.fromkeys((*joining, *self.subjects))
        variants = self.options or ({},)
        return Sweep(
            "What do these cases cost against the built-in layers?",
            (Grid(tuple(subjects), self._sized((BASE,)), variants, self.modes or MODES),),
        )

    def _sized(self, shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """The shapes that were given, else these, with the features that the user's cells take.

        Raises:
            ChoiceError: a shape that was given has other features.
        """
        features = self.user_cells.features
        for shape in self.shapes:
            self._check_features(f"--shape {','.join(map(str, shape))}", shape[2])
        if self.shapes or features is None:
            return self.shapes or shapes
        return tuple(
            dict.fromkeys((batch, timesteps, features, units) for batch, timesteps, _, units in shapes)
        )

    def _check_features(self, what: str, features: int) -> None:
        """Raises ChoiceError for features that are not those that the user's cells take."""
        step_shape = self.user_cells.step_shape
        if step_shape is not None and features != self.user_cells.features:
            option = "--features" if len(step_shape) == 1 else "--step-shape"
            sizes = ",".join(map(str, step_shape))
            raise ChoiceError(
                f"{what}: has {counted(features, 'feature')}, not the {math.prod(step_shape)} of {option} "
                f"{sizes}"
            )

    def _changed(self, name: str, sweep: Sweep) -> Sweep:
        """The sweep at the shapes and with the options given."""
        given = {"shape": self.shapes, "option": self.options, "features": self.user_cells.step_shape}
        for option, value in given.items():
            if value and sweep.task:
                raise ChoiceError(f"--{option}: --sweep {name} is a training task, which has its own")
        return replace(
            sweep,
            grids=tuple(
                replace(grid, shapes=self._sized(grid.shapes), options=self.options or grid.options)
                for grid in sweep.grids
            ),
        )

    def _rows_of(self, name: str, sweep: Sweep) -> list[Row]:
        self._check_sweep(name, sweep)
        declared = {name: sweep}
        try:
            return [
                *comparisons([name], self.user_cells, self.device, declared),
                *tasks([name], self.user_cells, self.full, self.device, declared),
            ]
        except (CaseError, TypeError) as error:  # an option's value, or a field, that `Case` does not have
            raise ChoiceError(f"--sweep {name}: {error}") from error

    def _check_sweep(self, name: str, sweep: Sweep) -> None:
        """Raises ChoiceError for a subject, a rule or a task that is not there: the sweep may be a user's."""
        for grid in sweep.grids:
            for subject in grid.subjects:
                _check_subject(f"--sweep {name}: subject {subject}", subject, self._known)
            for rule in grid.baselines or sweep.baselines:
                _check_known(f"--sweep {name}: baseline {rule}", rule, BASELINES)
        if sweep.task is not None:
            _check_known(f"--sweep {name}: task {sweep.task}", sweep.task, _TASKS)

    def _wants(self, case: Case) -> bool:
        """True where a case of a sweep is among the subjects and modes asked for; user cells always are,
        unless subjects of theirs are named."""
        subjects = set(self.subjects)
        if self.subjects and not self._names_own:
            subjects |= self.user_cells.subjects.keys()
        return (not subjects or case.subject in subjects) and (not self.modes or case.mode in self.modes)

    def _check_heeded(self, rows: Sequence[Row], sweeps: Iterable[str]) -> None:
        """Raises ChoiceError for an option that none of a sweep's rows would heed."""
        sweep = f"--sweep {', '.join(sweeps)}"
        cells = {row.case.cell for row in rows}
        own = {subject.target: subject.cell for subject in self.user_cells.subjects.values()}
        brought = {"cell": self.user_cells.targets, "layer": self.user_cells.layers}
        for option, targets in brought.items():
            if out := [target for target in targets if own[target] not in cells]:
                takers = ", ".join(self._sweeps_with(own[out[0]]))
                raise ChoiceError(
                    f"--{option}: the sweep takes no {option}s; those that do are {takers}, and one of yours "
                    "by Grid(user_cells=('rnn',))"
                )
        for name in self.subjects:
            if name not in {row.case.subject for row in rows}:
                raise ChoiceError(f"--subject {name}: is not in {sweep}; leave out --sweep to measure it")
        for mode in self.modes:
            if mode not in {row.case.mode for row in rows}:
                raise ChoiceError(f"--mode {mode}: no case of {sweep} is in it")
        if rows and not any(self._wants(row.case) for row in rows):
            raise ChoiceError(f"{sweep} has no case of these subjects in these modes")

    def _sweeps_with(self, cell: str) -> list[str]:
        """The names of the sweeps that measure a cell."""
        rows = {name: self._rows_of(name, sweep) for name, sweep in SWEEPS.items()}
        return [name for name in SWEEPS if any(row.case.cell == cell for row in rows[name])]

    def _rows_of_case(self, id: str) -> list[Row]:
        for option in ("subjects", "shapes", "modes", "options"):
            if getattr(self, option):
                raise ChoiceError(f"--case {id}: names a whole case; --{option[:-1]} cannot change it")
        try:
            case = Case.from_id(id, self.device)
        except CaseError as error:
            raise ChoiceError(f"--case {error}") from None
        self._check_features(f"--case {id}", case.features)
        known = [row for name, sweep in (self.sweeps or SWEEPS).items() for row in self._rows_of(name, sweep)]
        found = [row for row in known if row.case == case]
        if found:
            return [row for row in found if self.sweeps or row.sweep == found[0].sweep]
        if self.sweeps:
            near = difflib.get_close_matches(id, [row.case.id for row in known], n=3, cutoff=0.3)
            raise ChoiceError(f"--case {id}: no such case; the nearest are {', '.join(near) or 'none'}")
        _check_subject(f"--case {id}: subject {case.subject}", case.subject, self._known)
        if case.mode in _TASK_OF_MODE:
            task = _TASK_OF_MODE[case.mode]
            return [Task(task, case, task)]
        (baseline,) = baselines_of(case, ["builtin"], self._known)
        return [Comparison(CHOSEN, case, baseline)]


def _check_subject(what: str, name: str, known: Mapping[str, Subject]) -> None:
    """Raises ChoiceError for a subject that is not known: with the nearest, and, where its cell is not known
    either, with how a cell of one's own becomes one."""
    if name in known:
        return
    cell = name.rpartition("-")[0] or name
    of_cell = [each for each in known if each.startswith(f"{cell}-")]
    cells = [f"the cells {', '.join(dict.fromkeys(subject.cell for subject in known.values()))}"]
    near = _nearest(name, known, 0.75) or of_cell or cells
    own = "" if of_cell else f"; a cell of your own is one with --cell=FILE:{cell or 'CLASS'}"
    raise ChoiceError(f"{what}: not known; there are {', '.join(near)}{own}")


def _check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raises ChoiceError, with the nearest names, for one that is not known."""
    known = list(known)
    if name not in known:
        raise ChoiceError(f"{what}: not known; there are {', '.join(_nearest(name, known) or known)}")


def _nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> list[str]:
    """The names that are like one, or begin as it: a cell's, without its layer."""
    known = list(known)
    begun = [each for each in known if each.startswith(f"{name}-")]
    return begun or difflib.get_close_matches(name, known, n=3, cutoff=likeness)
