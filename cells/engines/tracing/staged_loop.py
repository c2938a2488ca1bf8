"""The loop of a plan on the native engine, as stages: products, elementwise loops, reductions of rows.

Forward and back it is the same kind of program (`stages`): a step that carries states, reads stacks and
writes stacks. Back, it carries the gradients of the states; the step is computed again but for its products,
whose results are read, and gives the gradients of the products, of what it read, and totals for the weights
that are no matrices. A matrix' gradient is one product after the loop. Stacks are [batch, steps, ...].
"""

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import tensorflow as tf

from cells.engines import native, scratch
from cells.engines.native.check import TOLERANCE
from cells.engines.native.translation import signature
from cells.engines.tracing.nodes import Batch, Level, Ref, dimensions, replay
from cells.engines.tracing.plan import Plan
from cells.engines.tracing.stages import Slots, StepWriter, View, is_turned, whole

_PRIMES = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
_MOST_WRITES = 62  # bits of an integer, one for each


@dataclass(frozen=True)
class Staged:
    """A plan's loop as two programs.

    Attributes:
        plan: the `Plan`.
        header: their "cell.h".
        vectors, matrices: by program, the weights that they take; of matrices whether they are transposed.
        yields: the values that the forward program writes, after the looped states.
        gradients: by value, the place of its gradient among what the backward program writes.
        lefts: by value, that of what a weight multiplied.
        writes: how many there are.
        totals: the weights of which it takes totals.
        row_totals: those that have a row for each sequence, as dropout masks have.
    """

    plan: Plan
    header: str
    vectors: tuple[list[Ref], list[Ref]]
    matrices: tuple[list[tuple[Ref, bool]], list[tuple[Ref, bool]]]
    yields: list[Ref]
    gradients: dict[Ref, int]
    lefts: dict[Ref, int]
    writes: int
    totals: list[Ref]
    row_totals: list[Ref]


def staged(plan):
    """The `Staged` of a plan.

    Raises:
        native.Unavailable: its loop has no stages; says why.
    """
    if plan.step.batch is not None:
        raise native.Unavailable("it is traced for one number of sequences alone")
    if not plan.looped:
        raise native.Unavailable("nothing is left in its loop")
    try:
        return _Stager(plan).staged()
    except native.Unavailable:
        raise
    except Exception as error:  # whatever an operation may be: another engine runs it
        raise native.Unavailable(f"its stages cannot be written: {error}") from error


