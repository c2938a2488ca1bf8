"""Rewrites of a step that leave its values as they are and its loop less to do.

Each takes and gives the values that a step must yield, and is named after what it does to the graph behind.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import tensorflow as tf

from cells.engines.tracing.nodes import Level, Node, Ref, add, matmul, node, ordered, parts

# TensorFlow's operations that do to each element the same, whatever the shape.
ELEMENTWISE = frozenset(
    [
        *("Abs", "Acos", "Acosh", "Add", "AddN", "AddV2", "Asin", "Asinh", "Atan", "Atan2", "Atanh", "Cast"),
        *("Ceil", "ClipByValue", "Cos", "Cosh", "DivNoNan", "Elu", "Equal", "Erf", "Erfc", "Erfinv", "Exp"),
        *("Expm1", "Floor", "FloorDiv", "FloorMod", "Greater", "GreaterEqual", "Inv", "IsFinite", "IsInf"),
        *("IsNan", "LeakyRelu", "Less", "LessEqual", "Lgamma", "Log", "Log1p", "LogicalAnd", "LogicalNot"),
        *("LogicalOr", "Maximum", "Minimum", "Mod", "Mul", "MulNoNan", "Neg", "NotEqual", "OnesLike", "Pow"),
        *("PreventGradient", "RealDiv", "Reciprocal", "Relu", "Relu6", "Rint", "Round", "Rsqrt", "SelectV2"),
        *("Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Square"),
        *("SquaredDifference", "StopGradient", "Sub", "Tan", "Tanh", "Xdivy", "Xlogy", "ZerosLike"),
    ]
)

# Products, of which one operand may be a weight.
PRODUCTS = ("matmul", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")

# What is cheap to compute again in the loop, where its result is larger than what it is made of.
CHEAP = frozenset(
    [
        *("AddV2", "BatchMatMulV2", "BroadcastTo", "Cast", "Einsum", "ExpandDims", "Fill", "Maximum"),
        *("Minimum", "Mul", "Neg", "OneHot", "RealDiv", "Reshape", "SelectV2", "Sigmoid", "Sub", "Tanh"),
        *("Tile",),
    ]
)

# What an engine's loop may do as well as TensorFlow before it: it takes no longer than to read the result.
LIGHT = ELEMENTWISE | frozenset(
    [
        *("ConcatV2", "Cumsum", "ExpandDims", "LogSoftmax", "Max", "Mean", "Min", "Reshape", "Softmax"),
        *("Split", "SplitV", "Squeeze", "StridedSlice", "Sum", "parts"),
    ]
)

Rule = Callable[[Node, Callable[[Ref], Ref]], Sequence[Ref] | None]


def rewrite(roots, rule, lower=False):
    """The roots made anew.

    Args:
        roots: values.
        rule: (node, new) -> the values that take the place of the node's, or None to keep it; `new` gives
            the value that has taken the place of another.
        lower: whether a kept node's level may sink with those of its inputs.
    """
    done: dict[Ref, Ref] = {}

    def remake(each):
        inputs = tuple(map(done.__getitem__, each.inputs))
        if inputs == each.inputs:
            return each.results()
        return _like(each, inputs, level=None if lower else each.level).results()

    for each in ordered(roots):
        results = rule(each, done.__getitem__)
        if results is None:
            results = remake(each)
        done.update(zip(each.results(), results, strict=True))
    return [done[ref] for ref in roots]


def _like(each, inputs, shapes=None, level=None):
    """A node of the same kind with other inputs."""
    level = max(level or Level.CONSTANT, *(ref.level for ref in inputs))
    more = (each.attributes, each.value)
    return Node(each.kind, tuple(inputs), shapes or each.shapes, each.dtypes, each.make, level, *more)


def uses(roots):
    """How often each value is used, as a root too."""
    counts = Counter(roots)
    for each in ordered(roots):
        counts.update(each.inputs)
    return counts


def constant(ref):
    """The number or array that a value is, or None where it is none."""
    return ref.node.value


# --- what values are


def slice_of_last_axis(each):
    """(first, last) of a slice of the last of two axes, or None."""
    if each.kind != "StridedSlice" or len(each.shapes[0]) != 2 or len(each.inputs[0].shape) != 2:
        return None
    bounds = [constant(ref) for ref in each.inputs[1:]]
    get = each.attributes
    if any(bound is None or len(bound) != 2 for bound in bounds):
        return None
    if get["ellipsis_mask"] or get["new_axis_mask"] or get["shrink_axis_mask"] or any(bounds[2] != 1):
        return None
    if not (get["begin_mask"] & 1 and get["end_mask"] & 1):
        return None
    width = each.inputs[0].shape[1]
    first = 0 if get["begin_mask"] & 2 else int(bounds[0][1])
    first = max(0, first + width if first < 0 else first)
    return first, first + each.shapes[0][1]


def split_of_last_axis(each):
    """(source, sizes) of a split along the last axis, or None."""
    if each.kind == "parts":
        return each.inputs[0], [shape[-1] for shape in each.shapes]
    if each.kind not in ("Split", "SplitV"):
        return None
    source, axis = (
        (each.inputs[1], each.inputs[0]) if each.kind == "Split" else (each.inputs[0], each.inputs[2])
    )
    axis = constant(axis)
    if axis is None or int(axis) not in (-1, len(source.shape) - 1):
        return None
    return source, [shape[-1] for shape in each.shapes]


def is_cut(each):
    """Whether a node is a product of a state's value with a weight, whose gradient is taken after the loop.

    The left operand has a row for each sequence, and so has the result.
    """
    if each.kind not in PRODUCTS or each.level != Level.STATE:
        return False
    if len(each.inputs) != 2:
        return False
    left, right = each.inputs
    if left.level != Level.STATE or right.level > Level.WEIGHT or not left.dtype.is_floating:
        return False
    if not left.has_rows or not Ref(each).has_rows or right.has_rows:
        return False
    get = each.attributes.get
    if each.kind == "MatMul":
        return not get("transpose_a")
    if each.kind.startswith("BatchMatMul"):
        return len(right.shape) == 2 and len(left.shape) > 2 and not get("adj_x")
    if each.kind == "Einsum":
        terms, _, result = get("equation").decode().partition("->")
        terms = terms.split(",")
        first = terms[0][:1]
        return "." not in terms[0] + terms[1] and result[:1] == first and first not in terms[0][1:] + terms[1]
    return True


# --- rewrites


def products_of_parts(roots):
    """[a, b] @ W as a @ W_a + b @ W_b, where one of a and b is known before the loop."""

    def rule(each, new):
        if each.kind != "matmul":
            return None
        left, right = map(new, each.inputs)
        if left.node.kind != "ConcatV2" or left.level != Level.STATE or right.level > Level.WEIGHT:
            return None
        pieces = left.node.inputs[:-1]
        if int(constant(left.node.inputs[-1])) not in (1, -1) or not any(
            p.level < Level.STATE for p in pieces
        ):
            return None
        total, first = None, 0
        for piece in pieces:
            product = matmul(piece, _rows(right, first, first + piece.shape[1]))
            total = product if total is None else add(total, product)
            first += piece.shape[1]
        return [total]

    return rewrite(roots, rule)


def products_of_several_rows(roots):
    """[batch, n, size] @ W, which Keras takes as [batch * n, size] @ W, with the sequences apart again."""

    def rule(each, new):
        if each.kind != "Reshape" or each.level != Level.STATE:
            return None
        product = new(each.inputs[0]).node
        if product.kind != "matmul" or product.inputs[0].node.kind != "Reshape":
            return None
        source, weight = product.inputs[0].node.inputs[0], product.inputs[1]
        shape = (*source.shape[:-1], weight.shape[1])
        if not source.has_rows or shape != each.shapes[0] or source.shape[-1] != weight.shape[0]:
            return None
        return node("BatchMatMulV2", [source, weight], lambda t: [tf.matmul(*t)], [shape], source.dtype)

    return rewrite(roots, rule)


def products_of_heads(roots):
    """An einsum bhi,hij->bhj with a weight for each head as the plain products of the heads."""

    def rule(each, new):
        if each.kind != "Einsum" or not is_cut(each):
            return None
        one, other, result = each.attributes["equation"].decode().replace("->", ",").split(",")
        left, right = map(new, each.inputs)
        if (len(one), len(other), len(result)) != (3, 3, 3) or one[:2] != result[:2]:
            return None
        if set(other) != {one[1], one[2], result[2]} or len({*one, result[2]}) < 4:
            return None
        order = [other.index(letter) for letter in (one[1], one[2], result[2])]
        heads, depth, columns = (right.shape[place] for place in order)
        products = [
            matmul(_of_head(left, head), _weight_of_head(right, order, head, (depth, columns)))
            for head in range(heads)
        ]
        return node("Pack", products, lambda t: [tf.stack(t, axis=1)], each.shapes, left.dtype)

    return rewrite(roots, rule)


def _of_head(ref, head):
    shape = (ref.shape[0], ref.shape[2])
    return node("head", [ref], lambda t: [t[0][:, head]], [shape], ref.dtype)[0]


def _weight_of_head(weight, order, head, shape):
    return node("head", [weight], lambda t: [tf.transpose(t[0], order)[head]], [shape], weight.dtype)[0]


def _rows(weight, first, last):
    shape = (last - first, weight.shape[1])
    return node("rows", [weight], lambda t: [t[0][first:last]], [shape], weight.dtype)[0]


def known_terms_first(roots):
    """(x + h) + b as (x + b) + h: all that is known before the loop is summed before it."""
    counts = uses(roots)
    inner: set[Node] = set()

    def is_inner(ref, shape):
        return (
            ref.node.kind == "AddV2" and ref.level == Level.STATE and counts[ref] == 1 and ref.shape == shape
        )

    def terms_of(each):
        terms, stack = [], [*each.inputs][::-1]
        while stack:
            ref = stack.pop()
            if is_inner(ref, each.shapes[0]):
                inner.add(ref.node)
                stack += ref.node.inputs[::-1]
            else:
                terms.append(ref)
        return terms

    sums = {}
    for each in reversed(ordered(roots)):
        if each.kind == "AddV2" and each.level == Level.STATE and each not in inner:
            terms = terms_of(each)
            if sum(ref.level < Level.STATE for ref in terms) > 1:
                sums[each] = terms

    def rule(each, new):
        if each not in sums:
            return None
        total, *others = sorted(map(new, sums[each]), key=lambda ref: ref.level)
        for other in others:
            total = add(total, other)
        return [total]

    return rewrite(roots, rule)


def one_product_of_sums(roots):
    """x @ W + h @ U as [h, x] @ [U; W]: a loop that multiplies by U anyway has no call more to do."""
    counts = uses(roots)
    lefts: dict[tuple[Ref, ...], Ref] = {}

    def terms_of(ref, shape):
        if ref.node.kind == "AddV2" and ref.level == Level.INPUT and counts[ref] == 1 and ref.shape == shape:
            return [term for each in ref.node.inputs for term in terms_of(each, shape)]
        return [ref]

    def is_product(ref, shape):
        is_of_inputs = ref.node.kind == "matmul" and ref.node.inputs[1].level <= Level.WEIGHT
        return is_of_inputs and ref.has_rows and ref.shape == shape and counts[ref] == 1

    def rule(each, new):
        if each.kind != "AddV2" or each.level != Level.STATE:
            return None
        known, of_state = sorted(each.inputs, key=lambda ref: ref.level)
        shape = each.shapes[0]
        if known.level != Level.INPUT or not (is_cut(of_state.node) and is_product(of_state, shape)):
            return None
        terms = terms_of(known, shape)
        products = [of_state, *(ref for ref in terms if ref.level == Level.INPUT and is_product(ref, shape))]
        if len(products) == 1:
            return None
        left = tuple(new(ref.node.inputs[0]) for ref in products)
        weights = [new(ref.node.inputs[1]) for ref in products]
        if left not in lefts:
            lefts[left] = _joined(left, axis=1)
        total = matmul(lefts[left], _joined(weights, axis=0))
        for ref in terms:
            if ref not in products:
                total = add(new(ref), total)
        return [total]

    return rewrite(roots, rule)


def _joined(refs, axis):
    shape = list(refs[0].shape)
    shape[axis] = sum(ref.shape[axis] for ref in refs)
    return node("joined", refs, lambda t: [tf.concat(t, axis=axis)], [shape], refs[0].dtype)[0]


def one_product_of_each(roots):
    """The products of one state's value with several weights as one product, and parts of it."""
    groups: dict[Ref, list[Node]] = {}
    for each in ordered(roots):
        if each.kind == "matmul" and is_cut(each):
            groups.setdefault(each.inputs[0], []).append(each)
    members = {each: group for group in groups.values() if len(group) > 1 for each in group}
    merged: dict[Node, list[Ref]] = {}

    def rule(each, new):
        if each not in members:
            return None
        group = members[each]
        if group[0] not in merged:
            # of the weights alone: all of them are known, those of later members too
            rights = [member.inputs[1] for member in group]
            shape = (rights[0].shape[0], sum(right.shape[1] for right in rights))
            columns = _columns(rights, shape)
            product = matmul(new(each.inputs[0]), columns)
            merged[group[0]] = parts(product, [right.shape[1] for right in rights])
        return [merged[group[0]][group.index(each)]]

    return rewrite(roots, rule)


