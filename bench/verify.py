"""The proof before the timing: a program's outputs, states and gradients against its reference.

Outputs and states are compared number by number. Of the gradients, each tensor's is compared along a
random direction v: <gradient, v> must be the derivative of the reference along v, taken with a complex
step (exact to rounding), or with a central difference where the reference is not ours.
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.case import Case
from bench.problem import SEED, Arrays, Problem, WrongAnswer
from bench.runtime import Answer, Data, weight_names

_COMPLEX_STEP = 1e-30
_CENTRAL_STEP = 1e-6  # its error, about step² + 1e-16 / step, is then below 1e-9


@dataclass(frozen=True)
class Proof:
    """What was seen and what was allowed; None where there was nothing to compare.

    Attributes:
        max_abs_error, tolerance: of the outputs or the state that comes nearest to its tolerance, absolute.
        gradient_error, gradient_tolerance: of the gradients, relative to their norm.
    """

    max_abs_error: float
    tolerance: float
    gradient_error: float | None = None
    gradient_tolerance: float | None = None


@dataclass(frozen=True)
class Expected:
    """What the reference says: the outputs and states, and derivatives along directions, by name."""

    outputs: Arrays
    derivatives: dict[str, float]


def verify(problem: Problem, answer: Answer) -> Proof:
    """Holds the answer of the program that is about to be timed against the problem's reference.

    Raises:
        WrongAnswer: naming what differs most, where, by how much, and what was allowed.
    """
    expected = _expected(problem, tuple(answer.gradients))
    error, tolerance = 0.0, 0.0
    for name, got, wanted in zip(_output_names(expected), answer.outputs, expected.outputs, strict=True):
        allowed = _tolerance(problem, name, wanted)
        seen = _compare(name, np.asarray(got, float), _repeated(wanted, len(got)), allowed)
        if seen * tolerance >= error * allowed:  # the tensor that comes nearest to what it is allowed
            error, tolerance = seen, allowed
    if not answer.gradients:
        return Proof(error, tolerance)
    gradient_tolerance = _gradient_tolerance(problem)
    gradient_error = max(
        _compare_gradient(problem, name, gradient, expected.derivatives[name], gradient_tolerance)
        for name, gradient in answer.gradients.items()
    )
    return Proof(error, tolerance, gradient_error, gradient_tolerance)


def verify_again(problem: Problem, before: Answer, after: Answer, proof: Proof) -> None:
    """After the timing: the program must still compute what was proven.

    Raises:
        WrongAnswer: as `verify` does.
    """
    for name, got, wanted in zip(_output_names(before), after.outputs, before.outputs, strict=True):
        _compare(
            f"after the timing, {name}", np.asarray(got, float), np.asarray(wanted, float), proof.tolerance
        )
    for name, wanted in before.gradients.items():
        difference = np.linalg.norm(np.asarray(after.gradients[name] - wanted, float))
        allowed = (proof.gradient_tolerance or 0) * np.linalg.norm(np.asarray(wanted, float))
        if not difference <= allowed:
            raise WrongAnswer(
                f"after the timing, the gradient of {name} has moved by {difference:.3g}, "
                f"allowed {allowed:.3g}"
            )


def _output_names(answer) -> list[str]:
    return ["the outputs", *(f"final state {i}" for i in range(len(answer.outputs) - 1))]


def _compare(name: str, got: np.ndarray, wanted: np.ndarray, tolerance: float) -> float:
    if got.shape != wanted.shape:
        raise WrongAnswer(f"{name}: shape {got.shape}, where the reference has {wanted.shape}")
    difference = np.abs(got - wanted)
    worst = float(np.max(np.where(np.isfinite(difference), difference, np.inf), initial=0.0))
    if worst <= tolerance:
        return worst
    at = np.unravel_index(np.argmax(np.where(np.isfinite(difference), difference, np.inf)), got.shape)
    where = ", ".join(f"{axis} {int(i)}" for axis, i in zip(_axes(got.ndim), at, strict=True))
    raise WrongAnswer(
        f"{name}: differ from the reference by {worst:.3g}, allowed {tolerance:.3g}; most at {where}: "
        f"{got[at]:.6g} instead of {wanted[at]:.6g}"
    )


def _axes(rank: int) -> tuple[str, ...]:
    return {2: ("row", "unit"), 3: ("row", "step", "unit")}.get(rank, tuple(f"axis {i}" for i in range(rank)))


def _compare_gradient(
    problem: Problem, name: str, gradient: np.ndarray, wanted: float, tolerance: float
) -> float:
    gradient = np.asarray(gradient, float)
    direction = _direction(name, _shape_of(problem, name))
    if name not in weight_names(problem.layer):
        direction = _repeated(direction, len(gradient))
    got = float(np.vdot(gradient, direction))
    norm = max(float(np.linalg.norm(gradient)), abs(wanted), np.finfo(float).tiny)
    error = abs(got - wanted) / norm
    if not error <= tolerance:  # NaN too
        raise WrongAnswer(
            f"the gradient of {name}: {got:.6g} along a random direction, {wanted:.6g} by the reference; "
            f"off by {error:.3g} of its norm, allowed {tolerance:.3g}"
        )
    return error


def _tolerance(problem: Problem, name: str, wanted: np.ndarray) -> float:
    """Rounding in sums of `features + units` terms, piling up like a random walk over the steps.

    Twice that: the largest error seen is then about a quarter of what is allowed.
    """
    scale = float(np.max(np.abs(wanted), initial=1.0))
    if not math.isfinite(scale):
        raise WrongAnswer(f"{name}: the reference itself is not finite at this shape")
    case = problem.case
    growth = 4 + math.sqrt(case.timesteps) + math.sqrt(case.features + case.units)
    return _epsilon(problem) * 2 * growth * scale


def _repeated(rows: np.ndarray, count: int) -> np.ndarray:
    """The rows again and again, until there are `count`."""
    return rows[np.arange(count) % len(rows)]


def _summed(array: np.ndarray, rows: int) -> np.ndarray:
    """The sums over the rows that repeat the same one of the first `rows`."""
    return np.stack([array[row::rows].sum(axis=0) for row in range(rows)])


def _gradient_tolerance(problem: Problem) -> float:
    """The same forth and back; relative, since the gradients' size follows the weights."""
    case = problem.case
    return _epsilon(problem) * 4 * (4 + math.sqrt(case.timesteps) + math.sqrt(case.features + case.units))


