"""Keras on JAX: its recurrent layers, and any cell in `keras.layers.RNN`, jitted, as `fit` and `predict` run
them there by default."""

import os
import time
from contextlib import nullcontext
from typing import Any

from bench.cases.devices import may_have_gpu

os.environ["KERAS_BACKEND"] = "jax"  # read by Keras when it is imported
if not may_have_gpu():
    os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU's memory is TensorFlow's too

import jax
import keras

from bench.cases.subjects import UnsupportedOption
from bench.processes.peers import Loaded, PeerData
from bench.processes.peers.keras_backend import MadeLayer, answer_of, floating, make_layer, tensorflow_noted


def environment() -> dict[str, Any]:
    """The versions, and the threads: XLA has one for each core that the process may use."""
    return {
        "jax": jax.__version__,
        "keras": keras.__version__,
        "intra_op_threads": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }


def load(
    cell: str, mode: str, data: PeerData, device: str = "cpu", tf32: bool = False, **of_cell: Any
) -> Loaded:
    """The layer with the weights given, jitted; see `bench.processes.peers`.

    Args:
        of_cell: of a user's cell its `target`, `kwargs` and `step_shape`.

    Raises:
        UnsupportedOption: a user's cell calls TensorFlow, or a GPU is asked for, and this JAX has none.
    """
    if jax.default_backend() != device:
        raise UnsupportedOption(f"JAX {jax.__version__} runs on the {jax.default_backend()} here")
    in_full = device == "gpu" and not tf32  # on a CPU float32 is float32
    with jax.default_matmul_precision("highest") if in_full else nullcontext():
        return _load(cell, mode, data, of_cell)


def _load(cell: str, mode: str, data: PeerData, of_cell: dict[str, Any]) -> Loaded:
    made = make_layer(cell, data, **of_cell)
    function = _infer(made) if mode == "infer" else _train(made)
    given = ([weight.value for weight in made.trainable], data.inputs, data.initial_states)
    arguments = jax.tree.map(jax.numpy.asarray, (*given, *([data.cotangents] if mode == "train" else [])))
    traces = 0

    def counted(*arguments):
        nonlocal traces
        traces += 1
        return function(*arguments)

    jitted = jax.jit(counted)
    start = time.perf_counter()
    with tensorflow_noted(of_cell.get("target")):
        lowered = jitted.lower(*arguments)
    traced = time.perf_counter()
    compiled = lowered.compile()

    def run():
        return jax.block_until_ready(compiled(*arguments))

    run()
    called = time.perf_counter()

    graph = lowered.as_text()
    facts = {
        "trace_s": traced - start,
        "compile_s": called - traced,
        "graph_nodes": graph.count(" = "),
        "kernel": "while" if "stablehlo.while" in graph else "unrolled",
        "xla": True,
    }
    return Loaded(run, answer_of(run), facts, lambda: traces)


def _forward(made: MadeLayer, training: bool):
    """(trainable weights, inputs, states) -> the outputs and the final states, a pure function."""
    fixed = [variable.value for variable in made.layer.non_trainable_variables]

    def forward(weights, inputs, states):
        answered, _ = made.layer.stateless_call(
            weights, fixed, inputs, initial_state=made.pack(states), training=training
        )
        return keras.tree.flatten(answered)

    return forward


def _infer(made: MadeLayer):
    forward = _forward(made, training=False)
    return lambda weights, inputs, states: (forward(weights, inputs, states), [])


def _train(made: MadeLayer):
    forward = _forward(made, training=True)

    def train(weights, inputs, states, cotangents):
        def outputs_of(weights, inputs, moved):
            moving = iter(moved)
            pairs = zip(states, made.differentiable, strict=True)
            outputs = forward(weights, inputs, [next(moving) if moves else state for state, moves in pairs])
            return floating(outputs), outputs

        moved = [state for state, moves in zip(states, made.differentiable, strict=True) if moves]
        _, pull_back, outputs = jax.vjp(outputs_of, weights, inputs, moved, has_aux=True)
        of_weights, of_inputs, of_states = pull_back(cotangents)
        return outputs, [*of_weights, of_inputs, *of_states]

    return train
