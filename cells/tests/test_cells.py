"""The five textbook cells: against their references, against Keras' own, and wherever Keras takes a cell."""

import inspect
import json
from typing import Any

import keras
import numpy as np
import pytest

from cells import GRUCell, LSTMCell, MinimalRNNCell, SimpleRNNCell, SLSTMCell
from cells.reference import reference_for
from cells.tests.support import (
    FEATURES,
    UNITS,
    arrays,
    assert_gradients,
    assert_same,
    data,
    difference,
    drawn,
    in_rnn,
)

CELLS: list[Any] = [MinimalRNNCell, SimpleRNNCell, LSTMCell, GRUCell, SLSTMCell]
KERAS_CELLS = {
    SimpleRNNCell: keras.layers.SimpleRNNCell,
    LSTMCell: keras.layers.LSTMCell,
    GRUCell: keras.layers.GRUCell,
}
# every equation that the cells have, by class and arguments
EQUATIONS = [
    (MinimalRNNCell, {}),
    (SimpleRNNCell, {}),
    (SimpleRNNCell, {"use_bias": False, "activation": "relu"}),
    (LSTMCell, {}),
    (LSTMCell, {"use_bias": False}),
    (LSTMCell, {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}),
    (GRUCell, {}),
    (GRUCell, {"use_bias": False}),
    (GRUCell, {"reset_after": False}),
    (GRUCell, {"reset_after": False, "use_bias": False}),
    (GRUCell, {"activation": None, "recurrent_activation": "tanh"}),
    (SLSTMCell, {}),
    (SLSTMCell, {"use_bias": False}),
    (SLSTMCell, {"activation": "softplus", "recurrent_activation": "hard_sigmoid"}),
]
KERAS_EQUATIONS = [(cell, arguments) for cell, arguments in EQUATIONS if cell in KERAS_CELLS]


def make(cell_class, dtype="float64", **arguments):
    return drawn(cell_class(UNITS, dtype=dtype, **arguments))


def pair(cell_class, **arguments):
    """Our cell and Keras' with the same drawn weights."""
    return make(cell_class, **arguments), make(KERAS_CELLS[cell_class], **arguments)


def has_argument(cell_class, name):
    return name not in cell_class.without


# --- what they compute


@pytest.mark.parametrize("implementation", [1, 2])
@pytest.mark.parametrize(("cell_class", "arguments"), EQUATIONS)
def test_computes_its_reference_and_its_gradients(cell_class, arguments, implementation):
    cell = make(cell_class, implementation=implementation, **arguments)
    inputs, states = data(cell)
    outputs, final = reference_for(cell)(cell.get_weights(), inputs, states)
    assert_same(in_rnn(cell)(inputs, initial_state=states), [outputs, *final])
    assert_gradients(cell, reference_for(cell))


@pytest.mark.parametrize("implementation", [1, 2])
@pytest.mark.parametrize(("cell_class", "arguments"), KERAS_EQUATIONS)
def test_computes_what_keras_does(cell_class, arguments, implementation):
    if cell_class is not SimpleRNNCell:  # Keras' SimpleRNNCell knows no `implementation`
        arguments = {**arguments, "implementation": implementation}
    ours, theirs = pair(cell_class, **arguments)
    inputs, states = data(ours)
    found = in_rnn(ours)(inputs, initial_state=states)
    assert_same(found, in_rnn(theirs)(inputs, initial_state=states))


@pytest.mark.parametrize("cell_class", KERAS_CELLS)
def test_weights_are_those_of_keras(cell_class):
    ours, theirs = pair(cell_class)
    assert [(w.name, w.shape) for w in ours.weights] == [(w.name, w.shape) for w in theirs.weights]


@pytest.mark.parametrize("unit_forget_bias", [True, False])
def test_unit_forget_bias_starts_where_keras_does(unit_forget_bias):
    arguments = {"unit_forget_bias": unit_forget_bias, "bias_initializer": keras.initializers.Constant(0.5)}
    ours, theirs = LSTMCell(UNITS, **arguments), keras.layers.LSTMCell(UNITS, **arguments)
    for cell in (ours, theirs):
        cell.build((None, FEATURES))
    forget = ours.bias.numpy()[UNITS : 2 * UNITS]
    assert_same(ours.bias, theirs.bias)
    assert np.all(forget == (1 if unit_forget_bias else 0.5))


