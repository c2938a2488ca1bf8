"""Compares what was compiled with what it was compiled from, on a few numbers."""

from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import tensorflow as tf

from cells.engines import scratch

UNITS, BATCH, STEPS, FEATURES = 5, 3, 2, 2
# Of the largest number of an array, for a few sums.
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}


class Trial:
    """Compares two programs with TensorFlow.

    Args:
        recurrence: the `Recurrence` that they are compiled from.
        programs_of: (operations, recurrence) -> (forward, backward), of any number of units.
    """

    def __init__(self, recurrence, programs_of):
        self.recurrence = replace(recurrence, units=UNITS)
        self.programs_of = programs_of

    @cached_property
    def expected(self):
        """(operands, results, their gradients, those of the operands), which take no program."""
        with tf.init_scope():
            operands = _drawn_operands(self.recurrence)
            plainly = tf.function(partial(_plainly, self.recurrence), autograph=False)
            return operands, *scratch.run_once(plainly, operands)

    def fault(self, operations):
        """What the operations compute otherwise, "its values" or "its gradients"; None if nothing."""
        forward, backward = self.programs_of(operations, self.recurrence)
        operands, results, upstream, of_operands = self.expected
        with tf.init_scope():
            outputs, states, saved = forward(operands, {}, False, True, True)
            ways = [
                backward(operands, {}, False, saved, upstream[0], upstream[1:], sums_weights)
                for sums_weights in (False, True)
            ]
        all_close = partial(_all_close, tolerance=TOLERANCE[self.recurrence.dtype])
        if not all_close([outputs, *states], results):
            return "its values"
        found = [[gradients[name] for name in operands] for gradients in ways]
        return None if all_close(found, [list(of_operands.values())] * len(ways)) else "its gradients"


def _drawn(dtype, shape, seed):
    return tf.constant(np.random.default_rng(seed).uniform(-1, 1, shape), dtype)


def _drawn_operands(recurrence):
    """Operands as `cells.engines.xla.run` takes them."""
    width = recurrence.gates * UNITS
    shapes: dict[str, tuple[int, ...]] = {
        "inputs": (BATCH, STEPS, FEATURES),
        "kernel": (FEATURES, width),
        "bias": (width,),
    }
    if recurrence.recurrent:
        shapes["recurrent"] = (UNITS, width)
    if recurrence.separate:
        shapes["separate_bias"] = (recurrence.separate * UNITS,)
    drawn = partial(_drawn, recurrence.dtype)
    return {
        **{name: drawn(shape, seed) for seed, (name, shape) in enumerate(shapes.items())},
        "vectors": [drawn((UNITS,), 20 + n) for n in range(recurrence.vectors)],
        "states": [drawn((BATCH, UNITS), 30 + n) for n in range(recurrence.carried)],
    }


def _plainly(recurrence, operands):
    """([outputs, *states], gradients that these get, those of the operands then), as TensorFlow has them."""
    operands = tf.nest.map_structure(tf.identity, operands)
    states = list(operands["states"]) + [tf.zeros([BATCH, UNITS], recurrence.dtype)] * recurrence.own_output
    outputs = []
    for step in range(STEPS):
        states = recurrence.step(
            _blocks(recurrence, operands, operands["inputs"][:, step], states), states, operands["vectors"]
        )
        outputs.append(states[recurrence.output])
    results = [tf.stack(outputs, axis=1), *states]
    upstream = [_drawn(recurrence.dtype, each.shape, seed=9) for each in results]
    gradients = tf.gradients(
        results,
        tf.nest.flatten(operands),
        grad_ys=upstream,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return results, upstream, tf.nest.pack_sequence_as(operands, gradients)


def _blocks(recurrence, operands, inputs, states):
    """A step's pre-activations."""
    sums, together, late = recurrence.sums, recurrence.together, recurrence.late
    x = tf.split(inputs @ operands["kernel"] + operands["bias"], recurrence.gates, axis=1)
    weights = tf.zeros([UNITS, recurrence.gates * UNITS], recurrence.dtype)
    weights = tf.split(operands.get("recurrent", weights), recurrence.gates, axis=1)
    h = [states[0] @ each for each in weights[:together]]
    if recurrence.separate:
        biases = tf.split(operands["separate_bias"], recurrence.separate)
        h[sums:] = [a + b for a, b in zip(h[sums:], biases, strict=True)]
    blocks = [a + b for a, b in zip(x[:sums], h[:sums], strict=True)] + h[sums:] + x[sums:together]
    if late:
        waited = recurrence.wait(blocks, states, operands["vectors"])
        blocks += [a + waited @ b for a, b in zip(x[together:], weights[together:], strict=True)]
    return blocks


def _all_close(found, expected, tolerance=TOLERANCE["float32"]):
    """Whether the arrays agree, and are no numbers at the same places: an equation may have roots."""
    pairs = zip(
        map(np.asarray, tf.nest.flatten(found)), map(np.asarray, tf.nest.flatten(expected)), strict=True
    )
    return all(
        np.allclose(a, b, rtol=tolerance, atol=tolerance * _largest(b), equal_nan=True) for a, b in pairs
    )


def _largest(array):
    """The largest absolute number of an array, at least 1; what is no number, or infinite, is passed over."""
    return np.max(np.abs(array), initial=1, where=np.isfinite(array))
