"""What Keras takes cuDNN for, and what `fit` compiles, as traced with Keras' check for a GPU forced."""

import sys
from dataclasses import replace

import keras
import pytest
import tensorflow as tf
from keras.src.trainers.trainer import model_supports_jit

from bench.backend import kernels
from bench.cases import cudnn
from bench.cases.case import Case
from bench.cases.comparisons import comparisons, tasks
from bench.cases.subjects import SUBJECTS, NotForCudnn, make_layer
from bench.cases.sweeps import SWEEPS
from bench.proof.problem import prepare
from bench.records.schema import REASONS
from bench.runner.row import outcome

SHAPE = (2, 3, 4, 4)
GPU = Case("lstm", "builtin", "infer", *SHAPE, device="gpu")


@pytest.fixture
def forced(monkeypatch):
    """Keras believes that there is a GPU; what it then traces cannot be run."""
    monkeypatch.setattr(sys.modules["keras.src.backend.tensorflow.rnn"], "_is_gpu_available", lambda: True)


def small(case):
    batch_size, timesteps, features, units = SHAPE
    return replace(case, batch_size=batch_size, timesteps=timesteps, features=features, units=units)


def kernel_of(case):
    layer = make_layer(SUBJECTS[case.subject], case)
    layer.build((case.batch_size, case.timesteps, case.features))
    inputs = tf.TensorSpec(SHAPE[:3], layer.compute_dtype)
    mask = None if case.masked is None else tf.TensorSpec(SHAPE[:2], tf.bool)
    program = tf.function(
        lambda inputs, mask: layer(inputs, mask=mask, training=case.mode == "train"), autograph=False
    )
    return kernels.kernel_of(
        kernels.graph_nodes(program.get_concrete_function(inputs, mask).graph.as_graph_def())
    )


def alone(sweep):
    """The built-ins' cases of a sweep on a GPU, each way of running them once."""
    rows = comparisons([sweep], device="gpu")
    found = {small(case) for row in rows for case in (row.case, row.baseline) if case.layer == "builtin"}
    in_training = {case for case in found if case.dropout or case.recurrent_dropout}
    return sorted({case for case in found if case.mode == "infer"} | in_training, key=lambda case: case.id)


def test_keras_takes_cudnn_where_the_table_says_so(forced):
    cases = [case for case in alone("options") if case.static_timesteps and case.static_batch]
    assert len(cases) > 50
    wrong = {
        case.id: kernel
        for case in cases
        if ((kernel := kernel_of(case)) == "cudnn") is not cudnn.can_run(case)
    }
    assert not wrong


@pytest.mark.parametrize(
    "options",
    [{"masked": "left"}, {"masked": "full"}, {"implementation": 1}, {"masked": "left", "stateful": True}],
)
@pytest.mark.parametrize("use_cudnn", [None, "auto"])
def test_keras_does_not_fall_back_for_what_is_refused(forced, options, use_cudnn):
    case = replace(GPU, use_cudnn=use_cudnn, **options)
    assert kernel_of(case) == "cudnn"
    with pytest.raises(NotForCudnn, match="use_cudnn=False measures Keras' loop") as refused:
        prepare(SUBJECTS[case.subject], case)
    found = outcome(refused.value)
    assert (found["status"], found["reason"]) == ("skipped", "not_for_cudnn")
    assert found["reason"] in REASONS


@pytest.mark.parametrize(
    "options",
    [
        {"masked": "left", "use_cudnn": "False"},
        {"masked": "full", "jit_compile": True},
        {"masked": "left", "unroll": True},
        {"implementation": 1, "recurrent_dropout": 0.5},
        {"implementation": 1, "use_bias": False},
        {"masked": "left", "device": "cpu"},
        {"masked": "right"},
    ],
)
def test_what_runs_in_keras_loop_or_under_xla_is_not_refused(options):
    assert cudnn.refusal(replace(GPU, **options)) is None
    assert cudnn.refusal(replace(GPU, cell="keras_lstm", layer="rnn", masked="left")) is None


