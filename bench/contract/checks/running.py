"""One answer however Keras runs it: unrolled, stateful, backwards, masked, stacked, in both directions."""

from typing import Any

import keras
import numpy as np
from keras import ops, tree

from bench.contract.cell_under_test import (
    BATCH,
    NO_MODEL,
    STEPS,
    Cells,
    agree,
    arrays,
    compiled,
    custom_objects,
    difference,
    draws_at_random,
    gradients,
    initial_states,
    is_excused,
    is_vector,
    reached_states,
    run,
    samples,
    shapes,
    step,
    total_of,
    walk,
)
from bench.contract.check import Refused, Seen, Skipped, check
from bench.contract.load_cell import TargetError

_SEQUENCE = "let call depend on its inputs, states and weights only"
_PADDING = "guard what has no derivative at zero inputs: add an epsilon before dividing or taking a root"
_SHAPE = "let outputs and states keep a static rank and last axis: ops.reshape(h, (-1, self.units))"


@check(_SEQUENCE)
def unroll(cells: Cells) -> str:
    """Does the unrolled loop answer the same?"""
    cell, inputs = cells.built(), cells.inputs()
    what = "the same answer unrolled as in a loop"
    return agree(run(cell, inputs, unroll=True), run(cell, inputs), cells.tolerance(), what)


@check(_SEQUENCE)
def stateful(cells: Cells) -> str:
    """Does a stateful layer in chunks answer as one pass?"""
    cell, inputs = cells.built(), cells.inputs()
    chunks = keras.layers.RNN(cell, return_sequences=True, stateful=True)
    outputs = ops.concatenate([chunks(inputs[:, :2]), chunks(inputs[:, 2:])], axis=1)
    whole, states = run(cell, inputs)
    what = "a stateful layer, given the sequence in chunks, to answer as for the whole"
    agree(chunks.states, states, cells.tolerance(), f"{what}, in its states")
    return agree(outputs, whole, cells.tolerance(), what)


@check(_SEQUENCE)
def go_backwards(cells: Cells) -> str:
    """Is go_backwards the reversed sequence?"""
    cell, inputs = cells.built(), cells.inputs()
    what = "go_backwards to be as the reversed inputs"
    return agree(
        run(cell, inputs, go_backwards=True), run(cell, ops.flip(inputs, axis=1)), cells.tolerance(), what
    )


@check(_SHAPE, needs=("any_batch_size",))
def mask(cells: Cells) -> str:
    """Is a masked sequence as the truncated one?"""
    cell, inputs = cells.built(), cells.inputs()
    both = compiled(lambda x: [run(cell, x, mask=_mask(), unroll=unroll) for unroll in (False, True)])
    (outputs, states), unrolled = both(inputs)
    agree(unrolled, (outputs, states), cells.tolerance(), "a mask to do the same unrolled as in a loop")
    for sample, length in enumerate(_LENGTHS):
        rows = slice(sample, sample + 1)
        expected = run(cell, inputs[rows, :length])
        seen = samples((outputs[:, :length], states), rows)
        agree(seen, expected, cells.tolerance(), "a right-padded sequence to be as the truncated one")
        padding = ops.repeat(expected[0][:, -1:], STEPS - length, axis=1)
        what = "the last output to be repeated over the padding"
        agree(outputs[rows, length:], padding, cells.tolerance(), what)
    return f"sequences of {_LENGTHS} steps, padded and masked, are as the truncated ones"


_LENGTHS = (STEPS, 2, 1)


def _mask() -> np.ndarray:
    """[BATCH, STEPS], true for the first steps of each sample."""
    return np.arange(STEPS) < np.array(_LENGTHS)[:, None]


def _mask_like(sequences: Any) -> np.ndarray:
    """The mask with as many axes as the sequences [BATCH, STEPS, ...]."""
    return _mask().reshape(BATCH, STEPS, *[1] * (len(sequences.shape) - 2))


@check(_SHAPE)
def zero_output_for_mask(cells: Cells) -> str:
    """Does zero_output_for_mask only zero masked outputs?"""
    cell, inputs = cells.built(), cells.inputs()
    outputs, states = run(cell, inputs, mask=_mask())
    zeroed = ops.where(_mask_like(outputs), outputs, ops.zeros_like(outputs))
    seen = run(cell, inputs, mask=_mask(), zero_output_for_mask=True)
    return agree(
        seen, (zeroed, states), cells.tolerance(), "zeros for masked steps, and nothing else changed"
    )


