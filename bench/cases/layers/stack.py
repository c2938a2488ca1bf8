"""Layers made of layers: `Stack`, and what stands in one, in a `Bidirectional`, or in neither."""

from collections.abc import Iterator
from typing import Any

import keras

from bench.cases.layers.whole import WholeLayer


class Stack(keras.layers.Layer):
    """Recurrent layers one upon another, which gives the states of all of them.

    Args:
        layers: layers that return their outputs, all but the last those of every step, and their states.
    """

    def __init__(self, layers):
        super().__init__()
        self.layers = layers
        self.stateful = layers[-1].stateful
        self.supports_masking = True

    @property
    def states(self) -> list[Any]:
        """The states that the layers keep, of each layer."""
        return [layer.states for layer in self.layers]

    def build(self, sequences_shape):
        for layer in self.layers:
            layer.build(sequences_shape)
            sequences_shape, *_ = layer.compute_output_shape(sequences_shape)

    def get_initial_state(self, batch_size: int) -> list[Any]:
        """The states that the layers start from, of each layer."""
        return [initial_state_of(layer, batch_size) for layer in self.layers]

    def call(self, sequences, initial_state=None, mask=None, training=False):
        """The outputs of the last layer, then the states of all."""
        states: list[Any] = []
        for number, layer in enumerate(self.layers):
            start = None if initial_state is None else initial_state[number]
            sequences, *after = layer(sequences, initial_state=start, mask=mask, training=training)
            states += after
        return sequences, *states


def initial_state_of(layer, batch_size: int) -> list[Any]:
    """The states that a layer, or both of a `Bidirectional`, start from."""
    if isinstance(layer, keras.layers.Bidirectional):
        halves = (layer.forward_layer, layer.backward_layer)
        return [state for half in halves for state in half.get_initial_state(batch_size)]
    return layer.get_initial_state(batch_size)


def loops_of(layer) -> Iterator[Any]:
    """The layers that run a cell: from below, and at each level forward before backward; none of a whole
    layer, which does not show any."""
    if isinstance(layer, WholeLayer):
        return
    if isinstance(layer, Stack):
        for each in layer.layers:
            yield from loops_of(each)
    elif isinstance(layer, keras.layers.Bidirectional):
        yield from (layer.forward_layer, layer.backward_layer)
    else:
        yield layer


def cells_of(loop, depth: int) -> list[Any]:
    """The cells that a layer runs at each step: `depth` of them one upon another, or one; a stack that a
    user's cell is, or has inside, counts as one."""
    made_of_depth = depth > 1 and isinstance(loop.cell, keras.layers.StackedRNNCells)
    return list(loop.cell.cells) if made_of_depth else [loop.cell]
