"""Whole layers and models, right and wrong, for the tests of the lighter contract and of its proof."""

import keras
from keras import ops


def stacked(units):
    """Two LSTMs and a head."""
    return keras.Sequential(
        [
            keras.layers.LSTM(units, return_sequences=True),
            keras.layers.Bidirectional(keras.layers.LSTM(units)),
            keras.layers.Dense(3),
        ]
    )


def functional():
    """A model of its own sizes, with two outputs."""
    inputs = keras.Input((None, 4))
    outputs, state = keras.layers.GRU(5, return_sequences=True, return_state=True)(inputs)
    return keras.Model(inputs, {"outputs": outputs, "state": state})


def dropping(units):
    return keras.layers.LSTM(units, dropout=0.5)


def cell(units):
    return keras.layers.LSTMCell(units)


def one_length(units):
    steps = keras.layers.SimpleRNN(units, return_sequences=True)
    return keras.Sequential([keras.Input((4, 4)), steps, keras.layers.Flatten(), keras.layers.Dense(2)])


class Layer(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.rnn = keras.layers.SimpleRNN(units)
        self.units = units

    def call(self, inputs):
        return self.rnn(inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Stateful(Layer):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.rnn = keras.layers.SimpleRNN(units, stateful=True)


class Mixing(Layer):
    def call(self, inputs):
        outputs = self.rnn(inputs)
        return outputs - ops.mean(outputs, axis=0)


class Eager(Layer):
    def call(self, inputs):
        outputs = self.rnn(inputs)
        return outputs if float(ops.sum(outputs)) > 0 else -outputs


class Forgetful(Layer):
    def get_config(self):
        return keras.layers.Layer.get_config(self)


class OtherInAGraph(Layer):
    """Computes something else where it is compiled."""

    def call(self, inputs):
        import tensorflow as tf

        return self.rnn(inputs) * (1.0 if tf.executing_eagerly() else 1.01)


class WrongGradient(Layer):
    def call(self, inputs):
        outputs = self.rnn(inputs)
        return outputs + 0.1 * (ops.stop_gradient(outputs) - outputs)
