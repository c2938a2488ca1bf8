"""Traces one step of a Keras cell: its `call` as a graph of nodes.

The step is traced twice, with two numbers of sequences, which no cell knows: what is the same in both is the
cell's, and what differs must be the number of sequences. So one trace serves every batch, and a `call` that
is not the same each time, or computes with the number of sequences, is found out.
"""

import inspect
import threading
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from keras import tree
from keras.src.backend.common.stateless_scope import in_stateless_scope  # no public name
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell  # no public name
from tensorflow.python.framework import func_graph  # no public names
from tensorflow.python.framework import ops as framework_ops
from tensorflow.python.ops import array_ops

from cells.engines.attributes import Attributes, layers_of
from cells.engines.scratch import freed
from cells.engines.tracing.nodes import (
    TRACED_BATCH,
    Batch,
    Level,
    Node,
    Ref,
    Refused,
    add,
    dimensions,
    is_differentiable,
    leaf,
    matmul,
    tiled,
)

_OTHER_BATCH = 67
_LOCK = threading.RLock()  # tracing replaces functions of Keras for a while


@dataclass(frozen=True)
class Draw:
    """Numbers that every step draws anew.

    Attributes:
        ref: what stands for them in the step, a leaf.
        made: the operation that draws them, of seeds and constants.
    """

    ref: Ref
    made: Ref


@dataclass(frozen=True)
class Step:
    """A traced step.

    Attributes:
        inputs: the leaf of a step's inputs.
        states: the leaves of the states.
        weights: leaves with a function each that gives its tensor: of variables, of tensors that the cell
            has, of dropout masks that are drawn before the loop.
        seeds: the leaves of the seeds that the step draws, in order.
        generators: the seed generator of each seed.
        draws: the numbers that are drawn with them.
        output, new_states: what the step gives.
        batch: the number of sequences that it is for; None where it takes any.
        keeps: whether another trace may be spared: nothing of it belongs to a graph that is being built.
    """

    inputs: Ref
    states: tuple[Ref, ...]
    weights: tuple[tuple[Ref, Callable[[], Any]], ...]
    seeds: tuple[Ref, ...]
    generators: tuple[Any, ...]
    draws: tuple[Draw, ...]
    output: Ref
    new_states: tuple[Ref, ...]
    batch: int | None
    keeps: bool


def trace(cell, inputs, states, training):
    """The step of a cell.

    Args:
        cell: a Keras cell, built.
        inputs: `tf.TensorSpec` of a step's inputs, [batch, ...].
        states: structure of `tf.TensorSpec`, as the cell takes its states.
        training: as the cell's `call` takes it.

    Raises:
        Refused: an engine cannot run the step.
    """
    batch = batch_of(inputs, states)

    def record(size):
        graph = graphs.enter_context(freed(_StepGraph("step")))
        return _record(graph, cell, inputs, states, training, batch, size)

    with _LOCK, ExitStack() as graphs:
        if any(not layer.built for layer in layers_of(cell)):
            with suppress(Refused):
                record(TRACED_BATCH)  # Keras builds in the first call what it has not built before
        with _unchanged(cell):
            try:
                return _Reader(record(TRACED_BATCH), record(_OTHER_BATCH)).step(None)
            except Refused as refusal:
                if batch is None or not refusal.may_be_of_batch:
                    raise
            return _Reader(record(batch), record(batch)).step(batch)


def batch_of(inputs, states):
    """The number of sequences as inputs tell it, or else states that agree on it; None if it is not known."""
    if inputs.shape[0] is not None:
        return inputs.shape[0]
    sizes = {spec.shape[0] for spec in tree.flatten(states) if spec.shape.rank}
    return sizes.pop() if len(sizes) == 1 else None


# --- recording


class _StepGraph(func_graph.FuncGraph):
    """A graph that takes every tensor of floats from outside as an input: none is a constant in it.

    A constant would have no gradient.
    """

    def capture(self, tensor, name=None, shape=None):
        if isinstance(tensor, framework_ops.EagerTensor) and is_differentiable(tensor.dtype):
            return self._function_captures._create_placeholder_helper(self, tensor, name or "captured")
        return super().capture(tensor, name, shape)


@dataclass
class _Record:
    """A step as TensorFlow traced it."""

    graph: Any
    inputs: Any
    states: list
    masks: list[tuple[Any, Callable[[], Any]]] = field(default_factory=list)
    seeds: list = field(default_factory=list)
    generators: list = field(default_factory=list)
    output: Any = None
    new_states: list = field(default_factory=list)
    makes_variable: bool = False


