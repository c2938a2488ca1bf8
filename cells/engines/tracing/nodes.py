"""A traced step as a graph of nodes, which can be rewritten and replayed in any TensorFlow graph.

Every value has a level, the highest of what it is made of:

    CONSTANT  replayed where it is needed
    WEIGHT    weights and what is made of them: computed once, before everything
    INPUT     depends on a step's inputs or on drawn numbers, not on states: computed for all steps at once
    STATE     depends on the states: stays in the loop
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class Refused(Exception):
    """Keras' loop must run the cell; says why, as what follows the cell's name.

    Attributes:
        may_be_of_batch: whether the step may be one that is only right for a certain number of sequences.
    """

    def __init__(self, reason, may_be_of_batch=False):
        super().__init__(reason)
        self.may_be_of_batch = may_be_of_batch


class Level(IntEnum):
    """What a value depends on."""

    CONSTANT = 0
    WEIGHT = 1
    INPUT = 2
    STATE = 3


# The number of sequences that a step is traced with: no size of a cell, and told from one by a second trace.
TRACED_BATCH = 61


class Batch(int):
    """A size that is a multiple of the number of sequences; its value is that at `TRACED_BATCH`."""

    @property
    def factor(self):
        """The size for one sequence."""
        return int(self) // TRACED_BATCH


def dimensions(shape, batch):
    """A shape as TensorFlow takes it, for a number of sequences, an int or a tensor."""
    return [size.factor * batch if isinstance(size, Batch) else size for size in shape]


@dataclass(frozen=True, eq=False)
class Node:
    """One operation, or a leaf: what a step takes.

    Attributes:
        kind: the type of TensorFlow's operation, or "matmul", "parts" (a split along the last axis), or the
            name of a leaf.
        inputs: the values that it takes.
        shapes, dtypes: of its results; a size may be a `Batch`.
        make: (tensors, batch) -> tensors, builds it in whatever graph is the default one; None for a leaf.
        level: see `Level`; at least that of its inputs.
        attributes: those of TensorFlow's operation.
        value: of a constant.
    """

    kind: str
    inputs: tuple["Ref", ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[tf.DType, ...]
    make: Callable[[Sequence[Any], Any], Sequence[Any]] | None
    level: Level
    attributes: Mapping[str, Any] = field(default_factory=dict)
    value: np.ndarray | None = None

    def __repr__(self):
        return f"{self.kind}{list(map(list, self.shapes))}"

    def results(self):
        """Its values."""
        return [Ref(self, index) for index in range(len(self.shapes))]


class Ref(NamedTuple):
    """A value: one of the results of a node."""

    node: Node
    place: int = 0

    @property
    def shape(self):
        return self.node.shapes[self.place]

    @property
    def dtype(self):
        return self.node.dtypes[self.place]

    @property
    def level(self):
        return self.node.level

    @property
    def size(self):
        """The number of elements at `TRACED_BATCH`."""
        return math.prod(self.shape)

    @property
    def is_differentiable(self):
        return is_differentiable(self.dtype)

    @property
    def has_rows(self):
        """Whether there is one row, of whatever shape, for each sequence."""
        return bool(self.shape) and isinstance(self.shape[0], Batch) and self.shape[0].factor == 1


def is_differentiable(dtype):
    """Whether values of a dtype have gradients, as complex numbers have too."""
    return dtype.is_floating or dtype.is_complex


def leaf(kind, shape, dtype, level):
    """A value that is given."""
    return Ref(Node(kind, (), (tuple(shape),), (dtype,), None, level))


def node(kind, inputs, make, shapes, dtype, **more):
    """The values of a node of our own; `make` takes the tensors alone."""
    level = more.pop("level", max((each.level for each in inputs), default=Level.CONSTANT))
    shapes = tuple(map(tuple, shapes))
    made = Node(kind, tuple(inputs), shapes, (dtype,) * len(shapes), lambda t, _: make(t), level, **more)
    return made.results()


def matmul(left, right):
    """The product of two matrices."""
    shape = (left.shape[0], right.shape[1])
    return node("matmul", [left, right], lambda t: [tf.matmul(*t)], [shape], left.dtype)[0]


def add(left, right):
    """The sum of two values, which broadcast."""
    rank = max(len(left.shape), len(right.shape))
    sizes = zip(*((1,) * (rank - len(each.shape)) + each.shape for each in (left, right)), strict=True)
    shape = [b if a == 1 else a for a, b in sizes]
    return node("AddV2", [left, right], lambda t: [tf.raw_ops.AddV2(x=t[0], y=t[1])], [shape], left.dtype)[0]


def tiled(source, shape):
    """A value again and again along its axes, as one of a shape: in operations whose gradients keep rows."""
    for axis, (size, wanted) in enumerate(zip(source.shape, shape, strict=True)):
        if size not in (1, wanted):
            copies = wanted // size
            between = [*source.shape[:axis], wanted, *source.shape[axis + 1 :]]
            make = lambda t, axis=axis, copies=copies: [tf.concat(t * copies, axis)]  # noqa: E731
            (source,) = node("Tile", [source], make, [between], source.dtype)
    spread = lambda t, batch: [tf.broadcast_to(t[0], dimensions(shape, batch))]  # noqa: E731
    return Ref(Node("BroadcastTo", (source,), (tuple(shape),), (source.dtype,), spread, source.level))


def parts(source, sizes, level=None):
    """The parts of a value along its last axis."""
    axis = len(source.shape) - 1
    shapes = [(*source.shape[:-1], size) for size in sizes]
    return node(
        "parts",
        [source],
        lambda t: tf.split(t[0], list(sizes), axis=axis),
        shapes,
        source.dtype,
        level=max(source.level, level or source.level),
    )


def ordered(refs: Iterable[Ref], given=()):
    """The nodes that values are made of, inputs first; nothing behind what is `given`."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [each.node for each in refs if each not in given][::-1]
    while stack:
        top = stack[-1]
        missing = [
            each.node
            for each in top.inputs
            if each not in given and each.node not in seen and top not in seen
        ]
        if missing:
            stack += missing[::-1]
            continue
        stack.pop()
        if top not in seen:
            seen.add(top)
            order.append(top)
    return order


def replay(wanted, known, batch):
    """The tensors of values, from those of `known`, which is filled with all that is computed.

    Args:
        wanted: values.
        known: dict, tensors by values.
        batch: the number of sequences, an int or a tensor.
    """
    for each in ordered(wanted, given=known):
        if each.make is None:
            raise AssertionError(f"nothing gives {each}")
        tensors = each.make([known[ref] for ref in each.inputs], batch)
        for ref, tensor in zip(each.results(), tensors, strict=True):
            known.setdefault(ref, tensor)
    return [known[ref] for ref in wanted]
