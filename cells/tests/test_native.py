"""The native engine of `FusedRNN` against `keras.layers.RNN`, and where it is used and where not.

A compiler runs once for every equation here, and not at all where its library is in the cache folder.
"""

import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cells
from cells import FusedRNN, GRUCell, LSTMCell, SLSTMCell
from cells.engines import native
from cells.engines.native import library
from cells.engines.native.cores import usable_cores
from cells.tests.support import arrays, assert_same, data
from cells.tests.test_fused_rnn import CASES, EveryKindCell, drawn_options, outputs_and_gradients, some_mask

pytestmark = pytest.mark.skipif(library.compiler() is None, reason="there is no C++ compiler")

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums of some hundred terms in another order
# (units, batch, timesteps, features): a part of a vector; a part and a group a thread; several vectors and
# groups; one sequence; a group that a team shares, as there are fewer sequences than threads
SIZES = [(3, 4, 5, 4), (16, 40, 3, 7), (37, 70, 9, 3), (40, 1, 6, 5), (150, 3, 9, 6)]
FUNCTIONS = {"exp": np.exp, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}
ACTIVATIONS = [
    *("celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_shrink", "hard_silu", "hard_tanh"),
    *(
        "leaky_relu",
        "linear",
        "log_sigmoid",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "soft_shrink",
    ),
    *("softplus", "softsign", "sparse_plus", "squareplus", "tanh", "tanh_shrink"),
]


threads = native.threads


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    monkeypatch.setattr(native, "threads", lambda: 4)


def make(cell_class, units=8, features=3, dtype="float32", **arguments):
    """A cell with drawn weights that keep its states within bounds."""
    cell = cell_class(units, dtype=dtype, **arguments)
    cell.build((None, features))
    rng = np.random.default_rng(0)
    cell.set_weights([rng.normal(0, 0.7 / np.sqrt(units), weight.shape) for weight in cell.get_weights()])
    return cell


def drawn_data(cell, batch, timesteps, features=3):
    inputs, states = data(cell, batch, timesteps, features)
    return inputs.astype("float32"), [state.astype("float32") for state in states]


def fused_natively(cell, **options):
    return FusedRNN(cell, engine="native", **options)


def assert_computes_the_same(cell, *args, in_graph=False, **kwargs):
    """Outputs, states and gradients, on the gradients' own scale: a weight's is a sum over all steps.

    In a graph gradients may be computed in place of what they are computed from; eagerly the tape holds it.
    """
    results, gradients = outputs_and_gradients(fused_natively, cell, *args, in_graph=in_graph, **kwargs)
    expected, expected_gradients = outputs_and_gradients(keras.layers.RNN, cell, *args, **kwargs)
    assert_same(results, expected, **TOLERANCE)
    for found, other in zip(gradients, expected_gradients, strict=True):
        assert found.shape == other.shape
        np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-5 * (1 + np.max(np.abs(other))))


# --- what it computes


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("cell_class", "arguments", "options"), CASES)
def test_computes_what_keras_does(cell_class, arguments, options, size):
    units, batch, timesteps, features = size
    cell = make(cell_class, units, features, **arguments)
    inputs, states = drawn_data(cell, batch, timesteps, features)
    mask = some_mask(batch, timesteps) if options.get("mask") else None
    in_graph = size != SIZES[0]
    assert_computes_the_same(cell, inputs, states, in_graph=in_graph, **{**options, "mask": mask})


@pytest.mark.parametrize(
    ("cell_class", "arguments", "masked"),
    [
        (LSTMCell, {"dropout": 0.4, "recurrent_dropout": 0.3, "seed": 3}, True),
        (GRUCell, {"reset_after": False}, False),
        (EveryKindCell, {}, True),
    ],
)
def test_computes_float64_to_its_last_places(cell_class, arguments, masked):
    cell = make(cell_class, 21, dtype="float64", **arguments)
    inputs, states = data(cell, 70, 6, 3)
    both = [
        arrays(outputs_and_gradients(layer, cell, inputs, states, some_mask(70, 6) if masked else None))
        for layer in (fused_natively, keras.layers.RNN)
    ]
    for found, other in zip(*both, strict=True):
        assert found.dtype == other.dtype == "float64"
        np.testing.assert_allclose(found, other, rtol=0, atol=1e-12 * np.max(np.abs(other)))