def _record(graph, cell, inputs, states, training, batch, size):
    """Traces a step in a graph, with `size` sequences in place of `batch`."""

    def placeholder(dtype, shape):
        return tf.raw_ops.Placeholder(dtype=dtype, shape=shape)

    def resized(spec):
        is_batch = spec.shape.rank and spec.shape[0] in (None, batch)
        return [size, *spec.shape[1:]] if is_batch else spec.shape

    for spec in [inputs, *tree.flatten(states)]:
        if spec.shape.rank is None or None in spec.shape[1:]:
            raise Refused("gets inputs or states of a shape that is not known")
    arguments = {}
    if isinstance(cell, keras.Layer) and cell._call_has_training_arg:
        arguments["training"] = training
    with graph.as_default():
        record = _Record(graph, placeholder(inputs.dtype, [size, *inputs.shape[1:]]), [])
        given = tree.map_structure(lambda spec: placeholder(spec.dtype, resized(spec)), states)
        record.states = tree.flatten(given)
        with _traceable(cell, record, lambda mask: placeholder(mask.dtype, [size, *mask.shape[1:]])):
            try:
                output, new = cell(record.inputs, given, **arguments)
            except Refused:
                raise
            except Exception as error:
                reason = f"has a `call` that cannot be traced: {_message(error)}"
                raise Refused(reason, may_be_of_batch=True) from error
        if None in record.generators:
            raise Refused("draws numbers without a seed generator of its own")
        if record.makes_variable:
            raise Refused("makes a variable in `call`")
        if tree.is_nested(output):
            raise Refused("has an output that is not one tensor")
        record.output = tf.convert_to_tensor(output)
        record.new_states = [tf.convert_to_tensor(each) for each in tree.flatten(new)]
    if len(record.states) != len(record.new_states):
        raise Refused(f"gives {len(record.new_states)} states for {len(record.states)}")
    for before, after in zip(record.states, record.new_states, strict=True):
        if before.shape != after.shape or before.dtype != after.dtype:
            raise Refused(
                f"changes a state from {before.dtype.name} {before.shape.as_list()[1:]} "
                f"to {after.dtype.name} {after.shape.as_list()[1:]}",
                may_be_of_batch=True,
            )
    return record


def _message(error):
    """What an error says, without the frame that Keras puts around it."""
    lines = [line.strip() for line in str(error).replace("\x1b[1m", "").replace("\x1b[0m", "").split("\n")]
    said = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    return (said or [type(error).__name__])[0].rstrip(".")


@contextmanager
def _traceable(cell, record, placeholder):
    """Draws give placeholders; nothing is hidden in a function, a constant or a gradient of its own."""

    original = keras.random.SeedGenerator.next

    def next_seed(generator, ordered=True):
        if tf.executing_eagerly():  # weights are being initialised
            return original(generator, ordered)
        record.generators.append(generator if ordered else None)
        record.seeds.append(tf.raw_ops.Placeholder(dtype=generator.state.dtype, shape=[2]))
        return record.seeds[-1]

    def silu(features, beta=1.0, name=None):  # TensorFlow's has a gradient of its own, the same as this one's
        features = tf.convert_to_tensor(features, name=name)
        return features * tf.sigmoid(tf.cast(beta, features.dtype) * features)

    def note_variable(create, **arguments):
        record.makes_variable = True
        return create(**arguments)

    with ExitStack() as stack:
        replace = lambda *args: stack.enter_context(mock.patch.object(*args))  # noqa: E731
        replace(keras.random.SeedGenerator, "next", next_seed)
        # `tf.zeros` is another operation from a thousand numbers on, which a number of sequences may reach
        replace(array_ops, "_constant_if_small", lambda *_, **__: None)
        replace(tf.nn, "silu", silu)
        replace(tf.nn, "swish", silu)
        for each in _cells_with_masks(cell):
            for name in ("_dropout_mask", "_recurrent_dropout_mask"):
                masks = getattr(each, name, None)
                if masks is not None:
                    held = tree.map_structure(placeholder, masks)
                    replace(each, name, held)
                    record.masks += _suppliers(each, name, held)
        if not tf.config.functions_run_eagerly():  # so that a tf.function inside is traced as it reads
            tf.config.run_functions_eagerly(True)
            stack.callback(tf.config.run_functions_eagerly, False)
        stack.enter_context(tf.variable_creator_scope(note_variable))
        yield


def _suppliers(cell, name, held):
    """Placeholders of dropout masks, each with the function that gives the mask of the day."""
    return [
        (each, lambda n=n: tree.flatten(getattr(cell, name))[n]) for n, each in enumerate(tree.flatten(held))
    ]


