"""Make the subjects of a user's cell or whole layer."""

import math
from collections.abc import Callable
from typing import Any

from bench.cases.case import Case
from bench.cases.subjects.elsewhere import BACKENDS
from bench.cases.subjects.on_tensorflow import (
    AROUND,
    CELL_OPTIONS,
    FUSED_LAYER_OPTIONS,
    LAYER_OPTIONS,
    cell_arguments,
    in_fused_rnn,
    in_rnn,
)
from bench.cases.subjects.subject import Subject, UnsupportedOption
from bench.contract.load_cell import Target
from bench.records.text import counted


def user_subject(
    name: str,
    make_cell: Callable[..., Any],
    baseline: str,
    *,
    layer: str = "rnn",
    target: str | None = None,
    kwargs: str = "{}",
    factory: Target | None = None,
    step_shape: tuple[int, ...] | None = None,
    accepts: Callable[[str], bool] = lambda argument: False,
) -> Subject:
    """A subject for a user's cell.

    Args:
        make_cell: is called with `units`, and with those of the case's `activation`, `use_bias`,
            `reset_after`, `dropout` and `recurrent_dropout` that are not the default.
        layer: `rnn`, in `keras.layers.RNN`; `fused`, in `cells.FusedRNN`; `layer`: it is a whole layer; or
            one of `BACKENDS`, in `keras.layers.RNN` there.
        target, kwargs: the texts that `--cell` and `--kwargs` gave.
        factory: what makes the cell where no text does.
        step_shape: the shape of a step where the cell takes a certain one; the case's features are its
            product.
        accepts: whether `make_cell` has an argument of a name.
    """
    words, wrap, honoured = _USER_LAYERS["rnn" if layer in BACKENDS else layer]
    label = words.format(name)

    def make_one(case):
        given = cell_arguments(case, frozenset())
        missing = [argument for argument in given if not accepts(argument)]
        if missing:
            raise UnsupportedOption(f"{label} has no option {', '.join(missing)}: the cell takes none")
        cell = make_cell(case.units, **given)
        return cell if step_shape is None else _shaped(cell, case, step_shape, label)

    subject = Subject(
        name,
        layer,
        label,
        baseline,
        wrap(make_one),
        honoured,
        kind="user",
        equation=name,
        target=target,
        kwargs=kwargs,
        factory=factory,
        step_shape=step_shape,
    )
    return BACKENDS[layer].carry(subject, label) if layer in BACKENDS else subject


def _shaped(cell: Any, case: Case, step_shape: tuple[int, ...], label: str):
    """The cell, given steps of this shape; refuses a case of other features."""
    from bench.cases.layers.shaped_steps import shaped

    if math.prod(step_shape) != case.features:
        shape, features = ",".join(map(str, step_shape)), counted(math.prod(step_shape), "feature")
        raise UnsupportedOption(f"{label} takes steps of shape {shape}, {features}, not {case.features}")
    return shaped(cell, step_shape)


def _whole(make_layer: Callable[[Case], Any]) -> Callable[[Case], Any]:
    """case -> the user's layer, as it is."""

    def make(case):
        from bench.cases.layers.whole import WholeLayer

        return WholeLayer(make_layer(case))

    return make


WHOLE = "layer"  # what ids call the layer of a subject that is a user's whole layer
_OF_CELLS = AROUND | frozenset(CELL_OPTIONS)

# the layers that a user's cell may stand in: what they are called, what makes them, the options they have
_USER_LAYERS: dict[str, tuple[str, Callable[..., Any], frozenset[str]]] = {
    "rnn": ("{} in RNN", in_rnn, LAYER_OPTIONS | _OF_CELLS),
    "fused": ("{} in FusedRNN", in_fused_rnn, FUSED_LAYER_OPTIONS | _OF_CELLS),
    WHOLE: ("{}", _whole, frozenset()),
}
USER_LAYERS = (*(layer for layer in _USER_LAYERS if layer != WHOLE), *BACKENDS)
