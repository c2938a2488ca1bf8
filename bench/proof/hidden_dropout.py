"""Dropout that hides what it drew: the inputs' gradient shows which it dropped, the outputs the rate."""

import math

import numpy as np

from bench.backend.data import Answer
from bench.cases.subjects import UnsupportedOption
from bench.proof.layer_reference import run_composition
from bench.proof.problem import Problem, widened

_SPREADS = 6  # standard deviations that the share of what is dropped may be off from the rate
_RATES = np.arange(1, 100) / 100


def inferred_factors(problem: Problem, answer: Answer) -> np.ndarray:
    """The factors of the inputs, [batch_size, timesteps, features]: 0, or 1 / (1 - rate).

    An input whose gradient is zero was dropped. The rate is the one, in hundredths and as near to the share
    that was dropped as chance lets it be, with which the layer without dropout comes nearest to the answer.

    Raises:
        UnsupportedOption: no input was dropped, but something else, or what differs is no dropout at all.
    """
    kept = np.asarray(answer.gradients["inputs"], float) != 0
    steps = np.ones(kept.shape[:2], bool) if problem.data.mask is None else problem.data.mask
    share = 1 - kept[steps].mean()
    if share == 0:
        raise UnsupportedOption("what differs in training is no dropout of inputs, and cannot be proven")
    draws = kept.shape[0] * kept.shape[2]  # at least: one for each sequence, or for each step too
    spread = math.sqrt(max(share * (1 - share), 1 / draws) / draws)
    rates = _RATES[np.abs(_RATES - share) <= _SPREADS * spread]
    return min((kept / (1 - rate) for rate in rates), key=lambda factors: _distance(problem, answer, factors))


def _distance(problem: Problem, answer: Answer, factors: np.ndarray) -> float:
    """The answer's distance from that of the layer without dropout, its inputs times the factors."""
    data = problem.data
    outputs, _ = run_composition(
        problem.composition,
        widened(data.weights),
        data.inputs.astype(float) * factors,
        widened(data.initial_states),
        data.mask,
    )
    return max(float(np.max(np.abs(a - b))) for a, b in zip(outputs, answer.outputs, strict=False))
