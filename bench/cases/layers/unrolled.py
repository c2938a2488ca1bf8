"""`cells.static_unroll` and `cells.dynamic_unroll`, plain functions, as layers that can be measured."""

from typing import Any

import keras

import cells


class Unrolled(keras.layers.Layer):
    """A cell run by one of the two functions; gives the outputs of all steps, and the states.

    Args:
        cell: a Keras cell.
        function: `static_unroll` or `dynamic_unroll`.
        time_major: whether the inputs and the outputs have time as their first axis.
    """

    stateful = False

    def __init__(self, cell, function: str, time_major: bool = False):
        super().__init__()
        self.cell = cell
        self.function = function
        self.time_major = time_major

    def build(self, sequences_shape):
        batch_size, _, features = sequences_shape
        self.cell.build((batch_size, features))

    def get_initial_state(self, batch_size: int) -> list[Any]:
        """The states that the cell starts from."""
        return self.cell.get_initial_state(batch_size)

    def call(self, sequences, initial_state=None, training=False):
        """The outputs [batch, timesteps, units], or time-major as the inputs, and the final states."""
        outputs, states = getattr(cells, self.function)(
            self.cell, sequences, initial_state, time_major=self.time_major, training=training
        )
        return outputs, *keras.tree.flatten(states)
