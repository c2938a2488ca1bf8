"""`FusedRNN` against `keras.layers.RNN` with the same cell: outputs, states, gradients, and everything that a
layer can be asked for.

Each case compiles a program of its own for about a second: few cases, each with several options at once.
"""

import functools
import re
import subprocess
import sys
import warnings
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cells
from cells import FusedRNN, GatedCell, GRUCell, LSTMCell, PeepholeLSTMCell, SLSTMCell
from cells.engines import stacks, xla
from cells.tests.support import BATCH, FEATURES, TIMESTEPS, UNITS, arrays, assert_same, data, drawn

FLOAT32 = {"rtol": 2e-5, "atol": 2e-6}  # two orders of summation, a few steps of a few units
DROPOUT = {"dropout": 0.4, "recurrent_dropout": 0.3, "seed": 3}


class EveryKindCell(GatedCell):
    """Gates of every kind, a weight that both functions take, and an output that is no state."""

    gates = ("a", "b", "c")
    separate = ("b",)
    late = ("c",)
    states = ("h", "m")
    vectors: ClassVar = {"p": "kernel"}

    def late_input(self, gates, states, p):
        a, (from_x, from_h) = gates
        h, m = states
        return keras.ops.sigmoid(a + p * m) * h + keras.ops.tanh(from_x * from_h)

    def update(self, gates, states, p):
        a, (from_x, from_h), c = gates
        h, m = states
        b = keras.ops.sigmoid(from_x + p * from_h)
        h = b * h + (1 - b) * keras.ops.tanh(c)
        m = keras.ops.tanh(a) * m + keras.ops.tanh(p * c)
        return h * m, [h, m]


class LateCell(GatedCell):
    """No gate but a late one."""

    gates = ("a",)
    states = ("h",)
    late = ("a",)

    def late_input(self, gates, states):
        return keras.ops.tanh(states[0])

    def update(self, gates, states):
        h = keras.ops.tanh(gates[0])
        return h, [h]


# every way in which a cell's gates can be made, with options of the layer that differ from one to the next
CASES: list[tuple[type, dict, dict]] = [
    (cells.MinimalRNNCell, {}, {}),
    (cells.SimpleRNNCell, {"use_bias": False}, {"go_backwards": True}),
    (LSTMCell, {}, {"mask": True}),
    (LSTMCell, DROPOUT, {"go_backwards": True, "mask": True}),
    (LSTMCell, {"dropout": 0.4, "seed": 3}, {"return_sequences": False}),
    (GRUCell, {}, {"mask": True, "zero_output_for_mask": True}),
    (GRUCell, {"use_bias": False}, {"return_sequences": False, "mask": True}),
    (GRUCell, {"reset_after": False}, {"go_backwards": True}),
    (GRUCell, {"reset_after": False, **DROPOUT}, {"mask": True}),
    (GRUCell, DROPOUT, {}),
    (SLSTMCell, {"implementation": 1, "dropout": 0.4, "seed": 3}, {"mask": True}),
    (cells.CandidateGRUCell, {}, {"mask": True, "go_backwards": True}),
    (cells.LearnedStateRNNCell, {}, {"mask": True}),
    (PeepholeLSTMCell, {}, {"mask": True}),
    (cells.JANETCell, {}, {"return_sequences": False, "mask": True, "zero_output_for_mask": True}),
    (cells.MGUCell, {}, {"mask": True}),
    (cells.IndRNNCell, {}, {"go_backwards": True}),
    (LateCell, {"recurrent_dropout": 0.3, "seed": 3}, {}),
    (EveryKindCell, {}, {"mask": True}),
    (EveryKindCell, {"implementation": 1, **DROPOUT}, {"mask": True, "zero_output_for_mask": True}),
    (keras.layers.SimpleRNNCell, {}, {"mask": True}),
    (keras.layers.LSTMCell, {}, {}),
    (keras.layers.GRUCell, DROPOUT, {"go_backwards": True}),
    (keras.layers.GRUCell, {"reset_after": False}, {"mask": True}),
]


# those whose programs differ from one size of the batch to the next
SIZED = [case for case in CASES if case[0] in (LSTMCell, GRUCell, PeepholeLSTMCell, cells.CandidateGRUCell)]
SIZED += [(cells.MinimalRNNCell, {}, {}), (cells.IndRNNCell, {}, {"mask": True})]
# what the engine takes for a small batch, and for few units
SMALL, MANY_UNITS, LARGE = (1000, 1000), (1000, 0), (0, 0)


