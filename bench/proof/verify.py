"""The proof before the timing: a program's outputs, states and gradients against its reference.

Outputs and states are compared number by number. Of the gradients, each tensor's is compared along a
random direction v: <gradient, v> must be the derivative of the reference along v, taken with a complex
step (exact to rounding), or with a central difference where the reference is not ours.
"""

import hashlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bench.backend import devices, programs
from bench.backend.data import Answer, Data
from bench.backend.layers import weight_names
from bench.backend.programs import Program
from bench.proof.hidden_dropout import inferred_factors
from bench.proof.layer_reference import run_composition
from bench.proof.problem import SEED, Arrays, Problem, WrongAnswer, widened

TF32_EPSILON = 2.0**-10
# cuDNN's kernels as PyTorch chooses them approximate more than rounding does: on an H100 by 6.2e-6 where
# float32's rounding may reach 3.7e-6, and Keras' choice stays below 4e-7
_PYTORCH_ON_GPU = 4.0  # times float32's epsilon
_COMPLEX_STEP = 1e-30
_CENTRAL_STEP = 1e-6  # its error, about step² + 1e-16 / step, is then below 1e-9


@dataclass(frozen=True)
class Proof:
    """The errors seen and the tolerances; None where there was nothing to compare.

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
    """The reference's answer: the outputs and states, and derivatives along directions, by name."""

    outputs: Arrays
    derivatives: dict[str, float]


def _compile_here(problem: Problem, exact: bool) -> Program:
    """Compiles the exact program of the problem's layer, and the other of a fresh one: what a layer has
    compiled inside of itself it would run again as it is."""
    layer = problem.layer if exact else problem.make_layer()
    return programs.compile_program(layer, problem.case, problem.data)


def prove(
    problem: Problem, compile_program: Callable[[Problem, bool], Program] = _compile_here
) -> tuple[Program, Answer, Proof]:
    """Compiles the program that is to be timed, and proves it.

    Where the GPU, as configured, may round float32 to TF32, what is proven is a twin compiled without; the
    program itself, of another layer, must then give the twin's answer to within what TF32 can tell.

    Args:
        compile_program: compiles the problem's program, wherever it is to run; the second argument says
            whether in full precision.

    Returns:
        The program, its answer and the proof.

    Raises:
        WrongAnswer: as `verify` does.
    """
    with devices.full_precision():
        program = compile_program(problem, True)
        answer = program.answer()
    proof = verify(problem, answer)
    if not devices.rounds_to_tf32(problem.case):
        return program, answer, proof
    program = compile_program(problem, False)
    rounded = program.answer()
    _check_alike(problem, "in TF32", answer, rounded, proof)
    return program, rounded, proof


def verify(problem: Problem, answer: Answer) -> Proof:
    """Compares the answer of the program that is about to be timed with the problem's reference.

    Raises:
        WrongAnswer: naming what differs most, where, by how much, and what was allowed.
    """
    factors = inferred_factors(problem, answer) if problem.proof == "statistical" else None
    expected = _expected(problem, tuple(answer.gradients), factors)
    error, tolerance = 0.0, 0.0
    for name, got, wanted in zip(_output_names(problem), answer.outputs, expected.outputs, strict=True):
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


def verify_again(
    problem: Problem, before: Answer, after: Answer, proof: Proof, when: str = "after the timing"
) -> None:
    """The program, or another instance of it, must still compute what was proven, in TF32 to what that can
    tell: two sums of another order may be rounded to neighbours.

    Raises:
        WrongAnswer: as `verify` does, saying `when`.
    """
    _check_alike(problem, when, before, after, proof)


def _check_alike(problem: Problem, when: str, before: Answer, after: Answer, proof: Proof) -> None:
    """Raises WrongAnswer where the answers differ by more than the proof allowed of what is timed."""
    coarser = _coarser(problem)
    for name, got, wanted in zip(_output_names(problem), after.outputs, before.outputs, strict=True):
        if np.array_equal(got, wanted):  # as a rule, and a tenth of the time of the rest
            continue
        _compare(
            f"{when}, {name}",
            np.asarray(got, float),
            np.asarray(wanted, float),
            coarser * proof.tolerance,
        )
    for name, wanted in before.gradients.items():
        if np.array_equal(after.gradients[name], wanted):
            continue
        difference = np.linalg.norm(np.asarray(after.gradients[name] - wanted, float))
        allowed = coarser * (proof.gradient_tolerance or 0) * np.linalg.norm(np.asarray(wanted, float))
        if not difference <= allowed:
            raise WrongAnswer(
                f"{when}, the gradient of {name} has moved by {difference:.3g}, allowed {allowed:.3g}"
            )


