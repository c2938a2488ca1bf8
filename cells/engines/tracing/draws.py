"""The numbers that the steps draw, as Keras' loop would draw them."""

from functools import partial

import tensorflow as tf

from cells.engines.tracing.nodes import replay


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