def take_batches_for(monkeypatch, size):
    for name, value in zip(("SMALL_BATCH", "FEW_UNITS"), size, strict=True):
        monkeypatch.setattr(xla, name, value)


def make(cell_class, dtype="float64", units=UNITS, features=FEATURES, **arguments):
    return drawn(cell_class(units, dtype=dtype, **arguments), features=features)


def outputs_and_gradients(
    layer_class, cell, inputs, states=None, mask=None, training=True, in_graph=False, **options
):
    """Outputs and states, and the gradients of their drawn sum for the weights, inputs and initial states."""
    if getattr(cell, "seed_generator", None) is not None:
        cell.seed_generator.state.assign([7, 0])
    options = {"return_sequences": True, "return_state": True, "dtype": cell.dtype_policy, **options}
    layer = layer_class(cell, **options)
    rng = np.random.default_rng(2)

    def compute(sources):
        with tf.GradientTape() as tape:
            tape.watch(sources)
            results = layer(sources[0], initial_state=sources[1:] or None, mask=mask, training=training)
            flat = [tf.cast(result, "float64") for result in tf.nest.flatten(results)]
            total = sum(tf.reduce_sum(result * rng.normal(size=result.shape)) for result in flat)
        weights = [variable.value for variable in cell.trainable_variables]
        return results, tape.gradient(total, weights + sources, unconnected_gradients="zero")

    sources = [tf.constant(array) for array in (inputs, *(states or ()))]
    return tf.function(compute, autograph=False)(sources) if in_graph else compute(sources)


def assert_computes_the_same(cell, *args, **kwargs):
    tolerance = kwargs.pop("tolerance", {"rtol": 1e-9, "atol": 1e-11})
    expected = outputs_and_gradients(keras.layers.RNN, cell, *args, **kwargs)
    by_xla = functools.partial(FusedRNN, engine="xla")  # `test_native.py` has the other one
    assert_same(outputs_and_gradients(by_xla, cell, *args, **kwargs), expected, **tolerance)


def some_mask(batch, timesteps, seed=5):
    """Steps masked anywhere; the first sequence from its first step, the last all through."""
    mask = np.random.default_rng(seed).uniform(size=(batch, timesteps)) > 0.4
    mask[0, 0], mask[-1] = False, False
    return mask


def drawn_options(draw):
    """(the cell's rates of dropout, options of the layer), drawn by hypothesis."""
    rates = {name: draw.draw(st.sampled_from([0.0, 0.5])) for name in ("dropout", "recurrent_dropout")}
    names = ("return_sequences", "return_state", "go_backwards", "zero_output_for_mask")
    return rates, {name: draw.draw(st.booleans()) for name in names}


# --- what it computes


@pytest.mark.parametrize(("cell_class", "arguments", "options"), CASES)
def test_computes_what_keras_does(cell_class, arguments, options):
    cell = make(cell_class, **arguments)
    inputs, states = data(cell, timesteps=5)
    mask = some_mask(BATCH, 5) if options.get("mask") else None
    assert_computes_the_same(cell, inputs, states, **{**options, "mask": mask})


@pytest.mark.parametrize(("cell_class", "arguments", "options"), SIZED)
@pytest.mark.parametrize("size", [MANY_UNITS, LARGE], ids=["many_units", "large"])
def test_computes_what_keras_does_at_larger_sizes(monkeypatch, size, cell_class, arguments, options):
    take_batches_for(monkeypatch, size)
    test_computes_what_keras_does(cell_class, arguments, options)


# a cell of each kind of gates, and the sizes of the batch and of the units that have programs of their own
INFERRED = [
    *((each, BATCH, SMALL) for each in (LSTMCell, GRUCell, LateCell, EveryKindCell, cells.IndRNNCell)),
    (PeepholeLSTMCell, None, SMALL),
    (EveryKindCell, 1, SMALL),
    (LSTMCell, BATCH, LARGE),
    (EveryKindCell, BATCH, LARGE),
]


