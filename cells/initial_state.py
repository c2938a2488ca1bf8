"""Cells that do not start from zeros: h_0 chosen, and h_0 learned.

Both belong in `cells.RNN`. `keras.layers.RNN` asks a cell for its initial state at each call while it is
stateless, and once, when built, if it is stateful; its `reset_state()` then writes zeros without asking.
"""

from keras import initializers, ops, saving

from cells.textbook import SimpleRNNCell


@saving.register_keras_serializable("cells")
class ChosenStateRNNCell(SimpleRNNCell):
    """`SimpleRNNCell` that starts from a chosen number in every unit.

        h_0 = initial_value
        h' = tanh(x W + h R + b)

    Output: h'. With `activation=None` and W = R = 1 it is the running sum of x, plus `initial_value`.

    Args:
        initial_value: float, h_0. The other arguments are `SimpleRNNCell`'s.
    """

    def __init__(self, units, *, initial_value=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.initial_value = initial_value

    def get_initial_state(self, batch_size=None):
        """`initial_value` in all of [batch_size, units]."""
        return [ops.full((batch_size, self.units), self.initial_value, dtype=self.compute_dtype)]


@saving.register_keras_serializable("cells")
class LearnedStateRNNCell(SimpleRNNCell):
    """`SimpleRNNCell` whose initial state is a weight, one number a unit, the same for all sequences.

        h_0 = s
        h' = tanh(x W + h R + b)

    Output: h'. Weights: those of `SimpleRNNCell`, then `initial_state` (units,), the s.

    A stateless layer starts every call from s, and s gets its gradient. A stateful one copies s into its
    state when it is built and, being a `cells.RNN`, at `reset_state()`; from there on calls continue
    from the copy, so that s gets no gradient and a training step does not move it.

    Args:
        initial_state_initializer: how s starts. The other arguments are `SimpleRNNCell`'s.
    """

    def __init__(self, units, *, initial_state_initializer="zeros", **kwargs):
        super().__init__(units, **kwargs)
        self.initial_state_initializer = initializers.get(initial_state_initializer)

    def build(self, input_shape):
        super().build(input_shape)
        self.initial_state = self.add_weight(
            name="initial_state", shape=(self.units,), initializer=self.initial_state_initializer
        )

    def get_initial_state(self, batch_size=None):
        """The weight s in every row of [batch_size, units]; the cell must be built.

        Raises:
            ValueError: the cell has no weights yet.
        """
        if not hasattr(self, "initial_state"):
            raise ValueError(f"{self.name}: build the cell first, its initial state is one of its weights.")
        state = ops.cast(self.initial_state, self.compute_dtype)
        return [ops.broadcast_to(state, (batch_size, self.units))]
