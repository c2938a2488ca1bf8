"""The loop of a plan on the native engine, where its values are gates of one width.

The engine runs gates of three kinds (`Recurrence`): sums of an input and of a product with the
first state, pairs of the two, and late ones, whose product takes a function of the others. Stacks are
[batch, steps, ...].
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cells.engines import native
from cells.engines.recurrence import Recurrence
from cells.engines.tracing.nodes import Batch, Level, Node, Ref, replay
from cells.engines.tracing.plan import Plan
from cells.engines.tracing.rewrite import ELEMENTWISE, split_of_last_axis


class Part(NamedTuple):
    """A block of `units` columns.

    Attributes:
        source: the value that has them, known before the loop or the result of a product.
        place: of the block in it, counted in blocks.
        ref: the block.
    """

    source: Ref
    place: int
    ref: Ref


class Gate(NamedTuple):
    """A gate: a block that is known before the loop, and one of a product; either may lack.

    Attributes:
        of_input, of_product: the blocks, or None.
        sum: the value that is their sum, or None where the loop reads them apart.
    """

    of_input: Part | None
    of_product: Part | None
    sum: Ref | None


@dataclass(frozen=True)
class Gates:
    """How a plan's loop is one of gates.

    Attributes:
        plan: the `Plan`.
        units: the width of all values.
        states: the indices of the looped states, that first which the products take.
        sums, separate, late: the gates of each kind.
        vectors: the values (units,) that are the same at every step.
        late_input: what the products of the late gates take, or None.
        own_output: whether the output is no state.
    """

    plan: Plan
    units: int
    states: tuple[int, ...]
    sums: tuple[Gate, ...]
    separate: tuple[Gate, ...]
    late: tuple[Gate, ...]
    vectors: tuple[Ref, ...]
    late_input: Ref | None
    own_output: bool

    @property
    def all(self):
        return (*self.sums, *self.separate, *self.late)

    @property
    def recurrent(self):
        """Whether there are products."""
        return any(gate.of_product for gate in self.all)

    def recurrence(self):
        """The `Recurrence` of the loop."""
        new = [self.plan.new[n] for n in self.states]
        wanted = [*new, *self.plan.outputs] if self.own_output else new
        return Recurrence(
            units=self.units,
            sums=len(self.sums),
            separate=len(self.separate),
            late=len(self.late),
            recurrent=self.recurrent,
            update=lambda gates, states, vectors: replay(wanted, self._known(gates, states, vectors), 1),
            late_input=lambda gates, states, vectors: replay(
                [self.late_input], self._known(gates, states, vectors), 1
            )[0],
            own_output=self.own_output,
            states=len(wanted),
            vectors=len(self.vectors),
            dtype=self.plan.dtype.name,
        )

    def _known(self, gates, states, vectors):
        """The tensors of what the engine gives, by value."""
        known = dict(zip([self.plan.states[n] for n in self.states], states, strict=False))
        known.update(zip(self.vectors, vectors, strict=True))
        for gate, given in zip(self.all, gates, strict=False):
            if isinstance(given, tuple):
                both = zip((gate.of_input, gate.of_product), given, strict=True)
                known.update((part.ref, _typed(part.ref, each)) for part, each in both)
            else:
                ref = gate.sum or (gate.of_input or gate.of_product).ref
                known[ref] = _typed(ref, given)
        return known


def _typed(ref, tensor):
    """What stands for a value in a gate, which is of floats, as that value."""
    return tensor > 0.5 if ref.dtype == tf.bool else tensor


# --- reading a plan


def gates_of(plan):
    """The `Gates` of a plan.

    Raises:
        native.Unavailable: the native engine has no such loop; says why.
    """
    return _GateReader(plan).gates()


class _GateReader:
    def __init__(self, plan):
        self.plan = plan
        if plan.step.batch is not None:
            raise native.Unavailable("it is traced for one number of sequences alone")
        self.looped = [plan.states[n] for n in plan.looped]
        self.units = self._width()
        self.users = plan.users()

    def gates(self):
        """See `gates_of`."""
        plan = self.plan
        if len(plan.outputs) > 1:
            raise native.Unavailable("several values are read after its loop")
        if any(ref.shape != (Batch(plan.step.inputs.shape[0]), self.units) for ref in plan.outputs):
            raise native.Unavailable("its output is not as wide as its states")
        if any(each.kind != "matmul" for each in plan.cuts):
            raise native.Unavailable("it has a product of more than two axes")
        first, late = self._lefts()
        inputs = [part for ref in plan.inputs for part in self._parts(ref)]
        products = {
            left: [part for cut in plan.cuts if cut.inputs[0] == left for part in self._parts(Ref(cut))]
            for left in (first, late)
        }
        self._check_loop({part.ref.node for part in (*inputs, *products[first], *products[late])})
        sums, apart = self._paired(products[first], inputs)
        lates, alone = self._paired(products[late], inputs)
        lates += [Gate(None, part, None) for part in alone]
        taken = {gate.of_input for gate in (*sums, *lates)}
        lone = [part for part in inputs if part not in taken]
        separate = [Gate(a, b, None) for a, b in zip(lone, apart, strict=False)]
        sums += [Gate(None, part, None) for part in apart[len(separate) :]]
        sums += [Gate(part, None, None) for part in lone[len(separate) :]]
        self._check_waste([*sums, *separate, *lates], plan.cuts)
        carried = [n for n in plan.looped if n < len(plan.step.states)]  # but for the held output
        h = plan.looped[self.looped.index(first)] if first else carried[0]
        return Gates(
            plan=plan,
            units=self.units,
            states=(h, *(n for n in carried if n != h)),
            sums=tuple(sums),
            separate=tuple(separate),
            late=tuple(lates),
            vectors=self._vectors(),
            late_input=late,
            own_output=plan.held or (bool(plan.outputs) and plan.outputs[0] != plan.new[h]),
        )

    def _width(self):
        if len(self.looped) == self.plan.held:
            raise native.Unavailable("nothing is left in its loop")
        for ref in self.looped:
            if len(ref.shape) != 2 or not ref.has_rows or ref.dtype != self.plan.dtype:
                raise native.Unavailable(f"it has a state of {ref.dtype.name} {list(ref.shape[1:])}")
        widths = {ref.shape[1] for ref in self.looped}
        if len(widths) > 1:
            raise native.Unavailable(f"its states are of the widths {', '.join(map(str, sorted(widths)))}")
        return widths.pop()

    def _lefts(self):
        """(the state that the products take, what else they take), each or None."""
        lefts = list(dict.fromkeys(each.inputs[0] for each in self.plan.cuts))
        states = [ref for ref in lefts if ref in self.looped]
        others = [ref for ref in lefts if ref not in self.looped]
        if len(states) > 1:
            raise native.Unavailable("its products take several states")
        if len(others) > 1:
            raise native.Unavailable("it has a chain of products")
        if any(ref.shape[1:] != (self.units,) for ref in others):
            raise native.Unavailable("it has products of several widths")
        return (states or [None])[0], (others or [None])[0]

    def _parts(self, ref):
        """The blocks that a value is used as."""
        if ref.dtype not in (self.plan.dtype, tf.bool):
            raise native.Unavailable(f"its loop reads a value of {ref.dtype.name}")
        if len(ref.shape) == 2 and ref.has_rows and ref.shape[1] in (1, self.units):
            return [Part(ref, 0, ref)]
        nodes = set(self.users.get(ref, ()))
        only = nodes.pop() if len(nodes) == 1 else None
        split = only and split_of_last_axis(only)
        if only is None or not ref.has_rows or not split or split[0] != ref or set(split[1]) != {self.units}:
            raise native.Unavailable(f"its loop reads a value {list(ref.shape[1:])} that is no gate")
        return [Part(ref, index, each) for index, each in enumerate(only.results())]

    def _check_loop(self, of_parts):
        for each in self.plan.loop:
            if each in of_parts or each in self.plan.cuts:
                continue
            if each.kind not in ELEMENTWISE:
                raise native.Unavailable(f"its loop has the operation {each.kind}")
            if not Ref(each).has_rows or each.shapes[0][1:] != (self.units,):
                raise native.Unavailable(f"its loop has a value {list(each.shapes[0][1:])}")

    def _paired(self, products, inputs):
        """(gates whose blocks the loop only adds, the other blocks of the products)."""
        by_ref = {part.ref: part for part in inputs}
        gates, apart = [], []
        for part in products:
            total = self._only_sum(part.ref)
            others = [] if total is None else [ref for ref in total.inputs if ref != part.ref]
            other = by_ref.get(others[0]) if len(others) == 1 else None
            if other and other.ref.shape == part.ref.shape and self._only_sum(other.ref) is total:
                gates.append(Gate(other, part, Ref(total)))
            else:
                apart.append(part)
        return gates, apart

    def _only_sum(self, ref):
        """The sum that is all that a value is used for, or None."""
        nodes: list[Node | None] = self.users.get(ref, [])
        only = nodes[0] if len(nodes) == 1 else None
        return only if only is not None and only.kind == "AddV2" else None

    def _check_waste(self, gates, cuts):
        """The engine multiplies for every gate, or for none; alone, it multiplies the inputs."""
        if not cuts and not _affine_of_one([gate.of_input for gate in gates if gate.of_input]):
            raise native.Unavailable("it has no products")
        wasted = sum(gate.of_product is None for gate in gates)
        if cuts and wasted > len(gates) - wasted:
            raise native.Unavailable("most of its gates have no product")
        if not gates:
            raise native.Unavailable("its loop reads neither inputs nor products")

    def _vectors(self):
        """The values of the loop that are the same at every step, but for numbers and products' weights."""
        vectors: dict[Ref, None] = {}
        for each in self.plan.loop:
            for ref in each.inputs[:1] if each in self.plan.cuts else each.inputs:
                is_array = ref.level == Level.CONSTANT and ref.node.value is not None
                if ref.level == Level.WEIGHT or (is_array and np.unique(ref.node.value).size > 1):
                    vectors[ref] = None
        for ref in vectors:
            if (
                ref.dtype != self.plan.dtype
                or ref.size not in (1, self.units)
                or ref.shape[-1:] not in ((), (1,), (self.units,))
            ):
                raise native.Unavailable(
                    f"its loop reads a weight {list(ref.shape)} that is no vector of its width"
                )
        return tuple(vectors)