@pytest.mark.parametrize(("cell_class", "batch", "size"), INFERRED)
def test_infers_what_keras_does(monkeypatch, cell_class, batch, size):
    take_batches_for(monkeypatch, size)
    cell = make(cell_class)
    inputs, states = data(cell, timesteps=5)
    some = slice(1, 2) if batch == 1 else slice(None)  # the first and the last begin masked
    given = [tf.constant(each[some]) for each in (inputs, some_mask(BATCH, 5), *states)]
    options = {"return_sequences": True, "return_state": True, "dtype": "float64"}
    keras_layer, layer = keras.layers.RNN(cell, **options), FusedRNN(cell, engine="xla", **options)
    expected = keras_layer(given[0], mask=given[1], initial_state=given[2:])

    @tf.function(input_signature=[tf.TensorSpec([batch, *each.shape[1:]], each.dtype) for each in given])
    def infer(inputs, mask, *states):
        return layer(inputs, mask=mask, initial_state=list(states))

    assert_same(infer(*given), expected, rtol=1e-9, atol=1e-11)


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(draw=st.data())
def test_computes_what_keras_does_whatever_the_shape_and_the_options(draw):
    batch, timesteps, features, units = (draw.draw(st.integers(1, n)) for n in (12, 9, 4, 6))
    cell_class = draw.draw(st.sampled_from([LSTMCell, GRUCell, PeepholeLSTMCell, cells.CandidateGRUCell]))
    rates, options = drawn_options(draw)
    mask = draw.draw(
        st.none() | st.lists(st.booleans(), min_size=batch * timesteps, max_size=batch * timesteps)
    )
    cell = make(cell_class, units=units, features=features, seed=1, **rates)
    inputs, states = data(cell, batch, timesteps, features)
    with pytest.MonkeyPatch.context() as monkeypatch:
        take_batches_for(monkeypatch, draw.draw(st.sampled_from([SMALL, MANY_UNITS, LARGE])))
        assert_computes_the_same(
            cell,
            inputs,
            draw.draw(st.sampled_from([None, states])),
            mask=None if mask is None else np.reshape(mask, (batch, timesteps)),
            training=draw.draw(st.booleans()),
            **options,
        )


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_computes_in_every_precision(policy):
    # the default, orthogonal, cannot be drawn in bfloat16
    exact, cell = (
        make(GRUCell, dtype=dtype, recurrent_initializer="uniform") for dtype in ("float64", policy)
    )
    cell.set_weights(exact.get_weights())
    inputs, states = data(exact)
    results, gradients = outputs_and_gradients(FusedRNN, cell, inputs, states)
    assert {result.dtype.name for result in results} == {cell.compute_dtype}
    expected = outputs_and_gradients(keras.layers.RNN, exact, inputs, states)
    # a few roundings of weights, inputs and states, whose sums have a few terms of the order of 1
    tolerance = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}[cell.compute_dtype]
    found = [array.astype("float64") for array in arrays([results, gradients])]
    assert_same(found, expected, atol=tolerance, rtol=tolerance)


def test_a_cell_may_be_more_precise_than_its_layer():
    cell = make(LSTMCell)
    inputs, states = data(cell)
    layers = [layer_class(cell, dtype="float32") for layer_class in (keras.layers.RNN, FusedRNN)]
    expected, found = (layer(inputs, initial_state=states) for layer in layers)
    assert found.dtype == "float32"
    assert_same(found, expected, **FLOAT32)


def test_chunks_of_a_stateful_layer_are_one_sequence():
    cell = make(LSTMCell)
    inputs, _ = data(cell, timesteps=6)
    whole = FusedRNN(cell, return_sequences=True, dtype="float64")(inputs)
    layer = FusedRNN(cell, return_sequences=True, stateful=True, dtype="float64")
    chunks = [layer(inputs[:, start : start + 2]) for start in (0, 2, 4)]
    assert_same(tf.concat(chunks, axis=1), whole)
    layer.reset_state()
    assert_same(layer(inputs[:, :2]), whole[:, :2])


def test_weights_move_between_keras_layers_and_fused_ones():
    inputs = data(make(LSTMCell))[0].astype("float32")
    for built_in, cell_class in (
        (keras.layers.LSTM, keras.layers.LSTMCell),
        (keras.layers.GRU, keras.layers.GRUCell),
    ):
        layer, ours = built_in(UNITS), FusedRNN(cell_class(UNITS))
        expected = layer(inputs)
        ours.build(inputs.shape)
        ours.set_weights(layer.get_weights())
        assert_same(ours(inputs), expected, **FLOAT32)


# --- lengths, programs and what they keep