def _columns(weights, shape):
    return node("columns", weights, lambda t: [tf.concat(t, axis=1)], [shape], weights[0].dtype)[0]


def slices_as_parts(roots):
    """Slices that tile the last axis of their source as one split."""
    by_source: dict[Ref, list[tuple[tuple[int, int], Node]]] = {}
    for each in ordered(roots):
        piece = slice_of_last_axis(each)
        if piece is not None and each.inputs[0].level >= Level.INPUT:
            by_source.setdefault(each.inputs[0], []).append((piece, each))
    tiles = {}
    for source, pieces in by_source.items():
        pieces.sort(key=lambda entry: entry[0])
        edges = [piece for piece, _ in pieces]
        starts, ends = [a for a, _ in edges], [b for _, b in edges]
        if len(edges) > 1 and starts == [0, *ends[:-1]] and ends[-1] == source.shape[-1]:
            tiles.update({each: (source, n) for n, (_, each) in enumerate(pieces)})
    splits: dict[Ref, list[Ref]] = {}

    def rule(each, new):
        if each not in tiles:
            return None
        source, index = tiles[each]
        if source not in splits:
            sizes = [last - first for (first, last), _ in by_source[source]]
            splits[source] = parts(new(source), sizes)
        return [splits[source][index]]

    return rewrite(roots, rule)