def _cells_with_masks(cell):
    """The cells whose dropout masks Keras draws before the loop."""
    if isinstance(cell, keras.layers.StackedRNNCells):
        for each in cell.cells:
            yield from _cells_with_masks(each)
    elif isinstance(cell, DropoutRNNCell):
        yield cell


@contextmanager
def _unchanged(cell):
    """Refuses a `call` that changes what the cell has or adds a loss, and undoes that."""
    before = Attributes(cell)
    losses = [(layer._losses, len(layer._losses)) for layer in layers_of(cell)]
    try:
        yield
    finally:
        names = [name for _, name in before.changed()]
        before.restore()
        is_more = any(len(each) > count for each, count in losses)
        for each, count in losses:
            del each[count:]
    if names:
        raise Refused(f"changes `{names[0]}` in `call`")
    if is_more:
        raise Refused("adds a loss in `call`")


# --- reading


# What draws numbers from a seed that it is given, and what only prepares that seed.
_PREPARES_SEED = ("StatelessRandomGetAlg", "StatelessRandomGetKeyCounter", "StatelessRandomGetKeyCounterAlg")
_CONVOLVES = ("Conv", "DepthwiseConv")


def _draws(kind):
    return kind.startswith(("StatelessRandom", "StatelessTruncated", "StatelessParam", "StatelessMulti"))


