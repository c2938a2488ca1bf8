"""Calls functions of tensors in eager code without `tf.function`'s look at their arguments.

That look takes longer than a short recurrence: 0.25 ms of Python for the operands of a cell.
"""

import operator

import tensorflow as tf
from tensorflow.python.eager import record  # no public name

# A trace takes as long as some fifty calls, and a graph is kept: what comes in ever new shapes is not traced.
MOST_SIGNATURES = 16


def signature(values):
    """What tells apart the calls that a trace must serve: of nested tensors and plain values, hashable."""
    return tuple(_signature(each) for each in tf.nest.flatten(values))


def _signature(value):
    return (value.dtype, tuple(value.shape)) if isinstance(value, tf.Tensor) else value


class Program:
    """A `tf.function` that eager code calls as a concrete function, found by the signature of the arguments.

    Args:
        function: takes nested tensors and plain values; calls of the same signature nest them the same way.
        inline: whether a graph that is being built has its operations, and not a call of it.
    """

    def __init__(self, function, inline=False):
        self._function = tf.function(function, autograph=False, reduce_retracing=True)
        self._in_graph = function if inline else self._function
        self._concrete = {}

    def __call__(self, *arguments):
        if not tf.executing_eagerly():
            return self._in_graph(*arguments)
        key = signature(arguments)
        if key not in self._concrete:
            self._concrete[key] = self._function.get_concrete_function(*arguments)
        return _run(self._concrete[key], arguments)


class Calls:
    """Whole calls in eager code, each traced as one function where it comes again."""

    def __init__(self):
        self._seen = set()
        self._kept = {}  # signature -> (concrete function, what it was traced with)
        self._traces = 0

    def run(self, function, tensors, options, find):
        """`function(*tensors)`; by a trace of it if that is as good, and no gradient can be asked for.

        Args:
            function: computes with TensorFlow alone.
            tensors: nested tensors, and None.
            options: what the function depends on, hashable.
            find: () -> what else it depends on, objects that must be the very same; None where it must be
                called itself.
        """
        key = _nested_signature(tensors), options
        if key not in self._seen:
            results = function(*tensors)
            if len(self._seen) < MOST_SIGNATURES:
                self._seen.add(key)
            return results
        found = None if record.could_possibly_record() else find()
        if found is None:
            return function(*tensors)
        concrete, had = self._kept.get(key, (None, ()))
        if concrete is None or not _are_same(found, had):
            if self._traces == MOST_SIGNATURES:
                return function(*tensors)
            self._traces += 1
            concrete = tf.function(function, autograph=False).get_concrete_function(*tensors)
            self._kept[key] = concrete, found
        return _run(concrete, tensors)


def _are_same(some, others):
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _nested_signature(values):
    if isinstance(values, (list, tuple)):
        return tuple(map(_nested_signature, values))
    return _signature(values)


def _run(concrete, arguments):
    tensors = [each for each in tf.nest.flatten(arguments) if isinstance(each, tf.Tensor)]
    return concrete._call_flat(tensors, concrete.captured_inputs)  # the public call looks at all again
