"""`RNN`: `keras.layers.RNN` that starts from the cell's own initial state whenever it starts anew."""

import keras
from keras import saving, tree


@saving.register_keras_serializable("cells")
class RNN(keras.layers.RNN):
    """`keras.layers.RNN` that starts from the cell's own initial state whenever it starts anew.

    `keras.layers.RNN` asks the cell's `get_initial_state` when it is built, and later writes zeros. Here
    `reset_state()`, and building again, ask it each time.

    A cell may learn its initial state: where `get_initial_state` returns a weight, a stateless layer starts
    every call from it and it gets its gradient. A stateful layer copies its value into the layer's state when
    it is built and when it is reset; what is copied has no gradient, so that the weight does not learn.

    Arguments, inputs and outputs are those of `keras.layers.RNN`. States that are no vectors (`state_size` a
    list of shapes) have their shapes in a functional model too.
    """

    def reset_state(self):
        """Sets the states of a stateful layer to the cell's initial state."""
        if self.states is None:
            return
        variables = tree.flatten(self.states)
        initial = self.get_initial_state(variables[0].shape[0])
        for variable, value in zip(variables, tree.flatten(initial), strict=True):
            variable.assign(value)

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        """The shape of the output, followed by those of the states with `return_state`."""
        shape = super().compute_output_shape(sequences_shape, initial_state_shape)
        if not self.return_state or isinstance(self.cell, keras.layers.StackedRNNCells):
            return shape
        sizes = [size if isinstance(size, (list, tuple)) else (size,) for size in self.state_size]
        return shape[0], *[(sequences_shape[0], *size) for size in sizes]