def _coarser(problem: Problem) -> float:
    """How much coarser the program that is timed may be than the one that is proven."""
    rounded = devices.rounds_to_tf32(problem.case)
    return max(1.0, TF32_EPSILON / _epsilon(problem)) if rounded else 1.0


def _output_names(problem: Problem) -> list[str]:
    states = len(problem.data.initial_states)
    count = len(problem.data.cotangents) - states
    outputs = ["the outputs"] if count == 1 else [f"output {i}" for i in range(count)]
    if problem.case.merge_mode == "none":
        outputs = ["the outputs forward", "the outputs backward"]
    return [*outputs, *(f"final state {i}" for i in range(states))]


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
    return _epsilon(problem) * 2 * growth * scale * problem.depth


def _repeated(rows: np.ndarray, count: int) -> np.ndarray:
    """The rows again and again, until there are `count`."""
    return rows[np.arange(count) % len(rows)]


def _summed(array: np.ndarray, rows: int) -> np.ndarray:
    """The sums over the rows that repeat the same one of the first `rows`."""
    return np.stack([array[row::rows].sum(axis=0) for row in range(rows)])


def _gradient_tolerance(problem: Problem) -> float:
    """The same forth and back; relative, since the gradients' size follows the weights."""
    case = problem.case
    growth = 4 + math.sqrt(case.timesteps) + math.sqrt(case.features + case.units)
    return _epsilon(problem) * 4 * growth * problem.depth


def _epsilon(problem: Problem) -> float:
    import ml_dtypes

    epsilon = float(ml_dtypes.finfo(problem.data.inputs.dtype).eps)
    case = problem.case
    return _PYTORCH_ON_GPU * epsilon if (case.device, case.layer) == ("gpu", "torch") else epsilon


_cache: dict[str, Expected] = {}


def forget_references() -> None:
    """Forgets what references have answered: a user's cell of the same name may be another one by now."""
    _cache.clear()


def _expected(problem: Problem, sources: tuple[str, ...], factors: np.ndarray | None) -> Expected:
    """The reference's answer; remembered, for the same cell runs under many options.

    Args:
        factors: what the inputs are multiplied by, where that had to be inferred.
    """
    key = _key(problem, sources, factors)
    if key not in _cache:
        data = _first_rows(_in_float64(problem.data), problem.rows)
        drops = problem.drops if problem.analytic else []  # a cell that is run eagerly drops by itself

        def recurrence(weights, inputs, initial_states):
            inputs = inputs if factors is None else inputs * factors
            return run_composition(problem.composition, weights, inputs, initial_states, data.mask, drops)

        outputs, states = recurrence(data.weights, data.inputs, data.initial_states)
        derivatives = {name: _derivative(problem, recurrence, data, name) for name in sources}
        _cache[key] = Expected([*outputs, *states], derivatives)
    return _cache[key]


def _key(problem: Problem, sources: tuple[str, ...], factors: np.ndarray | None) -> str:
    digest = hashlib.sha256()
    data = problem.data
    drops = [mask for of_cell in problem.drops for mask in of_cell.arrays]
    arrays = (*data.weights, data.inputs, *data.initial_states, *data.cotangents, data.mask)
    for array in (*arrays, factors, *drops):
        digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    digest.update(repr((problem.composition, problem.case.shape, problem.rows, sources)).encode())
    return digest.hexdigest()


def _in_float64(data: Data) -> Data:
    return replace(
        data,
        weights=widened(data.weights),
        inputs=data.inputs.astype(float),
        initial_states=widened(data.initial_states),
        cotangents=[None if cotangent is None else cotangent.astype(float) for cotangent in data.cotangents],
    )


def _first_rows(data: Data, rows: int) -> Data:
    """The rows that differ; the cotangents of those that repeat them are added to theirs."""
    return Data(
        data.weights,
        data.inputs[:rows],
        [state[:rows] for state in data.initial_states],
        [None if cotangent is None else _summed(cotangent, rows) for cotangent in data.cotangents],
        None if data.mask is None else data.mask[:rows],
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
        pairs = zip([*outputs, *final], data.cotangents, strict=True)
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
