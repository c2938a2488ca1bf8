"""`Problem`: a case's layer, built, with the data it is proven and timed on and its reference."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np

from bench.backend import dropout_masks, kernels, layers
from bench.backend.data import Arrays, Data
from bench.backend.dropout_masks import DropoutMasks
from bench.cases import cudnn
from bench.cases.case import Case
from bench.cases.subjects import WHOLE, NotForCudnn, Subject, UnsupportedOption, make_layer
from bench.contract.cell_under_test import dtype_policy
from bench.proof import whole_layer
from bench.proof.layer_reference import Cell, Composition, compose, run_composition
from bench.proof.whole_layer import Twin
from bench.records.text import counted
from cells.reference import REFERENCES, Recurrence, reference_for

SEED = 20_16
# multiply-adds of one step's gates, over the timesteps of one row, that the reference may take in all:
# about a second of NumPy for the derivatives, which are taken once for each weight, input and state
_REFERENCE_WORK = 4e7
_GATES = 4  # of an LSTM; only sizes the work
_SCALE_TOLERANCE = 2.0**-7  # what is kept is scaled in the layer's dtype, bfloat16 at the coarsest
_SPREADS = 6  # standard deviations that a share of what is dropped may be off: one in a billion is


class WrongAnswer(AssertionError):
    """A program's answer that the proof refuses; the message says what differs, where, and by how much."""


@dataclass(frozen=True)
class Problem:
    """A case made ready.

    Attributes:
        layer: the Keras layer, built.
        data: weights, inputs, initial states, cotangents, mask. The inputs, states and mask of the batch's
            first `rows` rows are repeated in the others, so that a reference on these says what all must be.
        composition: what the layer is compared with, in float64.
        drops: the dropout masks of each cell; empty where nothing is dropped, or they cannot be read.
        analytic: whether `composition` also computes in complex128.
        proof: `exact`, `consistent` or `statistical`, as in the records.
        rows: how many rows of the batch differ.
        depth: how many layers one upon another, whose rounding errors add up.
        make_layer: makes another layer like `layer`, built; its weights are those of its own seed.
    """

    case: Case
    layer: Any
    data: Data
    composition: Composition | Twin
    drops: list[DropoutMasks]
    analytic: bool
    proof: str
    rows: int
    depth: int
    make_layer: Callable[[], Any]


def prepare(subject: Subject, case: Case, alike: Problem | None = None) -> Problem:
    """Builds the subject for the case.

    Its weights are those of `alike` where the equations agree, else drawn from one seed; the inputs and the
    states of two cases of one shape and dtype are the same.

    Raises:
        UnsupportedOption: the subject does not have an option of the case, or it is lost on the way.
        NotForCudnn: Keras would take cuDNN for it, which cannot run it, or ignores an option of it.
        WrongAnswer: the bias does not start as the reference says, the layer is not made of the cells that
            the case asks for, or what they drop is not what they should.
    """
    if refusal := cudnn.refusal(case):
        raise NotForCudnn(refusal)
    layer = _built_layer(subject, case)
    if subject.layer == WHOLE:
        return _whole_problem(subject, case, layer)
    lost = layers.lost_option(layer, case)
    if lost:
        raise UnsupportedOption(f"{subject.label} loses an option of the case: {lost}")
    cells = [cell for loop in layers.cells_in(layer, case.depth) for cell, _ in loop]
    if not subject.is_brought:  # a user's cell may start as it likes
        for cell in cells:
            _check_initial_bias(cell)
    drops = _drops(subject, case, layer, cells)
    differs = not drops and _differs_in_training(subject, case, layer)
    hidden = differs and dropout_masks.draws_in_training(layer, case)
    if case.mode == "train" and (case.dropout or case.recurrent_dropout) and not (drops or hidden):
        raise WrongAnswer("nothing is dropped in training, though the case asks for dropout")
    recurrences, analytic, proof = _references(subject, case, cells, drops, differs and not hidden)
    composition = _composition(case, layer, recurrences)
    weights = _weights(layer) if alike is None else _shared(alike, composition, layer) or _weights(layer)
    work = case.timesteps * (case.features + case.units) * case.units * _GATES * len(cells)
    rows = case.batch_size if drops or differs else _rows(case, _REFERENCE_WORK / work)
    data = _data(layer, case, weights, rows, composition)
    proof = "statistical" if hidden else proof
    fresh = partial(_built_layer, subject, case)
    return Problem(case, layer, data, composition, drops, analytic, proof, rows, case.depth, fresh)