def test_unknown_lengths_share_a_few_programs():
    cell, options = make(LSTMCell), {"return_sequences": True, "dtype": "float64"}
    layer = FusedRNN(cell, engine="xla", **options)
    plain = keras.layers.RNN(cell, **options)
    inputs, _ = data(cell, timesteps=12)
    unknown = tf.function(layer, input_signature=[tf.TensorSpec([None, None, FEATURES], tf.float64)])
    for steps in (12, 11):
        assert_same(unknown(inputs[:, :steps]), plain(inputs[:, :steps]))
    layer = FusedRNN(cell, engine="xla", **options)
    layer(inputs[:, :3])
    before = layer._equation.recurrence.compiled[0].experimental_get_tracing_count()
    for steps in (9, 10):
        assert_same(layer(inputs[:, :steps]), plain(inputs[:, :steps]))
    assert layer._equation.recurrence.compiled[0].experimental_get_tracing_count() == before + 1


def test_padding_is_little_and_takes_few_lengths():
    def length(steps):
        operands = {"inputs": tf.zeros([1, steps, 1])}
        operands, constants = xla.padded(operands, {"mask": tf.zeros([1, steps], tf.bool)}, known=None)
        assert constants["mask"].shape[1] == operands["inputs"].shape[1]
        assert constants["steps"] == steps
        return operands["inputs"].shape[1]

    lengths = {steps: length(steps) for steps in range(1, 300)}
    assert all(steps <= padded <= 1.25 * steps for steps, padded in lengths.items())
    assert len(set(lengths.values())) <= 30
    known = {"inputs": tf.zeros([1, 9, 1])}
    assert xla.padded(known, {}, known=9) == (known, {})


def test_an_unknown_length_has_its_gradients_and_its_mask():
    cell = make(GRUCell)
    inputs, _ = data(cell, timesteps=9)
    mask = some_mask(BATCH, 9)

    def gradients(layer, signature=None):
        @tf.function(input_signature=signature)
        def function(inputs, mask):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                total = tf.reduce_sum(layer(inputs, mask=mask, training=True) ** 2)
            weights = [variable.value for variable in cell.trainable_variables]
            return tape.gradient(total, [inputs, *weights])

        return function(tf.constant(inputs), tf.constant(mask))

    signature = [tf.TensorSpec([None, None, FEATURES], tf.float64), tf.TensorSpec([None, None], tf.bool)]
    options = {"return_sequences": True, "go_backwards": True, "dtype": "float64"}
    expected = gradients(keras.layers.RNN(cell, **options))
    assert_same(gradients(FusedRNN(cell, **options), signature), expected)