@pytest.mark.parametrize("sweep", [name for name in SWEEPS if not SWEEPS[name].task])
def test_no_sweep_has_a_row_that_measures_nothing(sweep):
    for row in comparisons([sweep], device="gpu"):
        assert cudnn.refusal(row.case) is None, row.id
        assert cudnn.refusal(row.baseline) is None, row.id


def test_a_baseline_that_cudnn_would_fail_at_runs_without_it():
    from bench.cases.comparisons import baselines_of

    case = Case("slstm", "rnn", "train", *SHAPE, masked="left", device="gpu")
    (baseline,) = baselines_of(case, ["builtin"], SUBJECTS)
    assert (baseline.subject, baseline.masked, baseline.use_cudnn) == ("lstm-builtin", "left", "False")
    (on_cpu,) = baselines_of(replace(case, device="cpu"), ["builtin"], SUBJECTS)
    assert on_cpu.use_cudnn is None


# --- what `fit` compiles ---


@pytest.mark.parametrize(
    "subject", ["simple_rnn-builtin", "lstm-builtin", "gru-builtin", "slstm-rnn", "slstm-fused"]
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"recurrent_dropout": 0.5},
        {"activation": "relu"},
        {"use_bias": False},
        {"bidirectional": True},
        {"depth": 2},
        {"dtype": "mixed_bfloat16"},
    ],
    ids=str,
)
def test_fit_compiles_on_a_gpu_what_keras_says_it_can(forced, subject, options):
    cell, _, layer = subject.rpartition("-")
    case = Case(cell, layer, "train", *SHAPE, device="gpu", **options)
    made = make_layer(SUBJECTS[subject], case)
    inputs = keras.Input(batch_shape=SHAPE[:3])
    outputs = made(inputs)
    model = keras.Model(inputs, outputs)
    assert cudnn.fit_compiles(case) is model_supports_jit(model)
    assert cudnn.fit_compiles(replace(case, device="cpu")) is False


def ratios(sweep, device):
    return {row.id: row.baseline.id for row in comparisons([sweep], device=device)}


def test_on_a_gpu_the_default_comparison_is_what_users_run():
    found = ratios("default", "gpu")
    at = "b32-t50-f64-u128"
    assert found[f"train-slstm-rnn-{at}-xla"] == f"train-lstm-builtin-{at}"
    assert found[f"train-minimal-rnn-{at}-xla"] == f"train-simple_rnn-builtin-{at}-xla"
    assert found[f"train-lstm-builtin-{at}"] == f"train-lstm-builtin-{at}"
    assert found[f"train-slstm-fused-{at}-xla"] == f"train-lstm-builtin-{at}"
    assert found[f"train-slstm-rnn-{at}"] == f"train-lstm-builtin-{at}"  # plain graphs, a variant
    assert found[f"train-lstm-builtin-{at}-xla"] == f"train-lstm-builtin-{at}-xla"
    for sweep in ("char_shape", "scaling"):
        of_users = [row.case for row in comparisons([sweep], device="gpu")]
        assert all(case.jit_compile is cudnn.fit_compiles(case) for case in of_users)


def test_on_a_gpu_an_option_is_compared_with_the_default_that_users_run():
    found = ratios("options", "gpu")
    at = "b32-t40-f64-u64"
    assert found[f"train-slstm-rnn-{at}-xla-dropout0.5"] == f"train-slstm-rnn-{at}-xla"
    assert found[f"train-slstm-rnn-{at}"] == f"train-slstm-rnn-{at}-xla"
    assert found[f"train-lstm-builtin-{at}-xla"] == f"train-lstm-builtin-{at}"


def test_on_a_gpu_a_training_task_compiles_what_fit_compiles():
    of_fit = {task.case.subject: task.case.jit_compile for task in tasks(["char_model"], device="gpu")}
    assert of_fit == {
        "simple_rnn-builtin": True,
        "lstm-builtin": False,
        "gru-builtin": False,
        "slstm-rnn": True,
    }
    assert not any(task.case.jit_compile for task in tasks(["char_model", "generate"], device="cpu"))
    assert not any(task.case.jit_compile for task in tasks(["generate"], device="gpu"))
