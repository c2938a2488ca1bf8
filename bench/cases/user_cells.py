"""User cells: what `--cell`, `--kwargs` and `--baseline` bring, subjects like any other.

Nothing is imported from a target before it is asked what it is, or its first case is about to run.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import Parameter
from typing import Any

from bench.cases.subjects import SUBJECTS, USER_LAYERS, WHOLE, Subject, user_subject
from bench.contract.load_cell import FORM, Target, parse_kwargs, parse_step_shape

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
        step_shape: that of `--step-shape`, or of `--features` with one size: the shape of one step of the
            inputs, for cells that take a certain one.
        layers: the texts of `--layer`: whole layers or models.
    """

    targets: tuple[str, ...] = ()
    baseline: str | None = None
    kwargs: str = _NO_KWARGS
    step_shape: tuple[int, ...] | None = None
    layers: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        targets: Sequence[str],
        baseline: str | None = None,
        kwargs: str = _NO_KWARGS,
        step_shape: str | None = None,
        layers: Sequence[str] = (),
        features: int | None = None,
    ) -> "UserCells":
        """Reads the options; each target counts once.

        Raises:
            UserCellError: a text that is no target, a name that is taken, a baseline, arguments or a shape
                without a cell, arguments that are no JSON object, a shape that is none, or both of shape and
                features.
        """
        for option, given in (
            ("--baseline", baseline is not None),
            ("--kwargs", kwargs != _NO_KWARGS),
            ("--step-shape", step_shape is not None),
            ("--features", features is not None),
        ):
            takers = targets if option == "--step-shape" else (*targets, *layers)
            if given and not takers:
                raise UserCellError(f"{option} is for the cells of --cell; there is no --cell")
        _parsed("--kwargs", parse_kwargs, kwargs)
        if features is not None and step_shape is not None:
            raise UserCellError("--features and --step-shape say the same: leave one out")
        shape = None if features is None else (features,)
        if step_shape is not None:
            shape = _parsed("--step-shape", parse_step_shape, step_shape)
        unlike = map(tuple, map(dict.fromkeys, (targets, layers)))
        brought = cls(next(unlike), baseline, kwargs, shape, next(unlike))
        for _ in brought._subjects():
            pass
        return brought

    @property
    def features(self) -> int | None:
        """How many features the cells take; None where that was not given."""
        return None if self.step_shape is None else math.prod(self.step_shape)

    @property
    def subjects(self) -> Mapping[str, Subject]:
        """The subjects of the cells and of a baseline that is a target, by name."""
        return {subject.name: subject for subject in self._subjects()}

    def joining(self, layers: Sequence[str]) -> tuple[str, ...]:
        """The names of the subjects, in `layers`, that join a sweep; a baseline does not join. A whole layer
        joins where a cell in `keras.layers.RNN` does."""
        whole = [f"{_name(target)}-{WHOLE}" for target in self.layers if "rnn" in layers]
        return (*(f"{_name(target)}-{layer}" for layer in layers for target in self.targets), *whole)

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
        of_layers = None if self.features is None else (self.features,)  # the inputs as they are
        for target in self.layers:
            yield from _subjects_of("--layer", target, baseline, self.kwargs, of_layers, known, (WHOLE,))


NO_USER_CELLS = UserCells()


def _parsed(option: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UserCellError(f"{option}: {error}") from None


def _subjects_of(
    option: str,
    text: str,
    baseline: str,
    kwargs: str,
    step_shape: tuple[int, ...] | None,
    known: dict[str, str],
    layers: Sequence[str] = USER_LAYERS,
):
    """The target's subjects, one for each of the layers that its cell may stand in."""
    name = _name(text)
    if not name:
        raise UserCellError(f"{option} {text}: expected {FORM}")
    if known.setdefault(name, text) != text:
        raise UserCellError(f"{option} {text}: there is a cell {name!r} already; give yours another name")
    for layer in layers:
        yield _subject(
            name,
            lambda: loaded(text, kwargs, layers == (WHOLE,)),
            baseline,
            layer,
            target=text,
            kwargs=kwargs,
            step_shape=step_shape,
        )


def _subject(name: str, target_of: Callable[[], Target], baseline: str, layer: str, **given: Any) -> Subject:
    """A subject of what `target_of` gives, which is asked when the first cell is made."""
    return user_subject(
        name,
        lambda units, **arguments: target_of().make(units, **arguments),
        baseline,
        layer=layer,
        accepts=lambda argument: target_of().default(argument) is not Parameter.empty,
        **given,
    )


def own_subject(
    name: str,
    target: Target,
    text: str | None = None,
    kwargs: str = _NO_KWARGS,
    step_shape: tuple[int, ...] | None = None,
    layer: str = "rnn",
) -> Subject:
    """The subject of a cell that is loaded already, in a `layer`, or of a whole layer.

    Args:
        name: what ids call the cell.
        text, kwargs: what names it and its other arguments for another process; None: it is of this one.
    """
    return _subject(
        name,
        lambda: target,
        "lstm-builtin",
        WHOLE if target.whole else layer,
        target=text,
        kwargs=kwargs,
        factory=None if text else target,
        step_shape=step_shape,
    )


def _name(text: str) -> str:
    place, _, name = text.rpartition(":")
    return re.sub(r"[^A-Za-z0-9_.]", "_", name) if place else ""


@cache
def loaded(text: str, kwargs: str = _NO_KWARGS, whole: bool = False) -> Target:
    """The target that a text names, with the other arguments of its cell or `whole` layer, loaded once, with
    every switch of the process held.

    Raises:
        TargetError: there is no such file, module or name, or importing it raises.
    """
    from bench.contract.switches import load_held

    return load_held(text, json.loads(kwargs), whole)


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