def split_before_adding(roots):
    """split(a + b) as split(a) + split(b): a compiler joins what is done to each part.

    Parts of what is known before the loop are taken in the loop, which reads them one by one.
    """
    counts: Counter[Node] = Counter()
    for ref, count in uses(roots).items():
        counts[ref.node] += count

    def pushed(ref, sizes, new):
        """The parts of a value, taken as early as can be."""
        if not ref.shape or ref.shape[-1] == 1:
            return [new(ref)] * len(sizes)
        each = ref.node
        if not is_open(each):
            level = Level.STATE if ref.level >= Level.INPUT else None
            return parts(new(ref), sizes, level)
        columns = [pushed(other, sizes, new) for other in each.inputs]
        shapes = [((*ref.shape[:-1], size),) for size in sizes]
        return [
            Ref(_like(each, inputs, shape, Level.STATE))
            for inputs, shape in zip(zip(*columns, strict=True), shapes, strict=True)
        ]

    def is_open(each):
        return (
            each.level == Level.STATE
            and each.kind in ELEMENTWISE
            and len(each.shapes) == 1
            and counts[each] == 1
            and bool(each.inputs)
        )

    def rule(each, new):
        split = split_of_last_axis(each)
        if split is None or each.level != Level.STATE:
            return None
        source, sizes = split
        return pushed(source, sizes, new) if is_open(source.node) else None

    return rewrite(roots, rule)


