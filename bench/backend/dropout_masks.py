"""The dropout masks that a layer's cells draw, and whether a cell drops something that it does not show."""

from dataclasses import dataclass

import numpy as np

from bench.backend.data import Arrays
from bench.backend.libraries import keras, tf
from bench.cases.case import Case
from bench.cases.layers.stack import cells_of, loops_of


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


def drawn_masks(layer, case: Case) -> list[DropoutMasks]:
    """The dropout masks that the layer's cells draw for the first batch after their seeds were reset, those
    of each cell; empty where the case drops nothing, or a cell's masks cannot be read."""
    cells = [cell for loop in loops_of(layer) for cell in cells_of(loop)]
    if case.mode == "infer" or not all(map(_shows_masks, cells)):
        return []

    def draw():
        masks = [
            (
                cell.get_dropout_mask(tf.ones((case.batch_size, cell.kernel.shape[0]), cell.compute_dtype)),
                cell.get_recurrent_dropout_mask(tf.ones((case.batch_size, case.units), cell.compute_dtype)),
            )
            for cell in cells
        ]
        for cell in cells:
            cell.reset_dropout_mask()
            cell.reset_recurrent_dropout_mask()
        return masks

    reset_seeds(layer)
    drawn = tf.function(draw, jit_compile=case.jit_compile, autograph=False).get_concrete_function()()
    return [DropoutMasks(*keras.tree.map_structure(_float_array, pair)) for pair in drawn]


def _float_array(tensor: tf.Tensor | None) -> np.ndarray | None:
    return None if tensor is None else np.asarray(tensor, float)


def _shows_masks(cell) -> bool:
    """True where the cell drops something, and shows what: Keras' cells and ours do."""
    drops = getattr(cell, "dropout", 0) or getattr(cell, "recurrent_dropout", 0)
    return bool(drops) and hasattr(cell, "get_dropout_mask") and hasattr(cell, "kernel")


def reset_seeds(layer) -> None:
    """Lets the layer draw its random numbers anew, each cell others."""
    states = [variable for variable in layer.variables if variable.name == "seed_generator_state"]
    for number, state in enumerate(states):
        state.assign([number + 1, 0])


def differs_in_training(layer, case: Case) -> bool:
    """True where one eager step of the cell has another answer in training, as dropout makes it."""
    loop = next(loops_of(layer))
    if not loop.cell._call_has_training_arg:
        return False
    step = tf.ones((case.batch_size, case.features), layer.compute_dtype)
    states = keras.tree.map_structure(tf.ones_like, loop.get_initial_state(case.batch_size))
    answers = [
        [np.asarray(tensor) for tensor in keras.tree.flatten(loop.cell(step, states, training=training))]
        for training in (False, True)
    ]
    return not all(np.array_equal(*pair) for pair in zip(*answers, strict=True))
