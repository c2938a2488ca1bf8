"""The peers: the same cells in other hands, with Keras' weights and answers in Keras' layout.

A peer that brings threads of its own lives in a process of its own, which loads its module here, named by
`Subject.peer`, and no TensorFlow unless that is the peer's. Such a module has

    environment() -> dict                         its versions and its threads, fit for JSON
    load(cell, mode, data, **options) -> Loaded   the cell, compiled as far as the peer compiles, called once

with the options that are not the default, where it has any: for a case on a GPU `device="gpu"`, and `tf32`,
whether products of float32 may be rounded to TF32. And what a user's cell is made from, where it runs such.
`block` has layers, which run beside Keras'.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class PeerData:
    """The data that a peer computes on: arrays in Keras' layout, float32 but for a user's states of integers.

    Attributes:
        weights: kernel, recurrent kernel, bias; of another cell than those, its own, in its order.
        inputs: [batch_size, timesteps, features].
        initial_states: each [batch_size, units].
        cotangents: of the outputs [batch_size, timesteps, units] and of each final state that has a gradient,
            what that starts from.
        units: what the cell is made with; None: the width of its recurrent kernel says.
    """

    weights: Arrays
    inputs: np.ndarray
    initial_states: Arrays
    cotangents: Arrays
    units: int | None = None


@dataclass(frozen=True)
class Loaded:
    """A peer's program, ready to be timed.

    Attributes:
        run: computes it once and returns when it has finished. Inputs and outputs stay the peer's own
            tensors, batch-major; a transposition that the peer needs is part of the program.
        answer: computes it once and returns (outputs, gradients): the outputs and the final states; in
            `train` the gradients of the weights, the inputs and the initial states, in this order and in
            Keras' layout, else none. Weights that are not trained and states of integers have none.
        facts: what the record has of a compiled program, as far as the peer has it: `trace_s`, `compile_s`,
            `graph_nodes`, `kernel`, `xla`.
        trace_count: how often it has been traced so far; 0 where nothing is.
    """

    run: Callable[[], Any]
    answer: Callable[[], tuple[Arrays, Arrays]]
    facts: dict[str, Any]
    trace_count: Callable[[], int] = lambda: 0
