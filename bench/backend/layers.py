"""The layers: building them, their cells and weights, the operations of a step."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.backend.data import Arrays
from bench.backend.dropout_masks import DropoutMasks
from bench.backend.flops import Flops, Uncountable, count
from bench.backend.libraries import keras, tf
from bench.cases.case import Case
from bench.cases.layers.stack import cells_of, initial_state_of, loops_of
from bench.contract.cell_under_test import dtype_policy
from bench.contract.switches import drew_with_tensorflow, restart_seeds


def built_layer(make: Callable[[], Any], case: Case, seed: int):
    """The layer that `make` makes, built for the case's shape; what its building draws comes from `seed`.

    It is built under the case's dtype policy, which layers that a cell makes in its `build` take.
    """
    layer = make()
    restart_seeds(seed)
    _build(layer, case)
    if not drew_with_tensorflow(seed):
        return layer
    # TensorFlow's own random operations go on where they were, unless all that is compiled is dropped
    layer = make()
    keras.utils.set_random_seed(seed)
    _build(layer, case)
    return layer


def _build(layer, case: Case) -> None:
    with dtype_policy(case.dtype):
        layer.build((*sizes(case), case.features))


def sizes(case: Case) -> tuple[int | None, int | None]:
    """The batch size and the timesteps, each None where it is left open."""
    return (
        case.batch_size if case.static_batch else None,
        case.timesteps if case.static_timesteps else None,
    )


def float_dtype(layer) -> np.dtype:
    """The dtype the layer computes in."""
    return tf.as_dtype(layer.compute_dtype).as_numpy_dtype


def initial_state_arrays(layer, batch_size: int) -> Arrays:
    """The states the layer starts from by itself, flat."""
    return [np.asarray(state) for state in keras.tree.flatten(initial_state_of(layer, batch_size))]


def cells_in(layer, depth: int) -> list[list[tuple[Any, int]]]:
    """The cells of a layer made for a case of this depth, each with the number of its states: a list for each
    loop that runs some, one upon another; the loops from below, and at each level forward before backward."""
    loops = []
    for loop in loops_of(layer):
        cells, initial = cells_of(loop, depth), loop.get_initial_state(1)
        states = initial if len(cells) > 1 else [initial]
        loops.append([(cell, len(keras.tree.flatten(of))) for cell, of in zip(cells, states, strict=True)])
    return loops


def weight_names(layer) -> list[str]:
    """The names of the layer's weights in the order of `get_weights()`, as gradients are called.

    Weights of the same name are told apart by a number.
    """
    names: list[str] = []
    for weight in layer.weights:
        others = sum(name.split()[0] == weight.name for name in names)
        names.append(f"{weight.name} {others}" if others else weight.name)
    return names


def lost_option(layer, case: Case) -> str | None:
    """An option that the case asks for and that got lost on the way to the layer's loops and cells, in words.

    Options that change the answer of the case's composition are not looked at: the proof finds these.
    """
    wanted = {name: getattr(case, name) for name in ("unroll", "stateful") if getattr(case, name)}
    of_cells: dict[str, Any] = {"use_bias": case.use_bias, "reset_after": case.reset_after}
    if case.implementation != Case.implementation:
        of_cells["implementation"] = case.implementation
    if case.activation is not None:
        of_cells["activation"] = keras.activations.get(case.activation)
    pairs = [(loop, wanted) for loop in loops_of(layer)]
    pairs += [(cell, of_cells) for loop, _ in pairs for cell in cells_of(loop, case.depth)]
    for owner, options in pairs:
        for name, value in options.items():
            if value is not None and getattr(owner, name, None) != value:
                return f"{type(owner).__name__} has {name} {getattr(owner, name, None)}"
    return None


def step_flops(layer, case: Case) -> Flops | None:
    """The floating point operations of one step of the layer's cells, from the graph of that step; in `train`
    of the step and of its gradients with respect to weights, inputs and states. None where a cell's cannot
    be counted.

    Dropout is left out, and so is the sum of the weights' gradients over the steps.
    """
    total, loops = Flops(), list(loops_of(layer))
    if not loops:
        return None
    try:
        for loop in loops:
            cells, initial = cells_of(loop, case.depth), loop.get_initial_state(case.batch_size)
            for cell, states in zip(cells, initial if len(cells) > 1 else [initial], strict=True):
                total += count(_step_graph(cell, states, case).outputs)
                if not case.input_product:
                    total += Flops(-_input_product_flops(cell, case))
    except Uncountable:
        return None
    return total


def _step_graph(cell, states, case: Case):
    build_shape = (cell.get_build_config() or {}).get("input_shape") or (None, case.features)
    training = {"training": False} if cell._call_has_training_arg else {}

    def step(inputs, states):
        weights = [weight.value for weight in cell.trainable_weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            sources = [*weights, inputs, *(s for s in keras.tree.flatten(states) if s.dtype.is_floating)]
            tape.watch(sources if case.mode == "train" else [])
            outputs = keras.tree.flatten(cell(inputs, states, **training))
        if case.mode != "train":
            return outputs
        targets = [output for output in outputs if output.dtype.is_floating]
        return outputs, [g for g in tape.gradient(targets, sources) if g is not None]

    inputs = tf.TensorSpec((case.batch_size, build_shape[-1]), cell.compute_dtype)
    specs = keras.tree.map_structure(lambda state: tf.TensorSpec(state.shape, state.dtype), states)
    return tf.function(step, autograph=False).get_concrete_function(inputs, specs).graph


def _input_product_flops(cell, case: Case) -> int:
    forward = 2 * case.batch_size * math.prod(cell.kernel.shape)
    return 3 * forward if case.mode == "train" else forward


def eager_recurrence(cell, drops: DropoutMasks | None = None, training: bool = False) -> Callable[..., Any]:
    """A recurrence, f(weights, inputs, initial_states) -> (outputs, states), that calls the built float64
    `cell` step by step, with no loop of Keras' or TensorFlow's and nothing compiled; with `drops`, in
    training, these being what it draws.

    Args:
        training: whether it is called in training where it draws nothing.
    """
    with dtype_policy("float64"):  # as the contract asks it: tensors that it makes are float64 too
        states = cell.get_initial_state(1) if hasattr(cell, "get_initial_state") else cell.state_size
    structure = list(states) if keras.tree.is_nested(states) else [states]
    in_training = {"training": True} if training or drops is not None else {}
    if drops is not None:
        cell.get_dropout_mask = lambda _: drops.inputs
        cell.get_recurrent_dropout_mask = lambda _: drops.states

    def recurrence(weights, inputs, initial_states):
        cell.set_weights(weights)
        states = keras.tree.pack_sequence_as(structure, [tf.constant(state) for state in initial_states])
        outputs = []
        for step in np.moveaxis(inputs, 1, 0):
            with dtype_policy("float64"):
                output, states = cell(tf.constant(step), states, **in_training)
            states = states if keras.tree.is_nested(states) else [states]
            outputs.append(output.numpy())
        return np.stack(outputs, axis=1), [np.asarray(state) for state in keras.tree.flatten(states)]

    return recurrence
