"""User cells: what `--cell`, `--kwargs` and `--baseline` bring, subjects like any other.

Nothing is imported from a target before it is asked what it is, or its first case is about to run.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import Parameter

from bench.cases.subjects import SUBJECTS, USER_LAYERS, Subject, user_subject
from bench.contract.load_cell import FORM, Target, parse_step_shape
from bench.records.files import parse_json
from bench.records.text import one_line

BASELINES = ("lstm", "gru", "simple_rnn")
_NO_KWARGS = "{}"
_UNITS = 4  # of a cell that is made to be asked whether an engine runs it


class UserCellError(ValueError):
    """A target, its arguments or a baseline on the command line that cannot be a subject."""


@dataclass(frozen=True)
class UserCells:
    """The cells that the command line brings; a worker gets the same, and makes the same subjects of them.

    Attributes:
        targets: the texts of `--cell`.
        baseline: that of `--baseline`: a built-in's name or a target; None where it was not given.
        kwargs: that of `--kwargs`, a JSON object: the other arguments of each cell of `targets`.
        step_shape: that of `--step-shape`: the shape of one step of the inputs, where it is no vector.
    """

    targets: tuple[str, ...] = ()
    baseline: str | None = None
    kwargs: str = _NO_KWARGS
    step_shape: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        targets: Sequence[str],
        baseline: str | None = None,
        kwargs: str = _NO_KWARGS,
        step_shape: str | None = None,
    ) -> "UserCells":
        """Reads the options; each target counts once.

        Raises:
            UserCellError: a text that is no target, a name that is taken, a baseline, arguments or a shape
                without a cell, arguments that are no JSON object, or a shape that is none.
        """
        for option, given in (
            ("--baseline", baseline is not None),
            ("--kwargs", kwargs != _NO_KWARGS),
            ("--step-shape", step_shape is not None),
        ):
            if given and not targets:
                raise UserCellError(f"{option} is for the cells of --cell; there is no --cell")
        _check_kwargs(kwargs)
        shape = None if step_shape is None else _shape_of(step_shape)
        brought = cls(tuple(dict.fromkeys(targets)), baseline, kwargs, shape)
        for _ in brought._subjects():
            pass
        return brought

    @property
    def subjects(self) -> Mapping[str, Subject]:
        """The subjects of the cells and of a baseline that is a target, by name."""
        return {subject.name: subject for subject in self._subjects()}

    def joining(self, layers: Sequence[str]) -> tuple[str, ...]:
        """The names of the subjects, in `layers`, that join a sweep; a baseline does not join."""
        return tuple(f"{_name(target)}-{layer}" for layer in layers for target in self.targets)

    def _subjects(self):
        baseline, known = "lstm-builtin", {subject.cell: "" for subject in SUBJECTS.values()}
        if self.baseline in BASELINES:
            baseline = f"{self.baseline}-builtin"
        elif self.baseline is not None:
            if ":" not in self.baseline:
                raise UserCellError(
                    f"--baseline {self.baseline}: must be one of {', '.join(BASELINES)}, or {FORM}"
                )
            own = "lstm-builtin"  # what the baseline itself would be compared with
            yield from _subjects_of("--baseline", self.baseline, own, _NO_KWARGS, None, known)
            baseline = f"{_name(self.baseline)}-rnn"
        for target in self.targets:
            yield from _subjects_of("--cell", target, baseline, self.kwargs, self.step_shape, known)


NO_USER_CELLS = UserCells()


def _check_kwargs(text: str) -> None:
    expected = """--kwargs: expected a JSON object, such as '{"alpha": 0.5}'"""
    try:
        found = parse_json(text)
    except ValueError as error:
        raise UserCellError(f"{expected}, got {one_line(text, 80)!r} ({one_line(error)})") from None
    if not isinstance(found, dict):
        raise UserCellError(f"{expected}, got {one_line(text, 80)}")


def _shape_of(text: str) -> tuple[int, ...]:
    try:
        return parse_step_shape(text)
    except ValueError as error:
        raise UserCellError(f"--step-shape: {error}") from None


def _subjects_of(
    option: str,
    text: str,
    baseline: str,
    kwargs: str,
    step_shape: tuple[int, ...] | None,
    known: dict[str, str],
):
    """The target's subjects, one for each layer that its cell may stand in."""
    name = _name(text)
    if not name:
        raise UserCellError(f"{option} {text}: expected {FORM}")
    if known.setdefault(name, text) != text:
        raise UserCellError(f"{option} {text}: there is a cell {name!r} already; give yours another name")
    for layer in USER_LAYERS:
        yield user_subject(
            name,
            lambda units, **given: loaded(text, kwargs).make(units, **given),
            baseline,
            layer=layer,
            target=text,
            kwargs=kwargs,
            step_shape=step_shape,
            accepts=lambda argument: loaded(text, kwargs).default(argument) is not Parameter.empty,
        )


def _name(text: str) -> str:
    place, _, name = text.rpartition(":")
    return re.sub(r"[^A-Za-z0-9_.]", "_", name) if place else ""


@cache
def loaded(text: str, kwargs: str = _NO_KWARGS) -> Target:
    """The target that a text names, with the other arguments of its cell, loaded once, with every switch of
    the process held.

    Raises:
        TargetError: there is no such file, module or name, or importing it raises.
    """
    from bench.contract.switches import load_held

    return load_held(text, json.loads(kwargs))


@cache
def refused_by_engines(text: str, kwargs: str = _NO_KWARGS) -> str | None:
    """Says why no engine of `cells.FusedRNN` runs the target's cell; None where one does.

    Raises:
        TargetError: the cell cannot be loaded or made.
    """
    from cells import FusedRNN

    layer = FusedRNN(loaded(text, kwargs).make(_UNITS), engine="xla")
    try:
        layer.build((1, 2, _UNITS))
        layer.chosen_engine()
    except TypeError as refusal:
        return f"no engine of FusedRNN runs it: {refusal}"
    except Exception:  # what is wrong with it the contract says
        return None
    return None