# --- running it


class NativeLoop:
    """One trace of the loop.

    Args:
        gates: `Gates`.
        programs: those of the native engine for them.
        known: dict of tensors by values, the same at every step.
        stack_of: value -> its stack [batch, steps, ...], of what is known before the loop.
        states: the looped states before the first step.
        batch, steps: how many, ints or tensors.
        mask: [batch, steps], bool, or None.
        zero_masked: see `cells.engines.xla.run`.
    """

    def __init__(self, gates, programs, known, stack_of, states, batch, steps, mask, zero_masked):
        self.gates, self.programs, self.plan = gates, programs, gates.plan
        self.known, self.stack_of, self.batch, self.steps = known, stack_of, batch, steps
        self.states = dict(zip(self.plan.looped, states, strict=True))
        self.constants = {} if mask is None else {"mask": mask}
        self.zero_masked = zero_masked

    def forward(self, keep, yields):
        """As `XlaLoop.forward`."""
        plan = self.plan
        outputs, final, saved = self.programs[0](
            self.operands(),
            self.constants,
            self.zero_masked,
            bool(yields and plan.outputs),
            keep,
        )
        by_index = dict(zip(self.gates.states, final, strict=False))
        return (
            {plan.outputs[0]: outputs} if yields and plan.outputs else {},
            [by_index.get(n, final[-1]) for n in plan.looped],
            saved,
        )

    def backward(self, saved, of_outputs, of_states):
        """As `XlaLoop.backward`."""
        plan = self.plan
        operands = self.operands()
        given = dict(zip(plan.looped, of_states, strict=True))
        of_new = [given[n] for n in self.gates.states]
        if self.gates.own_output:
            held = len(plan.step.states)
            of_new.append(given[held] if held in given else tf.zeros_like(of_new[0]))
        gradients = self.programs[1](
            tf.nest.map_structure(tf.stop_gradient, operands),
            self.constants,
            self.zero_masked,
            saved,
            of_outputs.get(plan.outputs[0]) if plan.outputs else None,
            of_new,
        )
        by_index = dict(zip(self.gates.states, gradients.pop("states"), strict=True))
        operands.pop("states")
        pairs = list(zip(tf.nest.flatten(operands), tf.nest.flatten(gradients), strict=True))
        return [by_index.get(n, given[n]) for n in plan.looped], pairs

    def operands(self):
        """What the engine takes; see `cells.engines.xla.run`."""
        gates = self.gates
        vectors = replay(gates.vectors, self.known, self.batch)
        operands = {
            **self._inputs(),
            "states": [self.states[n] for n in gates.states],
            "vectors": [tf.broadcast_to(tf.reshape(each, [-1]), [gates.units]) for each in vectors],
        }
        if gates.separate:
            operands["separate_bias"] = tf.zeros([len(gates.separate) * gates.units], self.plan.dtype)
        if gates.recurrent:
            parts = [gate.of_product for gate in gates.all]
            operands["recurrent"] = self._columns(
                parts, lambda ref: self._tensor(ref.node.inputs[1]), [gates.units]
            )
        return operands

    def _inputs(self):
        """Inputs, kernel and bias, if all gates have the same inputs; otherwise blocks as inputs."""
        parts = [gate.of_input for gate in self.gates.all]
        affine = _affine_of_one(filter(None, parts))
        if not affine:
            self.stack_of(*(part.source for part in parts if part))  # at once: several may be of one product
            return {"inputs": self._columns(parts, self.stack_of, [self.batch, self.steps])}
        left = next(iter(affine.values()))[0]
        return {
            "inputs": self.stack_of(left),
            "kernel": self._columns(parts, lambda ref: self._tensor(affine[ref][1]), [left.shape[1]]),
            "bias": self._columns(parts, lambda ref: self._bias(ref.shape[1], affine[ref][2]), []),
        }

    def _bias(self, width, terms):
        total = tf.zeros([width], self.plan.dtype)
        for term in terms:
            total = total + tf.reshape(self._tensor(term), [-1])
        return total

    def _tensor(self, ref):
        return replay([ref], self.known, self.batch)[0]

    def _columns(self, parts, tensor_of, shape):
        """The blocks of gates side by side, zeros where there is none."""
        units, columns, pieces = self.gates.units, [], {}
        runs = _runs(parts)
        for run in runs:
            first = run[0]
            if first is None:
                columns.append(tf.zeros([*shape, len(run) * units], self.plan.dtype))
                continue
            if first not in pieces:
                pieces.update(self._pieces(first.source, tensor_of, runs))
            columns.append(pieces[first])
        return columns[0] if len(columns) == 1 else tf.concat(columns, axis=-1)

    def _pieces(self, source, tensor_of, runs):
        """What is taken of a source, by the first part of each run; a split, whose gradient is one pass."""
        units = self.gates.units
        tensor = tf.cast(tensor_of(source), self.plan.dtype)
        if tensor.shape[-1] == 1:
            tensor = tf.repeat(tensor, units, axis=-1)
        runs = sorted(
            (run for run in runs if run[0] and run[0].source == source), key=lambda run: run[0].place
        )
        ends = [run[0].place + len(run) for run in runs]
        if [0, *ends[:-1]] == [run[0].place for run in runs] and ends[-1] * units == tensor.shape[-1]:
            split = tf.split(tensor, [len(run) * units for run in runs], axis=-1) if ends[1:] else [tensor]
        else:
            split = [tensor[..., r[0].place * units : end * units] for r, end in zip(runs, ends, strict=True)]
        return {run[0]: piece for run, piece in zip(runs, split, strict=True)}