def _whole_problem(subject: Subject, case: Case, layer) -> Problem:
    """The problem of a user's whole layer, which is compared with itself, run eagerly in float64."""
    twin_case = replace(case, dtype="float64")
    with dtype_policy("float64"):  # whatever the layer makes beside its weights, a model's inputs too
        twin = _built_layer(subject, twin_case)
    training, weights = case.mode == "train", _weights(layer)
    draw = np.random.default_rng(SEED)
    sizes = (case.batch_size, case.timesteps, case.features)
    inputs = draw.standard_normal(sizes).astype(layers.float_dtype(layer))
    whole_layer.check_provable(layer, twin, inputs, training)
    shapes = whole_layer.output_shapes(layer, inputs, training)
    data = Data(weights, inputs, [], _cotangents(draw, shapes, inputs.dtype))
    depth = whole_layer.weighted_layers(layer)
    composition = whole_layer.Twin(twin, training)
    fresh = partial(_built_layer, subject, case)
    return Problem(case, layer, data, composition, [], False, "consistent", case.batch_size, depth, fresh)


def _built_layer(subject: Subject, case: Case):
    return layers.built_layer(partial(make_layer, subject, case), case, SEED)


def _shared(alike: Problem, composition: Composition, layer) -> Arrays | None:
    """The weights of the other problem, where they are of the same equations; None where not."""
    shapes = [weight.shape for weight in layer.get_weights()]
    same = alike.composition.cells == composition.cells
    return alike.data.weights if same and [w.shape for w in alike.data.weights] == shapes else None


def _composition(case: Case, layer, recurrences: Sequence[Recurrence]) -> Composition:
    loops = layers.cells_in(layer, case.depth)
    rest = iter(recurrences)
    cells = [
        Cell(_equation(case, recurrence), len(cell.weights), states, recurrence)
        for loop in loops
        for (cell, states), recurrence in zip(loop, rest, strict=False)
    ]
    try:
        return compose(case, cells, len(loops[0]), kernels.zeroes_masked_outputs(layer, case))
    except ValueError as error:
        raise WrongAnswer(str(error)) from None


def _equation(case: Case, recurrence: Recurrence) -> str:
    """A name for the recurrence: its function with its settings, or the cell, where it has none of ours."""
    if not isinstance(recurrence, partial):
        return case.cell
    settings = sorted(recurrence.keywords.items())
    return f"{recurrence.func.__qualname__}({', '.join(f'{name}={value}' for name, value in settings)})"


def _drops(subject: Subject, case: Case, layer, cells: Sequence[Any]) -> list[DropoutMasks]:
    """The dropout masks that each cell draws in training, share and scale checked."""
    drops = dropout_masks.drawn_masks(layer, case)
    for cell, of_cell in zip(cells, drops, strict=False):
        own = subject.is_brought
        rates = cell if own else case
        _check_masks("the inputs", of_cell.inputs, getattr(rates, "dropout", 0))
        _check_masks("the state", of_cell.states, getattr(rates, "recurrent_dropout", 0))
    return drops


def _differs_in_training(subject: Subject, case: Case, layer) -> bool:
    """True where a user's cell does in training what it does not do else."""
    return case.mode == "train" and subject.is_brought and dropout_masks.differs_in_training(layer, case)


def _check_masks(name: str, masks, rate: float) -> None:
    """Raises WrongAnswer unless the masks are of zeros, in a share of `rate`, and of 1 / (1 - rate)."""
    masks = [] if masks is None else masks if isinstance(masks, list) else [masks]
    if bool(masks) != bool(rate):
        raise WrongAnswer(f"{name}: {counted(len(masks), 'dropout mask')}, at a rate of {rate:g}")
    for mask in masks:
        kept, scale = mask[mask != 0], 1 / (1 - rate)
        if not np.allclose(kept, scale, rtol=_SCALE_TOLERANCE):
            raise WrongAnswer(f"{name}: what is kept is scaled by {kept.max():g}, not by {scale:g}")
        share, spread = 1 - kept.size / mask.size, math.sqrt(rate * (1 - rate) / mask.size)
        if abs(share - rate) > _SPREADS * spread:
            raise WrongAnswer(f"{name}: {share:.3g} is dropped, where the rate is {rate:g}")


