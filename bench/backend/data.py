"""The data of a program and its answer, as NumPy arrays."""

from dataclasses import dataclass

import numpy as np

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Data:
    """The data that a program computes on, as NumPy arrays of the dtypes that the layer takes.

    Attributes:
        weights: the layer's weights, in the order of `layer.get_weights()`.
        inputs: [batch_size, timesteps, features].
        initial_states: every state, [batch_size, ...], flat.
        cotangents: for every output of the layer (the outputs, then the states, flat) what its gradient
            starts from; None for one that has no gradient, an integer state.
        mask: [batch_size, timesteps], bool, true where a step counts; None where the layer gets no mask.
    """

    weights: Arrays
    inputs: np.ndarray
    initial_states: Arrays
    cotangents: list[np.ndarray | None]
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Answer:
    """A program's answer, as NumPy arrays.

    Attributes:
        outputs: the layer's outputs, then its final states, flat.
        gradients: in `train`, by name: those of the trainable weights (by weight name), of `inputs`
            and of the initial states (`initial_state 0` …); empty in `infer`.
    """

    outputs: Arrays
    gradients: dict[str, np.ndarray]
