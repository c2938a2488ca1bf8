"""Keras 2 (`tf_keras`): its LSTM, GRU and SimpleRNN, compiled as Keras 3's are."""

import os
import time
from collections.abc import Iterator
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # read by TensorFlow when it is imported

import tensorflow as tf
import tf_keras

from bench.processes.peers import Arrays, Loaded, PeerData

_LAYERS = {"lstm": tf_keras.layers.LSTM, "gru": tf_keras.layers.GRU, "simple_rnn": tf_keras.layers.SimpleRNN}

tf.config.set_visible_devices([], "GPU")


def environment() -> dict[str, Any]:
    """The versions, and TensorFlow's settings for its threads; 0 is one for each core."""
    return {
        "tf_keras": tf_keras.__version__,
        "tensorflow": tf.__version__,
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
    }


def load(cell: str, mode: str, data: PeerData) -> Loaded:
    """The layer with the weights given, in a `tf.function`; see `bench.processes.peers`."""
    layer = _LAYERS[cell](data.weights[1].shape[0], return_sequences=True, return_state=True)
    layer.build(data.inputs.shape)
    layer.set_weights(data.weights)

    def forward(inputs, states):
        return layer(inputs, initial_state=states, training=mode == "train")

    return compiled_program(forward, layer.trainable_weights, mode, data)


def compiled_program(forward, weights, mode: str, data: PeerData, time_major: bool = False) -> Loaded:
    """`forward`, (inputs, states) -> the outputs and the final states, in a `tf.function`.

    Args:
        weights: the variables whose gradients belong to `train`.
        time_major: whether the inputs that it takes and the outputs that it gives are time-major.
    """

    def turned(sequences):
        return sequences.swapaxes(0, 1) if time_major else sequences

    first, *others = data.cotangents
    inputs, states, cotangents = tf.nest.map_structure(
        tf.constant, (turned(data.inputs), data.initial_states, [turned(first), *others])
    )
    function = _infer(forward) if mode == "infer" else _train(forward, weights, cotangents)
    compiled = tf.function(function, autograph=False)

    start = time.perf_counter()
    graph = compiled.get_concrete_function(inputs, states).graph.as_graph_def()
    traced = time.perf_counter()
    compiled(inputs, states)
    called = time.perf_counter()

    def run():
        return compiled(inputs, states)

    def answer() -> tuple[Arrays, Arrays]:
        outputs, gradients = run()
        (sequences, *final), gradients = ([tensor.numpy() for tensor in of] for of in (outputs, gradients))
        if gradients:
            of_inputs = len(weights)
            gradients[of_inputs] = turned(gradients[of_inputs])
        return [turned(sequences), *final], gradients

    operations = [node.op for node in _reached_nodes(graph)]
    facts = {
        "trace_s": traced - start,
        "compile_s": called - traced,
        "graph_nodes": len(operations),
        "kernel": "while" if {"While", "StatelessWhile"} & set(operations) else "unrolled",
    }
    return Loaded(run, answer, facts, compiled.experimental_get_tracing_count)


def _infer(forward):
    def infer(inputs, states):
        return forward(inputs, states), []

    return infer


def _train(forward, weights, cotangents):
    def train(inputs, states):
        sources = [*weights, inputs, *states]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = forward(inputs, states)
        return outputs, tape.gradient(outputs, sources, output_gradients=cotangents)

    return train


def _reached_nodes(graph) -> Iterator[Any]:
    """The nodes of the graph and of the functions that it calls.

    Keras 2 also puts the cuDNN form of its layer into the library, for whoever has a GPU.
    """
    library = {function.signature.name: function.node_def for function in graph.library.function}
    waiting = [graph.node]
    while waiting:
        for node in waiting.pop():
            yield node
            for name in _called(node):
                if name in library:
                    waiting.append(library.pop(name))


def _called(node) -> Iterator[str]:
    for attribute in node.attr.values():
        for function in (attribute.func, *attribute.list.func):
            yield function.name
