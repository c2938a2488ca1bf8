"""`WholeLayer`: a user's whole layer or model as a layer that cases measure. It shows no states."""

from typing import Any

import keras
from keras import ops


class WholeLayer(keras.layers.Layer):
    """Runs a layer or a model on sequences; what it computes and gives is that layer's affair.

    Args:
        layer: [batch, timesteps, features] -> a tensor or a structure of tensors.
    """

    stateful = False

    def __init__(self, layer: Any):
        super().__init__()
        self.layer = layer

    def build(self, sequences_shape):
        """Builds the layer by one call: some make their weights only then."""
        batch_size, *rest = sequences_shape
        self.layer(ops.zeros((batch_size or 1, *rest), dtype=self.compute_dtype))

    def get_initial_state(self, batch_size: int) -> list[Any]:
        """None: the layer starts from states of its own."""
        return []

    def call(self, sequences, initial_state=None, mask=None, training=False):
        """The layer's outputs; whether it is in training Keras tells it."""
        return self.layer(sequences)