class _Reader:
    """Makes nodes of two traces: with different numbers of sequences, or with the same for that one alone."""

    def __init__(self, record, other):
        self.record, self.other = record, other
        self.refs: dict[Any, Ref] = {}  # by tensors of the first trace
        self.weights: list[tuple[Ref, Callable[[], Any]]] = []
        self.seeds: list[Ref] = []
        self.draws: list[Draw] = []
        self.by_source: dict[Any, Ref] = {}
        self.keeps = not in_stateless_scope()

    def step(self, batch):
        """The `Step`.

        Raises:
            Refused: an engine cannot run it.
        """
        record = self.record
        pairs = self._pairs()
        self._refuse_effects()
        other = self.other
        self.give(record.inputs, other.inputs, "inputs", Level.INPUT)
        for each, second in zip(record.states, other.states, strict=True):
            self.give(each, second, "state", Level.STATE)
        for each in record.seeds:
            self.seeds.append(self.give(each, each, "seed", Level.INPUT))
        for (tensor, supply), (second, _) in zip(record.masks, other.masks, strict=True):
            self.weights.append((self.give(tensor, second, "mask", Level.WEIGHT), supply))
        for operation, other in pairs:
            if operation.outputs[0].ref() not in self.refs:
                self.read(operation, other)
        return Step(
            inputs=self.ref(record.inputs),
            states=tuple(map(self.ref, record.states)),
            weights=tuple(self.weights),
            seeds=tuple(self.seeds),
            generators=tuple(record.generators),
            draws=tuple(self.draws),
            output=self.ref(record.output),
            new_states=tuple(map(self.ref, record.new_states)),
            batch=batch,
            keeps=self.keeps,
        )

    def ref(self, tensor):
        return self.refs[tensor.ref()]

    def give(self, tensor, other, kind, level):
        """The leaf that a placeholder of the trace becomes."""
        self.refs[tensor.ref()] = leaf(kind, self._shape(tensor, other), tensor.dtype, level)
        return self.ref(tensor)

    def _pairs(self):
        """The operations that the results need, each with that of the other trace."""
        first, second = _needed(self.record), _needed(self.other)
        if [each.type for each in first] != [each.type for each in second]:
            raise Refused("has a `call` that is not the same each time", may_be_of_batch=True)
        return list(zip(first, second, strict=True))

    def _refuse_effects(self):
        needed = set(_needed(self.record))
        for operation in self.record.graph.get_operations():
            holds_function = any("func" in attribute.type for attribute in operation.op_def.attr)
            if operation in needed and holds_function:
                raise Refused(f"has the operation {operation.type}, a branch or a loop inside of a step")
            if operation in needed and "_gradient_op_type" in operation.node_def.attr:
                raise Refused("has a gradient of its own (tf.custom_gradient)")
            if operation in needed and operation.type.startswith(_CONVOLVES):
                raise Refused(f"has the convolution {operation.type}, which is fastest in Keras' loop")
            allowed = operation.type in ("Placeholder", "ReadVariableOp")
            if operation.op_def.is_stateful and not allowed:
                raise Refused(f"has the operation {operation.type}, which has an effect")

    def read(self, operation, other):
        """Adds what an operation gives."""
        if operation.type in ("Placeholder", "ReadVariableOp"):
            return self._read_source(operation)
        if any(each.dtype in (tf.resource, tf.variant) for each in operation.inputs):
            raise Refused(f"has the operation {operation.type}, of what is no tensor")
        shapes = [self._shape(*both) for both in zip(operation.outputs, other.outputs, strict=True)]
        inputs = [self.ref(each) for each in operation.inputs]
        for tensor, ref in zip(
            operation.outputs, self._values(operation, other, inputs, shapes), strict=True
        ):
            self.refs[tensor.ref()] = ref

    def _read_source(self, operation):
        """Adds a weight, or a tensor from outside of the cell."""
        tensor = operation.outputs[0]
        if tensor.dtype == tf.resource:
            return
        captured = {inner.ref(): outer for outer, inner in self.record.graph.captures}
        if operation.type == "ReadVariableOp":
            handle = captured.get(operation.inputs[0].ref())
            by_handle = {id(each.handle): each for each in self.record.graph._watched_variables}
            if id(handle) not in by_handle:
                raise Refused("reads a variable that it does not keep")
            source = by_handle[id(handle)]
            supply = source.read_value
        else:
            source = captured[tensor.ref()]
            supply = lambda: source  # noqa: E731
            self.keeps = self.keeps and isinstance(source, framework_ops.EagerTensor)
        if id(source) not in self.by_source:
            self.by_source[id(source)] = leaf("weight", source.shape, source.dtype, Level.WEIGHT)
            self.weights.append((self.by_source[id(source)], supply))
        self.refs[tensor.ref()] = self.by_source[id(source)]

    def _shape(self, tensor, other):
        if not tensor.shape.is_fully_defined():
            raise Refused(f"has the operation {tensor.op.type}, whose shape is not known beforehand")
        return [self._size(*both) for both in zip(tensor.shape, other.shape, strict=True)]

    def _size(self, size, other):
        if size == other:
            return size
        factor, rest = divmod(size, TRACED_BATCH)
        if rest or factor * _OTHER_BATCH != other:
            raise self._differs("a size")
        return Batch(size)

    def _differs(self, what):
        """What is told of a trace that is not as the other."""
        if self.record.inputs.shape == self.other.inputs.shape:
            return Refused("has a `call` that is not the same each time")
        return Refused(f"computes {what} from the number of sequences", may_be_of_batch=True)

    def _values(self, operation, other, inputs, shapes):
        """The values of an operation, simplified where there is something to gain."""
        kind = operation.type
        if kind == "Const":
            return [self._constant(operation, other)]
        if kind in ("Identity", "Snapshot", "IdentityN") or (
            kind == "Reshape" and tuple(shapes[0]) == inputs[0].shape
        ):
            return inputs[: len(operation.outputs)]
        if kind in ("Split", "SplitV") and len(shapes) == 1:
            return [inputs[1] if kind == "Split" else inputs[0]]
        if kind in ("Add", "BiasAdd", "AddV2") and _is_plain(operation, data_format=b"NHWC"):
            return [add(*inputs)]
        if kind == "MatMul" and _is_plain(operation, transpose_a=False, transpose_b=False):
            return [matmul(*inputs)]
        if kind == "Tile" and all(
            isinstance(size, Batch) == isinstance(wanted, Batch)
            for size, wanted in zip(inputs[0].shape, shapes[0], strict=True)
        ):
            return [tiled(inputs[0], shapes[0])]
        if kind == "Einsum" and _multiplies(operation.get_attr("equation").decode()):
            return [matmul(*inputs)]
        level = max((each.level for each in inputs), default=Level.CONSTANT)
        attributes = attributes_of(operation)
        made = Node(
            kind,
            tuple(inputs),
            tuple(map(tuple, shapes)),
            tuple(each.dtype for each in operation.outputs),
            maker_of(operation, attributes),
            level,
            attributes,
        )
        if _draws(kind) and kind not in _PREPARES_SEED:
            return self._draw(made)
        return made.results()

    def _draw(self, made):
        """What stands for drawn numbers: an engine's own generator need not give the same."""
        if not _of_seeds(made):
            raise Refused(f"has the operation {made.kind}, which draws numbers from values of the step")
        results = []
        for ref in made.results():
            results.append(leaf("drawn", ref.shape, ref.dtype, Level.INPUT))
            self.draws.append(Draw(results[-1], ref))
        return results

    def _constant(self, operation, other):
        value, second = (tf.make_ndarray(each.get_attr("value")) for each in (operation, other))
        shape = self._shape(operation.outputs[0], other.outputs[0])
        dtype = operation.outputs[0].dtype
        if np.array_equal(value, second, equal_nan=value.dtype.kind in "fc"):
            make = lambda _, batch: [tf.constant(value, dtype)]  # noqa: E731
            return Ref(Node("Const", (), (tuple(shape),), (dtype,), make, Level.CONSTANT, {}, value))
        if value.shape == second.shape and value.dtype.kind == "i" and value.ndim < 2:  # a shape
            sizes = [
                self._size(*both)
                for both in zip(value.ravel().tolist(), second.ravel().tolist(), strict=True)
            ]
            make = lambda _, batch: [_sizes(sizes, batch, dtype, value.ndim)]  # noqa: E731
        elif (
            value.ndim
            and (len(value), len(second)) == (TRACED_BATCH, _OTHER_BATCH)
            and _is_row(value, second)
        ):  # one row for each
            make = lambda _, batch: [tf.repeat(tf.constant(value[:1], dtype), batch, axis=0)]  # noqa: E731
        else:
            raise self._differs("a number")
        return Ref(Node("Const", (), (tuple(shape),), (dtype,), make, Level.CONSTANT))


