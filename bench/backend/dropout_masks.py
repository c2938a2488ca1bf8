"""`DropoutMasks`: the dropout masks of one cell, as NumPy arrays."""

from dataclasses import dataclass

import numpy as np

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class DropoutMasks:
    """The dropout masks that a cell drew for one batch: factors of its inputs and of its first state.

    Attributes:
        inputs, states: one array [batch_size, width], or one for each gate, of zeros and 1 / (1 - rate);
            None where nothing is dropped.
    """

    inputs: np.ndarray | Arrays | None = None
    states: np.ndarray | Arrays | None = None

    @property
    def arrays(self) -> list[np.ndarray | None]:
        """All of them."""
        return [
            mask
            for masks in (self.inputs, self.states)
            for mask in (masks if isinstance(masks, list) else [masks])
        ]
