"""Keras on PyTorch: its recurrent layers, and any cell in `keras.layers.RNN`, eagerly, as `fit` and `predict`
run them there by default."""

import os
import time
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"  # read by Keras when it is imported
os.environ["KERAS_TORCH_DEVICE"] = "cpu"

import keras
import torch

from bench.processes.peers import Arrays, Loaded, PeerData
from bench.processes.peers.keras_backend import MadeLayer, answer_of, floating, make_layer, tensorflow_noted


def environment() -> dict[str, Any]:
    """The versions and PyTorch's threads."""
    return {
        "torch": torch.__version__,
        "keras": keras.__version__,
        "intra_op_threads": torch.get_num_threads(),
        "inter_op_threads": torch.get_num_interop_threads(),
    }


def load(cell: str, mode: str, data: PeerData, **of_cell: Any) -> Loaded:
    """The layer with the weights given; see `bench.processes.peers`.

    Args:
        of_cell: of a user's cell its `target`, `kwargs` and `step_shape`.

    Raises:
        UnsupportedOption: a user's cell calls TensorFlow.
    """
    made = make_layer(cell, data, **of_cell)
    inputs = torch.tensor(data.inputs)
    states = [torch.tensor(state) for state in data.initial_states]
    run = _infer(made, inputs, states) if mode == "infer" else _train(made, inputs, states, data.cotangents)

    start = time.perf_counter()
    with tensorflow_noted(of_cell.get("target")):
        run()
    return Loaded(run, answer_of(run), {"compile_s": time.perf_counter() - start, "kernel": "eager"})


def _infer(made: MadeLayer, inputs, states):
    made.layer.eval()

    def run():
        with torch.no_grad():
            return keras.tree.flatten(made.layer(inputs, initial_state=made.pack(states), training=False)), []

    return run


def _train(made: MadeLayer, inputs, states, cotangents: Arrays):
    made.layer.train()
    moved = [
        state.requires_grad_() for state, moves in zip(states, made.differentiable, strict=True) if moves
    ]
    sources = [*(weight.value for weight in made.trainable), inputs.requires_grad_(), *moved]
    starts = [torch.tensor(cotangent) for cotangent in cotangents]

    def run():
        outputs = keras.tree.flatten(made.layer(inputs, initial_state=made.pack(states), training=True))
        gradients = torch.autograd.grad(floating(outputs), sources, starts, allow_unused=True)
        pairs = zip(gradients, sources, strict=True)
        return outputs, [torch.zeros_like(source) if found is None else found for found, source in pairs]

    return run
