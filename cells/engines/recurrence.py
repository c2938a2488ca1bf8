"""A cell's equation, as the engines of `cells.FusedRNN` take it: read from the user's own cell, and tried.

    equation = Equation(cell)
    equation.recurrence   # a `Recurrence`, or None where no engine can run the cell
    equation.refusal      # then why not
    equation.is_of(cell)  # false once the cell has been given another activation, coefficient, ...

Nothing is copied: a `GatedCell` has its own equation, and Keras' own cells are read with the equation of the
cell here that has their weights. TensorFlow only.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import FunctionType, MethodType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cells.engines.attributes import WEIGHTS, contents, is_plain
from cells.engines.scratch import freed
from cells.gated import GatedCell
from cells.textbook import GRUCell, LSTMCell, SimpleRNNCell

# Keras' own cells, by the cells here that have their equations, weights and names of attributes.
KERAS_CELLS: dict[type, type[GatedCell]] = {
    keras.layers.SimpleRNNCell: SimpleRNNCell,
    keras.layers.LSTMCell: LSTMCell,
    keras.layers.GRUCell: GRUCell,
}

# What `GatedCell` computes a step with; a cell that has one of these of its own may compute something else.
_STEP = ("call", "__call__", "_gates", "_products", "_vectors", "_biases", "_dropout_masks")

# What a cell declares before it is built, and cannot change then.
_DECLARED = ("gates", "states", "separate", "late", "recurrent", "vectors")


class _Refused(Exception):
    """No engine can run the cell; says why, as what follows the cell's name."""


@dataclass(frozen=True)
class Recurrence:
    """What an engine must know of a cell, in the terms of `cells.GatedCell`.

    Attributes:
        units: the width of every state.
        sums, separate, late: how many gates are plain sums, want their two products apart, or wait for the
            others; they lie in this order in the weights.
        recurrent: whether there are recurrent products at all.
        update: (gates, states, vectors) -> states, elementwise. The output is the last of them, or the first
            where `own_output` is false.
        late_input: (gates, states, vectors) -> what the late gates' recurrent weights multiply, elementwise.
        own_output: whether the output is no state, and rides along as a last one that nothing reads.
        states: how many there are, such an output with them.
        vectors: how many weights (units,) `update` takes.
        dtype: what it computes with, "float32" or "float64".
    """

    units: int
    sums: int
    separate: int
    late: int
    recurrent: bool
    update: Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], list]
    late_input: Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], Any]
    own_output: bool
    states: int
    vectors: int
    dtype: str = "float32"

    @property
    def output(self):
        """The index of the state that is the output."""
        return self.carried if self.own_output else 0

    @property
    def carried(self):
        """How many states a step reads."""
        return self.states - self.own_output

    @property
    def gates(self):
        """The number of gates, which is that of blocks in the weights."""
        return self.sums + self.separate + self.late

    @property
    def together(self):
        """The gates whose recurrent product takes h."""
        return self.sums + self.separate

    @property
    def blocks(self):
        """The number of pre-activations: a separate gate has two."""
        return self.gates + self.separate

    def arrange(self, blocks):
        """The blocks as `update` takes them: pairs (from x, from h) for the separate gates."""
        sums, together = self.sums, self.together
        from_h, from_x = blocks[sums:together], blocks[together : together + self.separate]
        return [*blocks[:sums], *zip(from_x, from_h, strict=True), *blocks[together + self.separate :]]

    def step(self, blocks, states, vectors):
        """The states after a step, from its pre-activations."""
        return list(self.update(self.arrange(blocks), states, vectors))

    def wait(self, blocks, states, vectors):
        """The input of the late gates' recurrent product, from the pre-activations of the others."""
        return self.late_input(self.arrange(blocks[: self.together + self.separate]), states, vectors)

    def describe(self, engine):
        """What is computed where, a line each; by every engine."""
        sizes = f"{self.units} x {self.gates * self.units}"
        products = f"the recurrent products ({sizes}) and " if self.recurrent else ""
        return [
            "Before the loop, for all steps at once: the inputs' products.",
            f"In the loop, at every step: {products}the cell's `update`.",
        ]

    @cached_property
    def compiled(self):
        """The two programs of the XLA engine, `forward` and `backward`."""
        from cells.engines import xla

        return xla.programs(self)

    @cached_property
    def native(self):
        """The two programs of the native engine, or the sentence that says why they cannot be had."""
        from cells.engines import native

        try:
            return native.programs(self)
        except native.Unavailable as reason:
            return str(reason)