def _needed(record):
    """The operations that the results are made of, in the order in which they were made."""
    needed, stack = set(), [each.op for each in (record.output, *record.new_states)]
    while stack:
        operation = stack.pop()
        if operation not in needed:
            needed.add(operation)
            stack += [each.op for each in operation.inputs]
            if operation.control_inputs:
                stack += operation.control_inputs
    return [each for each in record.graph.get_operations() if each in needed]


def _is_plain(operation, **attributes):
    """Whether those attributes that an operation has are the given ones."""
    has = operation.node_def.attr
    return all(operation.get_attr(name) == value for name, value in attributes.items() if name in has)


def _multiplies(equation):
    """Whether an einsum is the product of two matrices: "ab,bc->ac"."""
    left, _, result = equation.partition("->")
    terms = left.split(",")
    return (
        len(terms) == 2
        and list(map(len, terms)) == [2, 2]
        and len(set(equation) - set(",->")) == 3
        and terms[0][1] == terms[1][0]
        and result == terms[0][0] + terms[1][1]
    )


def _of_seeds(made):
    """Whether a node is made of seeds and constants alone."""
    stack = [made]
    while stack:
        each = stack.pop()
        if each.make is None and each.kind != "seed":
            return False
        stack += [ref.node for ref in each.inputs]
    return True


def attributes_of(operation):
    """The attributes of an operation that its inputs do not tell."""
    told = set()
    for argument in operation.op_def.input_arg:
        told |= {argument.type_attr, argument.number_attr, argument.type_list_attr}
    return {
        each.name: operation.get_attr(each.name) for each in operation.op_def.attr if each.name not in told
    }


def maker_of(operation, attributes):
    """`Node.make` of a traced operation."""
    build = getattr(tf.raw_ops, operation.type, None)
    if build is None:
        raise Refused(f"has the operation {operation.type}, which is not TensorFlow's own")
    arguments = []  # (name, number of tensors, None for one alone)
    for argument in operation.op_def.input_arg:
        count = None
        if argument.number_attr:
            count = operation.get_attr(argument.number_attr)
        elif argument.type_list_attr:
            count = len(operation.get_attr(argument.type_list_attr))
        arguments.append((argument.name, count))
    names = _python_names(build, [*(name for name, _ in arguments), *attributes])
    fixed = {names[name]: value for name, value in attributes.items()}

    def make(tensors, batch):
        left = iter(tensors)
        given = {
            names[name]: next(left) if count is None else [next(left) for _ in range(count)]
            for name, count in arguments
        }
        return tf.nest.flatten(build(**given, **fixed))

    return make


def _python_names(build, names):
    """The names of a `tf.raw_ops` function's arguments, by those of the operation; some have another."""
    python = [name for name in inspect.signature(build).parameters if name != "name"]
    renamed = zip(
        [name for name in names if name not in python],
        [name for name in python if name not in names],
        strict=True,
    )
    return {**{name: name for name in names}, **dict(renamed)}


def _sizes(sizes, batch, dtype, rank):
    sizes = dimensions(sizes, batch)
    return tf.cast(tf.stack(sizes) if rank else sizes[0], dtype)


def _is_row(value, second):
    """Whether two arrays are the same row again and again."""
    return value.shape[1:] == second.shape[1:] and all(
        np.array_equal(each, np.broadcast_to(value[:1], each.shape)) for each in (value, second)
    )
