"""Running a cell over a sequence by a plain function, without a layer: what `tf.nn.static_rnn` and
`tf.nn.dynamic_rnn` were.

Both take a Keras cell (anything that `keras.layers.RNN` takes; for a stack `keras.layers.StackedRNNCells`)
and give what `keras.layers.RNN(cell, return_sequences=True, return_state=True)` gives, with `unroll=True`
and `unroll=False`.
"""

import inspect

import tensorflow as tf
from keras import backend, layers, ops, tree


def static_unroll(cell, inputs, initial_state=None, sequence_length=None, time_major=False, training=False):
    """Runs the cell by writing out every timestep: the graph grows with their number, which must be known.

    Args:
        cell: a Keras cell. It is built if it is not.
        inputs: float tensor [batch, timesteps, features], or [timesteps, batch, features] if `time_major`.
        initial_state: tensor or (nested) list of tensors, as the cell's states; by default those that the
            cell starts from.
        sequence_length: int tensor [batch], how many timesteps each sequence has. Beyond it the outputs are
            zero and the states stay as they are. By default all have all.
        time_major: bool, whether time is the first axis of inputs and outputs.
        training: bool, passed to cells that take it, for dropout.

    Returns:
        (outputs, states): outputs [batch, timesteps, output], or time-major as the inputs, and the list of
        the states after the last timestep.

    Raises:
        ValueError: the number of timesteps is not known or zero, or `sequence_length` is not one number a
            sequence.
    """
    step, inputs, states, sequence_length = _prepare(
        cell, inputs, initial_state, sequence_length, time_major, training
    )
    if not inputs.shape[0]:
        raise ValueError(f"static_unroll needs a fixed number of timesteps, not {inputs.shape[0]}.")
    outputs = []
    for time, x in enumerate(ops.unstack(inputs, axis=0)):
        output, states = step(x, states, None if sequence_length is None else time < sequence_length)
        outputs.append(output)
    _forget_dropout_masks(cell)
    return ops.stack(outputs, axis=0 if time_major else 1), states


def dynamic_unroll(cell, inputs, initial_state=None, sequence_length=None, time_major=False, training=False):
    """Runs the cell in a loop inside the graph: its size does not depend on the number of timesteps, which
    may be unknown until it runs.

    Arguments and results are those of `static_unroll`; there may be no timesteps at all.

    Raises:
        ValueError: `sequence_length` is not one number a sequence.
    """
    step, inputs, states, sequence_length = _prepare(
        cell, inputs, initial_state, sequence_length, time_major, training
    )
    timesteps = ops.shape(inputs)[0]
    # A call outside of the loop: the dropout masks are drawn here, once, and the output's shape and dtype
    # are known. Its input is zeros [batch, features]; a graph does not compute what is not used of it.
    first_output, _ = step(ops.sum(inputs[:0], axis=0), states, None)

    def body(time, outputs, states):
        live = None if sequence_length is None else time < sequence_length
        output, states = step(xs.read(time), states, live)
        return time + 1, outputs.write(time, output), states

    # TensorArrays and not keras.ops.scan, which on TensorFlow stacks every state with the outputs: 23% (with
    # gradients) to 29% slower for the simplified LSTM at batch 32, timesteps 50, units 128 on two cores
    xs = tf.TensorArray(inputs.dtype, timesteps, element_shape=inputs.shape[1:]).unstack(inputs)
    outputs = tf.TensorArray(first_output.dtype, timesteps, element_shape=first_output.shape)
    _, outputs, states = tf.while_loop(
        lambda time, *_: time < timesteps, body, (0, outputs, states), maximum_iterations=timesteps
    )
    _forget_dropout_masks(cell)
    outputs = outputs.stack()
    return outputs if time_major else ops.swapaxes(outputs, 0, 1), states


def _prepare(cell, inputs, initial_state, sequence_length, time_major, training):
    """(step, inputs, states, sequence_length): the step of a built cell, the others as it takes them."""
    inputs = ops.convert_to_tensor(inputs)
    if not time_major:
        inputs = ops.swapaxes(inputs, 0, 1)
    is_layer = isinstance(cell, layers.Layer)
    if is_layer and not cell.built:
        cell.build(tuple(inputs.shape[1:]))
    if initial_state is None:
        initial_state = layers.RNN(cell).get_initial_state(ops.shape(inputs)[1])
    dtype = cell.compute_dtype if is_layer else inputs.dtype
    states = tree.map_structure(lambda state: _as_state(state, dtype), _as_list(initial_state))
    takes_training = "training" in inspect.signature(cell.call).parameters
    arguments = {"training": training} if takes_training else {}
    return _masked(cell, arguments), inputs, states, _lengths(sequence_length, inputs.shape[1])


def _as_list(states):
    return list(states) if tree.is_nested(states) else [states]


def _as_state(state, dtype):
    state = ops.convert_to_tensor(state)
    return ops.cast(state, dtype) if backend.is_float_dtype(state.dtype) else state


def _lengths(sequence_length, batch_size):
    """`sequence_length` as an int32 tensor [batch], or None."""
    if sequence_length is None:
        return None
    lengths = ops.convert_to_tensor(sequence_length, dtype="int32")
    if not lengths.shape.is_compatible_with((batch_size,)):
        raise ValueError(f"sequence_length must have the shape ({batch_size},), not {tuple(lengths.shape)}.")
    return lengths


def _masked(cell, arguments):
    """step(x, states, live) -> (output, states): the cell, where the bool [batch] `live` is not False."""

    def step(x, states, live):
        output, new_states = cell(x, states, **arguments)
        new_states = tree.flatten(new_states)
        if live is not None:
            output = _where(live, output, ops.zeros_like(output))
            old_states = tree.flatten(states)
            new_states = [_where(live, *pair) for pair in zip(new_states, old_states, strict=True)]
        return output, tree.pack_sequence_as(states, new_states)

    return step


def _where(live, new, old):
    live = ops.reshape(live, (-1,) + (1,) * (len(new.shape) - 1))
    return ops.where(live, new, old)


def _forget_dropout_masks(cell):
    """Keras' cells keep a sequence's dropout masks; the next sequence shall have others."""
    for part in getattr(cell, "cells", [cell]):
        if hasattr(part, "reset_dropout_mask"):
            part.reset_dropout_mask()
            part.reset_recurrent_dropout_mask()
