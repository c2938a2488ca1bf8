"""Stacks, of which XLA's loops read and write a row at each step.

They are [steps, batch, ...] or, with an `axis` of 1, [batch, steps, ...].
"""

import tensorflow as tf

# TensorFlow's only slices at a position known at run time that XLA updates in place; no public name.
from tensorflow.compiler.tf2xla.python.xla import dynamic_slice, dynamic_update_slice


def sizes_of(tensor):
    """The sizes of a tensor, ints where they are known."""
    return [tf.shape(tensor)[axis] if size is None else size for axis, size in enumerate(tensor.shape)]


def zeros(shape, steps, dtype, axis=0):
    """A stack of zeros, of rows of that shape."""
    return tf.zeros(_inserted(shape, steps, axis), dtype)


def begun(first, stack, axis=0):
    """A stack of one step more, which begins with the row `first`: a copy of all of it."""
    return tf.concat([tf.expand_dims(first, axis), stack], axis=axis)


def row(stack, step, axis=0):
    """A step's row of a stack."""
    return row_part(stack, step, _row_sizes(stack, axis), 0, axis)


def row_parts(stack, step, sizes, axis=0):
    """A step's row in parts along its last axis, each read by itself."""
    shape, found, first = _row_sizes(stack, axis)[:-1], [], 0
    for size in sizes:
        found.append(row_part(stack, step, [*shape, size], first, axis))
        first += size
    return found


def row_part(stack, step, shape, first, axis=0):
    """The part of a step's row that has a shape, from the place `first` of the row's last axis."""
    sizes = tf.stack(_inserted(shape, 1, axis))
    return tf.reshape(dynamic_slice(stack, _place(step, len(shape), first, axis), sizes), shape)


def write(stack, step, pieces, axis=0):
    """The stack with pieces side by side in a step's row.

    One at a time: on a CPU a fusion that ends in a concatenation is not vectorised (1.1 to 1.5 times slower).
    """
    first = 0
    for piece in pieces:
        sizes = sizes_of(piece)
        place = _place(step, len(sizes), first, axis)
        stack = dynamic_update_slice(stack, tf.expand_dims(piece, axis), place)
        first += sizes[-1] if sizes else 0
    return stack


def _place(step, rank, first, axis):
    """The position in a stack of the place `first` of the last axis of a step's row."""
    return tf.stack(_inserted([*[0] * (rank - 1), first][:rank], step, axis))


def _row_sizes(stack, axis):
    sizes = sizes_of(stack)
    return [*sizes[:axis], *sizes[axis + 1 :]]


def _inserted(sizes, size, axis):
    return [*sizes[:axis], size, *sizes[axis:]]
