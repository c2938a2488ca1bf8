"""`Problem`: a case's layer, built, with the data it is proven and timed on and what it is held against."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench import runtime
from bench.case import Case
from bench.runtime import Arrays, Data
from bench.subjects import Subject, UnsupportedOption, make_layer
from cells.reference import REFERENCES, Recurrence, reference_for

SEED = 20_16
# multiply-adds of one step's gates, over the timesteps of one row, that the reference may take in all:
# about a second of NumPy for the derivatives, which are taken once for each weight, input and state
_REFERENCE_WORK = 4e7
_GATES = 4  # of the largest of the cells; only sizes the work


class WrongAnswer(AssertionError):
    """A program's answer that the proof refuses; the message says what differs, where, and by how much."""


@dataclass(frozen=True)
class Problem:
    """A case made ready.

    Attributes:
        layer: the Keras layer, built.
        data: weights, inputs, initial states, cotangents. The inputs and states of the batch's first `rows`
            rows are repeated in the others, so that a reference on these says what all must be.
        recurrence: f(weights, inputs, initial_states) -> (outputs, states) in float64, what the layer is
            held against.
        analytic: whether `recurrence` also computes in complex128.
        proof: `exact` or `consistent`, as in the records.
        rows: how many rows of the batch differ.
    """

    case: Case
    layer: Any
    data: Data
    recurrence: Recurrence
    analytic: bool
    proof: str
    rows: int


def prepare(subject: Subject, case: Case, alike: Problem | None = None) -> Problem:
    """Builds the subject for the case.

    Its weights are those of `alike` where the equations agree, else drawn from one seed; the inputs and the
    states of two cases of one shape and dtype are the same.

    Raises:
        UnsupportedOption: the subject does not have an option of the case, or cannot be proven in its mode.
        WrongAnswer: the bias does not start as the reference says.
    """
    layer = make_layer(subject, case)
    runtime.build_layer(layer, case, SEED)
    if subject.target is None:  # somebody's own may start as it likes
        _check_initial_bias(layer.cell)
    elif case.mode == "train" and runtime.differs_in_training(layer, case):
        raise UnsupportedOption(f"{subject.label} draws dropout in training, which cannot be proven yet")
    recurrence, analytic, proof = _held_against(subject, case, layer)
    if alike is not None and _same_equation(recurrence, alike.recurrence):
        weights = alike.data.weights
    else:
        weights = _weights(layer)
    work = case.timesteps * (case.features + case.units) * case.units * _GATES
    rows = _rows(case, _REFERENCE_WORK / work)
    data = _data(layer, case, weights, rows)
    return Problem(case, layer, data, recurrence, analytic, proof, rows)


def _held_against(subject: Subject, case: Case, layer) -> tuple[Recurrence, bool, str]:
    """What the layer is held against, whether that is analytic, and what the proof is then called.

    For a cell that is not the project's it is the cell's own `reference`, or the cell itself, run eagerly,
    either in a twin of the layer in float64.
    """
    ours = reference_for(layer.cell)
    if ours is not None and type(layer.cell) in REFERENCES:
        return ours, True, "exact"
    twin_case = replace(case, dtype="float64")
    twin = make_layer(subject, twin_case)
    runtime.build_layer(twin, twin_case, SEED)
    own = reference_for(twin.cell)
    if own is not None:
        return own, False, "exact"
    return runtime.eager_recurrence(twin, twin_case), False, "consistent"


def _rows(case: Case, affordable: float) -> int:
    return max(1, min(case.batch_size, int(affordable)))


def _same_equation(one: Any, other: Any) -> bool:
    """Whether two references are one function with the same settings."""
    return getattr(one, "func", 1) == getattr(other, "func", 2) and one.keywords == other.keywords


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
    """The layer's own initial weights, and noise on those that start alike and would hide a fault."""
    draw = np.random.default_rng(SEED)
    weights = []
    for weight in layer.get_weights():
        noise = draw.uniform(-0.5, 0.5, weight.shape)
        hides = np.issubdtype(weight.dtype, np.floating) and len(np.unique(weight)) <= 2
        weights.append((weight + noise).astype(weight.dtype) if hides else weight)
    return weights


def _data(layer, case: Case, weights: Arrays, rows: int) -> Data:
    dtype = runtime.float_dtype(layer)
    draw = np.random.default_rng(SEED)
    repeated = np.arange(case.batch_size) % rows
    inputs = draw.standard_normal((rows, case.timesteps, case.features)).astype(dtype)[repeated]
    states = [
        (state + draw.uniform(-0.5, 0.5, state.shape)).astype(state.dtype)[repeated]
        if _floats(state)
        else state
        for state in runtime.initial_state_arrays(layer, case.batch_size)
    ]
    cotangents = [
        draw.uniform(-1, 1, shape).astype(dtype) if differentiable else None
        for shape, differentiable in runtime.output_shapes(layer, case)
    ]
    return Data(weights, inputs, states, cotangents)


def _floats(array: np.ndarray) -> bool:
    return not np.issubdtype(array.dtype, np.integer) and array.dtype != bool