def parts_in_the_loop(roots):
    """Splits of what is known before the loop belong to it, where it alone reads the parts."""
    users: dict[Node, set[Level]] = {}
    for each in ordered(roots):
        for ref in each.inputs:
            users.setdefault(ref.node, set()).add(each.level)
    outer = {ref.node for ref in roots}

    def rule(each, new):
        split = split_of_last_axis(each)
        if split is None or each.level != Level.INPUT or each in outer or users[each] != {Level.STATE}:
            return None
        source, sizes = split
        return parts(new(source), sizes, Level.STATE)

    return rewrite(roots, rule)


def in_the_loop(roots, nodes):
    """Nodes that are known before the loop as a part of it."""

    def rule(each, new):
        if each not in nodes:
            return None
        return _like(each, list(map(new, each.inputs)), level=Level.STATE).results()

    return rewrite(roots, rule)


def expansions_in_the_loop(roots, fixed, usual):
    """What is cheap and larger than what it is made of belongs to the loop, as an outer product does.

    Args:
        roots: values.
        fixed: those of them that are to be known before the loop.
        usual: the size of what may be known before it at all events.
    """
    fixed = {ref.node for ref in fixed}

    def rule(each, new):
        if each.level != Level.INPUT or not each.inputs or each in fixed or each.kind not in CHEAP:
            return None
        made_of = sum(ref.size for ref in each.inputs if ref.level == Level.INPUT)
        size = sum(ref.size for ref in each.results())
        if size <= max(2 * made_of, usual):
            return None
        return _like(each, [new(ref) for ref in each.inputs], level=Level.STATE).results()

    return rewrite(roots, rule)
