"""Keras on JAX: its LSTM and GRU, and S-LSTM in its RNN, in a function that `jax.jit` compiles."""

import os
import time
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # read by Keras when it is imported
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import keras
import numpy as np

from bench.processes.peers import Arrays, Loaded, PeerData
from cells import SLSTMCell

_LAYERS = {
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
    "slstm": lambda units, **options: keras.layers.RNN(SLSTMCell(units), **options),
}


def environment() -> dict[str, Any]:
    """The versions, and the cores that XLA shares its threads out among."""
    return {"jax": jax.__version__, "keras": keras.__version__, "intra_op_threads": os.cpu_count()}


def load(cell: str, mode: str, data: PeerData) -> Loaded:
    """The layer with the weights given, compiled for these shapes; see `bench.processes.peers`."""
    layer = _LAYERS[cell](data.weights[1].shape[0], return_sequences=True, return_state=True)
    layer.build(data.inputs.shape)
    layer.set_weights(data.weights)
    weights, fixed, inputs, states, cotangents = jax.tree.map(
        jax.numpy.asarray,
        (
            [each.value for each in layer.trainable_variables],
            [each.value for each in layer.non_trainable_variables],
            data.inputs,
            data.initial_states,
            data.cotangents,
        ),
    )

    def forward(weights, inputs, states):
        results, _ = layer.stateless_call(
            weights, fixed, inputs, initial_state=states, training=mode == "train"
        )
        return list(results)

    function = _infer(forward) if mode == "infer" else _train(forward, cotangents)
    given = weights, inputs, states
    start = time.perf_counter()
    lowered = jax.jit(function).lower(*given)
    traced = time.perf_counter()
    compiled = lowered.compile()
    jax.block_until_ready(compiled(*given))
    called = time.perf_counter()

    def run():
        return jax.block_until_ready(compiled(*given))

    def answer() -> tuple[Arrays, Arrays]:
        return jax.tree.map(np.asarray, run())

    facts = {
        "trace_s": traced - start,
        "compile_s": called - traced,
        "kernel": "while" if " while(" in (compiled.as_text() or "") else "unrolled",
    }
    return Loaded(run, answer, facts)


def _infer(forward):
    return lambda weights, inputs, states: (forward(weights, inputs, states), [])


def _train(forward, cotangents: Arrays):
    def train(weights, inputs, states):
        outputs, pull_back = jax.vjp(forward, weights, inputs, states)
        of_weights, of_inputs, of_states = pull_back(cotangents)
        return outputs, [*of_weights, of_inputs, *of_states]

    return train
