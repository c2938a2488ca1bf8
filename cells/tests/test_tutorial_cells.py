"""The tutorials' cells: each against its reference, and what is special about it."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from cells import (
    CandidateGRUCell,
    ChosenStateRNNCell,
    DenseRNNCell,
    GRUCell,
    HardSigmoidLSTMCell,
    HistoricalHardSigmoidLSTMCell,
    LearnedStateRNNCell,
    LSTMCell,
    MatrixMemoryCell,
    SimpleRNNCell,
    historical_hard_sigmoid,
)
from cells.fused_rnn import RNN
from cells.reference import reference_for
from cells.tests.support import (
    BATCH,
    FEATURES,
    TIMESTEPS,
    UNITS,
    arrays,
    assert_gradients,
    assert_same,
    complex_step,
    data,
    difference,
    drawn,
    in_rnn,
)

CELLS = [
    (CandidateGRUCell, {}),
    (CandidateGRUCell, {"implementation": 1, "activation": "softsign"}),
    (HardSigmoidLSTMCell, {}),
    (HistoricalHardSigmoidLSTMCell, {}),
    (HistoricalHardSigmoidLSTMCell, {"use_bias": False}),
    (DenseRNNCell, {}),
    (DenseRNNCell, {"use_bias": False, "activation": "relu"}),
    (ChosenStateRNNCell, {"initial_value": -2.5}),
    (LearnedStateRNNCell, {}),
    (LearnedStateRNNCell, {"use_bias": False, "initial_state_initializer": "ones"}),
    (MatrixMemoryCell, {}),
    (MatrixMemoryCell, {"keys": 3, "use_bias": False, "kernel_initializer": "he_normal"}),
]
CLASSES = list(dict(CELLS))


def make(cell_class, dtype="float64", **arguments):
    return drawn(cell_class(UNITS, dtype=dtype, **arguments))


# --- what all have in common


@pytest.mark.parametrize(("cell_class", "arguments"), CELLS)
def test_computes_its_reference_and_its_gradients(cell_class, arguments):
    cell = make(cell_class, **arguments)
    inputs, states = data(cell)
    outputs, final = reference_for(cell)(cell.get_weights(), inputs, states)
    assert_same(in_rnn(cell)(inputs, initial_state=states), [outputs, *final])
    assert_gradients(cell, reference_for(cell))


@pytest.mark.parametrize(("cell_class", "arguments"), CELLS)
def test_config_makes_an_equal_cell(cell_class, arguments):
    cell = cell_class(UNITS, dtype="float64", **arguments)
    config = json.loads(json.dumps(cell.get_config()))
    assert {"units", *arguments} <= set(config)
    again = cell_class.from_config(config)
    assert again.get_config() == cell.get_config()
    inputs, states = data(drawn(cell))
    results = [in_rnn(made)(inputs, initial_state=states) for made in (drawn(again), cell)]
    assert_same(*results, rtol=0)


@pytest.mark.parametrize("cell_class", CLASSES)
def test_functional_model_saves_and_loads(cell_class, tmp_path):
    sequences = keras.Input((None, FEATURES))
    both = keras.layers.Bidirectional(keras.layers.RNN(cell_class(3), return_sequences=True))
    stack = keras.layers.RNN([cell_class(UNITS), cell_class(3)])
    model = keras.Model(sequences, stack(both(sequences)))
    for layer in (both.forward_layer, both.backward_layer, *stack.cell.cells):
        drawn(getattr(layer, "cell", layer))
    inputs = np.random.default_rng(0).normal(size=(2, 3, FEATURES)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(loaded(inputs), model(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("policy", "compute", "variable", "tolerance"),
    [("mixed_float16", "float16", "float32", 0.03), ("mixed_bfloat16", "bfloat16", "float32", 0.2)],
)
@pytest.mark.parametrize("cell_class", CLASSES)
def test_honours_the_dtype_policy(cell_class, policy, compute, variable, tolerance):
    cell, exact = make(cell_class, dtype=policy), make(cell_class)
    inputs, _ = data(exact)
    results = in_rnn(cell)(inputs)
    started = cell.get_initial_state(2)
    assert {keras.backend.standardize_dtype(array.dtype) for array in (*results, *started)} == {compute}
    assert {weight.dtype for weight in cell.weights} == {variable}
    wide = [keras.ops.cast(result, "float64") for result in results]
    assert_same(wide, in_rnn(exact)(inputs), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("cell_class", [MatrixMemoryCell, DenseRNNCell, ChosenStateRNNCell])
@pytest.mark.parametrize("units", [0, -1, 2.5])
def test_refuses_bad_units(cell_class, units):
    with pytest.raises(ValueError, match=r"units.*positive integer"):
        cell_class(units)


# --- the GRU of the character model


def test_candidate_gru_outputs_the_candidate_and_keeps_the_state():
    cell = make(CandidateGRUCell)
    inputs, (c,) = data(cell, timesteps=1)
    output, state = arrays(in_rnn(cell)(inputs, initial_state=[c]))
    h = output[:, 0]
    u = (state - h) / (c - h)  # c' = u c + (1 - u) h
    kernel, recurrent = cell.get_weights()
    sums = inputs[:, 0] @ kernel[:, UNITS : 2 * UNITS] + c @ recurrent[:, UNITS : 2 * UNITS]
    assert_same(u, 1 / (1 + np.exp(-sums)), rtol=1e-9)


def test_candidate_gru_is_keras_gru_but_for_its_output():
    """The states are those of Keras' GRU with `reset_after=False`, the blocks r, u, h put as u, r, h."""
    ours = make(CandidateGRUCell)
    theirs = keras.layers.GRUCell(UNITS, reset_after=False, use_bias=False, dtype="float64")
    inputs, states = data(ours)
    theirs.build((None, FEATURES))
    r_u_h = [np.split(weight, 3, axis=1) for weight in ours.get_weights()]
    theirs.set_weights([np.concatenate([u, r, h], axis=1) for r, u, h in r_u_h])
    (ours_outputs, ours_state), (theirs_outputs, theirs_state) = (
        in_rnn(cell)(inputs, initial_state=states) for cell in (ours, theirs)
    )
    assert_same(ours_state, theirs_state)
    assert difference(ours_outputs, theirs_outputs) > 0.01


