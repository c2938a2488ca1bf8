"""`ShapedSteps`: a user's cell whose steps are no vectors, as a cell that takes vectors like every other."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def shaped(cell: Any, step_shape: Sequence[int]) -> Any:
    """The cell, as one that takes vectors; itself where its steps are vectors."""
    return cell if len(step_shape) == 1 else ShapedSteps(cell, tuple(step_shape))


class ShapedSteps(keras.layers.Layer):
    """Gives the cell each step [batch, features] as [batch, *step_shape]; nothing is computed by that.

    Args:
        cell: takes steps of `step_shape`.
        step_shape: the shape of a step without the batch; its product is the number of features.
    """

    def __init__(self, cell: Any, step_shape: tuple[int, ...]):
        super().__init__()
        self.cell, self.step_shape = cell, tuple(step_shape)
        self.state_size = cell.state_size
        self.output_size = getattr(cell, "output_size", None)

    def build(self, input_shape):
        """Builds the cell for [batch, *step_shape]."""
        self.cell.build((input_shape[0], *self.step_shape))

    def get_initial_state(self, batch_size=None):
        """The states that Keras starts the cell from."""
        return keras.layers.RNN(self.cell).get_initial_state(batch_size)

    def call(self, inputs, states, training=False):
        """The cell's answer to one step."""
        inputs = ops.reshape(inputs, (ops.shape(inputs)[0], *self.step_shape))
        return self.cell(inputs, states, training=training)

    def get_config(self):
        """The cell and the shape."""
        cell = keras.saving.serialize_keras_object(self.cell)
        return {**super().get_config(), "cell": cell, "step_shape": self.step_shape}

    @classmethod
    def from_config(cls, config):
        """Makes it again, with a cell of its own."""
        cell = keras.saving.deserialize_keras_object(config["cell"])
        return cls(cell, config["step_shape"])
