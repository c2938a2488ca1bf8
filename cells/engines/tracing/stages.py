"""A step in C++, in stages: a `Step` of `cells/engines/native/stages.cc`, forward or back.

    writer = StepWriter("Forward", batch)
    writer.given(tensor)         # a state, or what is read: a row for each sequence
    writer.given_weight(tensor)  # the same for all of them
    writer.value(tensor)         # a `View` of what a tensor of the graph holds
    writer.code(...)             # the C++ of the step

A step is a TensorFlow graph of values that have a row for each sequence. Products with weights are made for
all sequences of a group at once; what lies between them is done sequence by sequence, in loops over the
elements of a row: elementwise operations and reductions of rows, one loop for all that have the same shape
and need not wait. What only moves elements about (split, slice, transpose, concat, ...) is asked of
TensorFlow: applied to the numbers of the elements, it tells where each comes from, and that no sequence takes
from another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from cells.engines.native.translation import Unavailable, constant, number, template_of
from cells.engines.tracing.rewrite import ELEMENTWISE
from cells.engines.tracing.trace import attributes_of, maker_of

# What only moves elements about, with the places of its inputs that hold the elements.
MOVES: dict[str, tuple[int, ...] | slice] = {
    **dict.fromkeys(("Reshape", "ExpandDims", "Squeeze", "StridedSlice", "Slice", "SplitV", "Unpack"), (0,)),
    **dict.fromkeys(("Transpose", "BroadcastTo", "Tile", "Pad", "ReverseV2", "Roll", "Identity"), (0,)),
    **dict.fromkeys(("Snapshot", "StopGradient", "PreventGradient", "EnsureShape"), (0,)),
    "Split": (1,),
    "StridedSliceGrad": (4,),
    "ConcatV2": slice(0, -1),
    "Pack": slice(0, None),
    "IdentityN": slice(0, None),
}
# Reductions: of what they are made, and what they begin with.
REDUCTIONS = {
    "Sum": ("plus", "{0} + {1}", 0.0),
    "Prod": ("times", "{0} * {1}", 1.0),
    "Max": ("larger", "maximum({0}, {1})", -math.inf),
    "Min": ("smaller", "minimum({0}, {1})", math.inf),
}
# What gradients are made of beside the operations of `ELEMENTWISE`.
_OF_GRADIENTS = frozenset(
    [
        *("EluGrad", "InvGrad", "LeakyReluGrad", "ReciprocalGrad", "Relu6Grad", "ReluGrad", "RsqrtGrad"),
        *("Select", "SeluGrad", "SigmoidGrad", "SoftplusGrad", "SoftsignGrad", "SqrtGrad", "TanhGrad"),
    ]
)
# What integers may be used for.
_OF_INTEGERS = frozenset(
    [
        *("AddN", "AddV2", "Cast", "Equal", "FloorMod", "Greater", "GreaterEqual", "Less", "LessEqual"),
        *("Mul", "Neg", "NotEqual", "Select", "SelectV2", "Sub", "ZerosLike"),
    ]
)
# What only the shapes of its inputs tell.
_OF_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")
_MOST_PIECES = 64  # of which a value may be put together
_MOST_NUMBERS = 4096  # of a constant that is written down
_PADDED = 16  # numbers of the longest vector


@dataclass(eq=False)
class Made:
    """What a stage makes.

    Attributes:
        kind: "given", "constant", "loop" (elementwise), "reduction", "running" (a cumulative sum), "product"
            or "pieces" (put together of others).
        shape: of one sequence's; its elements lie in this order.
        dtype: that of the numbers, int32 or bool.
        by_row: whether each sequence has its own.
        code: C++ of what is done, by operands; the name of a reduction; or a constant's numbers.
        operands: views, or C++ of a number.
        domain: the sizes of the axes that its loop runs over; of a product, its rows and columns.
        along: the axis of the domain that is reduced.
        segment, place: the products that it waits for, and the loop between them.
        puts: (value, offset) of values put together, where its result is to be stored too.
        stored: whether it is needed in memory.
        across: whether it is needed there for all sequences of a group at once.
        number: of its array, once it has one.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: tf.DType
    by_row: bool
    code: Any = ""
    operands: tuple = ()
    domain: tuple[int, ...] = (1,)
    along: int | None = None
    segment: int = 0
    place: int = 0
    puts: list = field(default_factory=list)
    stored: bool = False
    across: bool = False
    number: int | None = None

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def stride(self):
        """The floats from one sequence to the next."""
        return -(-self.size // _PADDED) * _PADDED


class View(NamedTuple):
    """Elements of what a stage makes: those at `offset` + the sum of index times stride."""

    made: Made
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def is_whole(self):
        """Whether it is all that is made, in order."""
        return self.offset == 0 and math.prod(self.shape) == self.made.size and self.is_dense

    @property
    def is_dense(self):
        """Whether its elements follow on each other."""
        return all(
            stride == after or size == 1
            for size, stride, after in zip(self.shape, self.strides, _dense(self.shape), strict=True)
        )

    def broadcast(self, shape):
        """It as one of another shape, by TensorFlow's rules."""
        surplus = len(self.shape) - len(shape)
        mine, strides = self.shape[max(surplus, 0) :], self.strides[max(surplus, 0) :]
        mine, strides = (1,) * -surplus + mine, (0,) * -surplus + strides
        strides = tuple(0 if size == 1 else stride for size, stride in zip(mine, strides, strict=True))
        return View(self.made, self.offset, tuple(shape), strides)


def _dense(shape):
    return tuple(math.prod(shape[n + 1 :]) for n in range(len(shape)))


def whole(made, shape):
    """All that is made, as a view of a shape."""
    return View(made, 0, tuple(shape), _dense(shape))


class StepWriter:
    """Reads the graph of a step, and writes it as stages.

    Args:
        batch: the number of sequences in the graph, which is the size of nothing else in it.
        dtype: of its numbers, float32 or float64.
        totals: whether sums over sequences are a sequence's part of them: in a gradient, where nothing but
            weights has such sums, and what is made of them is linear.

    Raises:
        Unavailable: in every method, a step that has no stages; says why.
    """

    def __init__(self, batch, dtype, totals=False):
        self.batch, self.dtype, self.totals = batch, dtype, totals
        self.values: dict[Any, Any] = {}  # by tensor: a `View`, or an array that is known
        self.rows: set[Any] = set()  # the tensors whose first axis is that of the sequences
        self.matrices: list[tuple[Any, bool]] = []  # weights, and whether their columns are multiplied
        self.made: list[Made] = []
        self._same: dict[Any, View] = {}
        self._loops: dict[int, list] = {}  # by segment: what each loop is for

    # --- what is given

    def given(self, tensor):
        """A value with a row for each sequence."""
        self.rows.add(tensor.ref())
        return self._give(tensor, tensor.shape.as_list()[1:], True)

    def given_weight(self, tensor):
        """A value that is the same for all sequences and at all steps."""
        return self._give(tensor, tensor.shape.as_list(), False)

    def _give(self, tensor, shape, by_row):
        made = self._add(Made("given", tuple(shape), tensor.dtype, by_row, across=by_row, stored=True))
        self.values[tensor.ref()] = whole(made, shape)
        return made

    # --- reading

    def value(self, tensor):
        """The `View` of a tensor, or an array if it is known."""
        stack = [tensor]
        while stack:
            top = stack[-1]
            if top.ref() in self.values:
                stack.pop()
                continue
            inputs = top.op.inputs[:1] if self._is_weight(top.op) else top.op.inputs
            missing = [each for each in inputs if each.ref() not in self.values]
            if missing:
                stack += missing
            else:
                self._read(top.op)
        return self.values[tensor.ref()]

    def _read(self, operation):
        inputs = [self.values.get(each.ref()) for each in operation.inputs]
        if operation.type == "Placeholder":
            raise Unavailable("its loop reads what is no value of a step")
        if operation.type in _OF_SHAPES or all(isinstance(each, np.ndarray) for each in inputs):
            known = self._known(operation, inputs)
            self.values.update(zip((each.ref() for each in operation.outputs), known, strict=True))
            return
        if self._is_weight(operation) and isinstance(inputs[0], np.ndarray) and not inputs[0].any():
            result = operation.outputs[0]  # of the gradient of what has none, as a sign
            self.values[result.ref()] = np.zeros(result.shape, self.dtype.as_numpy_dtype)
            return
        has_rows = any(each.ref() in self.rows for each in operation.inputs)
        if has_rows and operation.type not in (*REDUCTIONS, "Mean"):
            for tensor in operation.outputs:
                if not tensor.shape.rank or tensor.shape[0] != self.batch:
                    raise Unavailable(f"its loop has the operation {operation.type}, which joins sequences")
                self.rows.add(tensor.ref())
        if operation.type in MOVES:
            results = self._moved(operation, inputs)
        else:
            results = [self._computed(operation, inputs)]
        self.values.update((t.ref(), each) for t, each in zip(operation.outputs, results, strict=True))

    def _known(self, operation, inputs):
        """The arrays that an operation gives, of which all is known."""
        if operation.type == "Const":
            return [tf.make_ndarray(operation.get_attr("value"))]
        if operation.type in _OF_SHAPES:  # of which TensorFlow knows all that is asked
            inputs = [np.zeros(each.shape, each.dtype.as_numpy_dtype) for each in operation.inputs]
        with tf.init_scope():
            make = maker_of(operation, attributes_of(operation))
            return [np.asarray(each) for each in make(list(map(tf.constant, inputs)), self.batch)]

    def _computed(self, operation, inputs):
        kind = operation.type
        if kind == "MatMul" or self._is_weight(operation):
            return self._product(operation, inputs)
        if kind in REDUCTIONS or kind == "Mean":
            return self._reduced(operation, inputs)
        if kind in ("Softmax", "LogSoftmax"):
            return self._softmax(inputs[0], kind == "LogSoftmax")
        if kind == "Cumsum":
            return self._running(operation, inputs)
        if kind == "Einsum" or kind.startswith("BatchMatMul"):
            return self._contracted(operation, inputs)
        if kind not in ELEMENTWISE and kind not in _OF_GRADIENTS:
            raise Unavailable(f"its loop has the operation {kind}")
        tensor = operation.outputs[0]
        dtypes = {each.dtype for each in operation.inputs}
        if tf.int32 in dtypes and kind not in _OF_INTEGERS:
            raise Unavailable(f"its loop has the operation {kind} of integers")
        if any(t.ref() in self.rows and t.shape.rank != tensor.shape.rank for t in operation.inputs):
            raise Unavailable(f"its loop has the operation {kind}, which joins sequences")
        shape = self._shape(tensor)
        operands = [self._operand(each, shape) for each in inputs]
        return self._loop(template_of(operation), operands, shape, tensor.dtype)

    def _shape(self, tensor):
        """The shape of one sequence's."""
        return tuple(tensor.shape.as_list()[tensor.ref() in self.rows :])

    def _operand(self, value, shape):
        """A view of the shape of what is computed, or the C++ of a number."""
        if isinstance(value, np.ndarray):
            value = self._written(value)
        return value if isinstance(value, str) else value.broadcast(shape)

    def _written(self, array):
        """A known array as C++, or as a view where it holds several numbers."""
        numbers = np.unique(array)
        if numbers.size == 1:
            return _number(numbers[0])
        if array.ndim and array.shape[0] == self.batch:
            if not (array == array[:1]).all():
                raise Unavailable("it has a constant that is not the same for all sequences")
            array = array[0]
        if array.size > _MOST_NUMBERS:
            raise Unavailable(f"it has a constant of {array.size} numbers")
        key = "constant", array.tobytes(), array.shape, array.dtype
        if key not in self._same:
            dtype = self._known_dtype(tf.as_dtype(array.dtype))
            made = self._add(Made("constant", array.shape, dtype, False, code=array.ravel()))
            self._same[key] = whole(made, array.shape)
        return self._same[key]

    def _known_dtype(self, dtype):
        if dtype not in (self.dtype, tf.int32, tf.bool):
            raise Unavailable(f"its loop has values of {dtype.name}")
        return dtype

    def _add(self, made):
        made.dtype = self._known_dtype(made.dtype)
        self.made.append(made)
        return made

    # --- elementwise

    def _loop(self, code, operands, shape, dtype):
        """An elementwise operation over a shape; views have that shape already."""
        key = code, tuple(operands), tuple(shape), dtype
        if key not in self._same:
            made = Made("loop", tuple(shape), dtype, True, code, tuple(operands), _domain(shape))
            self._same[key] = whole(self._placed(made), shape)
        return self._same[key]

    def _copied(self, view):
        """A view as something whole."""
        return self._loop("{0}", (view,), view.shape, view.made.dtype)

    def _placed(self, made):
        """Gives something made its segment and the first loop that it can be in."""
        views = [each for each in made.operands if isinstance(each, View)]
        made.segment = max([view.made.segment for view in views], default=0)
        loops = self._loops.setdefault(made.segment, [])
        first = 0
        for view in views:
            if view.made.segment == made.segment and view.made.kind not in ("given", "constant", "product"):
                first = max(first, view.made.place + (not _in_register(made.domain, view)))
        kind = made.kind if made.kind == "running" else "loop"
        place = next((n for n in range(first, len(loops)) if loops[n] == (kind, made.domain)), None)
        if place is None or kind == "running":
            place = len(loops)
            loops.append((kind, made.domain))
        made.place = place
        for view in views:
            is_in_register = view.made.kind == "loop" and view.made.place == place
            if not is_in_register or view.made.segment != made.segment:
                self._keep(view.made, made.segment)
        return self._add(made)

    def _keep(self, made, segment, across=False):
        """Notes that something made is read from memory in a segment."""
        made.stored = True
        made.across = made.across or across or made.segment != segment or made.kind == "product"

    # --- products

    def _is_weight(self, operation):
        """Whether the right operand of a product is a weight, which is no value of the step."""
        if operation.type not in ("MatMul", "Einsum") and not operation.type.startswith("BatchMatMul"):
            return False
        right = operation.inputs[1]
        return right.op.type == "Placeholder" and right.ref() not in self.values

    def _product(self, operation, inputs):
        """Rows times a weight, which lie side by side where each sequence has several."""
        weight, left = operation.inputs[1], inputs[0]
        turned = is_turned(operation.type, operation.get_attr)
        is_matrix = weight.op.type == "Placeholder" and turned is not None
        if not is_matrix or not isinstance(left, View) or operation.inputs[0].ref() not in self.rows:
            raise Unavailable(f"its loop has the operation {operation.type} of a weight and what is no row")
        shape = self._shape(operation.outputs[0])
        key = "product", left, weight.ref(), turned
        if key not in self._same:
            if not left.is_dense or left.made.kind == "constant":
                left = self._copied(left)
            place = next((n for n, each in enumerate(self.matrices) if each == (weight.ref(), turned)), None)
            if place is None:
                place = len(self.matrices)
                self.matrices.append((weight.ref(), turned))
            lines, columns = math.prod(shape[:-1]), -(-shape[-1] // _PADDED) * _PADDED
            size = (shape[-1],) if lines == 1 else (lines, columns)
            made = Made("product", size, self.dtype, True, place, (left,), (lines, shape[-1]))
            made.stored = made.across = True
            made.segment = left.made.segment + 1
            self._keep(left.made, made.segment, across=True)
            strides = tuple(math.prod(shape[n + 1 : -1]) * columns for n in range(len(shape) - 1))
            self._same[key] = View(self._add(made), 0, shape, (*strides, 1))
        return self._same[key]

    # --- reductions

    def _reduced(self, operation, inputs):
        tensor, axes = operation.inputs[0], inputs[1]
        if not isinstance(axes, np.ndarray):
            raise Unavailable(f"its loop has the operation {operation.type}, of axes not known beforehand")
        rank, has_rows = tensor.shape.rank, tensor.ref() in self.rows
        axes = {int(axis) % rank for axis in axes.ravel()}
        result = operation.outputs[0]
        view = inputs[0]
        if has_rows and 0 in axes:
            if operation.type != "Sum" or not self.totals:
                raise Unavailable(f"its loop has the operation {operation.type}, which joins sequences")
        elif has_rows:
            self.rows.add(result.ref())
        axes = {axis - has_rows for axis in axes if axis or not has_rows}
        count = math.prod(view.shape[axis] for axis in axes)
        made = self._reduce("Sum" if operation.type == "Mean" else operation.type, view, axes)
        if operation.type == "Mean":
            made = self._loop(f"{{0}} / {count}.0_n", (made,), made.shape, self.dtype)
        return View(made.made, made.offset, self._shape(result), _dense(self._shape(result)))

    def _reduce(self, kind, view, axes):
        """The reduction of some axes of a view, as something whole."""
        sizes = [size for size in view.shape]
        axes = {axis for axis in axes if sizes[axis] != 1}
        kept = [size for axis, size in enumerate(sizes) if axis not in axes and size != 1]
        if not axes:
            return view if view.is_whole else self._copied(view)
        if len(axes) > 1:
            last = max(axes)
            inner = self._reduce(kind, view, {last})
            sizes[last] = 1
            return self._reduce(kind, whole(inner.made, sizes), axes - {last})
        key = "reduction", kind, view, tuple(axes)
        if key not in self._same:
            domain = _domain(view.shape)
            along = _axes(view.shape).index(min(axes))
            made = Made("reduction", tuple(kept), self.dtype, True, kind, (view,), domain, along, stored=True)
            if view.made.dtype != self.dtype:
                raise Unavailable(f"its loop has the operation {kind} of {view.made.dtype.name}")
            self._same[key] = whole(self._placed(made), kept)
        return self._same[key]

    def _softmax(self, view, is_log):
        shape = view.shape
        last = {len(shape) - 1}

        def reduced(kind, value):
            return whole(self._reduce(kind, value, last).made, (*shape[:-1], 1)).broadcast(shape)

        less = self._loop("{0} - {1}", (view, reduced("Max", view)), shape, self.dtype)
        powers = self._loop("exp({0})", (less,), shape, self.dtype)
        total = reduced("Sum", powers)
        if is_log:
            return self._loop("{0} - logarithm({1})", (less, total), shape, self.dtype)
        return self._loop("{0} / {1}", (powers, total), shape, self.dtype)

    def _running(self, operation, inputs):
        view, axis = inputs
        rank = operation.inputs[0].shape.rank
        if not isinstance(axis, np.ndarray) or int(axis) % rank != rank - 1 or len(_axes(view.shape)) > 1:
            raise Unavailable("its loop has the operation Cumsum, of other than rows")
        code = operation.get_attr("exclusive"), operation.get_attr("reverse")
        made = Made("running", view.shape, self.dtype, True, code, (view,), _domain(view.shape), stored=True)
        return whole(self._placed(made), view.shape)

    # --- products of two values of a step

    def _contracted(self, operation, inputs):
        """An einsum of two values: their elementwise product, and its sum over what the result has not."""
        equation = _equation(operation)
        terms, _, result = equation.partition("->")
        terms = terms.split(",")
        if len(terms) != 2 or "." in equation or any(len(set(term)) < len(term) for term in (*terms, result)):
            raise Unavailable(f"its loop has the operation {operation.type} ({equation})")
        tensors = list(operation.inputs)
        views = [self._written(v) if isinstance(v, np.ndarray) else v for v in inputs]
        if any(isinstance(view, str) for view in views):
            raise Unavailable(f"its loop has the operation {operation.type} of a constant")
        sizes: dict[str, int] = {}
        for n, tensor in enumerate(tensors):
            if tensor.ref() in self.rows:
                batch_letter, terms[n] = terms[n][0], terms[n][1:]
                if result[:1] != batch_letter:
                    raise Unavailable(f"its loop has the operation {operation.type}, which joins sequences")
            sizes.update(zip(terms[n], views[n].shape, strict=True))
        result = result[1:]
        if not set(result) <= set(sizes):
            raise Unavailable(f"its loop has the operation {operation.type} ({equation})")
        letters = [*result, *(each for each in sizes if each not in result)]
        reduced = [each for each in letters if each not in result]
        strides = [
            dict(zip(term, view.strides, strict=True)) for term, view in zip(terms, views, strict=True)
        ]
        if reduced:  # the last axis is best one whose elements follow on each other
            letters.sort(key=lambda letter: all(by.get(letter, 0) in (0, 1) for by in strides))
        shape = tuple(sizes[letter] for letter in letters)
        operands = [
            View(view.made, view.offset, shape, tuple(by.get(letter, 0) for letter in letters))
            for view, by in zip(views, strides, strict=True)
        ]
        products = self._loop("{0} * {1}", tuple(operands), shape, self.dtype)
        made = self._reduce("Sum", products, {letters.index(letter) for letter in reduced})
        kept = [letter for letter in letters if letter in result]
        by_letter = dict(zip(kept, _dense([sizes[letter] for letter in kept]), strict=True))
        wanted = tuple(sizes[letter] for letter in result)
        return View(made.made, 0, wanted, tuple(by_letter[letter] for letter in result))

    # --- moving elements about

    def _moved(self, operation, inputs):
        """Views of what an operation moves, asked of the numbers of the elements; 0 where there is none."""
        places = MOVES[operation.type]
        data: Sequence[int] = range(len(inputs))[places] if isinstance(places, slice) else places
        sources: list[View] = []
        tensors, first = [], 1
        for n, (tensor, value) in enumerate(zip(operation.inputs, inputs, strict=True)):
            if n not in data:
                if not isinstance(value, np.ndarray):
                    raise Unavailable(
                        f"its loop has the operation {operation.type}, of places not known beforehand"
                    )
                tensors.append(value)
                continue
            if isinstance(value, np.ndarray):
                value = self._array(value)
            sources.append(value)
            numbers = (
                first
                + sum(
                    (np.arange(size) * stride).reshape(-1, *[1] * (len(value.shape) - 1 - axis))
                    for axis, (size, stride) in enumerate(zip(value.shape, value.strides, strict=True))
                )
                + value.offset
            )
            numbers = np.broadcast_to(numbers, value.shape)
            made_size = value.made.size
            shape = tensor.shape.as_list()
            if tensor.ref() in self.rows or (value.made.kind == "constant" and shape[:1] == [self.batch]):
                step = made_size if value.made.by_row else 0
                numbers = numbers + (step * np.arange(self.batch)).reshape(-1, *[1] * len(value.shape))
            tensors.append(numbers.astype("int32").reshape(shape))
            first += made_size * self.batch
        with tf.init_scope():
            make = maker_of(operation, attributes_of(operation))
            results = make(list(map(tf.constant, tensors)), self.batch)
        return [
            self._taken(operation.type, sources, tensor, numbers.numpy())
            for tensor, numbers in zip(operation.outputs, results, strict=True)
        ]

    def _array(self, array):
        """A known array as a view."""
        written = self._written(array)
        if isinstance(written, View):
            return written
        shape = array.shape[1:] if array.ndim and array.shape[0] == self.batch else array.shape
        numbers = array.ravel()[: math.prod(shape)]
        key = "constant", numbers.tobytes(), shape, array.dtype
        if key not in self._same:  # else equal gradients, of which a part is 0, would be written twice
            made = self._add(Made("constant", shape, tf.as_dtype(array.dtype), False, code=numbers))
            self._same[key] = whole(made, shape)
        return self._same[key]

    def _taken(self, kind, sources, tensor, numbers):
        """The view of elements that are told by their numbers."""
        if not numbers.size:
            return self._loop("all(0.0_n)", (), self._shape(tensor), self.dtype)
        if tensor.ref() in self.rows:
            self._check_rows(kind, sources, numbers)
            numbers = numbers[0]
        owner, local = self._owners(sources, numbers)
        owners = set(owner.ravel().tolist())
        if len(owners) == 1 and owners != {-1}:
            strides = _strides(local)
            if strides is not None:
                source = sources[owners.pop()]
                return View(source.made, int(local.ravel()[0]), numbers.shape, strides)
        return self._pieced(sources, owner.ravel(), local.ravel(), numbers.shape, tensor.dtype)

    def _owners(self, sources, numbers):
        """(the source of each number or -1 for none, its place in what is made)."""
        owner, local, first = np.full(numbers.shape, -1), np.zeros(numbers.shape, int), 1
        for n, source in enumerate(sources):
            size = source.made.size * self.batch
            inside = (numbers >= first) & (numbers < first + size)
            owner[inside] = n
            local[inside] = numbers[inside] - first
            first += size
        return owner, local

    def _check_rows(self, kind, sources, numbers):
        """Refuses what takes from other sequences, or not the same from each."""
        owner, local = self._owners(sources, numbers)
        size = np.array([*((s.made.size if s.made.by_row else 0) for s in sources), 0])[owner]
        rows = np.arange(self.batch).reshape(-1, *[1] * (numbers.ndim - 1))
        local = local - size * rows
        bounds = np.array([*(s.made.size for s in sources), 1])[owner]
        is_same = (owner == owner[:1]).all() and (local == local[:1]).all()
        if not is_same or (local < 0).any() or (local >= bounds).any():
            raise Unavailable(f"its loop has the operation {kind}, which joins sequences")

    def _pieced(self, sources, owner, local, shape, dtype):
        """A value that is put together of pieces of others."""
        key = "pieces", tuple(sources), owner.tobytes(), local.tobytes(), shape
        if key in self._same:
            return self._same[key]
        made = Made("pieces", tuple(shape), dtype, True, stored=True)
        pieces = list(_pieces(owner, local))
        if len(pieces) > _MOST_PIECES:
            raise Unavailable("its loop moves elements about one by one")
        parts = []
        for first, count, stride in pieces:
            if owner[first] < 0:
                operand: Any = _number(np.zeros((), dtype.as_numpy_dtype))
            else:
                operand = View(sources[owner[first]].made, int(local[first]), (count,), (stride,))
            is_all = isinstance(operand, View) and operand.is_whole and operand.made.kind == "loop"
            part = operand.made if is_all else self._loop("{0}", (operand,), (count,), dtype).made
            part.puts.append((made, first))
            parts.append(part)
        made.segment = max(part.segment for part in parts)
        made.place = max([part.place for part in parts if part.segment == made.segment], default=0)
        made.across = any(part.segment != made.segment for part in parts)
        self._same[key] = whole(self._add(made), shape)
        return self._same[key]

    # --- what is left in memory

    def left(self, tensor, apart=False):
        """The view of a result, which the step leaves in memory in order.

        Args:
            tensor: of the graph.
            apart: whether it must be in no place that is given.
        """
        value = self.value(tensor)
        if isinstance(value, np.ndarray):
            value = self._array(value)
        made = value.made
        dense = value.is_dense and made.by_row
        if not dense or (apart and made.kind == "given"):
            value = self._copied(value)
        self._keep(value.made, -1, across=True)
        return value

    # --- writing

    def code(self, name, is_back, slots):
        """The C++ of the step: the struct `name`.

        Args:
            name: "Forward" or "Backward".
            is_back: whether the steps are run from the last one on.
            slots: `Slots`.
        """
        places = self._allocate()
        numbers = {
            "STATES": len(slots.states),
            "READS": len(slots.reads),
            "VECTORS": len(slots.vectors),
            "MATRICES": len(self.matrices),
            "WRITES": len(slots.writes),
            "TOTALS": len(slots.totals),
            "SUMMED": sum(math.prod(view.shape) for view in slots.totals),
            "PER_ROW": self._per_row,
            "FIXED": self._fixed,
            "OPERATIONS": self._operations(),
        }
        sizes = [weight.deref().shape.as_list()[:: -1 if turned else 1] for weight, turned in self.matrices]
        lists = {
            "Place STATE": [places(whole(made, made.shape)) for made in slots.states],
            "Place NEW": list(map(places, slots.new)),
            "Place READ": [places(whole(made, made.shape)) for made in slots.reads],
            "bool IS_BEFORE": [str(n in slots.before).lower() for n in range(len(slots.reads))],
            "int ADDED_TO": [str(slots.added_to.get(n, -1)) for n in range(len(slots.reads))],
            "Place VECTOR": [places(whole(made, made.shape)) for made in slots.vectors],
            "bool BY_ROW": [str(made.by_row).lower() for made in slots.vectors],
            "Place WRITE": list(map(places, slots.writes)),
            "bool IS_STATE": [str(n in slots.of_states).lower() for n in range(len(slots.writes))],
            "int INSTEAD_OF": [str(slots.instead_of.get(n, -1)) for n in range(len(slots.writes))],
            "Place TOTAL": list(map(places, slots.totals)),
            "long DEPTH": [str(depth) for depth, _ in sizes],
            "long COLUMNS": [str(columns) for _, columns in sizes],
        }
        last = {"Place": "{}", "bool": "false", "int": "0", "long": "0"}  # no list is empty
        return "\n".join(
            [
                *self._constants(name),
                f"struct {name} {{",
                f"  static constexpr bool BACK = {str(is_back).lower()};",
                *(f"  static constexpr long {key} = {number};" for key, number in numbers.items()),
                *(
                    f"  static constexpr {key}[] = {{{', '.join([*each, last[key.split()[0]]])}}};"
                    for key, each in lists.items()
                ),
                "  static void step(long rows, Number* memory, Number* const* packed) {",
                *(line for segment in range(self._segments()) for line in self._segment(segment)),
                "  }",
                "};",
                "",
            ]
        )

    def _segments(self):
        return 1 + max(made.segment for made in self.made)

    def _operations(self):
        """About how many a sequence's step has, floating-point ones."""
        products = sum(2 * m.size * m.operands[0].made.size for m in self.made if m.kind == "product")
        return products + 10 * sum(math.prod(m.domain) for m in self.made if m.kind in ("loop", "reduction"))

    def _allocate(self):
        """Gives all that is stored its place in memory; returns the function that writes a view's `Place`."""
        stored = [made for made in self.made if made.stored and made.kind != "constant"]
        rows = [made for made in stored if made.across and made.by_row]
        others = [made for made in stored if made not in rows]
        self._at: dict[Made, tuple[int, int, int]] = {}
        prefix = skew = 0
        for made in rows:  # `skew` keeps arrays from lying a power of two apart
            self._at[made] = prefix, skew, made.stride
            prefix, skew = prefix + made.stride, skew + _PADDED
        for made in others:
            self._at[made] = prefix, skew, 0
            skew += made.stride
        longest = max((made.size for made in stored), default=1)
        # the last vectors may reach beyond the end
        self._per_row, self._fixed = prefix, skew + _PADDED * (longest + 1)

        def place(view):
            first, more, stride = self._at[view.made]
            return f"{{{first}, {more + view.offset}, {stride}, {math.prod(view.shape)}}}"

        return place

    def _constants(self, name):
        """Constants of several numbers, which all sequences share."""
        for n, made in enumerate(self.made):
            made.number = n
            if made.kind == "constant" and made.stored:
                is_float = made.dtype == self.dtype
                sign = -1 if made.dtype == tf.bool else 1
                numbers = [number(float(each)) if is_float else str(sign * int(each)) for each in made.code]
                text = ", ".join([*numbers, *["0"] * _PADDED])
                yield f"const {'Number' if is_float else 'Integer'} of_{name}{n}[] = {{{text}}};"
        self._name = name

    def _pointer(self, made, row):
        if made.kind == "constant":
            return f"reinterpret_cast<const Number*>(of_{self._name}{made.number})"
        prefix, skew, stride = self._at[made]
        return f"memory + {prefix} * rows + {skew}" + (f" + {row} * {stride}" if row and stride else "")

    def _segment(self, segment):
        """The lines of the products that a segment waits for, and of its loops."""
        inside = [made for made in self.made if made.segment == segment]
        for made in inside:
            if made.kind == "product":
                yield f"    {self._written_product(made)}"
        loops = [self._written_loop(segment, place) for place in range(len(self._loops.get(segment, ())))]
        if not loops:
            return
        used = {made: None for _, read in loops for made in read}
        yield "    for (long row = 0; row < rows; row++) {"
        for made in used:
            kind = "const Number* const" if made.kind == "constant" else "Number* const"
            yield f"      {kind} b{made.number} = {self._pointer(made, 'row')};"
        for lines, _ in loops:
            yield from (f"      {line}" for line in lines)
        yield "    }"

    def _written_product(self, made):
        """The line of a product, of all sequences or, where each has several rows, of one after another."""
        left, (lines, columns) = made.operands[0], made.domain
        depth = left.shape[-1]
        row = "" if lines == 1 else "row"
        read = f"{self._pointer(left.made, row)} + {left.offset}"
        put = self._pointer(made, row)
        if lines == 1:
            stride = self._at[left.made][2]
            sizes = f"{stride}, packed[{made.code}], {put}, {made.stride}"
            return f"product(rows, {depth}, {columns}, {read}, {sizes});"
        sizes = f"{depth}, packed[{made.code}], {put}, {made.shape[1]}"
        return f"for (long row = 0; row < rows; row++) product({lines}, {depth}, {columns}, {read}, {sizes});"

    def _written_loop(self, segment, place):
        """(lines, what is read or stored) of a loop."""
        items = [made for made in self.made if (made.segment, made.place) == (segment, place)]
        items = [made for made in items if made.kind in ("loop", "reduction", "running")]
        kind, domain = self._loops[segment][place]
        return (_Running if kind == "running" else _Loop)(domain, items).write()


@dataclass(frozen=True)
class Slots:
    """What a step takes and leaves.

    Attributes:
        states, reads, vectors: what is given: the states, what is read of stacks, and what is the same at
            every step.
        new: the states' next values.
        writes: what is written to stacks.
        totals: of what the total over all sequences and steps is taken.
        before: the places of those reads whose stack holds what was after each step.
        added_to: by place, the states to which reads are added.
        of_states: the places of those writes that are of states, after the step.
        instead_of: by place, the reads whose stacks writes may take, where nothing else needs them.
    """

    states: list[Made]
    new: list[View]
    reads: list[Made]
    vectors: list[Made]
    writes: list[View]
    totals: list[View] = field(default_factory=list)
    before: frozenset[int] = frozenset()
    added_to: dict[int, int] = field(default_factory=dict)
    of_states: frozenset[int] = frozenset()
    instead_of: dict[int, int] = field(default_factory=dict)


class _Loop:
    """Writes a loop over the elements of one sequence's values.

    Args:
        domain: the sizes of its axes.
        items: what it makes, in order.
    """

    def __init__(self, domain, items):
        self.domain, self.items = domain, items
        self.names: dict[Any, str] = {}  # what is in a register, by what is made, or by what is read
        self.outer: list[str] = []  # lines before the vectors of a row
        self.inner: list[str] = []
        self.after: list[str] = []
        self.first: list[str] = []  # before everything
        self.used: dict[Made, None] = {}

    def write(self):
        for made in self.items:
            if made.kind == "reduction":
                self.reduce(made)
            else:
                self.compute(made)
        *rows, columns = self.domain
        vectors = [f"  {line}" for line in self.inner]
        body = [
            *self.outer,
            f"for (long v = 0; v < {columns}; v += LANES) {{",
            *vectors,
            "}",
            *self.after,
        ]
        for axis, count in reversed(list(enumerate(rows))):
            k = f"k{axis}"
            body = [f"for (long {k} = 0; {k} < {count}; {k}++) {{", *(f"  {line}" for line in body), "}"]
        return ["{", *(f"  {line}" for line in (*self.first, *body)), "}"], self.used

    def at(self, made, offset, strides):
        """The C++ of where a row of a view begins; of its strides those along all axes but the last."""
        self.used[made] = None
        steps = "".join(f" + k{axis} * {stride}" for axis, stride in enumerate(strides) if stride)
        return f"b{made.number}" + (f" + {offset}" if offset else "") + steps

    def operand(self, view):
        if isinstance(view, str):
            return view
        if view.made in self.names:
            return self.names[view.made]
        *by_row, by_column = _strides_of_axes(view)
        key = view.made, view.offset, tuple(by_row), by_column
        if key not in self.names:
            self.names[key] = f"x{len(self.names)}"
            at = self.at(view.made, view.offset, by_row)
            is_float = view.made.dtype.is_floating
            begin = f"const auto {self.names[key]} = "
            if by_column == 0:
                self.outer.append(f"{begin}{'all' if is_float else 'all_bits'}(*({at}));")
            else:
                read = f"load({at} + v)"
                if by_column > 1:
                    read = f"gathered({at} + v * {by_column}, {by_column})"
                self.inner.append(f"{begin}{'' if is_float else '(Mask)'}{read};")
        return self.names[key]

    def compute(self, made):
        code = made.code.format(*map(self.operand, made.operands))
        name = f"t{made.number}"
        self.inner.append(f"const auto {name} = rounded({code});")
        self.names[made] = name
        *by_row, _ = _dense(self.domain)
        columns = self.domain[-1]
        if made.stored and not by_row:  # what lies behind the last element is nobody's
            self.inner.append(f"store({self.at(made, 0, by_row)} + v, (Vector){name});")
        elif made.stored:
            self.inner.append(f"put<{columns}>({self.at(made, 0, by_row)}, v, {name});")
        for target, offset in made.puts:
            self.inner.append(f"put<{columns}>({self.at(target, offset, by_row)}, v, {name});")

    def reduce(self, made):
        function, vectors, neutral = REDUCTIONS[made.code]
        value, begin = self.operand(made.operands[0]), constant(neutral)
        columns = self.domain[-1]
        kept = [1 if axis == made.along else size for axis, size in enumerate(self.domain)]
        strides = [0 if size == 1 else stride for size, stride in zip(kept, _dense(kept), strict=True)]
        at = self.at(made, 0, strides[:-1])
        if made.along < len(kept) - 1:
            self.first.append(
                f"for (long v = 0; v < {made.size}; v += LANES) store({self.at(made, 0, ())} + v, {begin});"
            )
            put = f"put<{columns}>({at}, v, " if any(strides[:-1]) else f"store({at} + v, "
            self.inner.append(f"{put}{vectors.format(f'load({at} + v)', value)});")
            return
        name = f"r{made.number}"
        self.outer.append(f"Vector {name} = {begin};")
        self.inner.append(f"{name} = {vectors.format(name, f'within<{columns}>(v, {value}, {begin})')};")
        self.after.append(f"*({at}) = folded({name}, {function});")


class _Running:
    """Writes the cumulative sum of a row."""

    def __init__(self, domain, items):
        self.columns, (self.made,) = domain[-1], items

    def write(self):
        (view,) = self.made.operands
        exclusive, reverse = self.made.code
        stride = _strides_of_axes(view)[-1]
        take = f"sum += b{view.made.number}[{view.offset} + n * {stride}];"
        put = f"b{self.made.number}[n] = sum;"
        n = f"{self.columns - 1} - count" if reverse else "count"
        return [
            "{",
            "  Number sum = 0;",
            f"  for (long count = 0; count < {self.columns}; count++) {{",
            f"    const long n = {n};",
            *(f"    {line}" for line in ((put, take) if exclusive else (take, put))),
            "  }",
            "}",
        ], {view.made: None, self.made: None}


def _number(number):
    """The C++ of a number in every lane."""
    if number.dtype == bool:
        return f"truth({str(bool(number)).lower()})"
    if number.dtype.kind in "iu":
        return f"all({int(number)})"
    return constant(float(number))


def _axes(shape):
    return [axis for axis, size in enumerate(shape) if size != 1]


def _domain(shape):
    """The sizes of the axes that a loop over a shape runs over."""
    return tuple(size for size in shape if size != 1) or (1,)


def _strides_of_axes(view):
    """The strides of a view along the axes of its loop."""
    return tuple(view.strides[axis] for axis in _axes(view.shape)) or (0,)


def _in_register(domain, view):
    """Whether what a loop makes is what a later statement of it takes."""
    made = view.made
    if made.kind != "loop" or made.domain != domain or view.offset:
        return False
    return domain == (1,) or _strides_of_axes(view) == _dense(domain)


def _strides(places):
    """The strides of an array of places that grow evenly along each axis; None if they do not."""
    origin = places.ravel()[0]
    strides = []
    for axis, size in enumerate(places.shape):
        second = places[tuple(int(each == axis) if size > 1 else 0 for each in range(places.ndim))]
        strides.append(int(second - origin))
    grid = origin + sum(
        (np.arange(size) * stride).reshape(-1, *[1] * (places.ndim - 1 - axis))
        for axis, (size, stride) in enumerate(zip(places.shape, strides, strict=True))
    )
    return tuple(strides) if (grid == places).all() and min(strides, default=0) >= 0 else None


def _pieces(owner, local):
    """(first, count, stride) of runs of elements of one source, a stride of 0 or 1 apart."""
    first = 0
    while first < len(owner):
        last = first + 1
        stride = 1
        if last < len(owner) and owner[last] == owner[first] and local[last] == local[first]:
            stride = 0
        while (
            last < len(owner)
            and owner[last] == owner[first]
            and (owner[first] < 0 or local[last] - local[last - 1] == stride)
        ):
            last += 1
        yield first, last - first, stride if last - first > 1 else 0
        first = last


def is_turned(kind, get):
    """Whether a product of rows with a weight takes the weight transposed; None if it is no such product.

    Args:
        kind: the type of the operation, or "matmul".
        get: name -> the attribute of that name.
    """
    if kind == "matmul":
        return False
    if kind == "MatMul":
        return None if get("transpose_a") else bool(get("transpose_b"))
    if kind.startswith("BatchMatMul"):
        return None if get("adj_x") else bool(get("adj_y"))
    left, right, result = get("equation").decode().replace("->", ",").split(",")
    for turned, (last, first) in ((False, right), (True, right[::-1])) if len(right) == 2 else ():
        if last == left[-1] and result == left[:-1] + first and first not in left:
            return turned
    return None


def _equation(operation):
    """The einsum that a product of two values is."""
    if operation.type == "Einsum":
        return operation.get_attr("equation").decode()
    left, right = (each.shape.rank for each in operation.inputs)
    if left != right:
        raise Unavailable(f"its loop has the operation {operation.type} of values of {left} and {right} axes")
    outer = "abcdefg"[: left - 2]
    one = "ji" if operation.get_attr("adj_x") else "ij"
    other = "kj" if operation.get_attr("adj_y") else "jk"
    return f"{outer}{one},{outer}{other}->{outer}ik"
