"""The dropout masks that a layer's cells draw, and whether a cell drops something that it does not show."""

from dataclasses import dataclass

import numpy as np

from bench.backend.data import Arrays
from bench.backend.libraries import keras, tf
from bench.cases.case import Case
from bench.cases.layers.stack import cells_of, loops_of
from bench.contract.cell_under_test import draws_at_random


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
    cells = [cell for loop in loops_of(layer) for cell in cells_of(loop, case.depth)]
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
    """True where one eager step of the layer has another answer in training: by dropout, by batch
    normalisation, by a gate that training softens."""
    infer, train = (
        [np.asarray(tensor) for tensor in keras.tree.flatten(_one_step(layer, case, training))]
        for training in (False, True)
    )
    return not all(map(np.array_equal, infer, train))


def draws_in_training(layer, case: Case) -> bool:
    """Whether one step of the layer draws random numbers in training."""
    return draws_at_random(lambda: _one_step(layer, case, training=True))


def _one_step(layer, case: Case, training: bool):
    loop = next(loops_of(layer))
    step = tf.ones((case.batch_size, 1, case.features), layer.compute_dtype)
    step *= tf.range(1.0, case.batch_size + 1.0)[:, None, None]  # samples that differ
    states = keras.tree.map_structure(tf.ones_like, loop.get_initial_state(case.batch_size))
    return loop(step, initial_state=states, training=training)
