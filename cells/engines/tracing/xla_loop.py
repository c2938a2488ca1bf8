"""The loop of a plan as XLA compiles it: one `while` forward, one backward.

The forward loop keeps the states and the results of the products with weights. The backward one computes a
step again from them, but for those products, and makes the gradients of what the step reads. A weight's
gradient is one product after it, of all that the weight multiplied and of the gradients of all its products.

Stacks are [steps, batch, ...], or, where no backward loop is to follow, [batch, steps, ...].
"""

from functools import cached_property
from typing import Any

import tensorflow as tf

from cells.engines.stacks import begun, row, row_parts, write, zeros
from cells.engines.tracing.nodes import Level, Ref, dimensions, is_differentiable, replay
from cells.engines.tracing.rewrite import split_of_last_axis


class XlaLoop:
    """One trace of the loop.

    Args:
        plan: `Plan`.
        known: dict of tensors by values, the same at every step.
        stacks: dict of stacks [steps, ...] by values that are known before the loop.
        first: the looped states before the first step.
        batch, steps: how many, ints or tensors; stacks have as many steps.
        end: how many of the steps to take.
        mask: [steps, batch], bool, false where the states are to stay; or None.
        axis: that of the steps in stacks and in the mask: 0, or 1 where no backward loop is to follow.
    """

    def __init__(self, plan, known, stacks, first, batch, steps, end, mask, axis=0):
        self.axis = axis
        self.plan, self.known, self.stacks, self.first = plan, known, stacks, first
        self.batch, self.steps, self.end, self.mask = batch, steps, end, mask
        self.states = [plan.states[n] for n in plan.looped]
        self.new = [plan.new[n] for n in plan.looped]
        self.float_states = [ref for ref in self.states if ref.is_differentiable]
        self.weights = {ref: known[ref] for ref in plan.weights}

    def forward(self, keep, yields):
        """(dict of the stacks of the loop's outputs by value, final states, what the backward loop needs).

        Args:
            keep: whether the backward loop is to follow.
            yields: whether the outputs of all steps are wanted.
        """
        plan = self.plan
        places = {ref: self.new.index(ref) for ref in plan.outputs if ref in self.new}  # in a state's stack
        own = [ref for ref in plan.outputs if ref not in places] if yields else []
        kept = range(len(self.states)) if keep else sorted(set(places.values())) if yields else []
        # the backward loop reads the states before the steps, of which the first is none of their results
        begin = 1 if keep else 0
        start = self.begun if keep else lambda ref, _: self.zeros(ref)
        kept_stacks = [start(self.states[n], self.first[n]) for n in kept]
        own_stacks = [self.zeros(ref) for ref in own]
        products = [self.zeros(Ref(each)) for each in plan.cuts] if keep else []
        first = [self.shaped(each, ref) for each, ref in zip(self.first, self.states, strict=True)]

        def body(step, states, kept_stacks, own_stacks, products):
            known = {**self.weights, **dict(zip(self.states, states, strict=True))}
            for ref in plan.inputs:
                known.update(zip(*self.read(ref, self.stacks[ref], step), strict=True))
            new = replay(self.new, known, self.batch)
            results = replay(own, known, self.batch)
            new = self.masked(step, new, states)
            kept_stacks = [
                write(s, step + begin, [new[n]], self.axis) for n, s in zip(kept, kept_stacks, strict=True)
            ]
            own_stacks = [
                write(s, step, [each], self.axis) for each, s in zip(results, own_stacks, strict=True)
            ]
            of_cuts = replay([Ref(each) for each in plan.cuts], known, self.batch) if keep else []
            products = [write(s, step, [each]) for each, s in zip(of_cuts, products, strict=True)]
            return step + 1, new, kept_stacks, own_stacks, products

        _, states, kept_stacks, own_stacks, products = tf.while_loop(
            lambda step, *_: step < self.end, body, (0, first, kept_stacks, own_stacks, products)
        )
        outputs = dict(zip(own, own_stacks, strict=True))
        if yields:
            of_states = dict(zip(kept, kept_stacks, strict=True))
            outputs.update({ref: of_states[n][1:] if keep else of_states[n] for ref, n in places.items()})
        saved = (kept_stacks, products, [self.stacks[ref] for ref in plan.inputs]) if keep else None
        return outputs, states, saved

    def backward(self, saved, of_outputs, of_states):
        """(gradients of the looped states of floats, pairs of tensors and their gradients).

        The tensors are values of `known` and `stacks`, to be differentiated further.

        Args:
            saved: as `forward` gives it.
            of_outputs: dict of the gradients [steps, batch, ...] of the loop's outputs, by value.
            of_states: those of the final looped states of floats.
        """
        kept, products, inputs = saved
        slots = list(dict.fromkeys(self.slots.values()))
        lefts = self.recomputed_lefts
        float_new = [ref for ref in self.new if ref.is_differentiable]
        self.transposed = self.turn_weights()

        def body(number, of_states, sums, slot_stacks, left_stacks):
            step = self.end - 1 - number  # it counts up: of a loop down XLA knows no number of steps
            upstream = {ref: row(stack, step) for ref, stack in of_outputs.items()}
            of_states = [  # a state that is an output as well; a masked step holds it
                each + upstream.pop(new) if new in upstream else each
                for each, new in zip(of_states, float_new, strict=True)
            ]
            stay, of_new = self.split_by_mask(step, of_states)
            backward = _Step(self, step, kept, products, inputs)
            slot_stacks = backward.run(of_new, upstream, dict(zip(slots, slot_stacks, strict=True)))
            floats = [each for each in backward.before if is_differentiable(each.dtype)]
            of_states = [
                _sum([*backward.total(before), each]) for before, each in zip(floats, stay, strict=True)
            ]
            sums = [
                _sum([total, *backward.total(backward.known[ref])])
                for ref, total in zip(self.plan.summed, sums, strict=True)
            ]
            left_stacks = [
                write(stack, step, [backward.known[ref]])
                for ref, stack in zip(lefts, left_stacks, strict=True)
            ]
            return number + 1, of_states, sums, [slot_stacks[slot] for slot in slots], left_stacks

        first = (
            0,
            [self.shaped(each, ref) for each, ref in zip(of_states, self.float_states, strict=True)],
            [tf.zeros_like(self.weights[ref]) for ref in self.plan.summed],
            [self.zeros(self.of_slot[slot]) for slot in slots],
            [self.zeros(ref) for ref in lefts],
        )
        _, of_states, sums, slot_stacks, left_stacks = tf.while_loop(
            lambda number, *_: number < self.end, body, first
        )
        gradients = dict(zip(slots, slot_stacks, strict=True))
        multiplied = {ref: stack[:-1] for ref, stack in zip(self.states, kept, strict=True)}
        multiplied.update(zip(lefts, left_stacks, strict=True))
        pairs = [(self.known[ref], each) for ref, each in zip(self.plan.summed, sums, strict=True)]
        pairs += [
            (self.stacks[ref], gradients[self.slots[ref]])
            for ref in self.plan.inputs
            if ref.is_differentiable
        ]
        for each in self.plan.cuts:
            left, right = each.inputs
            if right.level == Level.WEIGHT:
                of_product = gradients[self.slots[Ref(each)]]
                pairs.append((self.known[right], self.of_weight(each, multiplied[left], of_product)))
        return of_states, pairs

    def of_weight(self, cut, left, of_product):
        """The gradient of a product's weight, of all steps at once: steps and batch are one axis."""
        left, of_product = (tf.reshape(each, [-1, *each.shape[2:]]) for each in (left, of_product))
        if cut.kind == "matmul":
            return tf.matmul(left, of_product, transpose_a=True)
        right = self.known[cut.inputs[1]]
        left = tf.stop_gradient(left)  # what it was computed of holds the weight, too
        return tf.gradients(cut.make([left, right], self.steps * self.batch), right, of_product)[0]

    # --- what is read and written

    def zeros(self, ref):
        """A stack of zeros for a value."""
        return zeros(dimensions(ref.shape, self.batch), self.steps, ref.dtype, self.axis)

    def begun(self, ref, first):
        """A stack of one step more, which begins with a state."""
        return begun(self.shaped(first, ref), self.zeros(ref))

    def shaped(self, tensor, ref):
        """A value's tensor with the shape that it has in the loop."""
        return tf.ensure_shape(
            tf.reshape(tensor, dimensions(ref.shape, self.batch)), _static(ref, self.batch)
        )

    def read(self, ref, stack, step):
        """The values and tensors of a step: those of its parts where a value is only split."""
        split = self.only_split.get(ref)
        if split is None:
            return [ref], [row(stack, step, self.axis)]
        return split.results(), row_parts(stack, step, [shape[-1] for shape in split.shapes], self.axis)

    @cached_property
    def only_split(self):
        """The node that splits a value that is used for nothing else, by values that come from stacks."""
        splits = {}
        users = self.plan.users()
        for ref in (*self.plan.inputs, *map(Ref, self.plan.cuts)):
            nodes = set(users.get(ref, ()))
            only = nodes.pop() if len(nodes) == 1 else None
            split = only and split_of_last_axis(only)
            if split and split[0] == ref:
                splits[ref] = only
        return splits

    def masked(self, step, new, old):
        """The states after a step, which stay where it is masked."""
        if self.mask is None:
            return new
        visible = row(self.mask, step, self.axis)
        return [tf.where(_spread(visible, a), a, b) for a, b in zip(new, old, strict=True)]

    def split_by_mask(self, step, of_states):
        """(gradients that pass a masked step by, those that go through the step)."""
        zeros = [tf.zeros_like(each) for each in of_states]
        if self.mask is None:
            return zeros, of_states
        visible = row(self.mask, step)
        both = list(zip(of_states, zeros, strict=True))
        stay = [tf.where(_spread(visible, each), zero, each) for each, zero in both]
        return stay, [tf.where(_spread(visible, each), each, zero) for each, zero in both]

    # --- which gradients are the same

    @cached_property
    def slots(self):
        """Where the gradient of a value goes, by values: the same where two have the same gradient.

        Both operands of a sum have that of the sum.
        """
        users = self.plan.users()

        def summed(ref):
            while True:
                nodes = users.get(ref, [])
                only = nodes[0] if len(nodes) == 1 else None
                if only is None or only.kind != "AddV2" or any(e.shape != ref.shape for e in only.inputs):
                    return ref
                ref = Ref(only)

        def slot(ref):
            parts = self.only_split[ref].results() if ref in self.only_split else [ref]
            return tuple(map(summed, parts))

        floats = [ref for ref in self.plan.inputs if ref.is_differentiable]
        return {ref: slot(ref) for ref in (*map(Ref, self.plan.cuts), *floats)}

    @cached_property
    def of_slot(self):
        """A value of each slot."""
        return {slot: ref for ref, slot in self.slots.items()}

    @cached_property
    def recomputed_lefts(self):
        """What a weight multiplies and is no state."""
        lefts = dict.fromkeys(each.inputs[0] for each in self.plan.cuts)
        return [ref for ref in lefts if ref not in self.states]

    def turn_weights(self):
        """The transposed weights of plain products, by product."""
        plain = [each for each in self.plan.cuts if each.kind == "matmul"]
        rights = replay([each.inputs[1] for each in plain], dict(self.weights), self.batch)
        return {each: tf.transpose(right) for each, right in zip(plain, rights, strict=True)}