class _Stager:
    def __init__(self, plan):
        self.plan = plan
        self.states = [plan.states[n] for n in plan.looped]
        self.new = [plan.new[n] for n in plan.looped]
        self.cuts = list(map(Ref, plan.cuts))
        own = (ref for ref in plan.outputs if ref not in self.new)
        self.yields = list(dict.fromkeys([*own, *self.cuts]))
        values = [ref for each in plan.loop for ref in (*each.inputs, *each.results())]
        sizes = {size for ref in values for size in ref.shape if size and not isinstance(size, Batch)}
        self.batch = next((prime for prime in _PRIMES if all(size % prime for size in sizes)), None)
        if self.batch is None:
            raise native.Unavailable("its values have too many sizes")
        self.totals = [ref for ref in plan.summed if not ref.has_rows]
        self.row_totals = [ref for ref in plan.summed if ref.has_rows]
        for ref in (*self.states, *plan.inputs):
            if not ref.has_rows:
                raise native.Unavailable("it has a state or reads a value that has no row for each sequence")

    def staged(self):
        with scratch.scratch_graph("forward"):
            forward = self.forward()
        with scratch.scratch_graph("backward"):
            backward = self.backward()
        if max(len(each["slots"].writes) for each in (forward, backward)) > _MOST_WRITES:
            raise native.Unavailable("it has too many states and products")
        header = "\n".join(
            [
                signature("FORWARD", _operands(forward), self.plan.dtype.name),
                signature("BACKWARD", _operands(backward), self.plan.dtype.name),
                forward["code"],
                backward["code"],
            ]
        )
        return Staged(
            plan=self.plan,
            header=header,
            vectors=(forward["vectors"], backward["vectors"]),
            matrices=(forward["matrices"], backward["matrices"]),
            yields=self.yields,
            gradients=backward["gradients"],
            lefts=backward["lefts"],
            writes=len(backward["slots"].writes),
            totals=self.totals,
            row_totals=self.row_totals,
        )

    def placeholder(self, ref):
        return tf.raw_ops.Placeholder(dtype=ref.dtype, shape=dimensions(ref.shape, self.batch))

    def given(self, writer, refs, known):
        """Adds placeholders of values to `known`; returns what the writer makes of them."""
        made = []
        for ref in refs:
            known[ref] = self.placeholder(ref)
            made.append((writer.given if ref.has_rows else writer.given_weight)(known[ref]))
        return made

    def weights(self, writer, known):
        """Adds the weights that the loop takes."""
        cuts = self.plan.cuts
        as_vectors = {ref for each in self.plan.loop for ref in each.inputs[: 1 if each in cuts else None]}
        as_vectors |= {*self.new, *self.plan.outputs}
        vectors = [ref for ref in self.plan.weights if ref in as_vectors]
        given = self.given(writer, vectors, known)
        for each in cuts:
            known.setdefault(each.inputs[1], self.placeholder(each.inputs[1]))
        return vectors, given

    def matrices(self, writer, known):
        by_tensor = {known[each.inputs[1]].ref(): each.inputs[1] for each in self.plan.cuts}
        return [(by_tensor[tensor], turned) for tensor, turned in writer.matrices]

    def forward(self):
        writer = StepWriter(self.batch, self.plan.dtype)
        known: dict[Ref, Any] = {}
        states = self.given(writer, self.states, known)
        reads = self.given(writer, self.plan.inputs, known)
        vectors, of_vectors = self.weights(writer, known)
        results = replay([*self.new, *self.yields], known, self.batch)
        left = [writer.left(each, apart=n < len(states)) for n, each in enumerate(results)]
        new, yields = left[: len(states)], left[len(states) :]
        after = [whole(each, each.shape) for each in states]
        slots = Slots(
            states, new, reads, of_vectors, [*after, *yields], of_states=frozenset(range(len(states)))
        )
        matrices = self.matrices(writer, known)
        code = writer.code("Forward", False, slots)
        return {"code": code, "slots": slots, "vectors": vectors, "matrices": matrices}

    def backward(self):
        plan = self.plan
        writer = StepWriter(self.batch, self.plan.dtype, totals=True)
        known: dict[Ref, Any] = {}
        own = [ref for ref in plan.outputs if ref.is_differentiable and ref not in self.new]
        floats = [n for n, ref in enumerate(self.states) if ref.is_differentiable]
        before = self.given(writer, self.states, known)
        inputs = self.given(writer, plan.inputs, known)
        products = self.given(writer, self.cuts, known)
        vectors, of_vectors = self.weights(writer, known)
        upstream: dict[Ref, Any] = {}
        of_own = self.given(writer, own, upstream)
        of_states = [self.placeholder(self.states[n]) for n in floats]
        states = [writer.given(each) for each in of_states]
        results = [*(self.new[n] for n in floats), *own]
        of_results = [*of_states, *(upstream[ref] for ref in own)]
        totals = _pull_back(plan, [self.states[n] for n in floats], known, results, of_results, self.batch)
        new = [writer.left(totals[self.states[n]], apart=True) for n in floats]
        written: list[View] = []
        gradients = {}
        for ref in (*self.cuts, *(ref for ref in plan.inputs if ref.is_differentiable)):
            gradients[ref] = _place_of(written, writer.left(totals[ref]))
        lefts = {}
        for ref in dict.fromkeys(each.inputs[0] for each in plan.cuts):
            lefts[ref] = _place_of(written, writer.left(replay([ref], known, self.batch)[0]))
        sums = [writer.left(totals[ref]) for ref in self.totals]
        for ref in self.row_totals:  # is summed as a state is carried
            total = self.placeholder(ref)
            states.append(writer.given(total))
            new.append(writer.left(total + totals[ref], apart=True))
        places = {ref: self.new.index(ref) for ref in self.new}
        added = [ref for ref in plan.outputs if ref.is_differentiable and ref in places]
        reads = [*before, *inputs, *products, *of_own, *(states[floats.index(places[ref])] for ref in added)]
        added_to = {len(reads) - len(added) + n: floats.index(places[ref]) for n, ref in enumerate(added)}
        last_read = range(len(before), len(before) + len(inputs) + len(products))
        slots = Slots(
            states,
            new,
            reads,
            of_vectors,
            written,
            sums,
            before=frozenset(range(len(before))),
            added_to=added_to,
            instead_of=_instead_of(written, {n: reads[n].size for n in reversed(last_read)}),
        )
        matrices = self.matrices(writer, known)
        code = writer.code("Backward", True, slots)
        return {
            "code": code,
            "slots": slots,
            "vectors": vectors,
            "matrices": matrices,
            "gradients": gradients,
            "lefts": lefts,
        }