def test_explains_that_it_runs_float64():
    layer = FusedRNN(make(LSTMCell, dtype="float64"), dtype="float64")
    layer.build((None, None, 3))
    assert layer.explain().startswith("FusedRNN runs the native engine")
    assert layer.why_no_faster() is None


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(draw=st.data())
def test_computes_what_keras_does_whatever_the_shape_and_the_options(draw):
    batch, timesteps, features, units = (draw.draw(st.integers(1, n)) for n in (80, 9, 20, 70))
    cell_class = draw.draw(
        st.sampled_from([LSTMCell, GRUCell, SLSTMCell, cells.PeepholeLSTMCell, cells.CandidateGRUCell])
    )
    rates, options = drawn_options(draw)
    masked = np.random.default_rng(draw.draw(st.integers(0, 99))).uniform(size=(batch, timesteps))
    mask = draw.draw(st.sampled_from([None, masked > 0.5]))
    cell = make(cell_class, units, features, seed=1, **rates)
    inputs, states = drawn_data(cell, batch, timesteps, features)
    states = draw.draw(st.sampled_from([None, states]))
    with pytest.MonkeyPatch.context() as monkeypatch:
        threads = draw.draw(st.sampled_from([1, 2, 5]))
        monkeypatch.setattr(native, "threads", lambda: threads)
        options.update(training=draw.draw(st.booleans()), in_graph=draw.draw(st.booleans()))
        assert_computes_the_same(cell, inputs, states, mask=mask, **options)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_knows_the_activations_of_keras(name):
    cell = make(cells.SimpleRNNCell, activation=name)
    steps = 1 if name == "exponential" else 4  # e to the e to the ... would differ in the first digits
    inputs, states = drawn_data(cell, batch=20, timesteps=steps)
    assert_computes_the_same(cell, 3 * inputs, states)


@pytest.mark.parametrize(("function", "expected"), FUNCTIONS.items())
def test_its_functions_are_exact_to_the_last_bits(function, expected):
    class Function(cells.GatedCell):
        gates = ("a",)
        recurrent = False

        def update(self, gates, states):
            result = getattr(keras.ops, function)(gates[0])
            return result, [result]

    cell = Function(1, use_bias=False, kernel_initializer="ones")
    inputs = np.float32(np.concatenate([np.linspace(-95, 95, 100_000), np.geomspace(1e-30, 1, 1000)]))
    found = fused_natively(cell, return_sequences=True)(inputs[None, :, None]).numpy().ravel()
    with np.errstate(over="ignore"):
        correct = expected(inputs.astype("float64")).astype("float32")
    normal = (correct == 0) | (correct > 1.3e-38) | (correct < 0)
    np.testing.assert_allclose(found[normal], correct[normal], rtol=5e-7)
    assert np.all(np.abs(found[~normal]) <= 1.4e-38), "denormal results may count as 0"


def test_what_is_no_number_stays_in_its_sequence():
    cell = make(LSTMCell, units=20)
    inputs, _ = drawn_data(cell, batch=40, timesteps=4)
    inputs[7, 1, 0], inputs[9, 2, 1], inputs[11, 0, 0] = np.nan, np.inf, -np.inf
    layer = fused_natively(cell, return_sequences=True)
    expected = keras.layers.RNN(cell, return_sequences=True)(inputs)
    found = layer(inputs)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    others = [row for row in range(40) if row not in (7, 9, 11)]
    assert np.isfinite(found.numpy()[others]).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_computes_16_bit_policies_in_float32(policy):
    cell = make(GRUCell, dtype=policy)
    inputs, states = drawn_data(cell, batch=5, timesteps=4)
    exact = make(GRUCell)
    layer = fused_natively(cell, return_sequences=True, dtype=policy)
    found = layer(inputs, initial_state=states)
    assert found.dtype == cell.compute_dtype
    expected = keras.layers.RNN(exact, return_sequences=True)(inputs, initial_state=states)
    assert_same(tf.cast(found, "float32"), expected, atol=3e-2)


def test_no_sequences_give_none():
    layer = fused_natively(make(SLSTMCell), return_sequences=True)
    inputs = tf.zeros([0, 4, 3])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(inputs))
    assert total == 0 and layer(inputs).shape == (0, 4, 8)
    assert all(np.all(gradient == 0) for gradient in tape.gradient(total, layer.trainable_weights))