def pull_back(function, variables, upstream):
    """The gradients of `variables` from those of the results of `function(variables)`; in a graph.

    Symbolic, because a tape sees nothing where recording is off, as it is while gradients are recomputed.
    """
    variables = tf.nest.map_structure(tf.identity, variables)
    gradients = tf.gradients(
        function(variables),
        tf.nest.flatten(variables),
        grad_ys=upstream,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return tf.nest.pack_sequence_as(variables, gradients)


# --- reading a cell


class Equation:
    """The equation of a cell as it was when it was read, and whether an engine can run it.

    Attributes:
        cell: the user's cell, built.
        recurrence: the `Recurrence`, or None.
        refusal: why there is none, as what follows the cell's name; None otherwise.
        vectors: the names of the cell's weights (units,) that the recurrence takes.
        drops_all: whether a dropout rate of 1 drops everything, and not nothing.
    """

    def __init__(self, cell):
        self.cell = cell
        self.recurrence: Recurrence | None = None
        self.refusal: str | None = None
        self.vectors = ()
        self.drops_all = type(cell) is keras.layers.SimpleRNNCell
        view = _View(cell, KERAS_CELLS.get(type(cell), type(cell)))
        try:
            self.recurrence = _recurrence_of(cell, view)
            self.vectors = tuple(view.vectors)
        except _Refused as refusal:
            self.refusal = str(refusal)
        noted = [each for each in view._noted.values() if each[1] not in _DECLARED]
        self._plain = [each for each in noted if is_plain(each[2])]
        self._nested = [(thing, name, contents(value)) for thing, name, value in noted if not is_plain(value)]

    def is_of(self, cell):
        """Whether it is the equation of a cell, which still has all that was read of it."""
        if cell is not self.cell:
            return False
        for thing, name, value in self._plain:
            now = _unbound(cell, getattr(thing, name, None))
            if now is not value and contents(now) != contents(value):
                return False
        return all(
            contents(_unbound(cell, getattr(thing, name, None))) == had for thing, name, had in self._nested
        )


def _unbound(cell, value):
    """The function of a method of the cell, which is bound anew every time; other values as they are."""
    return value.__func__ if isinstance(value, MethodType) and value.__self__ is cell else value


class _View:
    """A cell as the `self` of its methods: it notes what they read of it, and shows it so ever after.

    What is not in the cell itself is looked for in `owner`, the class that has the equation, which for one
    of Keras' cells is another than the cell's own.
    """

    def __init__(self, cell, owner):
        super().__setattr__("_of", (cell, owner))
        super().__setattr__("_noted", {})  # name -> (what has it, name, value)
        super().__setattr__("_shown", {})  # name -> what reading it gives

    @property  # type: ignore[misc]
    def __class__(self):  # so that methods may call `super()`
        return self._of[1]

    def __getattr__(self, name):
        if name in self._shown:
            return self._shown[name]
        cell, owner = self._of
        attribute = None if name in vars(cell) else inspect.getattr_static(owner, name, None)
        if isinstance(attribute, property) and attribute.fget:
            return attribute.fget(self)  # what it reads is noted in its place
        has_it = owner if attribute is not None and not isinstance(cell, owner) else cell
        read = getattr(has_it, name)
        value = _unbound(cell, read)
        is_method = isinstance(attribute, FunctionType) or value is not read
        self._noted[name] = has_it, name, value
        self._shown[name] = MethodType(value, self) if is_method else value
        return self._shown[name]

    def __setattr__(self, name, value):
        setattr(self._of[0], name, value)


# --- making a recurrence


def _recurrence_of(cell, view):
    """The `Recurrence` of a cell seen through a view, after a trial on drawn numbers.

    Raises:
        _Refused: no engine can run the cell.
    """
    if not isinstance(cell, GatedCell) and type(cell) not in KERAS_CELLS:
        raise _Refused("is no GatedCell: it has no list of `gates` and no elementwise `update` of them")
    if isinstance(cell, GatedCell):
        for name in _STEP:
            if name in vars(cell) or getattr(type(cell), name) is not getattr(GatedCell, name):
                raise _Refused(f"has a `{name}` of its own, which need not be its `update`")
    if not view.gates:
        raise _Refused("names no `gates`")
    gates, states, separate, late = (
        len(getattr(view, name)) for name in ("gates", "states", "separate", "late")
    )

    def update(blocks, before, vectors):
        output, new = view.update(blocks, list(before[:states]), *vectors)
        if len(new) != states:
            raise ValueError(f"it gives {len(new)} states for {states}")
        return list(new) if output is new[0] else [*new, output]

    recurrence = Recurrence(
        units=int(cell.units),
        sums=gates - separate - late,
        separate=separate,
        late=late,
        recurrent=view.recurrent,
        update=update,
        late_input=lambda blocks, before, vectors: view.late_input(blocks, list(before[:states]), *vectors),
        own_output=False,
        states=states,
        vectors=len(view.vectors),
        dtype="float64" if cell.compute_dtype == "float64" else "float32",
    )
    _check_weights(cell, recurrence, view.vectors)
    count = _try(recurrence)
    if any(isinstance(value, WEIGHTS) for _, _, value in view._noted.values()):
        raise _Refused(_READS_WEIGHT)
    return replace(recurrence, own_output=count > states, states=count)


def _check_weights(cell, recurrence, vectors):
    """Refuses a cell whose weights have not the shapes of `GatedCell`'s."""
    width, units = recurrence.gates * recurrence.units, recurrence.units
    rows = {"kernel": None, "recurrent_kernel": units, "bias": 2 if recurrence.separate else 0}
    shapes = {name: (count, width) if count != 0 else (width,) for name, count in rows.items()}
    shapes.update(dict.fromkeys(vectors, (units,)))
    may_lack = ("bias",) if recurrence.recurrent else ("bias", "recurrent_kernel")
    for name, shape in shapes.items():
        weight = getattr(cell, name, None)
        if weight is None and name in may_lack:
            continue
        if weight is None or not tf.TensorShape(shape).is_compatible_with(weight.shape):
            found = "none" if weight is None else f"one of the shape {tuple(weight.shape)}"
            raise _Refused(f"has a `{name}` that is not {shape} but {found}".replace("None", "features"))


_FUNCTIONS = "`update` or `late_input`"
_READS_WEIGHT = f"reads a weight or draws numbers in {_FUNCTIONS}, which may use only what it is given"
_STEP_SIZE = 2.0**-7  # of a difference in place of a derivative: exact to a few 1e-5 in float32


def _try(recurrence):
    """Runs the elementwise functions on drawn numbers, and compares their gradient with differences.

    They are run as [batch, units] and as [units * batch], the two forms in which the engines call them.

    Returns:
        The number of states, with the output where that is none of them.
    """
    units, batch = recurrence.units, max(3, -(-64 // recurrence.units))
    count = recurrence.blocks + recurrence.states
    rng = np.random.default_rng(0)

    def drawn(*shape):
        return rng.uniform(-1, 1, shape).astype(recurrence.dtype)

    rows, vectors = drawn(count, batch, units), drawn(recurrence.vectors, units)
    moves = drawn(count + recurrence.vectors, batch * units)
    flat = [each.T.ravel() for each in rows] + [np.repeat(vector, batch) for vector in vectors]
    sides = [(a, a + _STEP_SIZE * b, a - _STEP_SIZE * b) for a, b in zip(flat, moves, strict=True)]
    natural, inside, gradients, has_own = _run_trial(
        recurrence, [*rows, *vectors], [np.concatenate(each) for each in sides]
    )
    points = [np.split(each, 3) if each.size == 3 * batch * units else [np.nan] * 3 for each in inside]
    for array, parts in zip(natural, points, strict=True):
        if array.shape != (batch, units) or not np.all(_close(array.T.ravel(), parts[0], 1e-5)):
            raise _Refused(f"has an {_FUNCTIONS} that is not elementwise")
    slopes = sum(np.split(a, 3)[0] * b for a, b in zip(gradients, moves, strict=True))
    differences = sum(above - below for _, above, below in points) / (2 * _STEP_SIZE)
    # but for some next to a kink or a jump
    if not has_own and np.mean(_close(slopes, differences, 1e-4, rtol=0.05)) < 0.5:
        raise _Refused(f"has an {_FUNCTIONS} whose gradient is not that of its values")
    return len(natural) - (1 if recurrence.late else 0)


def _run_trial(recurrence, natural, flat):
    """The results of both forms, the gradients of `flat`, and whether a gradient is written by hand."""
    results = partial(_results, recurrence)

    @tf.function(autograph=False)
    def trial(natural, flat):
        inside = results(flat)
        return results(natural), inside, pull_back(results, flat, [tf.ones_like(each) for each in inside])

    with tf.init_scope():
        given = [tf.nest.map_structure(tf.constant, each) for each in (natural, flat)]
        try:
            program = trial.get_concrete_function(*given)
        except Exception as error:
            raise _Refused(f"has an {_FUNCTIONS} that cannot be traced: {error}") from error
        with freed(program.graph) as graph:
            operations = graph.get_operations()
            if any(capture.dtype == tf.resource for capture in program.captured_inputs):
                raise _Refused(_READS_WEIGHT)
            if any(each.op_def.is_stateful and each.type != "Placeholder" for each in operations):
                raise _Refused(f"does more than to compute in {_FUNCTIONS}")
            has_own = any(
                each.type == "StopGradient" or "_gradient_op_type" in each.node_def.attr
                for each in operations
            )
            return *tf.nest.map_structure(lambda each: each.numpy(), program(*given)), has_own


def _close(one, other, tolerance, rtol=1e-5):
    return np.isclose(one, other, rtol=rtol, atol=tolerance, equal_nan=True)


def _results(recurrence, arrays):
    """The new states, and the input of the late products if there are any."""
    count = recurrence.blocks + recurrence.states
    blocks, states, vectors = arrays[: recurrence.blocks], arrays[recurrence.blocks : count], arrays[count:]
    late = [recurrence.wait(blocks, states, vectors)] if recurrence.late else []
    return recurrence.step(blocks, states, vectors) + late
