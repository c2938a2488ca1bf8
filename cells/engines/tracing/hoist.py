"""Computes values of a step for all steps at once, and draws the numbers that the steps draw.

A stack holds a value of all steps, [steps, batch, ...] or [batch, steps, ...]. Where every operation takes
each row (sequence) by itself, the rows of all steps are one long batch, and the step is replayed once for it.
Otherwise TensorFlow's `pfor` finds for each operation one that does it for all steps.
"""

from functools import partial

import numpy as np
import tensorflow as tf
from tensorflow.python.ops.parallel_for.control_flow_ops import pfor  # no public name

from cells.engines.tracing.nodes import Level, ordered, replay
from cells.engines.tracing.rewrite import ELEMENTWISE, constant


def over_steps(wanted, stacks, known, steps, batch, axis):
    """The stacks of values.

    Args:
        wanted: values.
        stacks: dict of stacks by values, given.
        known: dict of tensors by values, the same at every step; filled with what is computed of them.
        steps, batch: how many, ints or tensors.
        axis: that of the steps in stacks, 0 or 1.
    """
    missing = [ref for ref in wanted if ref not in stacks]
    if missing:
        nodes = ordered(missing, given={**stacks, **known})
        replay(_same_at_every_step(nodes), known, batch)
        nodes = ordered(missing, given={**stacks, **known})
        compute = _as_rows if all(_takes_rows(each, known) for each in nodes) else _with_pfor
        made = compute(missing, _given(nodes, missing, stacks), known, steps, batch, axis)
        stacks = {**stacks, **dict(zip(missing, made, strict=True))}
    return [stacks[ref] for ref in wanted]


def _same_at_every_step(nodes):
    return [ref for each in nodes for ref in each.inputs if ref.level == Level.WEIGHT]


def _given(nodes, missing, stacks):
    """Those stacks that are read."""
    read = {ref for each in nodes for ref in each.inputs}.union(missing)
    return {ref: stack for ref, stack in stacks.items() if ref in read}


def _as_rows(wanted, stacks, known, steps, batch, axis):
    lead = [batch, steps] if axis else [steps, batch]
    rows = {ref: tf.reshape(stack, [-1, *stack.shape[2:]]) for ref, stack in stacks.items()}
    results = replay(wanted, {**known, **rows}, steps * batch)
    return [tf.reshape(each, [*lead, *ref.shape[1:]]) for ref, each in zip(wanted, results, strict=True)]


def _with_pfor(wanted, stacks, known, steps, batch, axis):
    @tf.autograph.experimental.do_not_convert
    def one(step):
        mine = {ref: tf.gather(stack, step, axis=axis) for ref, stack in stacks.items()}
        return replay(wanted, {**known, **mine}, batch)

    made = pfor(one, steps)
    return [tf.transpose(each, [1, 0, *range(2, each.shape.rank)]) if axis else each for each in made]


# --- which operations take each row by itself


def _takes_rows(each, known):
    """Whether a node does the same to each row, however many there are."""
    if each.level <= Level.WEIGHT:
        return each.kind in ("Const", "Fill") or not any(ref.has_rows for ref in each.results())
    if not all(ref.has_rows for ref in each.results()):
        return False
    if any(ref.has_rows and ref.level == Level.WEIGHT for ref in each.inputs):
        return False  # there is one for all steps
    if each.kind in ELEMENTWISE:
        return all(map(_is_aligned(each), each.inputs))
    rule = _RULES.get(each.kind)
    return rule is not None and all(_is_rows_or_fixed(ref) for ref in each.inputs) and bool(rule(each))


def _is_rows_or_fixed(ref):
    return ref.has_rows if ref.level >= Level.INPUT else True


def _is_aligned(each):
    """Whether an operand of an elementwise node meets each row alike."""
    rank = len(each.shapes[0])

    def aligned(ref):
        if ref.level >= Level.INPUT or ref.has_rows:
            return ref.has_rows and len(ref.shape) == rank
        return len(ref.shape) < rank or ref.shape[0] == 1

    return aligned