@pytest.mark.parametrize("cell_class", CELLS)
def test_starts_from_zeros(cell_class):
    cell = make(cell_class)
    inputs, states = data(cell)
    zeros = [np.zeros_like(state) for state in states]
    assert_same(in_rnn(cell)(inputs), in_rnn(cell)(inputs, initial_state=zeros), rtol=0)


# --- dropout


DROPOUTS = [
    {"dropout": 0.4, "implementation": 2},
    {"dropout": 0.4, "implementation": 1},
    {"recurrent_dropout": 0.3},
    {"dropout": 0.4, "recurrent_dropout": 0.3},
]


@pytest.mark.parametrize("rates", DROPOUTS)
@pytest.mark.parametrize(
    ("cell_class", "arguments"),
    [(SimpleRNNCell, {}), (LSTMCell, {}), (GRUCell, {}), (GRUCell, {"reset_after": False})],
)
def test_drops_what_keras_drops(cell_class, arguments, rates):
    if cell_class is SimpleRNNCell:
        rates = {name: rate for name, rate in rates.items() if name != "implementation"}
    ours, theirs = pair(cell_class, seed=7, **arguments, **rates)
    inputs, _ = data(ours, batch=8)
    layers = in_rnn(ours), in_rnn(theirs)
    first, second = ([layer(inputs, training=True) for layer in layers] for _ in range(2))
    assert_same(*first)
    assert_same(*second)
    assert difference(first[0], second[0]) > 0.01  # a mask a call


@pytest.mark.parametrize("rates", DROPOUTS)
@pytest.mark.parametrize("cell_class", CELLS)
def test_drops_only_in_training(cell_class, rates):
    dropping, plain = make(cell_class, seed=7, **rates), make(cell_class)
    inputs, _ = data(plain)
    expected = in_rnn(plain)(inputs)
    assert_same(in_rnn(dropping)(inputs), expected)
    assert difference(in_rnn(dropping)(inputs, training=True), expected) > 0.01


@pytest.mark.parametrize("cell_class", CELLS)
def test_dropout_mask_is_the_same_at_every_step(cell_class):
    """Inputs dropped at every step leave what a cell without those rows of its kernel gives."""
    features = 12
    dropping = drawn(cell_class(UNITS, dropout=0.5, seed=1, dtype="float64"), features)
    plain = drawn(cell_class(UNITS, dtype="float64"), features)
    inputs, _ = data(plain, batch=1, features=features)
    found = arrays(in_rnn(dropping)(inputs, training=True))[0]
    mask = keras.random.dropout(np.ones((1, features)), 0.5, seed=keras.random.SeedGenerator(1))
    assert_same(found, arrays(in_rnn(plain)(inputs * arrays(mask)[0]))[0])


# --- configuration


def all_arguments(cell_class):
    """A value that is not the default for every argument of the cell."""
    values = {
        "units": UNITS,
        "activation": "softsign",
        "recurrent_activation": "hard_sigmoid",
        "use_bias": True,
        "kernel_initializer": keras.initializers.HeNormal(seed=3),
        "recurrent_initializer": "glorot_normal",
        "bias_initializer": "ones",
        "kernel_regularizer": keras.regularizers.L2(0.1),
        "recurrent_regularizer": "l1",
        "bias_regularizer": "l2",
        "kernel_constraint": keras.constraints.MaxNorm(2.0),
        "recurrent_constraint": "non_neg",
        "bias_constraint": "unit_norm",
        "dropout": 0.1,
        "recurrent_dropout": 0.2,
        "implementation": 1,
        "seed": 5,
        "unit_forget_bias": False,
        "reset_after": False,
    }
    own = inspect.signature(cell_class.__init__).parameters
    special = {"unit_forget_bias", "reset_after"} - set(own)
    return {name: value for name, value in values.items() if name not in {*special, *cell_class.without}}


