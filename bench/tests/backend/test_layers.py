"""Building a layer: what is random in it, and that what TensorFlow has compiled stays."""

import keras
import numpy as np
import tensorflow as tf

from bench.backend.layers import built_layer
from bench.cases.case import Case
from bench.cases.subjects import SUBJECTS, make_layer

CASE = Case("lstm", "builtin", "infer", 2, 3, 4, 5)


class Reservoir(keras.layers.Layer):
    """Multiplies by numbers that it draws with TensorFlow's own operations, and does not keep as weights."""

    def build(self, input_shape):
        self.fixed = tf.random.uniform([input_shape[-1]])

    def call(self, inputs):
        return inputs * self.fixed


def lstm():
    return make_layer(SUBJECTS["lstm-builtin"], CASE)


def test_what_is_compiled_is_kept():
    """A random operation with a seed of its own goes on; it would begin again with its kernels made anew."""
    keras.utils.set_random_seed(1)
    first, second = (float(tf.random.uniform([], seed=7)) for _ in range(2))
    built_layer(lstm, CASE, 1)
    third = float(tf.random.uniform([], seed=7))
    assert len({first, second, third}) == 3
    keras.utils.set_random_seed(1)
    assert [float(tf.random.uniform([], seed=7)) for _ in range(3)] == [first, second, third]


def test_what_tensorflow_draws_while_building_is_that_of_the_seed():
    one, other, same = (built_layer(Reservoir, CASE, seed).fixed.numpy() for seed in (1, 2, 1))
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(one, same)
