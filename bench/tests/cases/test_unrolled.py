"""The functions as layers, time-major sequences, programs without the input product: proven like any."""

import numpy as np
import pytest

from bench.backend import programs
from bench.cases.case import Case
from bench.cases.subjects import SUBJECTS, UnsupportedOption, make_layer
from bench.proof.problem import WrongAnswer, prepare
from bench.proof.verify import prove

SHAPE = (3, 4, 2, 5)


def problem_of(subject: str, mode: str, **options):
    cell, layer = subject.split("-")
    return prepare(SUBJECTS[subject], Case(cell, layer, mode, *SHAPE, **options))


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("function, kernel", [("static_unroll", "unrolled"), ("dynamic_unroll", "while")])
def test_the_functions_are_proven_with_either_axis_first(function, kernel, time_major, mode):
    problem = problem_of(f"lstm-{function}", mode, time_major=time_major)
    program, answer, proof = prove(problem)
    assert problem.proof == "exact" and proof.max_abs_error <= proof.tolerance
    assert program.kernel == kernel
    outputs, _ = program.run()
    batch_size, timesteps, _, units = SHAPE
    assert tuple(outputs[0].shape[:2]) == ((timesteps, batch_size) if time_major else (batch_size, timesteps))
    assert answer.outputs[0].shape == (batch_size, timesteps, units)
    assert len(answer.gradients) == (6 if mode == "train" else 0)


def test_a_layer_that_took_the_wrong_axis_for_time_would_be_found(monkeypatch):
    problem = problem_of("lstm-dynamic_unroll", "infer", time_major=True)
    problem.layer.time_major = False
    with pytest.raises((WrongAnswer, ValueError)):
        prove(problem)


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("subject", ["simple_rnn-fused", "lstm-fused", "gru-fused"])
def test_without_the_input_product_outputs_and_all_gradients_are_proven(subject, mode):
    problem = problem_of(subject, mode, input_product=False)
    given = programs.given_inputs(problem.case, problem.data)
    assert given.shape == (*SHAPE[:2], problem.data.weights[0].shape[1])
    _, answer, _ = prove(problem)
    if mode == "train":
        assert answer.gradients["kernel"].shape == problem.data.weights[0].shape
        assert np.any(answer.gradients["kernel"]) and np.any(answer.gradients["inputs"])


def test_a_subject_that_computes_the_product_all_the_same_cannot_be_asked_to_leave_it_out():
    with pytest.raises(UnsupportedOption, match="keras LSTM has no option input_product"):
        make_layer(SUBJECTS["lstm-builtin"], Case("lstm", "builtin", "infer", *SHAPE, input_product=False))
