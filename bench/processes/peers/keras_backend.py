"""Keras 3 on a back end other than TensorFlow: what `keras_jax` and `keras_torch` beside this file share.

Whoever imports this has set `KERAS_BACKEND`, which Keras reads once.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bench.backend.quiet import no_chatter
from bench.cases.layers.shaped_steps import shaped
from bench.cases.subjects import UnsupportedOption
from bench.contract import tensorflow_calls
from bench.contract.load_cell import TargetError, load_target
from bench.processes.peers import Arrays, PeerData

keras.config.disable_traceback_filtering()

_LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}
_CELLS = {
    "keras_lstm": keras.layers.LSTMCell,
    "keras_gru": keras.layers.GRUCell,
    "keras_simple_rnn": keras.layers.SimpleRNNCell,
}
# which back end a peer's name for it stands for, for people
_BACKENDS = {"jax": "JAX", "torch": "PyTorch"}


@dataclass(frozen=True)
class MadeLayer:
    """A layer with the weights given, and how its answer is taken.

    Attributes:
        layer: built; returns the outputs of all steps, and its states.
        trainable: the variables whose gradients belong to `train`, in the order of its weights.
        pack: a flat list of states -> the states as `initial_state` takes them.
        differentiable: for each initial state whether it has a gradient: integers have none.
        own: whether the cell is a user's.
    """

    layer: Any
    trainable: list[Any]
    pack: Callable[[Sequence[Any]], Any]
    differentiable: list[bool]
    own: bool


def make_layer(
    cell: str,
    data: PeerData,
    target: str | None = None,
    kwargs: str = "{}",
    step_shape: Sequence[int] | None = None,
) -> MadeLayer:
    """Makes the layer of a cell: Keras' own, one of the project's, or a user's.

    Args:
        cell: by the names of `bench.cases.subjects`; `lstm`, `gru`, `simple_rnn` are Keras' layers.
        target, kwargs, step_shape: of a user's cell, as `Subject` has them.

    Raises:
        UnsupportedOption: a user's cell cannot be loaded or made on this back end.
    """
    units = data.units or data.weights[1].shape[0]
    arguments: dict[str, Any] = {"return_sequences": True, "return_state": True}
    if target is None and cell in _LAYERS:
        layer = _LAYERS[cell](units, **arguments)
    else:
        made = _our_cell(cell, units) if target is None else _user_cell(target, kwargs, units)
        layer = keras.layers.RNN(made if step_shape is None else shaped(made, step_shape), **arguments)
    batch_size, timesteps, features = data.inputs.shape
    layer.build((batch_size, timesteps, features))
    layer.set_weights(data.weights)
    structure = layer.get_initial_state(batch_size)
    return MadeLayer(
        layer,
        [weight for weight in layer.weights if weight.trainable],
        lambda states: keras.tree.pack_sequence_as(structure, list(states)),
        [np.issubdtype(state.dtype, np.floating) for state in data.initial_states],
        target is not None,
    )


def _our_cell(cell: str, units: int) -> Any:
    if cell in _CELLS:
        return _CELLS[cell](units)
    with no_chatter():  # the package imports TensorFlow for its engines, which are not used here
        from cells import CELLS
    return CELLS[cell](units)


def _user_cell(target: str, kwargs: str, units: int) -> Any:
    try:
        with no_chatter():
            loaded = load_target(target, json.loads(kwargs))
        with tensorflow_noted(target):
            return loaded.make(units)
    except TargetError as error:
        raise UnsupportedOption(
            f"on Keras' {backend_name()} back end: {error}\n{error.details}".rstrip()
        ) from None


@contextmanager
def tensorflow_noted(of: str | None) -> Iterator[None]:
    """Refuses a user's cell that calls TensorFlow while it is made, or while its steps are first computed.

    Args:
        of: the cell, for the message; None: it is no user's, and nothing is noted.

    Raises:
        UnsupportedOption: it does, whatever came of it.
    """
    if of is None:
        yield
        return
    failed: Exception | None = None
    with tensorflow_calls.noted() as calls:
        try:
            yield
        except Exception as error:
            failed = error
    if calls:
        raise UnsupportedOption(
            f"{of} calls TensorFlow, which Keras' {backend_name()} back end cannot run: "
            f"{tensorflow_calls.ADVICE} ({calls.in_words()})"
        ) from failed
    if failed is not None:
        raise failed


def backend_name() -> str:
    """Keras' back end in this process, as people call it."""
    return _BACKENDS[keras.backend.backend()]


def answer_of(run: Callable[[], tuple[Any, Any]]) -> Callable[[], tuple[Arrays, Arrays]]:
    """run() -> outputs and gradients; the same as NumPy arrays."""

    def answer() -> tuple[Arrays, Arrays]:
        outputs, gradients = ([*map(keras.ops.convert_to_numpy, each)] for each in run())
        return outputs, gradients

    return answer


def floating(outputs: Sequence[Any]) -> list[Any]:
    """The outputs that a gradient can start from."""
    return [
        output
        for output in outputs
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(output.dtype))
    ]