def _axes(ref, rank):
    """The axes that a constant names, from 0; row 0 where they are not known."""
    value = constant(ref)
    return {0} if value is None else {int(axis) % rank for axis in np.ravel(value)}


def _not_over_rows(operand, axis):
    """The rule of operations that work along axes, which must not be that of the rows."""
    return lambda each: 0 not in _axes(each.inputs[axis], len(each.inputs[operand].shape))


def _slice(each):
    """A slice, of which the first axis is whole."""
    get = each.attributes
    masks = get["ellipsis_mask"] | get["new_axis_mask"] | get["shrink_axis_mask"]
    strides = constant(each.inputs[3])
    is_whole = get["begin_mask"] & get["end_mask"] & 1 and strides is not None and strides[0] == 1
    return is_whole and not masks & 1 and not get["ellipsis_mask"]


_RULES = {
    "matmul": lambda each: each.inputs[1].level <= Level.WEIGHT,
    "MatMul": lambda each: each.inputs[1].level <= Level.WEIGHT and not each.attributes["transpose_a"],
    "parts": lambda each: True,
    "BroadcastTo": lambda each: len(each.inputs[0].shape) == len(each.shapes[0]),
    "Softmax": lambda each: len(each.shapes[0]) > 1,
    "LogSoftmax": lambda each: len(each.shapes[0]) > 1,
    **dict.fromkeys(("Mean", "Sum", "Max", "Min", "Prod", "All", "Any"), _not_over_rows(0, 1)),
    **dict.fromkeys(("Cumsum", "Cumprod", "ExpandDims"), _not_over_rows(0, 1)),
    "Split": _not_over_rows(1, 0),
    "SplitV": _not_over_rows(0, 2),
    "ConcatV2": lambda each: (
        all(ref.has_rows for ref in each.inputs[:-1]) and 0 not in _axes(each.inputs[-1], len(each.shapes[0]))
    ),
    "Squeeze": lambda each: bool(each.attributes["squeeze_dims"]),
    "Reshape": lambda each: True,  # rows before and after, each as large
    "StridedSlice": _slice,
}


# --- the numbers that the steps draw, as Keras' loop would draw them ---


class Draws:
    """Draws the numbers of all steps before the loop, and leaves the seed generators as Keras' loop does.

    Args:
        step: the traced step.
    """

    def __init__(self, step):
        self.step = step
        self._drawn = tf.function(partial(_drawn, step), autograph=False, reduce_retracing=True)

    def __call__(self, steps, padded, batch):
        """The stacks [padded, ...] of the step's draws.

        Args:
            steps, padded, batch: the number of steps that are taken, of those that the stacks are to have,
                and of sequences, ints or tensors.
        """
        if not self.step.draws:
            return []
        return self._drawn(self._seeds(steps, padded), batch)

    def _seeds(self, steps, padded):
        """The seeds of the steps, [padded, seeds, 2]; Keras' loop takes one step more, before the others."""
        counts: dict[int, int] = {}  # of each generator, in a step
        places = []
        for generator in self.step.generators:
            places.append(counts.get(id(generator), 0))
            counts[id(generator)] = places[-1] + 1
        firsts, columns = {}, []
        for generator, place in zip(self.step.generators, places, strict=True):
            count, dtype = counts[id(generator)], generator.state.dtype
            if id(generator) not in firsts:
                firsts[id(generator)] = generator.state.value * 1  # a copy
                moved = tf.cast((steps + 1) * count, dtype)
                generator.state.assign_add(tf.stack([tf.zeros_like(moved), moved]))
            counter = tf.range(1, padded + 1) * count + place
            counter = tf.cast(counter, dtype)
            columns.append(firsts[id(generator)] + tf.stack([tf.zeros_like(counter), counter], axis=1))
        return tf.stack(columns, axis=1)


def _drawn(step, seeds, batch):
    def one(row):
        known = dict(zip(step.seeds, tf.unstack(row, len(step.seeds)), strict=True))
        return replay([each.made for each in step.draws], known, batch)

    return tf.map_fn(one, seeds, fn_output_signature=[each.ref.dtype for each in step.draws])