@pytest.mark.parametrize(("told", "expected"), [("3", 3), ("0", None), ("many", None), (None, None)])
def test_takes_as_many_threads_as_tensorflow_is_told(monkeypatch, told, expected):
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 0)
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", told)
    assert threads() == (expected or usable_cores())
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 2)
    assert threads() == 2


def test_calls_at_the_same_time_do_not_wait_for_each_other_for_ever():
    cell = make(LSTMCell, 150, 6)
    inputs, _ = drawn_data(cell, 3, 30, 6)  # which a team shares, whose members meet at each step
    layer = fused_natively(cell)
    expected, found = layer(inputs).numpy(), []

    def call_often():
        for _ in range(50):
            found.append(layer(inputs).numpy())

    callers = [threading.Thread(target=call_often, daemon=True) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=120)
    assert len(found) == 150
    assert all(np.array_equal(each, expected) for each in found)


# --- where the gradients of weights are summed


def gradients_of(cell, inputs, mask=None, states=None):
    """Those of the inputs, the states and the weights, as a function whose graph can be looked at."""
    layer = fused_natively(cell, return_sequences=True)
    layer.build(inputs.shape)

    @tf.function(autograph=False)
    def gradients(inputs):
        sources = [inputs, *(states or [])]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            total = tf.reduce_sum(tf.sin(layer(inputs, initial_state=states, mask=mask, training=True)))
        return tape.gradient(total, [*sources, *cell.trainable_variables])

    return gradients


@pytest.mark.parametrize(
    ("units", "batch", "in_the_loop"),
    [(16, 256, True), (128, 256, False), (16, 4, False), (16, None, True), (1, 256, True)],
)
@pytest.mark.parametrize("cell_class", [LSTMCell, GRUCell, keras.layers.LSTMCell])
def test_sums_the_gradients_of_few_weights_in_the_loop(cell_class, units, batch, in_the_loop):
    inputs = tf.TensorSpec([batch, 5, 3])
    graph = gradients_of(cell_class(units), inputs).get_concrete_function(inputs).graph
    assert ("MatMul" not in {each.type for each in graph.get_operations()}) == in_the_loop


# a part of a vector and several groups; one sequence; several vectors, of features too; a team's group
SUMMED = [
    (cell_class, "float32", size)
    for size in ((5, 140, 4, 2), (16, 1, 6, 1), (37, 9, 5, 40), (150, 3, 9, 6))
    for cell_class in (LSTMCell, GRUCell, EveryKindCell, cells.IndRNNCell)
]


@pytest.mark.parametrize(
    ("cell_class", "dtype", "size"), [*SUMMED, (EveryKindCell, "float64", (21, 70, 4, 3))]
)
def test_sums_in_the_loop_what_products_after_it_give(cell_class, dtype, size, monkeypatch):
    units, batch, timesteps, features = size
    cell, mask = make(cell_class, units, features, dtype), some_mask(batch, timesteps)
    inputs, states = data(cell, batch, timesteps, features)
    inputs = tf.constant(np.where(mask[:, :, None], inputs, np.nan), dtype)  # which must reach no sum
    states = [tf.constant(state, dtype) for state in states]
    monkeypatch.setattr(native, "MANY_SEQUENCES", 0)
    found = []
    for most in (0, 10**9):
        monkeypatch.setattr(native, "FEW_WEIGHTS", most)
        found.append(arrays(gradients_of(cell, inputs, tf.constant(mask), states)(inputs)))
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    for expected, summed in zip(*found, strict=True):
        scale = 1 + np.max(np.abs(expected))
        np.testing.assert_allclose(summed, expected, rtol=0, atol=tolerance * scale)


def test_a_second_derivative_raises():
    layer = fused_natively(make(SLSTMCell))
    inputs = tf.zeros([1, 2, 3])
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            total = tf.reduce_sum(layer(inputs))
        gradient = inner.gradient(total, inputs)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        outer.gradient(gradient, inputs)


def test_any_length_and_batch_is_one_trace():
    cell = make(GRUCell)
    layer, plain = fused_natively(cell, return_sequences=True), keras.layers.RNN(cell, return_sequences=True)
    function = tf.function(layer, input_signature=[tf.TensorSpec([None, None, 3])])
    for batch, steps in ((2, 3), (40, 5)):
        inputs, _ = drawn_data(cell, batch, steps)
        assert_same(function(inputs), plain(inputs), **TOLERANCE)
    assert function.experimental_get_tracing_count() == 1
    assert function.get_concrete_function().output_shapes.as_list() == [None, None, 8]