@pytest.mark.parametrize("name", CandidateGRUCell.without)
def test_candidate_gru_has_no_biases(name):
    with pytest.raises(TypeError, match=name):
        CandidateGRUCell(UNITS, **{name: None})
    assert len(make(CandidateGRUCell).weights) == 2


# --- the two hard sigmoids


def test_historical_hard_sigmoid_is_the_line_of_its_time():
    x = np.array([-9, -2.5, -1, 0, 1, 2.5, 9])
    assert_same(historical_hard_sigmoid(x), np.array([0, 0, 0.3, 0.5, 0.7, 1, 1]), atol=1e-15)


def test_hard_sigmoids_differ_most_at_two_and_a_half():
    x = np.linspace(-5, 5, 1001)
    apart = np.abs(historical_hard_sigmoid(x) - keras.activations.hard_sigmoid(x))
    assert abs(x[np.argmax(apart)]) == 2.5
    np.testing.assert_allclose(apart.max(), 0.5 / 6)


@pytest.mark.parametrize(
    ("cell_class", "function"),
    [
        (HardSigmoidLSTMCell, keras.activations.hard_sigmoid),
        (HistoricalHardSigmoidLSTMCell, historical_hard_sigmoid),
    ],
)
def test_hard_lstms_are_lstms_with_that_function(cell_class, function):
    cell, plain = make(cell_class), make(LSTMCell, recurrent_activation=function)
    inputs, _ = data(cell)
    assert_same(in_rnn(cell)(inputs), in_rnn(plain)(inputs), rtol=0)


def test_hard_lstms_are_not_one_another():
    today, historical = make(HardSigmoidLSTMCell), make(HistoricalHardSigmoidLSTMCell)
    inputs, _ = data(today)
    assert difference(in_rnn(today)(inputs), in_rnn(historical)(inputs)) > 0.01


@pytest.mark.parametrize("cell_class", [LSTMCell, GRUCell, keras.layers.LSTMCell])
def test_any_cell_takes_the_historical_function_and_has_a_reference(cell_class):
    cell = make(cell_class, recurrent_activation=historical_hard_sigmoid)
    again = cell_class.from_config(cell.get_config())
    assert again.recurrent_activation is historical_hard_sigmoid
    inputs, states = data(cell)
    outputs, final = reference_for(cell)(cell.get_weights(), inputs, states)
    assert_same(in_rnn(cell)(inputs, initial_state=states), [outputs, *final])


# --- a cell over a dense layer