@pytest.mark.parametrize("cell_class", CELLS)
def test_config_makes_an_equal_cell(cell_class):
    arguments = all_arguments(cell_class)
    cell = cell_class(**arguments, name="it", dtype="float64")
    config = json.loads(json.dumps(cell.get_config()))
    again = cell_class.from_config(config)
    assert set(arguments) <= set(config)
    assert not set(config) & set(cell_class.without)
    assert again.get_config() == cell.get_config()
    for name in arguments:
        one, other = getattr(again, name), getattr(cell, name)
        assert one == other or type(one) is type(other), name
    inputs, _ = data(cell)
    assert_same(in_rnn(drawn(again))(inputs), in_rnn(drawn(cell))(inputs), rtol=0)


@pytest.mark.parametrize("cell_class", CELLS)
def test_default_config_round_trip(cell_class):
    cell = cell_class(UNITS)
    assert cell_class.from_config(cell.get_config()).get_config() == cell.get_config()


@pytest.mark.parametrize("cell_class", CELLS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0}, "units must be a positive integer, not 0"),
        ({"units": -3}, "units must be a positive integer, not -3"),
        ({"units": 2.5}, "units must be a positive integer, not 2.5"),
        ({"units": True}, "units must be a positive integer, not True"),
        ({"units": "8"}, "units must be a positive integer, not '8'"),
        ({"implementation": 3}, "implementation must be 1 or 2, not 3"),
        ({"dropout": -0.1}, "dropout must be between 0 and 1, not -0.1"),
        ({"recurrent_dropout": 1.5}, "recurrent_dropout must be between 0 and 1, not 1.5"),
    ],
)
def test_refuses_a_bad_argument(cell_class, arguments, message):
    with pytest.raises(ValueError, match=f"{cell_class.__name__}.*{message}"):
        cell_class(**{"units": UNITS, **arguments})


@pytest.mark.parametrize(
    ("cell_class", "name"), [(cell_class, name) for cell_class in CELLS for name in cell_class.without]
)
def test_refuses_an_argument_its_equation_lacks(cell_class, name):
    with pytest.raises(TypeError, match=f"{cell_class.__name__}.*{name}"):
        cell_class(UNITS, **{name: None})


@pytest.mark.parametrize("cell_class", CELLS)
def test_refuses_an_unknown_argument(cell_class):
    with pytest.raises((TypeError, ValueError), match="unknown_argument"):
        cell_class(UNITS, unknown_argument=1)


# --- dtype policies


@pytest.mark.parametrize(
    ("policy", "compute", "variable", "tolerance"),
    [
        ("float64", "float64", "float64", 1e-12),
        ("float32", "float32", "float32", 1e-4),
        ("mixed_float16", "float16", "float32", 0.03),
        ("mixed_bfloat16", "bfloat16", "float32", 0.2),
    ],
)
@pytest.mark.parametrize("cell_class", CELLS)
def test_honours_the_dtype_policy(cell_class, policy, compute, variable, tolerance):
    cell = make(cell_class, dtype=policy)
    exact = make(cell_class)
    inputs, _ = data(exact)
    results = in_rnn(cell)(inputs)
    assert {keras.backend.standardize_dtype(result.dtype) for result in results} == {compute}
    assert {keras.backend.standardize_dtype(state.dtype) for state in cell.get_initial_state(2)} == {compute}
    assert {weight.dtype for weight in cell.weights} == {variable}
    wide = [keras.ops.cast(result, "float64") for result in results]
    assert_same(wide, in_rnn(exact)(inputs), rtol=tolerance, atol=tolerance)


# --- wherever Keras takes a cell


@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("cell_class", CELLS)
def test_alone_in_a_layer(cell_class, unroll):
    cell = make(cell_class)
    inputs, _ = data(cell)
    every = in_rnn(cell)(inputs)
    last = keras.layers.RNN(cell, unroll=unroll, dtype="float64")(inputs)
    assert_same(last, every[0][:, -1])


