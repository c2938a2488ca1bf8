"""Computes a layer's answer from its cells' recurrences: masks, dropout, both directions, cells, layers.

All in NumPy and from the case's options alone, so that a layer that ignores one is found out. It computes in
the dtype of what it is given, complex too: a complex step through it gives exact derivatives.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from bench.backend.dropout_masks import DropoutMasks
from bench.cases.case import Case
from bench.records.text import counted
from cells.reference import Recurrence

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Cell:
    """A cell's recurrence over a sequence, and how many weights and states it takes.

    Attributes:
        equation: tells the recurrence from others.
    """

    equation: str
    weights: int
    states: int
    recurrence: Recurrence = field(repr=False, compare=False)


@dataclass(frozen=True)
class Given:
    """The data that a composition runs on; each cell takes its share, in order."""

    weights: Iterator[np.ndarray]
    states: Iterator[np.ndarray]
    drops: Iterator[DropoutMasks]
    mask: np.ndarray | None

    def bound(self, cell: Cell) -> tuple[Callable, Arrays]:
        """The cell's f(inputs, states) -> (outputs, states), and the states it starts from."""
        weights = list(islice(self.weights, cell.weights))
        drops = next(self.drops, DropoutMasks())

        def run(inputs, states):
            if drops.inputs is None and drops.states is None:
                return cell.recurrence(weights, inputs, states)
            return _run_dropped(cell.recurrence, weights, inputs, states, drops)

        return run, list(islice(self.states, cell.states))


@dataclass(frozen=True)
class Loop:
    """`keras.layers.RNN` over one cell or several."""

    cells: tuple[Cell, ...]
    return_sequences: bool
    go_backwards: bool
    zero_output_for_mask: bool

    def __call__(self, inputs: np.ndarray, given: Given) -> tuple[Arrays, Arrays]:
        bound = [given.bound(cell) for cell in self.cells]
        mask = given.mask
        if self.go_backwards:
            inputs, mask = inputs[:, ::-1], None if mask is None else mask[:, ::-1]

        def run(inputs, states):
            after = []
            for (cell, _), before in zip(bound, states, strict=True):
                inputs, new = cell(inputs, before)
                after.append(list(new))
            return inputs, after

        states = [initial for _, initial in bound]
        if mask is None:
            outputs, states = run(inputs, states)
        else:
            outputs, states = _run_masked(run, inputs, states, mask, self.zero_output_for_mask)
        flat = [state for of_cell in states for state in of_cell]
        return [outputs if self.return_sequences else outputs[:, -1]], flat


@dataclass(frozen=True)
class Bidirectional:
    """`keras.layers.Bidirectional`: the same inputs from the start and from the end."""

    forward: Loop
    backward: Loop
    merge_mode: str

    def __call__(self, inputs: np.ndarray, given: Given) -> tuple[Arrays, Arrays]:
        (ahead,), states = self.forward(inputs, given)
        (back,), more = self.backward(inputs, given)
        if self.backward.return_sequences:
            back = back[:, ::-1]
        return MERGES[self.merge_mode](ahead, back), [*states, *more]


MERGES: dict[str, Callable[[np.ndarray, np.ndarray], Arrays]] = {
    "concat": lambda ahead, back: [np.concatenate([ahead, back], axis=-1)],
    "sum": lambda ahead, back: [ahead + back],
    "mul": lambda ahead, back: [ahead * back],
    "ave": lambda ahead, back: [(ahead + back) / 2],
    "none": lambda ahead, back: [ahead, back],
}


@dataclass(frozen=True)
class Stack:
    """Layers one upon another, with the states of all."""

    layers: tuple[Loop | Bidirectional, ...]

    @property
    def cells(self) -> list[Cell]:
        """All cells, in the order in which they take their shares."""
        halves = [
            (layer.forward, layer.backward) if isinstance(layer, Bidirectional) else (layer,)
            for layer in self.layers
        ]
        return [cell for loops in halves for loop in loops for cell in loop.cells]

    def __call__(self, inputs: np.ndarray, given: Given) -> tuple[Arrays, Arrays]:
        outputs, states = [inputs], []
        for layer in self.layers:
            outputs, more = layer(outputs[0], given)
            states += more
        return outputs, states