def test_dense_cell_is_the_simple_rnn():
    dense, simple = make(DenseRNNCell), make(SimpleRNNCell)
    kernel, recurrent, bias = simple.get_weights()
    dense.set_weights([np.concatenate([kernel, recurrent]), bias])
    inputs, states = data(simple)
    assert_same(*(in_rnn(cell)(inputs, initial_state=states) for cell in (dense, simple)))


def test_dense_cell_has_its_weights_before_its_first_call():
    layer = keras.layers.RNN(DenseRNNCell(UNITS))
    layer.build((None, None, FEATURES))
    assert [weight.shape for weight in layer.trainable_weights] == [(FEATURES + UNITS, UNITS), (UNITS,)]


def test_dense_cell_trains_in_a_model():
    model = keras.Sequential([keras.layers.RNN(DenseRNNCell(UNITS)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    inputs = np.random.default_rng(0).normal(size=(16, 2, FEATURES)).astype("float32")
    losses = model.fit(inputs, inputs.sum(axis=(1, 2)), epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert len(model.trainable_weights) == 4


# --- initial states


def running_sum(cell):
    """A cell of one unit with W = U = 1 and b = 0, whatever other weights it has."""
    cell.build((None, 1))
    ones = [np.ones((1, 1)), np.ones((1, 1)), np.zeros(1)]
    cell.set_weights([*ones, *cell.get_weights()[3:]])
    return cell


@pytest.mark.parametrize("start", [1.0, -2.5])
def test_chosen_state_is_where_the_sum_starts(start):
    cell = running_sum(ChosenStateRNNCell(1, initial_value=start, activation=None))
    inputs = np.full((BATCH, TIMESTEPS, 1), 0.5, "float32")
    found = arrays(in_rnn(cell, RNN)(inputs))[0]
    np.testing.assert_allclose(found[..., 0], np.tile(start + 0.5 * np.arange(1, TIMESTEPS + 1), (BATCH, 1)))


@pytest.mark.parametrize(
    ("cell_class", "start"),
    [(ChosenStateRNNCell, {}), (LearnedStateRNNCell, {"initial_state_initializer": "ones"})],
)
def test_stateful_layer_starts_there_goes_on_and_comes_back(cell_class, start):
    cell = running_sum(cell_class(1, activation=None, **start))
    layer = RNN(cell, stateful=True)
    inputs = np.full((BATCH, TIMESTEPS, 1), 0.5, "float32")
    step = 0.5 * TIMESTEPS
    results = [arrays(layer(inputs))[0][0, 0] for _ in range(2)]
    layer.reset_state()
    results.append(arrays(layer(inputs))[0][0, 0])
    assert results == [1 + step, 1 + 2 * step, 1 + step]


@pytest.mark.parametrize("layer_class", [keras.layers.RNN, RNN])
def test_learned_state_gets_its_exact_gradient(layer_class):
    cell = make(LearnedStateRNNCell)
    layer = in_rnn(cell, layer_class)
    inputs, _ = data(cell)
    *weights, h_0 = cell.get_weights()
    direction = np.random.default_rng(5).normal(size=h_0.shape)

    @tf.function(autograph=False)
    def gradient(sequences):
        with tf.GradientTape() as tape:
            outputs, state = layer(sequences)
            total = tf.reduce_sum(tf.square(outputs)) + tf.reduce_sum(state)
        return tape.gradient(total, cell.initial_state.value)

    def total(moved):
        outputs, (state,) = reference_for(cell)([*weights, moved], inputs, None)
        return np.sum(outputs**2) + np.sum(state)

    found = arrays(gradient(tf.constant(inputs)))[0]
    assert np.all(found != 0)
    np.testing.assert_allclose(found @ direction, complex_step(total, [h_0], [direction]), rtol=1e-10)


def test_learned_state_moves_in_training():
    model = keras.Sequential([RNN(LearnedStateRNNCell(UNITS)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    inputs = np.zeros((4, 2, FEATURES), "float32")
    model.fit(inputs, np.ones((4, 1)), verbose=0)
    assert np.all(model.layers[0].cell.initial_state.numpy() != 0)


def test_learned_state_of_a_stateful_layer_is_a_copy():
    """It gets no gradient, and a new value counts from the next `reset_state` on."""
    cell = running_sum(LearnedStateRNNCell(1, activation=None))
    layer = RNN(cell, stateful=True)
    inputs = np.zeros((BATCH, 1, 1), "float32")
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(inputs))
    assert tape.gradient(total, cell.initial_state.value) is None
    cell.initial_state.assign([7.0])
    assert np.all(arrays(layer(inputs))[0] == 0)
    layer.reset_state()
    assert np.all(arrays(layer(inputs))[0] == 7)


def test_learned_state_needs_its_weights():
    with pytest.raises(ValueError, match="build the cell first"):
        LearnedStateRNNCell(UNITS).get_initial_state(2)


# --- the matrix memory


KEYS = 3


def memory_cell():
    return make(MatrixMemoryCell, keys=KEYS)


def test_memory_shapes_in_eager():
    cell = memory_cell()
    outputs, memory = in_rnn(cell)(data(cell)[0])
    assert outputs.shape == (BATCH, TIMESTEPS, UNITS)
    assert memory.shape == (BATCH, KEYS, UNITS)
    assert cell.get_initial_state(7)[0].shape == (7, KEYS, UNITS)


def test_memory_shapes_in_a_functional_model():
    cell = memory_cell()
    sequences = keras.Input((None, FEATURES), dtype="float64")
    outputs, memory = in_rnn(cell, RNN)(sequences)
    assert outputs.shape == (None, None, UNITS)
    assert memory.shape == (None, KEYS, UNITS)
    summed = keras.layers.Flatten(dtype="float64")(memory)  # needs the shape to be right
    model = keras.Model(sequences, [outputs, memory, summed])
    inputs, _ = data(cell)
    expected = arrays(in_rnn(cell)(inputs))
    assert_same(model(inputs), [*expected, expected[1].reshape(BATCH, -1)])


def test_memory_of_a_stateful_layer():
    cell = memory_cell()
    layer = RNN(cell, return_sequences=True, stateful=True, dtype="float64")
    inputs, _ = data(cell, timesteps=4)
    whole, memory = arrays(in_rnn(cell)(inputs))
    halves = [arrays(layer(inputs[:, part]))[0] for part in (slice(0, 2), slice(2, 4))]
    assert_same(np.concatenate(halves, axis=1), whole)
    assert_same(layer.states, memory)
    layer.reset_state()
    assert_same(layer(inputs), whole)


@pytest.mark.parametrize("unroll", [True, False])
def test_memory_with_a_mask(unroll):
    cell = memory_cell()
    inputs, _ = data(cell)
    mask = np.array([[True, True, True], [True, True, False], [False, True, True]])
    outputs, memory = arrays(in_rnn(cell, unroll=unroll)(inputs, mask=tf.constant(mask)))
    for row, kept in enumerate(mask):
        expected, state = arrays(in_rnn(cell)(inputs[row : row + 1, kept]))
        assert_same([outputs[row, kept], memory[row]], [expected[0], state[0]])


def test_memory_between_other_cells():
    stack = keras.layers.StackedRNNCells([LSTMCell(4), MatrixMemoryCell(UNITS, keys=KEYS), GRUCell(2)])
    outputs, *states = in_rnn(stack, RNN)(np.zeros((BATCH, TIMESTEPS, FEATURES), "float32"))
    shapes = [array.shape for array in arrays([outputs, states])]
    assert shapes == [(BATCH, TIMESTEPS, 2), (BATCH, 4), (BATCH, 4), (BATCH, KEYS, UNITS), (BATCH, 2)]


def test_memory_holds_what_was_written_and_gives_it_back():
    """With the gates open, a query by a written key reads its value, scaled by |k|² / √keys."""
    cell = MatrixMemoryCell(2, keys=2, dtype="float64")
    cell.build((None, 6))
    kernel = np.zeros((6, 10))
    kernel[:, :6] = np.eye(6)  # q, k, v are the inputs
    bias = np.array([0] * 6 + [50] * 4)  # o = i = f = 1
    cell.set_weights([kernel, bias])
    writes = [[0, 0, 1, 0, 3, 4], [0, 0, 0, 1, 5, 6]]
    reads = [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]]
    outputs = in_rnn(cell)(np.array([writes + reads], "float64"))[0]
    assert_same(outputs[0, 2:], np.array([[3, 4], [5, 6]]) / np.sqrt(2))


@pytest.mark.parametrize("keys", [0, -2, 1.5, "2"])
def test_memory_refuses_bad_keys(keys):
    with pytest.raises((ValueError, TypeError), match="keys"):
        MatrixMemoryCell(UNITS, keys=keys)