@pytest.mark.parametrize("upper", CELLS)
def test_stacked(upper):
    """Two cells in one layer are two layers, whatever the second one's states."""
    cells = [make(LSTMCell), drawn(upper(3, dtype="float64"), UNITS)]
    inputs, _ = data(cells[0])
    stack = keras.layers.StackedRNNCells(cells, dtype="float64")
    outputs, lower_states, upper_states = in_rnn(stack)(inputs)
    between, *expected_lower = in_rnn(cells[0])(inputs)
    expected, *expected_upper = in_rnn(cells[1])(between)
    assert_same([outputs, lower_states, upper_states], [expected, expected_lower, expected_upper])


@pytest.mark.parametrize("cell_class", CELLS)
def test_bidirectional(cell_class):
    layer = keras.layers.Bidirectional(
        keras.layers.RNN(cell_class(UNITS, dtype="float64"), return_sequences=True, dtype="float64"),
        dtype="float64",
    )
    cell = make(cell_class)
    inputs, _ = data(cell)
    layer.build(inputs.shape)
    drawn(layer.forward_layer.cell)
    drawn(layer.backward_layer.cell, seed=9)
    forward = in_rnn(cell)(inputs)[0]
    backward = in_rnn(drawn(cell, seed=9))(inputs[:, ::-1])[0][:, ::-1]
    assert_same(layer(inputs), np.concatenate(arrays([forward, backward]), axis=-1))


def test_sequential_model_trains():
    """All of them, one upon another; unrolled, because compiling the gradient of a loop takes seconds."""
    options = {"return_sequences": True, "unroll": True}
    model = keras.Sequential([keras.layers.RNN(cell_class(UNITS), **options) for cell_class in CELLS])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(16, 2, FEATURES)), rng.normal(size=(16, 2, UNITS))
    losses = model.fit(inputs, targets, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("cell_class", CELLS)
def test_functional_model_saves_and_loads(cell_class, tmp_path):
    """Alone, stacked and in `Bidirectional`, in one model of unknown length."""
    sequences = keras.Input((None, FEATURES))
    alone = keras.layers.RNN(drawn(cell_class(UNITS)), return_sequences=True)
    both = keras.layers.Bidirectional(keras.layers.RNN(cell_class(3), return_sequences=True))
    stack = keras.layers.RNN([cell_class(UNITS), cell_class(3)], return_state=True)
    model = keras.Model(sequences, stack(both(alone(sequences))))
    inputs = np.random.default_rng(0).normal(size=(2, 3, FEATURES)).astype("float32")
    expected = model(inputs)
    assert_same(alone(inputs), in_rnn(drawn(cell_class(UNITS)))(inputs)[0], rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(loaded(inputs), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell_class", CELLS)
def test_regularizers_reach_the_weights(cell_class):
    rates = {"kernel": 0.1, "recurrent": 0.01, "bias": 0.001}
    if not has_argument(cell_class, "bias_regularizer"):
        del rates["bias"]
    cell = make(cell_class, **{f"{k}_regularizer": keras.regularizers.L2(r) for k, r in rates.items()})
    layer = in_rnn(cell)
    layer.build((None, None, FEATURES))
    weights = cell.get_weights()
    expected = sum(rate * np.sum(w**2) for rate, w in zip(rates.values(), weights, strict=True))
    np.testing.assert_allclose(sum(float(loss) for loss in layer.losses), expected, rtol=1e-6)


@pytest.mark.parametrize("cell_class", CELLS)
def test_constraints_reach_the_weights(cell_class):
    kinds = ["kernel", "recurrent", *(["bias"] if has_argument(cell_class, "bias_constraint") else [])]
    cell = drawn(cell_class(UNITS, **{f"{kind}_constraint": "non_neg" for kind in kinds}))
    assert all(weight.min() < 0 for weight in cell.get_weights())
    keras.optimizers.SGD(0.0).apply([weight * 0 for weight in cell.weights], cell.trainable_variables)
    assert all(weight.min() == 0 for weight in cell.get_weights())