def _place_of(written, view):
    """The place of a view among what is written, added where it is new: equal gradients are written once."""
    if view not in written:
        written.append(view)
    return written.index(view)


def _instead_of(written, sizes):
    """By place, the read of the same size whose stack a write takes, each once.

    Args:
        written: the views that are written.
        sizes: dict of the sizes of what is read for the last time, by place; what is first is taken first.
    """
    left, places = dict(sizes), {}
    for n, view in enumerate(written):
        found = next((place for place, size in left.items() if size == math.prod(view.shape)), None)
        if found is not None:
            places[n] = found
            del left[found]
    return places


def _operands(program):
    """What an operation takes and gives; see `signature`."""
    slots = program["slots"]
    names = ["sizes: int32", "mask: bool"]
    names += [f"initial{n}" for n in range(len(slots.states))]
    for n in range(len(slots.reads)):
        names += [f"read{n}", *([f"first{n}"] if n in slots.before else [])]
    names += [f"vector{n}" for n in range(len(slots.vectors))]
    names += [f"matrix{n}" for n in range(len(program["matrices"]))]
    names += ["->", *(f"write{n}" for n in range(len(slots.writes)))]
    names += [f"final{n}" for n in range(len(slots.states))]
    names += [f"total{n}" for n in range(len(slots.totals))]
    return names


def _pull_back(plan, states, known, results, upstream, batch):
    """The gradients of a step by value: of states, of what is read, of products, and of weights but matrices.

    Args:
        plan: `Plan`.
        states: the states of floats.
        known: dict of tensors of what a step takes, its products' results among it.
        results, upstream: the step's results, and their gradients.
        batch: the number of sequences.
    """
    sources = [
        *states,
        *(ref for ref in plan.inputs if ref.is_differentiable),
        *map(Ref, plan.cuts),
        *plan.summed,
    ]
    parts: dict[Ref, list] = {ref: [] for ref in sources}

    def pull(results, upstream):
        tensors = replay(results, known, batch)
        for ref, each in zip(
            sources, tf.gradients(tensors, [known[s] for s in sources], upstream), strict=True
        ):
            if each is not None:
                parts[ref].append(tf.convert_to_tensor(each))

    pull(results, upstream)
    for cut in reversed(plan.cuts):
        left, right = cut.inputs
        if not parts[Ref(cut)]:  # nothing that has a gradient is made of it
            continue
        of_product = _sum(parts[Ref(cut)], known[Ref(cut)])
        parts[Ref(cut)] = [of_product]
        turned = is_turned(cut.kind, cut.attributes.get)
        if turned is None or len(right.shape) != 2:
            raise native.Unavailable(f"its loop has the product {cut.kind} of a weight {list(right.shape)}")
        of_left = tf.matmul(of_product, known[right], transpose_b=not turned)
        if left in parts:
            parts[left].append(of_left)
        else:
            pull([left], [of_left])
    return {ref: _sum(each, known[ref]) for ref, each in parts.items()}