def _runs(parts):
    """Parts in groups of such as follow one another in the same value."""
    runs: list[list[Part | None]] = []
    for part in parts:
        last = runs[-1][-1] if runs else None
        follows = runs and (
            last is part is None or (last and part and part[:2] == (last.source, last.place + 1))
        )
        runs[-1].append(part) if follows else runs.append([part])
    return runs


def _affine_of_one(parts):
    """`_affine` by the sources of parts; empty where they have not all the same left."""
    affine = {part.source: _affine(part.source) for part in parts}
    lefts = {each and each[0] for each in affine.values()}
    return affine if len(lefts) == 1 and None not in lefts else {}


def _affine(ref):
    """(left, weight, terms) of a value that is left @ weight + the sum of terms, or None.

    Left is known before the loop, the others are the same at every step; terms have a number for each column.
    """
    terms = []
    while ref.node.kind == "AddV2":
        known = [each for each in ref.node.inputs if each.level <= Level.WEIGHT]
        others = [each for each in ref.node.inputs if each.level > Level.WEIGHT]
        if len(known) != 1 or known[0].size != ref.shape[-1] or known[0].dtype != ref.dtype:
            return None
        terms += known
        (ref,) = others
    if ref.node.kind != "matmul":
        return None
    left, weight = ref.node.inputs
    is_one = left.level == Level.INPUT and left.has_rows and weight.level <= Level.WEIGHT
    return (left, weight, tuple(terms)) if is_one else None
