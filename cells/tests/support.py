"""What the tests of the cells share: cells with drawn weights, layers around them, derivatives."""

import warnings

import keras
import numpy as np
import tensorflow as tf

BATCH, TIMESTEPS, FEATURES, UNITS = 3, 3, 2, 5
EXACT = {"rtol": 1e-11, "atol": 1e-12}  # float64, a few steps of a few units


def drawn(cell, features=FEATURES, seed=0):
    """The cell, built, with all its weights drawn, biases too."""
    if not cell.built:
        cell.build((None, features))
    rng = np.random.default_rng(seed)
    cell.set_weights([rng.normal(0, 0.7, weight.shape) for weight in cell.get_weights()])
    return cell


def data(cell, batch=BATCH, timesteps=TIMESTEPS, features=FEATURES, seed=1):
    """Inputs [batch, timesteps, features] and initial states as the cell's, drawn, float64."""
    rng = np.random.default_rng(seed)
    states = [rng.normal(size=state.shape) for state in cell.get_initial_state(batch)]
    return rng.normal(size=(batch, timesteps, features)), states


def in_rnn(cell, layer_class=keras.layers.RNN, **options):
    """The cell in a layer that returns all its outputs and its states, with the cell's dtype policy."""
    options = {"return_sequences": True, "return_state": True, "dtype": cell.dtype_policy, **options}
    return layer_class(cell, **options)


def arrays(structure):
    """The NumPy arrays of a structure of tensors, flat."""
    return [keras.ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(structure)]


def assert_same(actual, expected, **tolerance):
    """Two structures of tensors have the same shapes and, within the tolerance, the same numbers."""
    actual, expected = arrays(actual), arrays(expected)
    assert [array.shape for array in actual] == [array.shape for array in expected]
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, **(tolerance or EXACT))


def difference(actual, expected):
    """The largest absolute difference of two structures of tensors."""
    pairs = zip(arrays(actual), arrays(expected), strict=True)
    return max(np.max(np.abs(one - other)) for one, other in pairs)


def complex_step(function, point, direction, step=1e-20):
    """The derivative of function(*point) -> float along `direction`, exact to rounding."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        moved = [value + 1j * step * by for value, by in zip(point, direction, strict=True)]
        return function(*moved).imag / step


def gradients(layer, cell, inputs, states, cotangents):
    """Of the sum of outputs and states times `cotangents`, by the cell's weights, inputs and states."""
    sources = [tf.constant(array) for array in (inputs, *states)]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        results = layer(sources[0], initial_state=sources[1:])
        total = sum(tf.reduce_sum(r * c) for r, c in zip(results, cotangents, strict=True))
    weights = [variable.value for variable in cell.trainable_variables]
    return arrays(tape.gradient(total, weights + sources, unconnected_gradients="zero"))


def assert_gradients(cell, reference, **options):
    """The cell's gradient along a drawn direction is the complex-step derivative of its reference."""
    inputs, states = data(cell)
    rng = np.random.default_rng(2)
    layer = in_rnn(cell, **options)
    cotangents = [rng.normal(size=result.shape) for result in layer(inputs, initial_state=states)]
    weights = cell.get_weights()
    point = [*weights, inputs, *states]
    direction = [rng.normal(size=array.shape) for array in point]

    def total(*moved):
        outputs, final = reference(moved[: len(weights)], moved[len(weights)], moved[len(weights) + 1 :])
        return sum(np.sum(r * c) for r, c in zip([outputs, *final], cotangents, strict=True))

    found = gradients(layer, cell, inputs, states, cotangents)
    along = sum(np.sum(g * d) for g, d in zip(found, direction, strict=True))
    np.testing.assert_allclose(along, complex_step(total, point, direction), rtol=1e-10)