# --- where it is used


def engine_of(function, *arguments):
    """The engine in a function's graph."""
    graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    is_native = any(node.op.startswith("FusedRNN>") for node in nodes)
    is_xla = any(node.op in ("While", "StatelessWhile") for node in nodes)
    assert is_native != is_xla
    return "native" if is_native else "xla"


def test_takes_the_first_engine_that_can():
    inputs = tf.zeros([1, 2, 3])
    assert engine_of(FusedRNN(make(LSTMCell)), inputs) == "native"
    assert engine_of(FusedRNN(make(LSTMCell), engine="xla"), inputs) == "xla"
    assert engine_of(FusedRNN(make(GRUCell, reset_after=False)), inputs) == "native"
    assert engine_of(FusedRNN(make(LSTMCell, dtype="float64"), dtype="float64"), inputs) == "native"
    config = FusedRNN(make(LSTMCell), engine="xla").get_config()
    assert FusedRNN.from_config(config).engine == "xla"


def test_is_not_used_under_xla():
    layer = FusedRNN(make(LSTMCell))
    inputs, _ = drawn_data(layer.cell, 2, 3)
    expected = layer(inputs)
    compiled = tf.function(lambda x: tf.function(layer)(x), jit_compile=True)
    assert_same(compiled(inputs), expected, **TOLERANCE)


def test_is_not_saved(tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), FusedRNN(LSTMCell(8)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    inputs = np.ones((8, 4, 3), "float32")
    model.fit(inputs, np.ones((8, 1)), verbose=0)

    class Module(tf.Module):
        def __init__(self):
            self.model = model

        @tf.function
        def call(self, inputs):
            return self.model(inputs)

    module = Module()
    module.call(tf.constant(inputs))  # natively
    model.export(tmp_path / "exported", verbose=False)
    tf.saved_model.save(module, tmp_path / "saved")
    np.save(tmp_path / "inputs.npy", inputs)
    np.save(tmp_path / "expected.npy", model(inputs))
    script = """
import numpy as np, sys, tensorflow as tf
folder = sys.argv[1]
inputs, expected = (np.load(f"{folder}/{name}.npy") for name in ("inputs", "expected"))
exported, saved = (tf.saved_model.load(f"{folder}/{name}") for name in ("exported", "saved"))
for found in (exported.serve(inputs), saved.call(tf.constant(inputs))):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
assert "cells" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, cwd=tmp_path)


def test_an_equation_may_have_constants_of_its_own():
    class HalvedRNNCell(cells.MinimalRNNCell):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.half = tf.constant(0.5)

        def update(self, gates, states):
            h = keras.ops.minimum(self.half * gates[0] - 1e-30, np.inf)
            return h, [h]

    cell = make(HalvedRNNCell)
    assert_computes_the_same(cell, *drawn_data(cell, 3, 2))


def test_a_refusal_names_the_reason():
    with pytest.raises(ValueError, match="no engine 'fast', only auto, native, xla"):
        FusedRNN(LSTMCell(2), engine="fast")
    inputs = tf.zeros([1, 2, 3])
    for dtype in ("float32", "float64"):
        cell = cells.SimpleRNNCell(2, activation=tf.math.lgamma, dtype=dtype)
        with pytest.raises(ValueError, match=r"native engine: .*Lgamma.*xla"):
            FusedRNN(cell, engine="native", dtype=dtype)(inputs)
        assert FusedRNN(cell, dtype=dtype)(inputs).shape == (1, 2)


@pytest.mark.parametrize(("what", "name"), [("features", "kernel"), ("states", "initial_state")])
def test_operands_that_do_not_fit_are_refused_and_named(what, name):
    layer = fused_natively(make(LSTMCell))
    layer.build((None, None, 3))
    sizes = {"features": 3, "states": 4, what: 2}
    unknown = tf.TensorSpec([None, None])
    function = tf.function(lambda inputs, states: layer(inputs, initial_state=states))
    function = function.get_concrete_function(tf.TensorSpec([None, None, None]), [unknown] * 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"operand `{name}` has .* there must be"):
        function(tf.zeros([4, 5, sizes["features"]]), *[tf.zeros([sizes["states"], 8])] * 2)