def _sum(tensors, like):
    if not tensors:
        return tf.zeros_like(like)
    return tensors[0] if len(tensors) == 1 else tf.add_n(tensors)


# --- running it


class StagedLoop:
    """One trace of the loop; see `NativeLoop`.

    Args:
        staged: `Staged`.
        operations: the two TensorFlow operations of its library.
        known, stacks: dicts of tensors by values, the same at every step, and of stacks.
        states: the looped states before the first step.
        batch, steps: how many, ints or tensors.
        mask: [batch, steps], bool, or None.
    """

    def __init__(self, staged, operations, known, stacks, states, batch, steps, mask):
        self.staged, self.operations, self.plan = staged, operations, staged.plan
        self.known, self.stacks, self.batch, self.steps = known, stacks, batch, steps
        self.refs = [staged.plan.states[n] for n in staged.plan.looped]
        self.first = [self.flat(each, ref) for each, ref in zip(states, self.refs, strict=True)]
        self.mask = native.NO_MASK if mask is None else mask
        self.integer = tf.int32 if self.plan.dtype == tf.float32 else tf.int64  # as wide as a number

    def forward(self, keep, yields):
        """As `XlaLoop.forward`."""
        plan, staged = self.plan, self.staged
        new = [plan.new[n] for n in plan.looped]
        written = [*new, *staged.yields]
        cuts = list(map(Ref, plan.cuts))
        wanted = [
            (keep and (ref in new or ref in cuts)) or (yields and ref in plan.outputs) for ref in written
        ]
        results = self.run(0, self.first, list(map(self.stack, plan.inputs)), wanted)
        stacks, final = results[: len(written)], results[len(written) :]
        outputs = {}
        if yields:
            outputs = {ref: self.shaped(stacks[written.index(ref)], ref, True) for ref in plan.outputs}
        final = [self.shaped(each, ref, False) for each, ref in zip(final, self.refs, strict=True)]
        products = [stacks[written.index(ref)] for ref in cuts]
        return outputs, final, [*stacks[: len(new)], *products] if keep else None

    def backward(self, saved, of_outputs, of_states):
        """As `XlaLoop.backward`."""
        plan, staged = self.plan, self.staged
        new = [plan.new[n] for n in plan.looped]
        before, products = saved[: len(new)], saved[len(new) :]
        reads = [each for both in zip(before, self.first, strict=True) for each in both]
        reads += [*map(self.stack, plan.inputs), *products]
        own = [ref for ref in plan.outputs if ref.is_differentiable and ref not in new]
        own += [ref for ref in plan.outputs if ref.is_differentiable and ref in new]
        none = native.NONE[plan.dtype.name]
        reads += [self.flat(of_outputs[ref], ref, True) if ref in of_outputs else none for ref in own]
        floats = [ref for ref in self.refs if ref.is_differentiable]
        first = [self.flat(each, ref) for each, ref in zip(of_states, floats, strict=True)]
        first += [tf.zeros([self.batch, math.prod(ref.shape[1:])], plan.dtype) for ref in staged.row_totals]
        results = self.run(1, first, reads, [True] * staged.writes)
        stacks, results = results[: staged.writes], results[staged.writes :]
        final, row_totals = results[: len(floats)], results[len(floats) : len(first)]
        totals = [*results[len(first) :], *row_totals]
        final = [self.shaped(each, ref, False) for each, ref in zip(final, floats, strict=True)]
        pairs = [
            (self.known[ref], tf.reshape(each, dimensions(ref.shape, self.batch)))
            for ref, each in zip((*staged.totals, *staged.row_totals), totals, strict=True)
        ]
        pairs += [
            (self.stacks[ref], self.shaped(stacks[staged.gradients[ref]], ref, True))
            for ref in plan.inputs
            if ref.is_differentiable
        ]
        for cut in plan.cuts:
            left, right = cut.inputs
            if right.level == Level.WEIGHT:
                lefts, of_products = (
                    tf.reshape(stacks[place], [-1, ref.shape[-1]])
                    for place, ref in ((staged.lefts[left], left), (staged.gradients[Ref(cut)], Ref(cut)))
                )
                turned = is_turned(cut.kind, cut.attributes.get)
                both = (of_products, lefts) if turned else (lefts, of_products)
                pairs.append((self.known[right], tf.matmul(*both, transpose_a=True)))
        return final, pairs

    def run(self, direction, states, reads, wanted):
        """What one of the operations gives."""
        vectors, matrices = self.staged.vectors[direction], self.staged.matrices[direction]
        refs = [*vectors, *(ref for ref, _ in matrices)]
        tensors = replay(refs, self.known, self.batch)
        results = self.operations[direction](
            tf.stack([tf.cast(each, tf.int32) for each in (self.batch, self.steps)]),
            self.mask,
            *states,
            *reads,
            *(self.bits(tf.reshape(each, [-1])) for each in tensors[: len(vectors)]),
            *(
                tf.transpose(each) if turned else each
                for each, (_, turned) in zip(tensors[len(vectors) :], matrices, strict=True)
            ),
            wanted=sum(1 << n for n, each in enumerate(wanted) if each),
            threads=native.threads(),
        )
        return results if isinstance(results, (list, tuple)) else [results]

    def stack(self, ref):
        """A stack as the operations read it."""
        return self.flat(self.stacks[ref], ref, True)

    def flat(self, tensor, ref, is_stack=False):
        """A value as the operations take it."""
        lead = [self.batch, self.steps] if is_stack else [self.batch]
        return self.bits(tf.reshape(tensor, [*lead, math.prod(ref.shape[1:])]))

    def bits(self, tensor):
        """A tensor as the operations' numbers: an integer is one of the same bits."""
        if tensor.dtype == self.plan.dtype:
            return tensor
        integers = tf.cast(tensor, self.integer)
        return tf.bitcast(-integers if tensor.dtype == tf.bool else integers, self.plan.dtype)

    def shaped(self, tensor, ref, is_stack):
        """What an operation gives, as the value that it is."""
        if ref.dtype != self.plan.dtype:
            integers = tf.bitcast(tensor, self.integer)
            tensor = tf.cast(integers, tf.int32) if ref.dtype == tf.int32 else integers != 0
        lead = [self.batch, self.steps] if is_stack else [self.batch]
        return tf.reshape(tensor, [*lead, *ref.shape[1:]])