def _references(
    subject: Subject, case: Case, cells: Sequence[Any], drops: Sequence[DropoutMasks], differs: bool
) -> tuple[list[Recurrence], bool, str]:
    """The recurrences that the cells are compared with, whether analytic, and the name of the proof.

    For a cell that is not the project's it is the cell's own `reference`, or the cell itself, run eagerly,
    either in a twin of the layer in float64. Where training `differs` without chance, it is the cell itself
    in training: a reference says what it computes else.
    """
    ours = [reference_for(cell) for cell in cells if type(cell) in REFERENCES]
    if len(ours) == len(cells):
        return _all(ours), True, "exact"
    twin_case = replace(case, dtype="float64")
    twin = _built_layer(subject.carried or subject, twin_case)
    twins = [cell for loop in layers.cells_in(twin, case.depth) for cell, _ in loop]
    own = [reference_for(cell) for cell in twins]
    if _all(own) and not drops and not differs:
        return _all(own), False, "exact"
    pairs = zip_longest(twins, drops)
    return [layers.eager_recurrence(cell, dropped, differs) for cell, dropped in pairs], False, "consistent"


def _all(recurrences: Sequence[Recurrence | None]) -> list[Recurrence]:
    """The recurrences; none of them where any is missing."""
    found = [recurrence for recurrence in recurrences if recurrence is not None]
    return found if len(found) == len(recurrences) else []


def _rows(case: Case, affordable: float) -> int:
    return max(1, min(case.batch_size, int(affordable)))


def _check_initial_bias(cell) -> None:
    entry, bias = REFERENCES.get(type(cell)), getattr(cell, "bias", None)
    if entry is None or bias is None:
        return
    got, expected = np.asarray(bias, dtype=float), entry.initial_bias(tuple(bias.shape))
    if not np.array_equal(got, expected):
        at = tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(got - expected)), got.shape))
        raise WrongAnswer(
            f"the bias of {type(cell).__name__} starts at {got[at]:g} at {list(at)}, "
            f"where its reference has {expected[at]:g}"
        )


def _weights(layer) -> Arrays:
    """The layer's own initial weights, and noise on those that start the same and would hide a fault."""
    draw = np.random.default_rng(SEED)
    weights = []
    for weight in layer.get_weights():
        noise = draw.uniform(-0.5, 0.5, weight.shape)
        hides = np.issubdtype(weight.dtype, np.floating) and len(np.unique(weight)) <= 2
        weights.append((weight + noise).astype(weight.dtype) if hides else weight)
    return weights


def _data(layer, case: Case, weights: Arrays, rows: int, composition: Composition) -> Data:
    dtype = layers.float_dtype(layer)
    draw = np.random.default_rng(SEED)
    repeated = np.arange(case.batch_size) % rows
    inputs = draw.standard_normal((rows, case.timesteps, case.features)).astype(dtype)[repeated]
    states = [
        (state + draw.uniform(-0.5, 0.5, state.shape)).astype(state.dtype)[repeated]
        if _floats(state)
        else state
        for state in layers.initial_state_arrays(layer, case.batch_size)
    ]
    mask = None if case.masked is None else _mask(case, rows)[repeated]
    cotangents = _cotangents(draw, _output_shapes(case, composition, weights, states), dtype)
    return Data(weights, inputs, states, cotangents, mask)


def _cotangents(draw: np.random.Generator, shapes, dtype) -> list[np.ndarray | None]:
    """What the gradient of each output starts from, at random; None for one that has no gradient."""
    return [
        draw.uniform(-1, 1, shape).astype(dtype) if differentiable else None
        for shape, differentiable in shapes
    ]


def _mask(case: Case, rows: int) -> np.ndarray:
    """Sequences of all lengths, [rows, timesteps]; the first is empty if one is to be masked as a whole."""
    lengths = np.random.default_rng(SEED).integers(1, case.timesteps, rows, endpoint=True)
    if case.masked == "full":
        lengths[0] = 0
    mask = np.arange(case.timesteps) < lengths[:, None]
    return mask[:, ::-1] if case.masked == "left" else mask


def _output_shapes(case: Case, composition: Composition, weights: Arrays, states: Arrays):
    """Of every output of the layer, flat: its shape, and whether it has a gradient. Found by one step."""
    step = np.zeros((case.batch_size, 1, case.features))
    outputs, _ = run_composition(composition, widened(weights), step, widened(states))
    sizes = (case.batch_size, case.timesteps) if case.return_sequences else (case.batch_size,)
    shapes = [(*sizes, *output.shape[len(sizes) :]) for output in outputs]
    return [(shape, True) for shape in shapes] + [(state.shape, _floats(state)) for state in states]


def widened(arrays: Sequence[np.ndarray]) -> Arrays:
    """The arrays in float64, but for those of integers."""
    return [array.astype(float) if _floats(array) else array for array in arrays]


def _floats(array: np.ndarray) -> bool:
    return not np.issubdtype(array.dtype, np.integer) and array.dtype != bool
