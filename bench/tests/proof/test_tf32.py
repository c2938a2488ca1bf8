"""TF32: what is proven is in full precision, what is timed as configured, and a program of its own."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from bench.backend import devices, programs
from bench.backend.data import Answer
from bench.cases.case import Case
from bench.cases.subjects import SUBJECTS
from bench.processes.isolated import Programs
from bench.proof.problem import WrongAnswer, prepare
from bench.proof.verify import TF32_EPSILON, prove, verify_again
from cells.engines import native, xla

SHAPE = (2, 4, 3, 4)


def problem_of(subject="lstm-rnn", mode="infer", **options):
    cell, _, layer = subject.rpartition("-")
    return prepare(SUBJECTS[subject], Case(cell, layer, mode, *SHAPE, **options))


def in_tf32():
    return tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.fixture
def on_gpu(monkeypatch):
    """A GPU that rounds, played by this CPU."""
    monkeypatch.setattr(devices, "rounds_to_tf32", lambda case: True)
    monkeypatch.setattr(native, "in_place", lambda: False)  # the native engine is none for a GPU


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_what_a_layer_compiles_inside_is_compiled_again_for_the_timing(on_gpu, monkeypatch, dtype):
    traced = []
    forward = xla._forward
    monkeypatch.setattr(xla, "_forward", lambda *given: (traced.append(in_tf32()), forward(*given))[1])
    prove(problem_of("slstm-fused", dtype=dtype))
    assert traced == [False, True]


@pytest.mark.parametrize(
    ("dtype", "subject", "expected"),
    [
        ("float32", "lstm-rnn", True),
        ("mixed_float16", "slstm-fused", True),
        ("mixed_bfloat16", "slstm-fused", True),
        ("float64", "slstm-fused", False),
    ],
)
def test_what_may_compute_in_float32_may_be_rounded(monkeypatch, dtype, subject, expected):
    monkeypatch.setattr(devices, "tf32", lambda: True)
    cell, _, layer = subject.rpartition("-")
    case = Case(cell, layer, "infer", *SHAPE, dtype=dtype, device="gpu")
    assert devices.rounds_to_tf32(case) is expected
    assert devices.rounds_to_tf32(replace(case, device="cpu")) is False


@pytest.mark.parametrize("exact", [True, False])
def test_a_worker_answers_in_the_precision_that_it_compiled_in(monkeypatch, exact):
    """TensorFlow's own products look at the switch at every launch."""
    seen = []
    compile_program = programs.compile_program

    def watched(layer, case, data):
        program = compile_program(layer, case, data)
        seen.append(in_tf32())
        return replace(program, answer=lambda: (seen.append(in_tf32()), program.answer())[1])

    monkeypatch.setattr(programs, "compile_program", watched)
    monkeypatch.setattr(devices, "warm_up", lambda *_: None)
    problem = problem_of()
    service = Programs("cpu")
    service.compile("program", problem.case, problem.data, exact)
    service.answer("program")
    assert seen == [not exact] * 2
    assert in_tf32()


def scaled(answer, factor):
    return Answer(
        [factor * output for output in answer.outputs],
        {name: factor * gradient for name, gradient in answer.gradients.items()},
    )


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_after_the_timing_a_rounded_program_may_be_rounded_otherwise(on_gpu, monkeypatch, dtype):
    problem = problem_of(mode="train", dtype=dtype)
    _, answer, proof = prove(problem)
    verify_again(problem, answer, scaled(answer, 1 + TF32_EPSILON), proof)
    with pytest.raises(WrongAnswer, match="after the timing, "):
        verify_again(problem, answer, scaled(answer, 1.5), proof)
    monkeypatch.setattr(devices, "rounds_to_tf32", lambda case: False)
    if dtype == "float32":
        with pytest.raises(WrongAnswer, match="after the timing, "):
            verify_again(problem, answer, scaled(answer, 1 + TF32_EPSILON), proof)


def test_the_fresh_layer_is_built_as_the_first():
    problem = problem_of("lstm-builtin")
    fresh = problem.make_layer()
    assert fresh is not problem.layer
    assert [w.shape for w in fresh.get_weights()] == [w.shape for w in problem.layer.get_weights()]
    assert np.array_equal(fresh.get_weights()[0], problem.layer.get_weights()[0])