Composition = Stack


def compose(
    case: Case, cells: Sequence[Cell], cells_a_layer: int = 1, zero_masked: bool = False
) -> Composition:
    """Composes what the case's layer must compute.

    Args:
        cells: the layer's cells: from below, and at each level forward before backward.
        cells_a_layer: how many of them run within one `keras.layers.RNN`, one upon another.
        zero_masked: whether masked steps give zeros without being asked to.

    Raises:
        ValueError: there are more or fewer cells than the case's options make.
    """
    wanted = case.depth * (2 if case.bidirectional else 1)
    if len(cells) != wanted or case.depth % cells_a_layer:
        raise ValueError(f"the layer has {counted(len(cells), 'cell')}, where the case asks for {wanted}")
    # Keras' Bidirectional zeroes the outputs of masked steps, whatever its layers say
    zero = case.zero_output_for_mask or zero_masked or case.bidirectional
    rest = iter(cells)

    def loop(return_sequences, go_backwards):
        return Loop(
            tuple(islice(rest, cells_a_layer)),
            return_sequences,
            go_backwards,
            zero_output_for_mask=zero and return_sequences,
        )

    def level(return_sequences):
        forward = loop(return_sequences, case.go_backwards)
        if not case.bidirectional:
            return forward
        return Bidirectional(forward, loop(return_sequences, True), case.merge_mode or "concat")

    levels = case.depth // cells_a_layer
    return Stack(tuple(level(number < levels or case.return_sequences) for number in range(1, levels + 1)))


def run_composition(
    composition: Callable[[np.ndarray, Given], tuple[Arrays, Arrays]],
    weights: Sequence[np.ndarray],
    inputs: np.ndarray,
    initial_states: Sequence[np.ndarray],
    mask: np.ndarray | None = None,
    drops: Sequence[DropoutMasks] = (),
) -> tuple[Arrays, Arrays]:
    """The outputs, two where the two directions are not merged, and the final states, flat.

    Args:
        weights, initial_states: those of all cells, flat, in order.
        inputs: [batch_size, timesteps, features].
        mask: [batch_size, timesteps], true where a step counts; None where all do.
        drops: of each cell; empty where nothing is dropped.
    """
    return composition(inputs, Given(iter(weights), iter(initial_states), iter(drops), mask))


def _run_masked(run, inputs: np.ndarray, states, mask: np.ndarray, zero_output: bool):
    """A masked step keeps the states, and gives the output before it, or zeros; at first these are zeros."""
    outputs: Arrays = []
    for step in range(inputs.shape[1]):
        counts = mask[:, step]
        output, new = run(inputs[:, step : step + 1], states)
        output = output[:, 0]
        before = outputs[-1] if outputs and not zero_output else np.zeros_like(output)
        outputs.append(_where(counts, output, before))
        states = [
            [_where(counts, *pair) for pair in zip(*of_cell, strict=True)]
            for of_cell in zip(new, states, strict=True)
        ]
    return np.stack(outputs, axis=1), states


def _where(rows: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return np.where(rows.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _run_dropped(recurrence: Recurrence, weights, inputs: np.ndarray, states: Arrays, drops: DropoutMasks):
    """Dropping what a product takes is dropping rows of its weights, others in each sequence.

    Each sequence then has kernels of its own, [batch_size, width, gates * units], and the recurrence runs on
    batches of one: inputs [batch_size, timesteps, 1, features].
    """
    kernel, recurrent, *rest = weights
    weights = [_dropped(kernel, drops.inputs), _dropped(recurrent, drops.states), *rest]
    outputs, states = recurrence(weights, inputs[:, :, None], [state[:, None] for state in states])
    return outputs[:, :, 0], [state[:, 0] for state in states]


def _dropped(kernel: np.ndarray, masks: np.ndarray | Arrays | None) -> np.ndarray:
    if masks is None:
        return kernel
    if isinstance(masks, np.ndarray):
        return masks[:, :, None] * kernel
    blocks = np.split(kernel, len(masks), axis=-1)
    return np.concatenate([mask[:, :, None] * block for mask, block in zip(masks, blocks, strict=True)], -1)
