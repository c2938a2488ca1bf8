"""The lighter contract of a whole recurrent layer or model: sequences [batch, timesteps, features] in,
whatever out."""

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from bench.contract.advice import EAGER
from bench.contract.cell_under_test import (
    BATCH,
    STEPS,
    Cells,
    agree,
    arrays,
    compiled,
    custom_objects,
    has_xla,
    samples,
    shapes,
    vary_weights,
)
from bench.contract.check import Refused, Skipped, check, counted

_LAYERS = 4  # whose rounding errors may add up
_BATCH = "leave the first axis alone: no reshape, mean or constant of a fixed batch size"
_RUNS = ("is_layer", "sequences")
_SAME = (*_RUNS, "answers_the_same")


@check("return a new keras.layers.Layer or keras.Model at each call", at="__init__", needs=())
def is_layer(cells: Cells) -> str:
    """Is it a new Keras layer or model each time?"""
    layer, other = cells.new(), cells.new()
    expected = "a keras.layers.Layer or keras.Model that runs whole sequences"
    if not isinstance(layer, keras.layers.Layer):
        raise Refused(expected, type(layer).__name__)
    if hasattr(layer, "state_size") and not isinstance(layer, keras.layers.RNN):
        raise Refused(expected, "a cell, which runs one step", "check it as a cell, without --layer")
    if layer is other:
        raise Refused("a new layer at each call", "the same one twice", "make the layer in the function")
    return f"a {type(layer).__name__}"


@check(
    "take [batch, timesteps, features], and return tensors whose first axis is the batch", needs=("is_layer",)
)
def sequences(cells: Cells) -> str:
    """Does it take sequences?"""
    outputs = tree.flatten(_built(cells)(cells.inputs()))
    if not outputs or not all(map(ops.is_tensor, outputs)):
        raise Refused("tensors", f"{[type(output).__name__ for output in outputs]}")
    if any(output.shape[:1] != (BATCH,) for output in outputs):
        raise Refused(f"outputs whose first axis is the batch, {BATCH}", shapes(outputs))
    if not all(np.isfinite(array).all() for array in arrays(outputs)):
        raise Refused("finite numbers", "NaN or infinity")
    return f"outputs of shapes {shapes(outputs)}"


@check("draw random numbers only when training, and keep nothing from call to call", needs=_RUNS)
def answers_the_same(cells: Cells) -> str:
    """Is the answer the same twice?"""
    layer, inputs = _built(cells), cells.inputs()
    first = layer(inputs)
    layer(cells.inputs(seed=1))
    return _agree(cells, layer(inputs), first, "the same answer to the same inputs")


@check(EAGER, needs=_SAME)
def in_a_graph(cells: Cells) -> str:
    """Does it answer the same in a graph?"""
    layer, inputs = _built(cells), cells.inputs()
    return _agree(cells, compiled(layer)(inputs), layer(inputs), "the same answer in a graph")


@check(EAGER, needs=_SAME)
def under_xla(cells: Cells) -> str:
    """Does it answer the same under XLA?"""
    if not has_xla():
        raise Skipped("this TensorFlow has no XLA")
    layer, inputs = _built(cells), cells.inputs()
    return _agree(cells, compiled(layer, xla=True)(inputs), layer(inputs), "the same answer under XLA")


@check(_BATCH, needs=_SAME)
def any_batch(cells: Cells) -> str:
    """Does it take every batch size, its samples independent?"""
    layer, inputs = _built(cells), cells.inputs()
    whole = layer(inputs)
    for row in range(BATCH):
        rows = slice(row, row + 1)
        _agree(
            cells,
            layer(inputs[rows]),
            samples(whole, rows),
            "each sample by itself to answer as in the batch",
        )
    return f"batches of {BATCH} and of 1, with the same answers"


@check("take the number of timesteps from the inputs: keras.Input((None, features))", needs=_SAME)
def any_length(cells: Cells) -> str:
    """Does it take every number of timesteps?"""
    layer = _built(cells)
    for timesteps in (1, STEPS + 1):
        inputs = cells.inputs(timesteps)
        open_sizes = compiled(layer, (None, None, *cells.step_shape))
        _agree(
            cells,
            open_sizes(inputs),
            layer(inputs),
            f"the same answer in a graph, for {counted(timesteps, 'timestep')}",
        )
    return f"1, {STEPS} and {STEPS + 1} timesteps"


@check("let get_config return every argument of __init__, and make weights in __init__ or build", needs=_SAME)
def saves_and_loads(cells: Cells) -> str:
    """Does a saved model answer the same when loaded?"""
    layer, inputs = _built(cells), cells.inputs()
    start = keras.Input((None, *cells.step_shape))
    model = layer if isinstance(layer, keras.Model) else keras.Model(start, layer(start))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        loaded = keras.models.load_model(file, custom_objects=custom_objects(layer))
    return _agree(cells, loaded(inputs), layer(inputs), "a saved and loaded model to answer the same")


def _built(cells: Cells) -> Any:
    """A new layer, built by a call, its weights moved a little so that no bias is zero."""
    layer = cells.new()
    layer(cells.inputs())
    vary_weights(layer, seed=0)
    return layer


def _agree(cells: Cells, seen: Any, expected: Any, what: str) -> str:
    return agree(seen, expected, _LAYERS * cells.tolerance(), what)