def test_keeps_what_a_gradient_needs_only_where_one_is_likely(monkeypatch):
    cell = make(SLSTMCell)
    inputs, _ = data(cell)
    inputs = tf.constant(inputs)
    kept = []
    run = xla.run
    monkeypatch.setattr(
        xla, "run", lambda *args, save, **kw: kept.append(save) or run(*args, save=save, **kw)
    )
    layer = FusedRNN(cell, dtype="float64")
    layer(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(layer(inputs))
    layer(inputs, training=True)
    assert kept == [False, True, True]

    expected = tape.gradient(total, inputs)
    compiled = tf.function(lambda inputs: tf.reduce_sum(layer(inputs)))
    compiled(inputs)
    with tf.GradientTape() as tape:  # begins after the tracing, so that nothing was kept
        tape.watch(inputs)
        total = compiled(inputs)
    assert kept == [False, True, True, False]
    assert_same(tape.gradient(total, inputs), expected)


def test_slices_at_a_position_known_at_run_time():
    @tf.function(jit_compile=True)
    def moved(stack, step):
        row = stacks.dynamic_slice(stack, tf.stack([step, 1]), [1, 2])
        return stacks.dynamic_update_slice(stack, -row, tf.stack([step - 1, 0]))

    stack = np.arange(9.0).reshape(3, 3)
    stack = moved(tf.constant(stack), tf.constant(2))
    np.testing.assert_array_equal(stack, [[0, 1, 2], [-7, -8, 5], [6, 7, 8]])


def test_a_second_derivative_raises():
    cell = make(SLSTMCell)
    inputs = tf.constant(data(cell)[0])
    layer = FusedRNN(cell, dtype="float64")
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            total = tf.reduce_sum(layer(inputs))
        gradient = inner.gradient(total, inputs)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        outer.gradient(gradient, inputs)


# --- where it is used


def model_of(layer_class, kind="sequential", **input_options):
    """A model with the same weights for every class of layer."""
    inputs = keras.Input((None, FEATURES), **input_options)
    if kind == "bidirectional":
        outputs = keras.layers.Bidirectional(layer_class(GRUCell(UNITS), return_sequences=True))(
            keras.layers.Masking()(inputs)
        )
        model = keras.Model(inputs, keras.layers.Dense(1)(outputs))
    else:
        stack = [
            layer_class(LSTMCell(UNITS), return_sequences=True),
            layer_class(keras.layers.GRUCell(UNITS)),
        ]
        model = keras.Sequential([inputs, *stack, keras.layers.Dense(1)])
    rng = np.random.default_rng(4)
    model.set_weights([rng.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    return model


def batches(timesteps=4):
    """Six sequences with targets; two of them end early."""
    inputs, _ = data(make(LSTMCell), batch=6, timesteps=timesteps)
    inputs[1, 2:] = inputs[4, 1:] = 0
    return inputs.astype("float32"), inputs.sum((1, 2)).astype("float32")[:, None]


@pytest.mark.parametrize("kind", ["sequential", "bidirectional"])
def test_fits_predicts_and_is_saved_in_a_model(kind, tmp_path):
    inputs, targets = batches()
    targets = targets if kind == "sequential" else np.repeat(targets[:, None], 4, axis=1)
    trained = []
    for layer_class in (keras.layers.RNN, FusedRNN):
        model = model_of(layer_class, kind)
        model.compile("sgd", "mse")
        model.fit(tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(3), epochs=2, verbose=0)
        trained.append([model.predict(inputs, batch_size=6, verbose=0), *model.get_weights()])
    assert_same(trained[1], trained[0], **FLOAT32)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(loaded.predict(inputs, batch_size=6, verbose=0), trained[1][0], **FLOAT32)


def test_is_exported_as_a_saved_model_that_takes_any_length(tmp_path):
    model = model_of(FusedRNN)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    for timesteps in (4, 11):
        inputs, _ = batches(timesteps)
        assert_same(exported.serve(inputs), model_of(keras.layers.RNN)(inputs), **FLOAT32)


def test_trains_inside_a_function_compiled_by_xla():
    inputs, targets = batches()

    def gradients(layer_class, **options):
        model = model_of(layer_class)

        @tf.function(**options)
        def function(inputs):
            with tf.GradientTape() as tape:
                total = tf.reduce_mean((model(inputs, training=True) - targets) ** 2)
            return tape.gradient(total, [variable.value for variable in model.trainable_variables])

        return function(tf.constant(inputs))

    assert_same(gradients(FusedRNN, jit_compile=True), gradients(keras.layers.RNN), **FLOAT32)


def test_is_used_in_a_subclassed_model_with_its_states():
    class Model(keras.Model):
        def __init__(self, layer_class):
            super().__init__()
            self.encoder = layer_class(LSTMCell(UNITS, bias_initializer="ones"), return_state=True)
            self.decoder = layer_class(LSTMCell(UNITS, bias_initializer="ones"), return_sequences=True)

        def call(self, inputs):
            _, *states = self.encoder(inputs)
            return self.decoder(inputs, initial_state=states)

    inputs, _ = batches()
    plain, ours = Model(keras.layers.RNN), Model(FusedRNN)
    plain(inputs), ours(inputs)
    ours.set_weights(plain.get_weights())
    assert_same(ours.predict(inputs, verbose=0), plain(inputs), **FLOAT32)


def test_runs_keras_loop_on_another_backend_and_says_so_once(monkeypatch):
    cell = make(LSTMCell)
    inputs, _ = data(cell)
    layers = [FusedRNN(cell, dtype="float64") for _ in range(2)]
    expected = keras.layers.RNN(cell, dtype="float64")(inputs)
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    monkeypatch.setattr(xla, "run", None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for layer in layers:
            np.testing.assert_array_equal(layer(inputs), expected)
    assert ["runs Keras' own loop" in str(warning.message) for warning in said] == [True]


# --- what it refuses


class OwnCall(LSTMCell):
    def call(self, inputs, states, training=False):
        return super().call(inputs, states, training)


class NormalisedCell(GatedCell):
    gates = ("h",)

    def update(self, gates, states):
        h = gates[0] - keras.ops.mean(gates[0], axis=-1, keepdims=True)
        return h, [h]


class GivesAnotherGradientCell(GatedCell):
    """Its states depend on the gates in a way that TensorFlow does not differentiate."""

    gates = ("h",)

    def update(self, gates, states):
        a = keras.ops.sigmoid(gates[0])
        h = tf.math.betainc(a, tf.ones_like(a), tf.fill(tf.shape(a), tf.cast(0.5, a.dtype)))
        return h, [h]


class CountingCell(GatedCell):
    gates = ("h",)

    def update(self, gates, states):
        h = keras.ops.tanh(gates[0]) + 0 * tf.random.uniform([])
        return h, [h]


class OtherWeightsCell(GatedCell):
    gates = ("h",)

    def build(self, input_shape):
        super().build(input_shape)
        self.bias = self.add_weight(name="bias", shape=(1,))

    def update(self, gates, states):
        return gates[0], [gates[0]]


class HiddenWeightCell(GatedCell):
    gates = ("h",)

    def build(self, input_shape):
        super().build(input_shape)
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def update(self, gates, states):
        h = gates[0] * self.scale
        return h, [h]


@pytest.mark.parametrize(
    "make_cell",
    [
        lambda units: keras.layers.StackedRNNCells([LSTMCell(units)]),
        cells.DenseRNNCell,
        OwnCall,
        NormalisedCell,
        HiddenWeightCell,
        GivesAnotherGradientCell,
        OtherWeightsCell,
    ],
    ids=lambda make: make.__name__,
)
def test_an_engine_runs_a_cell_that_is_not_what_its_gates_say(make_cell):
    cell = make_cell(2)
    inputs = np.random.default_rng(0).normal(size=(BATCH, TIMESTEPS, FEATURES)).astype("float32")
    layer = FusedRNN(cell)
    assert_same(layer(inputs), keras.layers.RNN(cell)(inputs), **FLOAT32)
    assert layer.chosen_engine() in ("native", "xla")


@pytest.mark.parametrize(
    ("make_cell", "message"), [(CountingCell, "RandomUniform, which has an effect")], ids=["CountingCell"]
)
def test_runs_keras_loop_for_a_cell_that_no_engine_can_run_and_says_why(make_cell, message):
    cell = make_cell(2)
    inputs = np.ones((BATCH, TIMESTEPS, FEATURES), "float32")
    layer = FusedRNN(cell)
    with pytest.warns(UserWarning, match=rf"(?s)Keras' own loop for {type(cell).__name__}.*{message}"):
        found = layer(inputs)
    np.testing.assert_array_equal(found, keras.layers.RNN(cell)(inputs))
    assert re.search(
        rf"Keras' own loop for {type(cell).__name__}.*\nNo faster one: .*{message}", layer.explain()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FusedRNN(cell)(inputs)  # said once
    for engine in ("native", "xla"):
        with pytest.raises(
            TypeError, match=rf"(?s){type(cell).__name__}.*{message}.*keras.layers.RNN runs it"
        ):
            FusedRNN(cell, engine=engine)(inputs)


def test_explains_which_engine_runs_and_why():
    layer = FusedRNN(LSTMCell(2, recurrent_activation=tf.math.lgamma))
    with pytest.raises(ValueError, match="build or call it first"):
        layer.explain()
    layer.build((BATCH, TIMESTEPS, FEATURES))
    assert layer.explain() == (
        "FusedRNN runs the xla engine for LSTMCell.\n"
        "Before the loop, for all steps at once: the inputs' products.\n"
        "In the loop, at every step: the recurrent products (2 x 8) and the cell's `update`.\n"
        "On a CPU, an inference of three sequences or more does all of it in the loop that it can.\n"
        "No faster one: the native engine cannot: its equation has the operation Lgamma."
    )
    layer.engine = "native"
    assert "with the native engine: its equation has the operation Lgamma" in layer.explain()
    layer.engine = "keras"
    assert layer.explain().startswith("FusedRNN runs Keras' own loop for LSTMCell.")


def test_refuses_to_unroll():
    with pytest.raises(ValueError, match="unroll"):
        FusedRNN(LSTMCell(2), unroll=True)


def test_loads_its_engines_as_it_is_built_and_not_in_a_call():
    script = """
import sys, cells
layer = cells.FusedRNN(cells.SLSTMCell(2))
assert not any(name.startswith("cells.engines.tracing") for name in sys.modules)
layer.build((2, 3, 4))
before = {name for name in sys.modules if name.startswith("cells")}
import tensorflow as tf
layer(tf.zeros([2, 3, 4]))
print(sorted({name for name in sys.modules if name.startswith("cells")} - before))
"""
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    assert said.stdout.strip() == "[]"