# --- comparing it with TensorFlow


class Trial:
    """Compares the operations of a library with TensorFlow.

    Args:
        staged: the `Staged` that it is compiled from.
        batch, steps: how many sequences and steps.
    """

    def __init__(self, staged, batch=3, steps=2):
        self.staged, self.plan, self.batch, self.steps = staged, staged.plan, batch, steps
        self.states = [self.plan.states[n] for n in self.plan.looped]
        weights = dict.fromkeys([*self.plan.weights, *(each.inputs[1] for each in self.plan.cuts)])
        self.weights = [ref for ref in weights if ref.level == Level.WEIGHT]
        self.given = [*self.states, *self.weights, *self.plan.inputs]

    @cached_property
    def expected(self):
        """(what is given, the values, their gradients, those of what is given), which take no operation."""
        rng = np.random.default_rng(0)
        with tf.init_scope():
            given = [tf.constant(self._drawn(rng, ref)) for ref in self.given]
            return given, *scratch.run_once(tf.function(self._plainly, autograph=False), given)

    def fault(self, operations):
        """What the operations compute otherwise, "its values" or "its gradients"; None if nothing."""
        given, values, upstream, gradients = self.expected
        with tf.init_scope():
            natively = tf.function(partial(self._natively, operations), autograph=False)
            found = scratch.run_once(natively, given, upstream)
        is_close = partial(_is_close, TOLERANCE[self.plan.dtype.name])
        for name, mine, others in zip(
            ("its values", "its gradients"), found, (values, gradients), strict=True
        ):
            if not all(map(is_close, mine, others)):
                return name
        return None

    def _drawn(self, rng, ref):
        shape, scale = dimensions(ref.shape, self.batch), 1.0
        if ref in self.plan.inputs:
            shape = [self.batch, self.steps, *ref.shape[1:]]
        elif ref in self.weights and len(shape) == 2:
            scale = shape[0] ** -0.5
        numbers = rng.uniform(-scale, scale, shape)
        if ref.dtype == tf.int32:
            numbers = np.round(8 + 7 * numbers)
        return numbers > 0 if ref.dtype == tf.bool else numbers.astype(ref.dtype.as_numpy_dtype)

    def _parted(self, given):
        """(the states, dicts of the weights and of the stacks by values)."""
        by_ref = dict(zip(self.given, map(tf.identity, given), strict=True))
        parts = ({ref: by_ref[ref] for ref in refs} for refs in (self.weights, self.plan.inputs))
        return [by_ref[ref] for ref in self.states], *parts

    def _plainly(self, given):
        """(values, their gradients, those of what is given), step by step, as TensorFlow has them."""
        plan = self.plan
        states, weights, stacks = self._parted(given)
        sources = [*states, *weights.values(), *stacks.values()]
        by_step = []
        for step in range(self.steps):
            known = {**weights, **dict(zip(self.states, states, strict=True))}
            known.update({ref: stack[:, step] for ref, stack in stacks.items()})
            states = replay([plan.new[n] for n in plan.looped], known, self.batch)
            by_step.append(replay(plan.outputs, known, self.batch))
        outputs = [tf.stack(each, axis=1) for each in zip(*by_step, strict=True)]
        both = zip((*plan.outputs, *self.states), (*outputs, *states), strict=True)
        results = [each for ref, each in both if ref.is_differentiable]
        uniform = tf.random.stateless_uniform
        upstream = [uniform(tf.shape(each), [n, 5], -1, 1, plan.dtype) for n, each in enumerate(results)]
        sources = [each for ref, each in zip(self.given, sources, strict=True) if ref.is_differentiable]
        gradients = tf.gradients(results, sources, upstream, unconnected_gradients="zero")
        return self._as_floats([*outputs, *states]), upstream, gradients

    def _natively(self, operations, given, upstream):
        """(values, the gradients of what is given) of the operations."""
        plan = self.plan
        states, weights, stacks = self._parted(given)
        loop = StagedLoop(
            self.staged, operations, dict(weights), stacks, states, self.batch, self.steps, None
        )
        outputs, final, saved = loop.forward(keep=True, yields=True)
        outputs = [outputs[ref] for ref in plan.outputs]
        own = [ref for ref in plan.outputs if ref.is_differentiable]
        of_outputs = dict(zip(own, upstream, strict=False))
        of_states, pairs = loop.backward(saved, of_outputs, upstream[len(own) :])
        by_tensor: dict[Any, list] = {}
        for tensor, gradient in pairs:  # a weight may have several, to be summed
            by_tensor.setdefault(tensor.ref(), []).append(gradient)
        others = [
            tf.add_n(by_tensor.get(tensor.ref(), [tf.zeros_like(tensor)]))
            for ref, tensor in {**weights, **stacks}.items()
            if ref.is_differentiable
        ]
        return self._as_floats([*outputs, *final]), [*of_states, *others]

    def _as_floats(self, tensors):
        return [tf.cast(each, self.plan.dtype) for each in tensors]


def _is_close(tolerance, one, other):
    scale = np.max(np.abs(other), initial=1)
    return np.allclose(one, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
