"""What `tf.nn.static_rnn` and `tf.nn.dynamic_rnn` were, as `tf.compat.v1` still has them, over the cell of
Keras 2 that they take; `static_rnn` and `dynamic_rnn` beside this file are the two as peers."""

from collections.abc import Callable
from functools import partial

from bench.processes.peers import Loaded, PeerData
from bench.processes.peers.keras2 import compiled_program, environment

# isort: split
import tensorflow as tf
import tf_keras

tf.get_logger().setLevel("ERROR")  # that both functions are deprecated

__all__ = ["dynamic_rnn", "environment", "load", "static_rnn"]


def static_rnn(cell, inputs, states, time_major: bool):
    """Every step in the graph; the steps go in and come out as a list."""
    steps = tf.unstack(inputs, axis=0 if time_major else 1)
    outputs, states = tf.compat.v1.nn.static_rnn(cell, steps, initial_state=states)
    return [tf.stack(outputs, axis=0 if time_major else 1), *tf.nest.flatten(states)]


def dynamic_rnn(cell, inputs, states, time_major: bool):
    """A loop in the graph."""
    outputs, states = tf.compat.v1.nn.dynamic_rnn(cell, inputs, initial_state=states, time_major=time_major)
    return [outputs, *tf.nest.flatten(states)]


def load(run_cell: Callable, cell: str, mode: str, data: PeerData, time_major: bool = False) -> Loaded:
    """The cell with the weights given, run by one of the functions above; see `bench.processes.peers`."""
    made = {"lstm": tf_keras.layers.LSTMCell}[cell](data.weights[1].shape[0])
    made.build(data.inputs[:, 0].shape)
    made.set_weights(data.weights)
    forward = partial(run_cell, made, time_major=time_major)
    return compiled_program(forward, made.trainable_weights, mode, data, time_major)
