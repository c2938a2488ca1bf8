"""`cells.RNN`: where a stateful layer starts, learned initial states, shapes of states that are no
vectors.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cells import RNN, ChosenStateRNNCell, FusedRNN, LearnedStateRNNCell, LSTMCell, MatrixMemoryCell
from cells.tests.support import BATCH, FEATURES, TIMESTEPS, UNITS, arrays, assert_same, data, drawn

LAYERS = [RNN, FusedRNN]


@pytest.mark.parametrize("layer_class", LAYERS)
def test_reset_state_and_a_second_build_start_from_the_cells_initial_state(layer_class):
    cell = drawn(ChosenStateRNNCell(UNITS, initial_value=0.5, dtype="float64"))
    layer = layer_class(cell, stateful=True, dtype="float64")
    inputs, _ = data(cell)
    first = layer(inputs)
    assert not np.allclose(first, layer(inputs))
    layer.reset_state()
    np.testing.assert_array_equal(layer.states[0], np.full((BATCH, UNITS), 0.5))
    assert_same(layer(inputs), first)
    layer.build(inputs.shape)
    np.testing.assert_array_equal(layer.states[0], np.full((BATCH, UNITS), 0.5))


def test_reset_state_of_a_stateless_layer_does_nothing():
    layer = RNN(LSTMCell(UNITS))
    layer.reset_state()
    assert layer.states is None


@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_learned_initial_state_learns_in_a_stateless_layer_only(layer_class):
    cell = drawn(LearnedStateRNNCell(UNITS, dtype="float64"))
    inputs, _ = data(cell)
    stateless, stateful = (layer_class(cell, stateful=option, dtype="float64") for option in (False, True))
    _, expected = _output_and_gradient(keras.layers.RNN(cell, dtype="float64"), cell, inputs)
    output, gradient = _output_and_gradient(stateless, cell, inputs)
    assert_same(gradient, expected)
    same_output, no_gradient = _output_and_gradient(stateful, cell, inputs)
    assert_same(same_output, output)
    assert no_gradient is None


def _output_and_gradient(layer, cell, inputs):
    """The layer's output, and its sum's gradient for the cell's initial state."""
    with tf.GradientTape() as tape:
        output = layer(inputs)
        total = tf.reduce_sum(output)
    return output, tape.gradient(total, cell.initial_state.value)


def test_states_that_are_no_vectors_have_their_shape_in_a_functional_model():
    inputs = keras.Input((TIMESTEPS, FEATURES))
    output, state = RNN(MatrixMemoryCell(UNITS, keys=4), return_state=True)(inputs)
    assert (output.shape, state.shape) == ((None, UNITS), (None, 4, UNITS))


def test_stacked_cells_keep_keras_shapes():
    inputs = keras.Input((TIMESTEPS, FEATURES))
    cells = [LSTMCell(3), LSTMCell(4)]
    shapes = [
        keras.tree.map_structure(lambda tensor: tensor.shape, layer_class(cells, return_state=True)(inputs))
        for layer_class in (keras.layers.RNN, RNN)
    ]
    assert shapes[0] == shapes[1]


def test_a_layer_is_made_from_its_configuration(tmp_path):
    model = keras.Sequential(
        [keras.Input((TIMESTEPS, FEATURES)), RNN(ChosenStateRNNCell(UNITS, initial_value=2.0))]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.layers[0], RNN)
    inputs = np.ones((BATCH, TIMESTEPS, FEATURES), "float32")
    assert_same(arrays(loaded(inputs)), arrays(model(inputs)), rtol=1e-6)
