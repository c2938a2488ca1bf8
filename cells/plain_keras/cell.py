"""What the cells in plain Keras share."""

from numbers import Integral

from keras import layers, ops


class UnitsCell(layers.Layer):
    """A layer with the parts of Keras' protocol of cells that do not depend on the equation.

    Args:
        units: int, the width of the output, and of the state where a cell says nothing else.

    Raises:
        ValueError: `units` is not a positive integer.
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = positive_integer(self, "units", units)

    @property
    def state_size(self):
        """The width of the state; of several, a list of widths, and of shapes where they are matrices."""
        return self.units

    @property
    def output_size(self):
        """The width of the output."""
        return self.units

    def get_initial_state(self, batch_size=None):
        """Zeros, [batch_size, width] a state."""
        sizes = self.state_size if isinstance(self.state_size, list) else [self.state_size]
        shapes = [size if isinstance(size, tuple) else (size,) for size in sizes]
        return [ops.zeros((batch_size, *shape), dtype=self.compute_dtype) for shape in shapes]

    def get_config(self):
        """The arguments that make an equal cell."""
        return {**super().get_config(), "units": self.units}


def positive_integer(cell, name, value):
    """The value of an argument of a cell, as an int.

    Raises:
        ValueError: it is no positive integer.
    """
    if not isinstance(value, Integral) or value <= 0:
        raise ValueError(f"{type(cell).__name__}: {name} must be a positive integer, not {value!r}.")
    return int(value)
