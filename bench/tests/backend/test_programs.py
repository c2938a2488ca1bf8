"""What stands between the suite and TensorFlow: kernels, names, states, gradients, devices."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from bench.backend import devices, kernels, layers, programs
from bench.cases.case import Case
from bench.cases.subjects import SUBJECTS, UnsupportedOption, make_layer
from bench.proof.problem import prepare

SHAPE = (2, 4, 3, 5)


def program_of(subject, mode="infer", **options):
    cell, _, layer = subject.rpartition("-")
    problem = prepare(SUBJECTS[subject], Case(cell, layer, mode, *SHAPE, **options))
    return programs.compile_program(problem.layer, problem.case, problem.data), problem


@pytest.mark.parametrize(
    "options, kernel", [({}, "while"), ({"unroll": True}, "unrolled"), ({"jit_compile": True}, "while")]
)
def test_the_kernel_is_read_from_the_compiled_graph(options, kernel):
    program, _ = program_of("lstm-builtin", **options)
    assert program.kernel == kernel
    assert program.graph_nodes > 50


@pytest.mark.parametrize("operation, kernel", [("CudnnRNNV3", "cudnn"), ("BlockLSTMV2", "block")])
def test_kernels_that_hide_in_the_function_library_are_found(operation, kernel):
    graph = tf.compat.v1.GraphDef()
    graph.node.add(op="While", name="loop")
    graph.library.function.add().node_def.add(op=operation, name="inside")
    nodes = list(kernels.graph_nodes(graph))
    assert len(nodes) == 2
    assert kernels.kernel_of(nodes) == kernel


def test_weights_of_one_name_are_told_apart():
    layer = keras.layers.RNN([keras.layers.LSTMCell(3), keras.layers.LSTMCell(3, use_bias=False)])
    layer.build((1, 2, 3))
    assert layers.weight_names(layer) == [
        "kernel",
        "recurrent_kernel",
        "bias",
        "kernel 1",
        "recurrent_kernel 1",
    ]


def test_train_gives_the_gradients_of_weights_inputs_and_initial_states():
    program, problem = program_of("lstm-rnn", "train")
    gradients = program.answer().gradients
    names = ["kernel", "recurrent_kernel", "bias", "inputs", "initial_state 0", "initial_state 1"]
    assert sorted(gradients) == sorted(names)
    assert all(np.any(gradient) for gradient in gradients.values())
    assert gradients["inputs"].shape == problem.data.inputs.shape


def test_the_answer_of_a_stateful_layer_starts_anew_each_time_and_its_run_goes_on():
    program, problem = program_of("slstm-rnn", stateful=True)
    first = program.answer()
    continued = program.run()
    assert not np.allclose(np.asarray(continued[0][0]), first.outputs[0])
    assert np.array_equal(program.answer().outputs[0], first.outputs[0])
    assert np.array_equal(np.asarray(problem.layer.states[0]), first.outputs[1])


def test_nothing_is_traced_again_while_running():
    program, _ = program_of("gru-rnn", "train")
    count = program.trace_count()
    for _ in range(3):
        program.run()
    assert program.trace_count() == count == 1


@pytest.mark.parametrize(
    ("subject", "options"),
    [
        ("lstm-builtin", {"masked": "right"}),
        ("slstm-rnn", {"stateful": True}),
        ("gru-builtin", {"dropout": 0.5, "bidirectional": True}),
        ("gru-fused", {"depth": 2}),
        ("keras_lstm-rnn", {"jit_compile": True}),
        ("slstm-rnn", {"jit_compile": True, "stateful": True}),
        ("gru-builtin", {"jit_compile": True, "dropout": 0.5, "masked": "right"}),
        ("lstm-rnn", {"jit_compile": True, "static_batch": False}),
        ("lstm-rnn", {"static_timesteps": False, "static_batch": False}),
        ("lstm-fused", {"dtype": "float64"}),
        ("lstm-rnn", {"dtype": "mixed_bfloat16"}),
    ],
)
def test_another_instance_computes_the_same_without_a_trace_of_the_layer(subject, options, monkeypatch):
    program, problem = program_of(subject, "train", **options)
    monkeypatch.setattr(type(problem.layer), "__call__", None)
    another = program.again()
    first, second = program.answer(), another.answer()
    for one, other in zip(first.outputs, second.outputs, strict=True):
        assert np.array_equal(one, other)
    assert first.gradients.keys() == second.gradients.keys()
    for name, gradient in first.gradients.items():
        np.testing.assert_allclose(second.gradients[name], gradient, rtol=1e-6, atol=1e-6)
    assert another.trace_count() == 1
    assert another.kernel == program.kernel


def test_a_copied_function_is_one_of_its_own_and_reads_the_same_variables():
    """TensorFlow compiles a function anew that it does not know: a call of the first would be the first's."""
    weight = tf.Variable([[2.0]])
    spec = tf.TensorSpec((None, 1))
    first = tf.function(lambda x: tf.tanh(x @ weight)).get_concrete_function(spec)
    copied = tf.function(programs._copied(first, {}), autograph=False).get_concrete_function(spec)
    weight.assign([[3.0]])
    assert copied(tf.ones((1, 1))) == first(tf.ones((1, 1))) == tf.tanh(3.0)
    nodes = copied.graph.as_graph_def()
    assert {"MatMul", "Tanh"} <= {node.op for node in nodes.node} and not nodes.library.function
    computing = {node.name for node in nodes.node if node.op in ("MatMul", "Tanh")}
    assert not computing & {node.name for node in first.graph.as_graph_def().node}