def _epsilon(problem: Problem) -> float:
    import ml_dtypes

    return float(ml_dtypes.finfo(problem.data.inputs.dtype).eps)


_cache: dict[str, Expected] = {}


def _expected(problem: Problem, sources: tuple[str, ...]) -> Expected:
    """What the reference says; remembered, for the same cell runs under many options."""
    key = _key(problem, sources)
    if key not in _cache:
        recurrence = _as_layer(problem)
        data = _first_rows(_in_float64(problem.data), problem.rows)
        outputs, states = recurrence(data.weights, data.inputs, data.initial_states)
        derivatives = {name: _derivative(problem, recurrence, data, name) for name in sources}
        _cache[key] = Expected([outputs, *states], derivatives)
    return _cache[key]


def _key(problem: Problem, sources: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    data, case = problem.data, problem.case
    for array in (*data.weights, data.inputs, *data.initial_states, *data.cotangents):
        digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    equation = getattr(problem.recurrence, "func", None)
    settings = getattr(problem.recurrence, "keywords", None)
    identity = (
        case.cell if equation is None else (equation.__qualname__, sorted((settings or {}).items(), key=str))
    )
    digest.update(
        repr((identity, case.shape, problem.rows, case.go_backwards, case.return_sequences, sources)).encode()
    )
    return digest.hexdigest()


def _as_layer(problem: Problem):
    """The recurrence with what the layer's options do to its inputs and outputs."""
    case: Case = problem.case

    def recurrence(weights, inputs, initial_states):
        inputs = inputs[:, ::-1] if case.go_backwards else inputs
        outputs, states = problem.recurrence(weights, inputs, initial_states)
        return outputs if case.return_sequences else outputs[:, -1], states

    return recurrence


def _in_float64(data: Data) -> Data:
    def wide(arrays: Sequence):
        return [a if a is None or np.issubdtype(a.dtype, np.integer) else a.astype(float) for a in arrays]

    return Data(
        wide(data.weights), data.inputs.astype(float), wide(data.initial_states), wide(data.cotangents)
    )


def _first_rows(data: Data, rows: int) -> Data:
    """The rows that differ; the cotangents of those that repeat them are added to theirs."""
    return Data(
        data.weights,
        data.inputs[:rows],
        [state[:rows] for state in data.initial_states],
        [None if cotangent is None else _summed(cotangent, rows) for cotangent in data.cotangents],
    )


def _direction(name: str, shape: tuple[int, ...]) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    return np.random.default_rng([SEED, seed]).standard_normal(shape)


def _derivative(problem: Problem, recurrence, data: Data, name: str) -> float:
    """The derivative of sum(cotangent * output) over all outputs when `name` moves along its direction."""
    direction = _direction(name, _shape_of(problem, name))

    def total(step):
        weights, inputs, states = _moved(problem, data, name, step * direction)
        outputs, final = recurrence(weights, inputs, states)
        pairs = zip([outputs, *final], data.cotangents, strict=True)
        return sum((np.sum(output * cotangent) for output, cotangent in pairs if cotangent is not None), 0.0)

    if problem.analytic:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            return float(np.imag(total(1j * _COMPLEX_STEP)) / _COMPLEX_STEP)
    return float((total(_CENTRAL_STEP) - total(-_CENTRAL_STEP)) / (2 * _CENTRAL_STEP))


def _shape_of(problem: Problem, name: str) -> tuple[int, ...]:
    """The shape of what moves: a weight, or the rows that differ of the inputs or a state."""
    data = problem.data
    if name == "inputs":
        return data.inputs[: problem.rows].shape
    if name.startswith("initial_state "):
        return data.initial_states[int(name.split()[1])][: problem.rows].shape
    return data.weights[weight_names(problem.layer).index(name)].shape


def _moved(problem: Problem, data: Data, name: str, step: np.ndarray):
    """Weights, inputs and initial states with `step` added to the one called `name`."""
    weights, inputs, states = list(data.weights), data.inputs, list(data.initial_states)
    if name == "inputs":
        inputs = inputs + step
    elif name.startswith("initial_state "):
        number = int(name.split()[1])
        states[number] = states[number] + step
    else:
        number = weight_names(problem.layer).index(name)
        weights[number] = weights[number] + step
    return weights, inputs, states
