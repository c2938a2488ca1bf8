"""What a user's whole layer is compared with: a twin of it in float64, run eagerly, step by step."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.backend.libraries import keras, tf
from bench.cases.subjects import UnsupportedOption
from bench.proof.layer_reference import Arrays, Cell, Given


@dataclass(frozen=True)
class Twin:
    """A composition that is the twin itself.

    Args:
        layer: a `WholeLayer`, built, in float64.
        training: whether it runs in training.
    """

    layer: Any
    training: bool

    @property
    def cells(self) -> list[Cell]:
        """None that can be seen."""
        return []

    def __call__(self, inputs: np.ndarray, given: Given) -> tuple[Arrays, Arrays]:
        self.layer.set_weights(list(given.weights))
        eager = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            outputs = self.layer(tf.constant(inputs), training=self.training)
        finally:
            tf.config.run_functions_eagerly(eager)
        return [np.asarray(output) for output in keras.tree.flatten(outputs)], []


def check_provable(layer: Any, twin: Any, inputs: np.ndarray, training: bool) -> None:
    """Raises UnsupportedOption for a layer that no twin can be compared with."""
    from bench.contract.cell_under_test import draws_at_random

    own = sorted({str(weight.dtype) for weight in twin.weights if "float" in str(weight.dtype)} - {"float64"})
    if own:
        raise UnsupportedOption(f"the layer sets its own dtype, {', '.join(own)}: it has no twin in float64")
    if training and draws_at_random(lambda: layer(tf.constant(inputs), training=True)):
        raise UnsupportedOption(
            "the layer draws random numbers in training, as dropout does: make it without any"
        )


def output_shapes(layer: Any, inputs: np.ndarray, training: bool) -> list[tuple[tuple[int, ...], bool]]:
    """Of every output of the layer, flat: its shape, and whether it has a gradient. Nothing is computed."""
    spec = tf.TensorSpec(inputs.shape, inputs.dtype)
    traced = tf.function(lambda sequences: layer(sequences, training=training), autograph=False)
    outputs = keras.tree.flatten(traced.get_concrete_function(spec).structured_outputs)
    return [(tuple(output.shape), output.dtype.is_floating) for output in outputs]


def weighted_layers(layer: Any) -> int:
    """The number of layers that have weights of their own, whose rounding errors add up; 1 at least."""
    return max(1, sum(bool(each._trainable_variables) for each in layer._flatten_layers()))