@pytest.mark.parametrize(
    ("subject", "options"),
    [
        ("lstm-builtin", {}),
        ("gru-fused", {}),
        ("slstm-rnn", {"stateful": True}),
        ("gru-rnn", {"jit_compile": True}),
    ],
)
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_another_instance_has_weights_and_inputs_of_its_own(subject, options, mode, monkeypatch):
    """Where they lie decides how fast a program is, and is drawn anew too."""
    moved = []
    monkeypatch.setattr(programs, "_moved", lambda tensor: moved.append(tensor) or tensor)
    program, problem = program_of(subject, mode, **options)
    another, before = program.again(), program.answer().outputs[0]
    assert len([tensor for tensor in moved if tensor is not None]) >= (2 if mode == "infer" else 3)
    for weight in problem.layer.trainable_weights:
        weight.assign(weight + 1.0)
    assert not np.allclose(program.answer().outputs[0], before)
    assert np.array_equal(another.answer().outputs[0], before)


def test_what_compiles_alike_is_compiled_once(monkeypatch):
    """XLA's inference on a CPU: an instance is then the first one's, called with other weights and inputs."""
    alike, drawn = (program_of("lstm-rnn", mode, jit_compile=True)[0] for mode in ("infer", "train"))
    copied, copy = [], programs._copied
    monkeypatch.setattr(programs, "_copied", lambda *of: copied.append(of) or copy(*of))
    assert alike.again().compile_s < alike.compile_s / 3 and not copied
    assert alike.again_s < alike.compile_s / 3
    drawn.again()
    assert len(copied) == 1 and drawn.again_s == drawn.compile_s
    shape = (4, 5, 3, 6)
    alike = Case("lstm", "rnn", "infer", *shape, jit_compile=True)
    assert alike.compiles_alike and not replace(alike, jit_compile=False).compiles_alike
    assert not replace(alike, mode="train").compiles_alike
    assert not replace(alike, device="gpu").compiles_alike


def test_a_moved_tensor_lies_elsewhere_in_memory():
    tensor = tf.random.normal((64, 64))
    address = tensor._numpy().ctypes.data
    assert tf.identity(tensor)._numpy().ctypes.data == address
    moved, variable = programs._moved(tensor), programs._copy_of(tf.Variable(tensor))
    assert moved._numpy().ctypes.data != address != variable.read_value()._numpy().ctypes.data
    assert np.array_equal(moved, tensor) and np.array_equal(variable, tensor)
    assert programs._moved(None) is None


def test_a_layer_is_made_under_the_cases_dtype_policy_and_leaves_the_global_one_alone():
    case = Case("lstm", "rnn", "infer", *SHAPE, dtype="mixed_bfloat16")
    layer = make_layer(SUBJECTS["lstm-rnn"], case)
    assert layer.compute_dtype == layer.cell.compute_dtype == "bfloat16"
    assert layer.cell.variable_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_an_option_that_a_subject_lacks_is_named():
    case = Case("minimal", "rnn", "infer", *SHAPE, activation="relu", use_bias=False)
    with pytest.raises(UnsupportedOption, match="minimal in RNN has no option activation, use_bias"):
        make_layer(SUBJECTS["minimal-rnn"], case)


def test_the_device_is_what_there_is():
    gpus = tf.config.list_physical_devices("GPU")
    assert devices.choose_device("cpu") == "cpu"
    assert devices.choose_device("auto") == ("gpu" if gpus else "cpu")
    if not gpus:
        with pytest.raises(devices.NoDevice, match="there is cpu"):
            devices.choose_device("gpu")


def test_running_out_of_memory_is_told_from_other_errors():
    assert devices.is_out_of_memory(MemoryError())
    assert devices.is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, "no"))
    assert not devices.is_out_of_memory(ValueError("no"))


def test_the_price_of_waiting_is_measured():
    assert 0 < devices.sync_seconds() < 1