class _Step:
    """A step of the backward loop.

    Attributes:
        before: the states before the step.
        known: dict of the step's tensors, by value.
    """

    def __init__(self, loop, step, kept, products, inputs):
        self.loop, self.step = loop, step
        self.before = [row(stack, step) for stack in kept]
        self.known = {ref: tf.identity(each) for ref, each in loop.weights.items()}
        self.known.update(zip(loop.states, self.before, strict=True))
        self.parts = {}  # the tensors that come from the stacks, by value
        cuts = list(map(Ref, loop.plan.cuts))
        for ref, stack in zip((*loop.plan.inputs, *cuts), (*inputs, *products), strict=True):
            refs, self.parts[ref] = loop.read(ref, stack, step)
            self.known.update(zip(refs, self.parts[ref], strict=True))
        summed = [self.known[ref] for ref in loop.plan.summed]
        everything = [*self.before, *(each for parts in self.parts.values() for each in parts), *summed]
        self.sources = [each for each in everything if is_differentiable(each.dtype)]
        self.totals: dict[Any, list] = {each.ref(): [] for each in self.sources}

    def total(self, tensor):
        """The gradients of a source, to be summed."""
        return self.totals[tensor.ref()]

    def run(self, of_new, of_outputs, stacks):
        """Differentiates the step.

        Args:
            of_new: the gradients of the new states of floats.
            of_outputs: dict of those of the outputs, by value.
            stacks: dict of the stacks of gradients, by slot.

        Returns:
            The stacks, with this step's gradients.
        """
        loop = self.loop
        new = [ref for ref, old in zip(loop.new, loop.states, strict=True) if old.is_differentiable]
        self.pull([*new, *of_outputs], [*of_new, *of_outputs.values()])
        written = set()
        for cut in reversed(loop.plan.cuts):
            slot = loop.slots[Ref(cut)]
            if slot not in written:
                stacks[slot] = write(stacks[slot], self.step, self.gradient(Ref(cut)))
                written.add(slot)
            self.through(cut, row(stacks[slot], self.step))
        for ref in loop.plan.inputs:
            slot = loop.slots.get(ref)
            if slot is not None and slot not in written:
                stacks[slot] = write(stacks[slot], self.step, self.gradient(ref))
                written.add(slot)
        # the lefts of products that the loop keeps
        replay(loop.recomputed_lefts, self.known, loop.batch)
        return stacks

    def pull(self, results, upstream):
        """Adds the gradients of the sources, from those of some values."""
        tensors = replay(results, self.known, self.loop.batch)
        for source, each in zip(self.sources, tf.gradients(tensors, self.sources, upstream), strict=True):
            if each is not None:
                self.total(source).append(tf.convert_to_tensor(each))

    def through(self, cut, of_product):
        """Adds what a product's gradient gives for what the weight multiplied."""
        left, right = cut.inputs
        if cut.kind == "matmul":
            of_left = tf.matmul(of_product, self.loop.transposed[cut])
        else:
            tensor, weight = replay([left, right], self.known, self.loop.batch)
            of_left = tf.gradients(cut.make([tensor, weight], self.loop.batch), tensor, of_product)[0]
        if left in self.loop.states:
            self.total(self.known[left]).append(of_left)
        else:
            self.pull([left], [of_left])

    def gradient(self, ref):
        """The gradient of a value, in its parts."""
        return [
            _sum(self.total(part)) if self.total(part) else tf.zeros_like(part) for part in self.parts[ref]
        ]


def _sum(tensors):
    total, *others = tensors
    for other in others:
        total = total + other
    return total


def _spread(mask, tensor):
    """A mask [batch] to choose rows of a tensor [batch, ...]."""
    return tf.reshape(mask, [-1, *[1] * (tensor.shape.rank - 1)])


def _static(ref, batch):
    return [each if isinstance(each, int) else None for each in dimensions(ref.shape, batch)]