@check(_PADDING, needs=("mask", "weight_gradients"))
def mask_gradients(cells: Cells) -> str:
    """Does zero padding leave the gradients alone?"""
    cell = cells.built()
    inputs = cells.inputs()
    inputs = inputs * ops.cast(_mask_like(inputs), "float32")  # padded with zeros, as people do
    weights = [weight for weight in cell.trainable_variables if not is_excused(cell, weight)]

    def masked() -> Any:
        return total_of([run(cell, inputs, mask=_mask())[1]])

    def truncated() -> Any:
        runs = [run(cell, inputs[i : i + 1, :length])[1] for i, length in enumerate(_LENGTHS)]
        return total_of([tree.map_structure(lambda *states: ops.concatenate(states, axis=0), *runs)])

    seen, expected = gradients(masked, weights), gradients(truncated, weights)
    given = [(a, b) for a, b in zip(seen, expected, strict=True) if a is not None and b is not None]
    what = "padding with zeros not to change the gradients of the weights"
    return agree(
        [a for a, _ in given], [b for _, b in given], STEPS * cells.tolerance(), what
    )  # backwards adds up once more over the steps


@check(_SEQUENCE)
def return_state(cells: Cells) -> Seen | str:
    """Does the layer answer as the steps one by one?"""
    cell, inputs = cells.built(), cells.inputs()
    seen = agree(
        run(cell, inputs), walk(cell, inputs), cells.tolerance(), "RNN to answer as the steps one by one"
    )
    last = keras.layers.RNN(cell)(inputs)
    agree(last, run(cell, inputs)[0][:, -1], cells.tolerance(), "the last output alone to be the last of all")
    return Seen(seen, _symbolic_shapes(cells))


def _symbolic_shapes(cells: Cells) -> str:
    """A hint where Keras gets the shapes of the states wrong, as it does for tensor-shaped ones."""
    if not is_vector(cells.new()):
        return NO_MODEL
    layer = keras.layers.RNN(cells.built(), return_state=True)
    said = layer(keras.Input(batch_shape=(BATCH, STEPS, *cells.step_shape)))
    if shapes(tree.flatten(said)) == shapes(tree.flatten(layer(cells.inputs()))):
        return ""
    return "in a functional model with return_state=True keras.layers.RNN says other shapes for the states"


@check(
    "return states as a list, and build for any number of features",
    needs=("any_batch_size", "own_variables", "output_size"),
)
def stacked(cells: Cells) -> str:
    """Are stacked cells as stacked layers?"""
    lower, inputs = cells.built(), cells.inputs()
    between = step(lower, inputs[:, 0], initial_states(lower))[0]
    upper = cells.built(seed=1, step_shape=tuple(between.shape[1:]))
    for batch in (BATCH, 1):
        between, lower_states = run(lower, inputs[:batch])
        outputs, upper_states = run(upper, between)
        what = f"RNN([cell, cell]) to be as two layers, at batch size {batch}"
        seen = run([lower, upper], inputs[:batch])
        agree(seen, (outputs, lower_states, upper_states), 2 * cells.tolerance(), what)
        if batch > 1:  # in a graph a tensor where a list is wanted cannot be taken apart
            in_graph = compiled(lambda sequence: run([lower, upper], sequence))(inputs)
            agree(in_graph, seen, 2 * cells.tolerance(), f"{what}, in a graph")
    return f"RNN([cell, cell]) is as two layers, at batch sizes {BATCH} and 1"


@check(_SEQUENCE, needs=("get_config",))
def bidirectional(cells: Cells) -> str:
    """Does Bidirectional answer as both directions?"""
    cell, inputs = cells.new(), cells.inputs()
    with keras.saving.custom_object_scope(custom_objects(cell)):
        both = keras.layers.Bidirectional(keras.layers.RNN(cell, return_sequences=True))
        outputs = both(inputs)
    forth, back = both.forward_layer.cell, both.backward_layer.cell
    if {id(variable) for variable in forth.variables} & {id(variable) for variable in back.variables}:
        raise Refused("two clones with weights of their own", "one cell for both directions", _CLONES)
    backwards = ops.flip(run(back, ops.flip(inputs, axis=1))[0], axis=1)
    expected = ops.concatenate([run(forth, inputs)[0], backwards], axis=-1)
    what = "Bidirectional to be as both directions side by side"
    return agree(outputs, expected, cells.tolerance(), what)


_CLONES = "let from_config return a new cell each time: return cls(**config)"


