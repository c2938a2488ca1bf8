"""The cells in plain Keras: each against its reference, and against what else says what it must compute."""

import json

import numpy as np
import pytest

from cells import (
    AntisymmetricRNNCell,
    CfCCell,
    CIFGLSTMCell,
    DeltaNetCell,
    LayerNormGRUCell,
    LMUCell,
    LSTMCell,
    MatrixLSTMCell,
    MinGRUCell,
    MultiplicativeLSTMCell,
    ProjectedLSTMCell,
    RHNCell,
    SRUCell,
)
from cells.reference import reference_for
from cells.tests.support import UNITS, arrays, assert_gradients, assert_same, data, drawn, in_rnn

CELLS = [
    (MinGRUCell, {}),
    (SRUCell, {}),
    (CIFGLSTMCell, {}),
    (AntisymmetricRNNCell, {}),
    (AntisymmetricRNNCell, {"step_size": 0.5, "diffusion": 0.3}),
    (LayerNormGRUCell, {}),
    (ProjectedLSTMCell, {}),
    (ProjectedLSTMCell, {"memory": 7}),
    (MultiplicativeLSTMCell, {}),
    (RHNCell, {}),
    (RHNCell, {"depth": 3}),
    (CfCCell, {}),
    (CfCCell, {"backbone": 7, "elapsed": 0.25}),
    (LMUCell, {}),
    (LMUCell, {"order": 4, "theta": 9.5}),
    (DeltaNetCell, {}),
    (DeltaNetCell, {"keys": 3}),
    (MatrixLSTMCell, {}),
    (MatrixLSTMCell, {"keys": 3}),
]


def make(cell_class, units=UNITS, **arguments):
    return drawn(cell_class(units, dtype="float64", **arguments))


@pytest.mark.parametrize(("cell_class", "arguments"), CELLS)
def test_computes_its_reference_and_its_gradients(cell_class, arguments):
    cell = make(cell_class, **arguments)
    inputs, states = data(cell)
    outputs, final = reference_for(cell)(cell.get_weights(), inputs, states)
    assert_same(in_rnn(cell)(inputs, initial_state=states), [outputs, *final])
    assert_gradients(cell, reference_for(cell))


@pytest.mark.parametrize(("cell_class", "arguments"), CELLS)
def test_config_makes_an_equal_cell(cell_class, arguments):
    cell = cell_class(UNITS, **arguments)
    config = json.loads(json.dumps(cell.get_config()))
    assert arguments.items() <= config.items()
    again = cell_class.from_config(config)
    assert again.get_config() == cell.get_config()
    for made in (cell, again):
        made.build((None, 2))
    assert [weight.shape for weight in again.weights] == [weight.shape for weight in cell.weights]


@pytest.mark.parametrize(
    ("cell_class", "name"),
    [
        *((cell_class, "units") for cell_class in dict(CELLS)),
        *((ProjectedLSTMCell, "memory"), (RHNCell, "depth"), (CfCCell, "backbone"), (LMUCell, "order")),
        *((DeltaNetCell, "keys"), (MatrixLSTMCell, "keys")),
    ],
)
@pytest.mark.parametrize("value", [0, 2.5])
def test_refuses_a_size_that_is_no_positive_integer(cell_class, name, value):
    message = f"{cell_class.__name__}: {name} must be a positive integer, not {value}"
    with pytest.raises(ValueError, match=message):
        cell_class(**{"units": UNITS, name: value})


# --- against what else says what they must compute


def results(cell, inputs, states):
    return arrays(in_rnn(cell)(inputs, initial_state=states))


def test_coupled_gates_are_an_lstm_whose_input_gate_has_the_forget_gates_negative_sum():
    coupled, lstm = make(CIFGLSTMCell), make(LSTMCell)
    inputs, states = data(coupled)
    kernel, bias = coupled.get_weights()
    f, o, g = np.split(kernel, 3, axis=1)
    f_bias, o_bias, g_bias = np.split(bias, 3)
    both = np.concatenate([-f, f, g, o], axis=1)
    features = inputs.shape[-1]
    lstm.set_weights([both[:features], both[features:], np.concatenate([-f_bias, f_bias, g_bias, o_bias])])
    assert_same(results(coupled, inputs, states), results(lstm, inputs, states))


def test_a_projection_by_the_identity_is_the_lstm():
    projected, lstm = make(ProjectedLSTMCell, memory=UNITS), make(LSTMCell)
    inputs, states = data(lstm)
    projected.set_weights([*lstm.get_weights(), np.eye(UNITS)])
    assert_same(results(projected, inputs, states), results(lstm, inputs, states))


def test_a_legendre_memory_holds_the_last_steps_of_its_signal():
    """The polynomials, taken at a past time, give what the signal was then."""
    order, theta, steps = 12, 40.0, 200
    cell = LMUCell(1, order=order, theta=theta, dtype="float64")
    cell.build((None, 1))
    cell.set_weights([np.ones((1, 1)), *(np.zeros(weight.shape) for weight in cell.weights[1:])])
    signal = np.sin(np.arange(steps) / 12)
    _, _, memory = results(cell, signal[None, :, None], cell.get_initial_state(1))
    ago = np.array([5, 20, 35])
    found = np.polynomial.legendre.legval(2 * (ago + 0.5) / theta - 1, memory[0])
    np.testing.assert_allclose(found, signal[steps - 1 - ago], atol=0.02)


def test_a_delta_net_replaces_what_a_key_held():
    """With keys that are one-hot and β = 1, a value is written over, and other keys keep theirs."""
    cell = DeltaNetCell(2, keys=2, dtype="float64")
    cell.build((None, 7))
    cell.set_weights([np.eye(7)])  # q, k, v, β are the inputs
    one, other, full = [50.0, 0.0], [0.0, 50.0], [50.0]
    steps = [[*one, *one, 3, 4, *full], [*one, *other, 5, 6, *full], [*one, *one, 7, 8, *full]]
    outputs, memory = results(cell, np.array([steps]), cell.get_initial_state(1))
    np.testing.assert_allclose(outputs[0], [[3, 4], [3, 4], [7, 8]], atol=1e-12)
    np.testing.assert_allclose(memory[0], [[7, 8], [5, 6]], atol=1e-12)


def test_what_keeps_the_exponentials_in_range_changes_no_number():
    cell = make(MatrixLSTMCell, keys=3)
    inputs, (memory, normaliser, largest) = data(cell)
    by = np.exp(-4.0)
    moved = [by * memory, by * normaliser, largest + 4]
    outputs = results(cell, inputs, [memory, normaliser, largest])[0]
    assert_same(results(cell, inputs, moved)[0], outputs, rtol=1e-9)