@check(
    "apply dropout if training, with masks from self.seed_generator = keras.random.SeedGenerator(seed)",
    needs=("set_weights",),
)
def dropout(cells: Cells) -> str:
    """Is dropout for training only, and reproducible?"""
    names = [name for name in ("dropout", "recurrent_dropout") if _takes_rate(cells, name)]
    rates: dict[str, Any] = dict.fromkeys(names, 0.5)
    zero: dict[str, Any] = dict.fromkeys(names, 0.0)
    cell, plain, inputs = cells.built(**rates), cells.built(**zero), cells.inputs()
    plain.set_weights(cell.get_weights())
    infer = run(cell, inputs)
    agree(infer, run(plain, inputs), cells.tolerance(), "the answer without dropout when training=False")
    weights = cell.get_weights()
    undropped = cells.trained(inputs, weights, **zero)
    for name in names:
        alone: dict[str, Any] = {name: 0.5}
        if difference(cells.trained(inputs, weights, **alone), undropped) <= cells.tolerance():
            raise Refused(f"{name}=0.5 to change the answer when training=True", "the same answer")
    trained, again = (cells.trained(inputs, weights, **rates) for _ in range(2))
    if difference(trained, infer) <= cells.tolerance():
        raise Skipped("training=True changes nothing, and the constructor takes no `dropout`")
    if not names and not _is_random(cells):
        raise Skipped("training=True changes the answer, and draws nothing at random")
    agree(again, trained, cells.tolerance(), "the same answer after keras.utils.set_random_seed")
    train = compiled(lambda x: run(cell, x, training=True))
    if difference(train(inputs), train(inputs)) <= cells.tolerance():
        raise Refused("a new mask for each sequence, in a graph too", "the same mask twice")
    return "active only in training, new for each sequence, and reproducible from a seed"


def _is_random(cells: Cells) -> bool:
    """Whether the answer in training draws random numbers, in a graph or in Python."""
    cell, inputs = cells.built(), cells.inputs()
    weights, answers = cell.get_weights(), []
    for _ in range(2):
        cell.set_weights(weights)  # what a step moves, as batch normalisation does, is no chance
        answers.append(run(cell, inputs, training=True))
    if difference(*answers) > cells.tolerance():
        return True
    return draws_at_random(lambda: run(cell, inputs, training=True))


def _takes_rate(cells: Cells, name: str) -> bool:
    """Whether the constructor has this argument, a number by default, and does not refuse 0.5 for it."""
    default = cells.target.default(name)
    rate: dict[str, Any] = {name: 0.5}
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        return False
    try:
        cells.new(**rate)
    except TargetError:
        return False
    return True


@check(
    "make what call needs in call or build: Keras skips get_initial_state if it is given states",
    at="get_initial_state",
)
def initial_state(cells: Cells) -> Seen:
    """Is a given initial state used as the cell's own?"""
    started, cell, inputs = cells.built(), cells.built(), cells.inputs()
    states = initial_states(started)
    whole = run(started, inputs)
    what = "an initial_state given to the layer to be used as the cell's own would"
    seen = agree(run(cell, inputs, initial_state=states), whole, cells.tolerance(), what)
    head, middle = run(cell, inputs[:, :2])
    tail, final = run(cell, inputs[:, 2:], initial_state=middle)
    joined = (ops.concatenate([head, tail], axis=1), final)
    agree(joined, whole, cells.tolerance(), "a run continued from its states to be as one run")
    return Seen(seen, _nonzero_start(started, inputs))


def _nonzero_start(cell: Any, inputs: Any) -> str:
    """A hint for a cell that does not start from zeros, if this Keras forgets that at a reset."""
    if not any(array.any() for array in arrays(initial_states(cell))):
        return ""
    layer = keras.layers.RNN(cell, stateful=True)
    layer.build(inputs.shape)
    layer.reset_state()
    if difference(layer.states, initial_states(cell)) == 0:
        return ""
    return (
        "the initial state is not zero: a fresh stateful keras.layers.RNN keeps it, but reset_state() and a "
        "second build overwrite it with zeros; cells.RNN asks the cell again"
    )


@check("compare call with reference line by line", at="reference")
def reference(cells: Cells) -> str:
    """Does it compute what its reference computes?"""
    cell, inputs = cells.built(), cells.inputs()
    if not hasattr(cell, "reference"):
        raise Skipped("the cell has no method reference(self, inputs, initial_states)")
    start = reached_states(cell, cells.inputs(seed=1))
    result = cell.reference(arrays(inputs)[0], tree.map_structure(lambda state: arrays(state)[0], start))
    if not isinstance(result, (list, tuple)) or len(result) != 2:
        raise Refused("reference to return (outputs, [final states])", type(result).__name__)
    outputs, states = run(cell, inputs, initial_state=start)
    for what, seen, expected in (("outputs", outputs, result[0]), ("states", states, list(result[1]))):
        if [a.shape for a in arrays(seen)] != [b.shape for b in arrays(expected)]:
            raise Refused(f"{what} of the reference of shapes {shapes(seen)}", shapes(expected))
        agree(seen, expected, cells.tolerance(), f"the {what} that the reference computes")
    return "outputs and final states are those of the reference"
